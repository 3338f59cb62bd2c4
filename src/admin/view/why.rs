//! Why a name answers what it answers, in a sentence.

use std::net::IpAddr;

use super::{Answer, Outcome, RecordsView, SourceDoc, SourceWord, status::known_namespaces};
use crate::{
    dns::{Local, Question, Rules},
    record::{Kind, Service, Snapshot},
    report::ZoneRule,
    wire::{Name, Rtype},
    zone::{Lookup, Zone},
};

/// The sentence, and the service it is about.
#[derive(Clone, Debug)]
pub struct Why<'a> {
    pub text: String,
    pub service: Option<&'a Service>,
}

/// The problem of a name that does not exist while one like it does.
pub fn misspelt(rules: &Rules, moment: &RecordsView<'_>, name: &Name) -> Option<String> {
    let why = why(rules, moment, name, &[]);
    (why.service.is_none() && why.text.contains("did you mean")).then_some(why.text)
}

pub fn why<'a>(rules: &Rules, moment: &RecordsView<'a>, name: &Name, answers: &[Answer]) -> Why<'a> {
    let (zone, snapshot) = (rules.zone(), moment.snapshot);
    let only = |text: String| Why { text, service: None };
    if rules.config().forward_only && name.labels_above(zone.name()).is_some() {
        return only("source is none: names of the cluster are forwarded like all others".into());
    }
    let question = Question::new(name.clone(), Rtype::A);
    if let Local::Completion { labels } = rules.local(&moment.records(), question.by_ref())
        && let Ok(outside) = Name::from_labels(name.labels().take(labels))
    {
        return only(format!("no service has this name; search_path_completion looks {outside} up in its place"));
    }
    if moment.freshness.as_of.is_none() {
        let waits = match SourceDoc::of(moment).state {
            SourceWord::Lost => "and the source is not reachable",
            _ => "and none from the source yet",
        };
        let fallback = if rules.config().cluster_fallback { "; cluster_fallback is asked until then" } else { "" };
        return only(format!("there are no records: none on disk, {waits}{fallback}"));
    }
    let Some(depth) = name.labels_above(zone.name()) else { return only(outside(rules, moment, name, answers)) };
    let label = |index: usize| text(name.label(index).unwrap_or_default());
    if depth == 0 {
        return only("this is the cluster's zone itself".into());
    }
    match (label(depth - 1).as_str(), depth) {
        ("svc" | "pod", 1) => only("names of services and pods are below this name".into()),
        ("svc" | "pod", _) if !snapshot.knows_namespace(label(depth - 2).as_bytes()) => {
            let known = known_namespaces(snapshot).unwrap_or_default();
            let fallback = if rules.config().cluster_fallback { "; cluster_fallback is asked" } else { "" };
            only(format!(
                "namespace {:?} is not known: the records come from a dump of {} only{fallback}",
                label(depth - 2),
                known.join(", ")
            ))
        }
        ("svc" | "pod", _) if !snapshot.has_namespace(label(depth - 2).as_bytes()) => {
            only(no_namespace(snapshot, &label(depth - 2), depth == 2))
        }
        ("svc", 2) => only(format!("namespace {} exists; names of its services are below this name", label(0))),
        ("svc", _) => service(snapshot, &label(depth - 2), &label(depth - 3), depth - 3, name),
        ("pod", 2) => only(format!("namespace {} exists; names of its pods are below this name", label(0))),
        ("pod", 3) => only(pod(zone, moment, name)),
        ("dns-version", 1) => only("the version of the DNS specification that is followed".into()),
        ("dns", 1 | 2) => only("the name server of the zone".into()),
        _ => only(format!("there is no such name in {}: services are below svc, pods below pod", zone.name())),
    }
}

fn text(label: &[u8]) -> String {
    String::from_utf8_lossy(label).into_owned()
}

