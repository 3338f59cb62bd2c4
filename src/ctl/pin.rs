//! `holdfast pin` and `holdfast unpin`: make a name answer what is known to be right, while its source is wrong.

use std::{net::IpAddr, time::Duration};

use super::{
    Exit,
    namespace::default_namespace,
    reach::Target,
    table::{Table, count, some, width},
};
use crate::{
    admin::{PinRequest, PinsDoc, UnpinRequest, view::words},
    config,
    sys::{Clock, UnixMillis},
};

/// Arguments of `holdfast pin`.
#[derive(Clone, Debug, clap::Args)]
pub struct PinArgs {
    /// Name to pin; `web.prod` is completed as by `lookup`, a name with a final dot is not. Without a name: list all pins
    #[arg(requires = "addresses")]
    pub name: Option<String>,
    /// Addresses for A and AAAA; a family without an address gets an empty answer
    pub addresses: Vec<IpAddr>,
    /// Namespace of the service, if the name has none [default: that of kubectl's context, or `default`]
    #[arg(short, long, value_name = "NAMESPACE", requires = "name")]
    pub namespace: Option<String>,
    /// Duration such as 2h, or `none` for no end [default: no end, or the end of the pin it replaces]
    #[arg(long = "for", value_name = "DURATION", value_parser = lasting, requires = "name")]
    pub lasting: Option<Lasting>,
    /// TTL of the answers, in seconds, at most 300
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub ttl: u32,
    /// Reason, shown to the next person on call
    #[arg(long, value_name = "TEXT", requires = "name")]
    pub reason: Option<String>,
    /// Pin a name that does not exist, even if a similar name does
    #[arg(long, requires = "name")]
    pub force: bool,
    /// Which process
    #[command(flatten)]
    pub target: Target,
}

/// Arguments of `holdfast unpin`.
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["name", "all"]))]
pub struct UnpinArgs {
    /// The name, as `pin` takes it
    pub name: Option<String>,
    /// Namespace of the service, if the name has none [default: that of kubectl's context, or `default`]
    #[arg(short, long, value_name = "NAMESPACE", requires = "name")]
    pub namespace: Option<String>,
    /// Remove all pins
    #[arg(long)]
    pub all: bool,
    /// Which process
    #[command(flatten)]
    pub target: Target,
}

/// The time a pin lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    For(Duration),
    NoEnd,
}

fn lasting(text: &str) -> Result<Lasting, String> {
    if text == "none" {
        return Ok(Lasting::NoEnd);
    }
    let time = config::duration(text)?;
    if time < Duration::from_secs(1) { Err("a pin lasts a second at least".into()) } else { Ok(Lasting::For(time)) }
}

/// Pins a name, or lists the pins.
pub fn pin(args: &PinArgs) -> anyhow::Result<Exit> {
    let Some(name) = args.name.clone() else {
        let document = args.target.ask("/pins", None)?;
        show(&args.target, &document)?;
        return Ok(Exit::Ok);
    };
    let request = PinRequest {
        name,
        namespace: Some(args.namespace.clone().unwrap_or_else(default_namespace)),
        addresses: args.addresses.clone(),
        ttl: args.ttl,
        seconds: match args.lasting {
            Some(Lasting::For(time)) => Some(time.as_secs()),
            Some(Lasting::NoEnd) | None => None,
        },
        reason: args.reason.clone(),
        no_end: args.lasting == Some(Lasting::NoEnd),
        force: args.force,
    };
    let document = args.target.ask("/pin", Some(serde_json::to_vec(&request)?))?;
    show(&args.target, &document)?;
    Ok(Exit::Ok)
}

/// Lets go of a pin, or of all of them.
pub fn unpin(args: &UnpinArgs) -> anyhow::Result<Exit> {
    let request = UnpinRequest {
        name: args.name.clone(),
        namespace: Some(args.namespace.clone().unwrap_or_else(default_namespace)),
    };
    let document = args.target.ask("/unpin", Some(serde_json::to_vec(&request)?))?;
    show(&args.target, &document)?;
    Ok(if document.changed > 0 { Exit::Ok } else { Exit::No })
}

/// Prints the pins.
fn show(target: &Target, document: &PinsDoc) -> anyhow::Result<()> {
    if let Some(reason) = &document.not_kept {
        eprintln!("holdfast: in effect now, but lost at a restart: {reason}");
    }
    target.output.print(document, || text(document))
}

/// The pins for people.
fn text(document: &PinsDoc) -> String {
    if document.pins.is_empty() {
        return "nothing is pinned\n".into();
    }
    let now = Clock::System.now();
    let mut table = Table::new(&["PINNED", "ADDRESSES", "TTL", "SINCE", "UNTIL", "WHY"]);
    for pin in &document.pins {
        let addresses: Vec<String> = pin.addresses.iter().map(ToString::to_string).collect();
        // A pin made just now for two hours still has the whole two hours.
        let left = |until: UnixMillis| {
            let left = now.age(until);
            words(Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0)))
        };
        let until = pin.until.map(|until| format!("in {}", left(until.0)));
        table.row([
            pin.name.clone(),
            some(&addresses, 4),
            format!("{}s", pin.ttl),
            format!("{} ago", words(pin.since.0.age(now))),
            until.unwrap_or_else(|| "no end".into()),
            pin.reason.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    format!("{}{}\n", table.text(width()), count(document.pins.len(), "name"))
}
