//! `holdfast dump`: every record, for people, for scripts, as a zone file or as a hosts file.

use std::{collections::HashMap, fmt::Write as _};

use super::{
    Exit, Failed, json, print,
    reach::{Where, snapshot_of},
    status,
    table::{Table, broken, count, some, width, without_controls},
};
use crate::{
    admin::view::{self, DumpHead, HeldRow, HeldWhat, Record},
    record::{Kind, Service, Snapshot},
    zone::Zone,
};

/// Arguments of `holdfast dump`.
#[derive(Clone, Debug, clap::Args)]
pub struct DumpArgs {
    /// Where to look
    #[command(flatten)]
    pub place: Where,
    /// Only this namespace
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Output format
    #[arg(short, long, default_value = "table")]
    pub output: Form,
    /// With `-o zone`: a reverse zone, such as 96.10.in-addr.arpa, in place of the cluster's
    #[arg(long, value_name = "ZONE")]
    pub reverse: Option<String>,
}

/// The forms of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// One line per service
    Table,
    /// Kubernetes objects; `--manifests` reads them back
    Json,
    /// The same as YAML
    Yaml,
    /// The zone as a zone file (RFC 1035)
    Zone,
    /// Lines for /etc/hosts
    Hosts,
}

/// Prints the records.
pub fn run(args: &DumpArgs) -> anyhow::Result<Exit> {
    let reverse = args.reverse.as_deref().map(|zone| zone.trim_end_matches('.').to_ascii_lowercase() + ".");
    if reverse.as_ref().is_some_and(|zone| args.output != Form::Zone || !zone.ends_with(".arpa.")) {
        let told = "--reverse goes with -o zone, and takes a zone below in-addr.arpa or ip6.arpa";
        return Err(Failed::Usage(told.into()).into());
    }
    let dump = args.place.reach()?.dump(args.namespace.as_deref())?;
    let text = match args.output {
        Form::Json => json(&dump)?,
        Form::Yaml => serde_saphyr::to_string(&dump)?.into_bytes(),
        Form::Table => table(&dump.holdfast, &snapshot_of(&dump)?, width()).into_bytes(),
        Form::Zone => zone_file(&dump.holdfast, &snapshot_of(&dump)?, reverse.as_deref()).into_bytes(),
        Form::Hosts => hosts(&dump.holdfast, &snapshot_of(&dump)?).into_bytes(),
    };
    print(&text)?;
    if dump.holdfast.source.as_of.is_none() {
        let told = "there are no records: none were on disk, and none came from the source";
        return Err(Failed::Absent(told.into()).into());
    }
    if let Some(namespace) = args.namespace.as_ref().filter(|_| dump.items.is_empty()) {
        return Err(Failed::Absent(format!("there is no namespace {namespace:?}")).into());
    }
    Ok(Exit::Ok)
}

