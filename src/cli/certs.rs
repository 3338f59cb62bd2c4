//! `holdfast certs`: certificates for people without cert-manager.

use std::path::PathBuf;

use super::{Exit, Failed, print};
use crate::{
    sys::Clock,
    tls::{self, ServerCertificate},
};

/// Arguments of `holdfast certs`.
#[derive(Debug, clap::Args)]
pub struct Certs {
    /// Output directory: ca/, hub/ and agent/, or ca/ and dns/ with --dns-name; an existing CA is used again
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Trust domain: hubs and agents must have the same
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    trust_domain: String,
    /// A DNS name or address of the agents for clients of encrypted DNS; may be repeated. Writes dns/ for
    /// encrypted.certificate; hub/ and agent/ do not change
    #[arg(long, value_name = "NAME|IP")]
    dns_name: Vec<String>,
    /// Validity of the certificates in days, the CA's excepted
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Revoke the certificate in this file instead: writes ca.crl into ca/, hub/ and agent/, for the directories of --tls
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trust_domain", "dns_name", "days", "force"])]
    revoke: Option<PathBuf>,
    /// Replace existing certificates; the CA stays
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &Certs) -> anyhow::Result<Exit> {
    if let Some(certificate) = &args.revoke {
        let tls::Revocations { files, revoked } = tls::revoke(&args.out, certificate, Clock::System.now())?;
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let text = format!(
            "{}  {revoked} revoked; put it beside ca.crt of every hub and agent, which read it within 10 s and disconnect them\n",
            files.join(" ")
        );
        print(text)?;
        return Ok(Exit::Ok);
    }
    if !args.dns_name.is_empty() {
        return server(args);
    }
    if let Some(there) = tls::issued_in(&args.out).filter(|_| !args.force) {
        let told = format!(
            "{} has certificates already ({there}). --force replaces them with ones of trust domain {}; processes with \
             the old ones and the new ones do not accept each other if the trust domain differs",
            args.out.display(),
            args.trust_domain
        );
        return Err(Failed::Usage(told).into());
    }
    let issued = tls::issue(&args.out, &args.trust_domain, args.days, Clock::System.now()).map_err(refused)?;
    let [ca, hub, agent] = [&issued.ca, &issued.hub, &issued.agent].map(|path| path.display());
    let which = which_ca(issued.ca_was_there);
    let [hub_is, agent_is] = [&issued.hub, &issued.agent].map(|dir| tls::described(dir).unwrap_or_default());
    print(format!(
        "{ca}  {which}; keep ca.key out of the cluster\n{hub}  for holdfast hub --tls: {hub_is}\n{agent}  for holdfast agent --tls: {agent_is}\n"
    ))?;
    Ok(Exit::Ok)
}

/// The certificate of encrypted DNS.
fn server(args: &Certs) -> anyhow::Result<Exit> {
    let dns = args.out.join("dns");
    if dns.join("tls.crt").exists() && !args.force {
        let there = ServerCertificate::described(&dns).unwrap_or_else(|| "which cannot be read".into());
        let told = format!(
            "{} has a certificate already ({there}). --force replaces it; agents with it take up the new one \
             within 10 s of its files changing",
            dns.display()
        );
        return Err(Failed::Usage(told).into());
    }
    let now = Clock::System.now();
    let issued = tls::issue_server(&args.out, &args.trust_domain, &args.dns_name, args.days, now);
    let which = which_ca(issued.map_err(refused)?);
    let (ca, is) = (args.out.join("ca"), ServerCertificate::described(&dns).unwrap_or_default());
    let (ca, dns) = (ca.display(), dns.display());
    print(format!(
        "{ca}  {which}; give ca.crt to clients, keep ca.key out of the cluster\n{dns}  for encrypted.certificate: {is}\n"
    ))?;
    Ok(Exit::Ok)
}

fn which_ca(was_there: bool) -> &'static str {
    if was_there { "the existing CA, which signed the new certificates" } else { "the CA" }
}

fn refused(error: tls::Error) -> anyhow::Error {
    let flag = match error {
        tls::Error::TrustDomain(_) => "--trust-domain",
        tls::Error::ServerName(_) => "--dns-name",
        error => return error.into(),
    };
    Failed::Usage(format!("{flag}: {error}")).into()
}
