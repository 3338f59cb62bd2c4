//! `holdfast lookup`: the answer as DNS gives it, and why.

use std::{collections::HashSet, time::Duration};

use super::{
    Exit, Failed, Output, ask, client, guard,
    namespace::default_namespace,
    reach::{Reached, Where},
    status,
    table::{Table, count, some, width},
};
use crate::{
    admin::view::{
        self, Answer, CachedDoc, HeldWhat, LiveAnswer, LiveDoc, Lookup, Outcome, Question, Record, SentDoc, ServiceDoc,
        Status,
    },
    dns::{self, Records, Rules},
    wire::Rtype,
};

/// Arguments of `holdfast lookup`.
///
/// A name outside the cluster is looked up in the cache of the process; upstream servers are asked only with --ask.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 there is an answer (a cached NXDOMAIN counts); 1 there is none, or upstreams would be asked; \
2 usage; 3 could not read. With --ask: 0 records came, 1 none came."
)]
pub struct LookupArgs {
    /// Name to look up, completed as a pod's resolver does unless it ends with a dot; or an IP address
    pub name: String,
    /// Record type [default: those that make sense for the name]
    #[arg(value_name = "TYPE")]
    pub rtype: Option<Rtype>,
    /// Namespace of the pod that asks, to complete names of services in it [default: that of kubectl's context, or `default`]
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Ask the running agent over DNS too, as a pod's resolver does; the agent may ask upstream servers
    #[arg(long, conflicts_with = "store")]
    pub ask: bool,
    /// Where to look
    #[command(flatten)]
    pub place: Where,
    /// Output format
    #[arg(short, long, default_value = "table")]
    pub output: Output,
}

/// Looks a name up and says why it answers what it answers.
pub fn run(args: &LookupArgs) -> anyhow::Result<Exit> {
    let namespace = Some(args.namespace.clone().unwrap_or_else(default_namespace));
    let question = Question { name: args.name.clone(), rtype: args.rtype, namespace };
    let lookup = match args.place.reach()? {
        Reached::Process(socket) => {
            let given = [
                ("name", Some(args.name.clone())),
                ("type", args.rtype.map(|rtype| rtype.to_string())),
                ("namespace", question.namespace.clone()),
            ];
            let given =
                given.iter().filter_map(|(key, value)| Some(format!("{key}={}", client::encode(value.as_ref()?))));
            let target = format!("/lookup?{}", given.collect::<Vec<_>>().join("&"));
            let lookup: Lookup = Reached::document(&socket, &target)?;
            let live = if args.ask {
                let status: Status = Reached::document(&socket, "/status")?;
                Some(ask::ask(&status, &question).map_err(Failed::Usage)?)
            } else {
                None
            };
            Lookup { live, ..lookup }
        }
        Reached::Store(_) if args.ask => return Err(Failed::Usage("--ask needs a running agent".into()).into()),
        Reached::Store(stored) => {
            let (rules, names) = (stored.rules(), stored.names());
            let inspect =
                |rules: &Rules, records: Records<'_>, question: &dns::Question| names.inspect(rules, records, question);
            view::lookup(&rules, &stored.moment(), &question, &inspect).map_err(Failed::Usage)?
        }
    };
    args.output.print(&lookup, || text(&lookup))?;
    let found = lookup.live.as_ref().map_or(lookup.found, LiveDoc::found);
    Ok(if found { Exit::Ok } else { Exit::No })
}

/// The look-up for people.
fn text(lookup: &Lookup) -> String {
    let mut seen = HashSet::new();
    let records: Vec<&Record> = match &lookup.live {
        Some(live) => live.answers.iter().flat_map(|answer| &answer.answer).collect(),
        None => lookup.answers.iter().flat_map(|answer| &answer.answer).collect(),
    };
    let records = records.into_iter().map(ToString::to_string);
    let mut lines: Vec<String> = records.filter(|record| seen.insert(record.clone())).collect();
    match &lookup.live {
        Some(live) if !live.found() => lines.extend(live.answers.last().map(live_line)),
        None if !lookup.found => lines.push(format!("{} {}", lookup.name, verdict(lookup))),
        _ => {}
    }
    let mut table = Table::bare();
    let mut line = |name: &str, text: String| table.row([name.to_owned(), text]);
    if let Some(live) = &lookup.live {
        line("answered", format!("by {} over DNS", live.server));
        for answer in &live.answers {
            line("", live_line(answer));
        }
    }
    line("why", lookup.why.clone());
    if lookup.found && lookup.asked.trim_end_matches('.') != lookup.name.trim_end_matches('.') {
        line("asked", format!("{}, completed to {}", lookup.asked, lookup.name));
    }
    for tried in &lookup.tried {
        line(if lookup.found { "tried first" } else { "also tried" }, format!("{} {}", tried.name, tried.why));
    }
    for answer in &lookup.answers {
        if let Some(cached) = &answer.cached {
            line("cached", format!("{}: {}", answer.rtype, cached_line(answer, cached)));
        }
    }
    for held in lookup.answers.iter().filter_map(|answer| answer.cached.as_ref()?.held.as_ref()) {
        line("HELD", guard::outside_line(held, lookup.at));
    }
    if let Some(sent) = lookup.answers.iter().find_map(|answer| answer.sent.as_ref()) {
        line("would ask", sent_line(sent));
    }
    if let Some(sent) = &lookup.goes_on {
        line("then", format!("a pod's resolver asks {}", sent_line(sent)));
    }
    if let Some(error) = lookup.answers.iter().find_map(|answer| answer.extended_error.as_ref()) {
        line("EDE", format!("clients see {error}"));
    }
    if let Some(pin) = &lookup.pinned {
        let until = pin.until.map_or_else(|| "no end".into(), |until| format!("until {}", until.short(lookup.at)));
        let reason = pin.reason.as_deref().map_or_else(String::new, |reason| format!(": {reason}"));
        line("PINNED", format!("by an operator for {}, {until}{reason}", pin.since.lasting(lookup.at)));
    }
    if let Some(held) = &lookup.held {
        let endpoints: Vec<String> = held.endpoints.iter().map(ToString::to_string).collect();
        let what = if held.what == HeldWhat::Endpoints { some(&endpoints, 4) } else { "the service".into() };
        let until = held.until(lookup.at.0);
        let since = held.since.lasting(lookup.at);
        line("HELD", format!("{what}: DELETED at the source, held for {since}, still served {until}: {}", held.reason));
    }
    line("source", status::source(&lookup.source, lookup.at));
    if let Some(service) = &lookup.service {
        line("service", service_line(service));
    }
    let endpoints = lookup.service.as_ref().map_or_else(String::new, endpoints);
    format!("{}\n\n{}{endpoints}", lines.join("\n"), table.text(width()))
}