fn table(head: &DumpHead, snapshot: &Snapshot, width: Option<usize>) -> String {
    let marks: HashMap<&str, &HeldRow> = head.held.rows.iter().map(|row| (row.name.as_str(), row)).collect();
    let mut services: Vec<&Service> = snapshot.services().map(|service| &**service).collect();
    services.sort_unstable_by_key(|service| service.key());
    let mut table = Table::new(&["NAMESPACE", "NAME", "KIND", "ADDRESS", "PORTS", "ENDPOINTS"]);
    for service in services {
        let (kind, address) = match service.kind() {
            Kind::ClusterIp(ips) => ("ClusterIP", some(&texts(ips), 2)),
            Kind::Headless => ("Headless", "-".into()),
            Kind::ExternalName(target) => ("ExternalName", target.to_string()),
        };
        let ports: Vec<String> =
            service.ports().iter().map(|port| format!("{}/{}", port.port, port.protocol.as_str())).collect();
        let mut endpoints = match service.endpoints() {
            [] if *service.kind() != Kind::Headless => "-".into(),
            all => format!("{} of {} ready", service.ready_endpoints().count(), all.len()),
        };
        match marks.get(service.key().as_str()) {
            Some(HeldRow { what: HeldWhat::Endpoints, endpoints: kept, .. }) => {
                let _ = write!(endpoints, ", {} HELD", kept.len());
            }
            Some(_) => endpoints.push_str(", HELD"),
            None => {}
        }
        let (namespace, name) = (service.namespace().to_owned(), service.name().to_owned());
        table.row([namespace, name, kind.into(), address, some(&ports, 4), endpoints]);
    }
    let fit = |line: &str| broken(line, width.unwrap_or(usize::MAX)).join("\n");
    let scope = match (&head.namespace, head.partial) {
        (Some(namespace), _) => format!("; only namespace {namespace}"),
        (None, true) => "; only these namespaces are known".into(),
        (None, false) => String::new(),
    };
    let mut text = fit(&format!("source: {}{scope}", status::source(&head.source, head.made_at))) + "\n\n";
    text += &table.text(width);
    let shown = snapshot.counts();
    let summary = [(shown.services, "service"), (shown.endpoints, "endpoint"), (shown.namespaces, "namespace")];
    let mut summary = summary.map(|(many, noun)| count(many, noun)).join(", ");
    if !marks.is_empty() {
        summary += ". HELD: deleted at the source, still served; see `holdfast guard`";
    }
    text + "\n" + &fit(&summary) + "\n"
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

/// The header of a text form, after its comment sign.
fn about(head: &DumpHead) -> Vec<String> {
    let version = &head.version;
    let age = head.source.age().map_or_else(String::new, |age| format!(", {age} old"));
    let as_of = head.source.as_of.map_or_else(|| "never".into(), |as_of| as_of.to_string());
    let mut lines = vec![
        format!("holdfast dump, made {}", head.made_at),
        format!("records as of {as_of}{age}: version {}.{} of cluster {}", version.epoch, version.rev, version.cluster),
    ];
    lines.extend(head.namespace.as_ref().map(|namespace| format!("only namespace {namespace}")));
    lines
}

/// A line that stays a comment whatever is in it: the cluster's identity is a hub's word.
fn comment(sign: char, line: &str) -> String {
    format!("{sign} {}\n", without_controls(line))
}

/// The cluster's zone, or a reverse zone, as a zone file.
///
/// Names of pods are left out: every address has one in every namespace.
fn zone_file(head: &DumpHead, snapshot: &Snapshot, reverse: Option<&str>) -> String {
    let zone = Zone::new(&head.zone.config());
    let origin = reverse.unwrap_or(&head.zone.name);
    let mut text = String::new();
    for line in about(head) {
        text += &comment(';', &line);
    }
    let _ = writeln!(text, "$ORIGIN {origin}\n$TTL {}", head.zone.ttl);
    let Some(reverse) = reverse else {
        view::records(&zone, snapshot, |record| {
            let _ = writeln!(text, "{record}");
        });
        return text;
    };
    // The records at the apex are the same in all our zones but for their owner.
    let mut apex = Vec::new();
    view::records(&zone, snapshot, |record| apex.extend(matches!(&*record.rtype, "SOA" | "NS").then_some(record)));
    for record in apex {
        let _ = writeln!(text, "{}", Record { owner: reverse.to_owned(), ..record });
    }
    let below = format!(".{reverse}");
    view::pointers(&zone, snapshot, |record| {
        if record.owner.ends_with(&below) {
            let _ = writeln!(text, "{record}");
        }
    });
    text
}

/// The addresses of the zone as a hosts file, each with the shorter names a pod may use.
fn hosts(head: &DumpHead, snapshot: &Snapshot) -> String {
    let (lines, aliases, unusual) = host_lines(&Zone::new(&head.zone.config()), &head.zone.name, snapshot);
    let mut text = String::new();
    for line in about(head) {
        text += &comment('#', &line);
    }
    if aliases > 0 {
        let _ = writeln!(text, "# {aliases} aliases (ExternalName) have no address and are left out");
    }
    if unusual > 0 {
        let _ = writeln!(text, "# {unusual} names have characters that no host name has and are left out");
    }
    text + &lines
}

/// A line for each address; how many aliases there are, and how many names that a hosts file cannot have: they are a hub's word.
fn host_lines(zone: &Zone, origin: &str, snapshot: &Snapshot) -> (String, usize, usize) {
    let (mut lines, mut aliases, mut unusual) = (String::new(), 0, 0);
    let suffix = format!(".{}", origin.trim_end_matches('.'));
    view::records(zone, snapshot, |Record { owner, rtype, data, .. }| match rtype.as_str() {
        "A" | "AAAA" => {
            let name = owner.trim_end_matches('.');
            if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
                unusual += 1;
                return;
            }
            let short = name.strip_suffix(&suffix).map_or_else(String::new, |short| format!(" {short}"));
            let shorter = short.strip_suffix(".svc").map_or_else(String::new, str::to_owned);
            let _ = writeln!(lines, "{data}\t{name}{short}{shorter}");
        }
        "CNAME" => aliases += 1,
        _ => {}
    });
    (lines, aliases, unusual)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        record::{Change, Endpoint, ServiceKey, Version},
        zone,
    };

    /// A name that a hub may send; the apiserver refuses such names.
    #[test]
    fn names_of_a_hub_make_no_lines_of_their_own() {
        let endpoint = |ip: [u8; 4], hostname: &str| Endpoint {
            ip: ip.into(),
            hostname: Some(hostname.into()),
            ports: [].into(),
            ready: true,
        };
        let endpoints = vec![endpoint([10, 1, 0, 1], "db-0"), endpoint([10, 1, 0, 2], "x\n192.0.2.1 bank ")];
        let service = Service::new(ServiceKey::new("prod", "db"), Kind::Headless, Vec::new(), endpoints);
        let version = Version { cluster: "test".into(), epoch: 1, rev: 1 };
        let changes = [Change::PutNamespace("prod".into()), Change::Put(Arc::new(service))];
        let snapshot = Snapshot::default().apply(changes, version);
        let zone = Zone::new(&zone::Config::default());
        let (lines, _, unusual) = host_lines(&zone, "cluster.local.", &snapshot);
        assert!(lines.contains("10.1.0.1\tdb-0.db.prod.svc.cluster.local db-0.db.prod.svc db-0.db.prod\n"), "{lines}");
        assert!(unusual == 1 && !lines.contains("bank"), "{unusual}: {lines}");
        view::records(&zone, &snapshot, |record| {
            let line = record.to_string();
            assert!(!line.contains('\n') && !line.contains(" bank"), "{line}");
        });
    }

    #[test]
    fn a_comment_is_one_line() {
        assert_eq!(
            comment('#', "of cluster a\n192.0.2.1\tdb\r"),
            "# of cluster a\u{FFFD}192.0.2.1\u{FFFD}db\u{FFFD}\n"
        );
    }
}