/// Whether any label in front of the service's is there, and what it is.
fn service<'a>(snapshot: &'a Snapshot, namespace: &str, name: &str, below: usize, whole: &Name) -> Why<'a> {
    let Some(service) = snapshot.service(namespace.as_bytes(), name.as_bytes()) else {
        let near = nearest(name, services_of(snapshot, namespace)).map(|near| format!("{near:?}"));
        let elsewhere = || {
            let mut namespaces: Vec<&str> = snapshot
                .services()
                .filter(|service| service.name() == name)
                .map(|service| service.namespace())
                .collect();
            namespaces.sort_unstable();
            namespaces.first().map(|other| format!("\"{name}.{other}\""))
        };
        let meant = near.or_else(elsewhere).map_or_else(String::new, |meant| format!(", did you mean {meant}?"));
        let text = format!("there is no service {name:?} in namespace {namespace}{meant}");
        return Why { text, service: None };
    };
    let key = service.key();
    let ready = service.ready_endpoints().count();
    let of = service.endpoints().len();
    let first = text(whole.label(0).unwrap_or_default());
    let text = match (service.kind(), below) {
        (Kind::ExternalName(target), 0) => format!("service {key} is an alias (ExternalName) of {target}"),
        (Kind::ExternalName(_), _) => {
            format!("service {key} is an alias (ExternalName), and no names are below an alias")
        }
        (Kind::Headless, 0) if ready == 0 => {
            format!("headless service {key} has no ready endpoint (0 of {of}), so its name does not exist")
        }
        (Kind::Headless, 0) => format!("headless service {key}: {ready} of {of} endpoints are ready"),
        (Kind::ClusterIp(_), 0) => format!("service {key} has a cluster IP"),
        (_, 1) if first.starts_with('_') => format!("names of the ports of service {key} are below this name"),
        (Kind::Headless, 1) => endpoint(service, &first),
        (_, 1) => {
            format!(
                "service {key} has a cluster IP; its endpoints have names only with `endpoints: all` ({of} known here)"
            )
        }
        (_, 2) => {
            let ports: Vec<&str> = service
                .ports()
                .iter()
                .chain(service.endpoints().iter().flat_map(|endpoint| endpoint.ports.iter()))
                .map(|port| &*port.name)
                .filter(|name| !name.is_empty())
                .collect();
            let port = first.strip_prefix('_').unwrap_or(&first);
            if ports.contains(&port) {
                format!("port {port} of service {key}")
            } else {
                format!("service {key} has no port named {port:?}{}", did_you_mean(nearest(port, ports.into_iter())))
            }
        }
        _ => format!("no name is this deep below service {key}"),
    };
    Why { text, service: Some(service) }
}

fn endpoint(service: &Service, label: &str) -> String {
    let key = service.key();
    let spelled = |ip: IpAddr| ip.to_string().replace(['.', ':'], "-");
    let is = |endpoint: &&crate::record::Endpoint| {
        endpoint.hostname.as_deref().map_or_else(|| spelled(endpoint.ip) == label, |hostname| hostname == label)
    };
    match service.endpoints().iter().find(is) {
        Some(endpoint) if endpoint.ready => format!("endpoint {label} of headless service {key} is ready"),
        Some(_) => format!("endpoint {label} of headless service {key} is not ready"),
        None => {
            let names = service.endpoints().iter().filter_map(|endpoint| endpoint.hostname.as_deref());
            format!("headless service {key} has no endpoint {label:?}{}", did_you_mean(nearest(label, names)))
        }
    }
}

fn pod(zone: &Zone, moment: &RecordsView<'_>, name: &Name) -> String {
    let found = [Rtype::A, Rtype::AAAA]
        .iter()
        .any(|rtype| matches!(zone.lookup(moment.snapshot, true, name, *rtype), Lookup::Hit(_)));
    if found {
        "the address is spelled in the name; pods are not looked at (pods: insecure)".into()
    } else {
        "names of pods are switched off (pods: disabled), or this spells no address".into()
    }
}