/// The answer that came over DNS to one question.
fn live_line(answer: &LiveAnswer) -> String {
    let LiveAnswer { name, rtype, rcode, answer, extended_errors, microseconds, error } = answer;
    let time = Duration::from_micros(*microseconds);
    let rcode = match (rcode, error) {
        (Some(rcode), _) => rcode,
        (None, error) => return format!("{name} {rtype}: NO ANSWER: {}", error.as_deref().unwrap_or("none came")),
    };
    let records = if rcode == "NOERROR" { format!(", {}", count(answer.len(), "record")) } else { String::new() };
    let errors: String = extended_errors.iter().fold(String::new(), |text, error| text + ", EDE " + error);
    format!("{name} {rtype}: {rcode}{records}{errors}, {time:.1?}")
}

/// The question that would leave the node.
fn sent_line(sent: &SentDoc) -> String {
    let of = if sent.zone.is_empty() { String::new() } else { format!(" of zone {}", sent.zone) };
    let upstreams = if sent.upstreams.is_empty() { String::new() } else { format!(" ({})", some(&sent.upstreams, 4)) };
    format!("upstream servers{of}{upstreams} for {}", sent.name)
}

/// The answer of a client's question that has no record.
fn verdict(lookup: &Lookup) -> String {
    let outcome = lookup.answers.first().map(|answer| answer.outcome);
    let types: Vec<&str> = lookup.answers.iter().map(|answer| answer.rtype.as_str()).collect();
    match outcome {
        Some(Outcome::NoData) => format!("exists, without {} (NOERROR, no data)", types.join(" or ")),
        Some(Outcome::Forwarded) => {
            "is outside the cluster and not in the cache; it would be sent to upstream servers".into()
        }
        Some(Outcome::Refused) => {
            let rcode = lookup.answers.first().and_then(|answer| answer.rcode.as_deref()).unwrap_or("REFUSED");
            format!("is answered {rcode}")
        }
        Some(Outcome::NotReady) => "cannot be answered: it is not known whether it exists (SERVFAIL)".into(),
        _ => "does not exist (NXDOMAIN)".into(),
    }
}

/// The cached answer, the upstream that gave it, and the rest of its life.
fn cached_line(answer: &Answer, cached: &CachedDoc) -> String {
    let said = match answer.outcome {
        Outcome::NoSuchName => "no such name, ",
        Outcome::NoData => "no data, ",
        _ => "",
    };
    let worth = match cached.ttl_left_seconds {
        Some(left) => format!("good for {}", seconds(left)),
        None if cached.held.is_some() => "expired, still served because the name is held".into(),
        None if cached.served_stale => "expired, still served because no upstream answers".into(),
        None => "expired, upstream servers are asked first".into(),
    };
    let upstreams = some(&cached.upstreams, 4);
    let age = seconds(cached.age_seconds);
    format!("{said}from zone {} ({upstreams}) {age} ago, {worth}", cached.zone)
}

fn seconds(seconds: u64) -> String {
    view::words(Duration::from_secs(seconds))
}

fn service_line(service: &ServiceDoc) -> String {
    let addresses: Vec<String> = service.cluster_ips.iter().map(ToString::to_string).collect();
    let target = service.external_name.as_deref().map_or_else(|| some(&addresses, 2), str::to_owned);
    format!("{}/{}, {}, {target}, ports {}", service.namespace, service.name, service.kind, some(&service.ports, 8))
}

/// Endpoints shown; the rest is counted. `-o json` has them all.
const ENDPOINTS_SHOWN: usize = 20;

fn endpoints(service: &ServiceDoc) -> String {
    if service.endpoints.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["ENDPOINT", "READY", "HOSTNAME", "PORTS"]);
    for endpoint in service.endpoints.iter().take(ENDPOINTS_SHOWN) {
        let ready = if endpoint.ready { "yes" } else { "no" };
        let hostname = endpoint.hostname.clone().unwrap_or_else(|| "-".into());
        table.row([endpoint.ip.to_string(), ready.into(), hostname, some(&endpoint.ports, 4)]);
    }
    let more = service.endpoints.len().saturating_sub(ENDPOINTS_SHOWN);
    let more = if more == 0 { String::new() } else { format!("and {more} more\n") };
    format!("\n{}{more}", table.text(width()))
}
