//! `holdfast certs`: certificates for people without cert-manager.

use std::path::PathBuf;

use super::{Exit, print};
use crate::{sys::Clock, tls};

/// What `holdfast certs` takes.
#[derive(Debug, clap::Args)]
pub struct Certs {
    /// Directory to write ca/, hub/ and agent/ into; a CA that is there already signs again
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The name both ends of a stream must share
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    trust_domain: String,
    /// How long hub and agent certificates are good for
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Replace hub and agent certificates that are there
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &Certs) -> anyhow::Result<Exit> {
    if let Some(there) = tls::issued_in(&args.out).filter(|_| !args.force) {
        eprintln!(
            "holdfast: {} has certificates already ({there}). --force replaces them with ones of trust domain {}; processes with \
             the old ones and the new ones do not accept each other if the trust domain differs",
            args.out.display(),
            args.trust_domain
        );
        return Ok(Exit::Usage);
    }
    match tls::issue(&args.out, &args.trust_domain, args.days, Clock::System.now()) {
        Ok(issued) => {
            let [ca, hub, agent] = [&issued.ca, &issued.hub, &issued.agent].map(|path| path.display());
            let which = if issued.ca_was_there { "the CA that was there, and signed again" } else { "the CA" };
            let [hub_is, agent_is] = [&issued.hub, &issued.agent].map(|dir| tls::described(dir).unwrap_or_default());
            let text = format!(
                "{ca}  {which}; keep ca.key out of the cluster\n{hub}  for holdfast hub --tls: {hub_is}\n{agent}  for holdfast agent --tls: {agent_is}\n"
            );
            print(text.as_bytes())?;
            Ok(Exit::Ok)
        }
        Err(error @ tls::Error::TrustDomain(_)) => {
            eprintln!("holdfast: --trust-domain: {error}");
            Ok(Exit::Usage)
        }
        Err(error) => Err(error.into()),
    }
}