/// A name outside the cluster's zone.
fn outside(rules: &Rules, moment: &RecordsView<'_>, name: &Name, answers: &[Answer]) -> String {
    let local = |rtype| rules.local(&moment.records(), Question::new(name.clone(), rtype).by_ref());
    if moment.pins.get(name, moment.now).is_some() {
        return "an operator pinned this name".into();
    }
    if matches!(local(Rtype::SVCB), Local::Designated(_)) {
        return "clients find encrypted DNS by this name (RFC 9462)".into();
    }
    if name.label_from_end(0) != Some(b"arpa") {
        return forwarded(rules.zone(), name, answers);
    }
    match local(Rtype::PTR) {
        Local::Hit(_) => "a service or a ready endpoint has this address".into(),
        Local::Outside => "no known service or endpoint has this address: upstreams are asked".into(),
        _ => "the address is in a network of `reverse`, and no service or ready endpoint has it".into(),
    }
}

/// A name that a forward zone decides about.
fn forwarded(zone: &Zone, name: &Name, answers: &[Answer]) -> String {
    let here = |answer: &&Answer| answer.rcode.is_some() && answer.cached.is_none() && answer.sent.is_none();
    if let Some(answer) = answers.iter().find(here) {
        let rcode = answer.rcode.as_deref().unwrap_or_default();
        return match (answer.rule, answer.outcome) {
            (Some(ZoneRule::Hosts), Outcome::Records) => "hosts of the configuration have this name".into(),
            (Some(ZoneRule::Hosts), _) => "hosts of the configuration have this name, without such records".into(),
            (Some(ZoneRule::Template), Outcome::Records) => "a template of the configuration answers this name".into(),
            (Some(ZoneRule::Template), _) => format!("a template of the configuration answers this name with {rcode}"),
            (Some(ZoneRule::Answer), _) => {
                format!("a fixed answer of the configuration: every name of its forward zone is answered {rcode}")
            }
            (None, _) => format!("this node answers the name with {rcode}"),
        };
    }
    let renamed = answers.iter().filter_map(|answer| answer.sent.as_ref()).find(|sent| sent.name != name.to_string());
    match renamed {
        Some(sent) => format!("not a name of {}: upstreams are asked for {}", zone.name(), sent.name),
        None => format!("not a name of {}: upstreams are asked", zone.name()),
    }
}

/// `alone` says that it stands alone, as a service's name does that was given without its namespace.
fn no_namespace(snapshot: &Snapshot, wanted: &str, alone: bool) -> String {
    let mut of_service: Vec<&str> = snapshot
        .services()
        .filter(|service| alone && service.name() == wanted)
        .map(|service| service.namespace())
        .collect();
    of_service.sort_unstable();
    let near = nearest(wanted, snapshot.namespaces().map(|name| &**name));
    match of_service.as_slice() {
        [] => format!("there is no namespace {wanted:?}{}", did_you_mean(near)),
        [one] => format!("there is no namespace {wanted:?}, did you mean service \"{wanted}.{one}\"?"),
        [first, rest @ ..] => {
            let others = rest.len();
            format!(
                "there is no namespace {wanted:?}, did you mean service \"{wanted}.{first}\", or one of {others} others of this name?"
            )
        }
    }
}

fn services_of<'a>(snapshot: &'a Snapshot, namespace: &'a str) -> impl Iterator<Item = &'a str> {
    snapshot.services().filter(move |service| service.namespace() == namespace).map(|service| service.name())
}

/// The name that is most like the one wanted, if any is like it at all.
fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = names.map(|name| (strsim::osa_distance(wanted, name), name)).min()?;
    let (distance, name) = near;
    (distance <= 1 + wanted.chars().count() / 4).then_some(name)
}

fn did_you_mean(near: Option<&str>) -> String {
    near.map_or_else(String::new, |name| format!(", did you mean {name:?}?"))
}
