//! A Corefile as holdfast's configuration, and what of it cannot be said there.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::{
    Corefile, Directive, Error, Note, Position, Token, Weight, cache,
    findings::Findings,
    forward,
    local::{self, Rewriting},
    plan::Content,
    server::{Listeners, Server, server},
    words::{self, holds, text},
};
use crate::{
    config::{Shown, yaml},
    wire::UDP_BYTES_MAX,
};

/// How often CoreDNS looks at its file unless told otherwise, and at most.
const RELOAD: Duration = Duration::from_secs(30);
const RELOAD_MIN: Duration = Duration::from_secs(2);
/// Bounds of tcp.idle.
const TCP_IDLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// Bounds of tcp.read and tcp.write.
const TCP_STEP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// Directives of CoreDNS that answers do not depend on here, and what is done instead.
pub(super) const MANNER: [(&str, &str); 8] = [
    ("cancel", "a question to upstreams takes upstream_timeout at most"),
    ("chaos", "questions of class CH are refused"),
    ("metadata", "there is nobody here to read it"),
    ("multisocket", "there is a socket for each worker, always"),
    ("nsid", "no name of a server is told (RFC 5001)"),
    ("pprof", "there is no profiler in here"),
    ("root", "paths are taken as they are written"),
    ("trace", "questions are not traced"),
];

/// Directives of CoreDNS that do something to answers which is not done here.
pub(super) const ANSWERS: [(&str, &str); 25] = [
    ("auto", "zone files are not served"),
    ("autopath", "search paths are not walked for the client"),
    ("azure", "names are asked of the block's upstreams"),
    ("clouddns", "names are asked of the block's upstreams"),
    ("dnssec", "answers are not signed"),
    ("erratic", "no answer is spoilt on purpose"),
    ("etcd", "names are asked of the block's upstreams"),
    ("file", "zone files are not served"),
    ("geoip", "answers do not depend on where a client is"),
    ("grpc", "upstreams are asked over UDP, TCP, TLS and HTTPS: use forward"),
    ("header", "header bits are as the protocol has them"),
    ("https", "clients are served over HTTPS by encrypted.https alone"),
    ("https3", "clients are not served over HTTP/3"),
    ("k8s_external", "names outside the cluster's zone are not made of its services"),
    ("kubernetes", "names of the cluster come from a hub (--hub), or are asked of the block's upstreams"),
    ("local", "names like localhost are asked of the block's upstreams"),
    ("nomad", "names are asked of the block's upstreams"),
    ("quic", "nothing is served over QUIC"),
    ("route53", "names are asked of the block's upstreams"),
    ("secondary", "zones are not transferred in"),
    ("sign", "answers are not signed"),
    ("tls", "nothing is served over TLS"),
    ("transfer", "zones are not transferred out"),
    ("tsig", "messages are not signed"),
    ("view", "the block answers every client"),
];

/// Directives that answer no question.
const SILENT: [&str; 9] = ["bind", "bufsize", "debug", "dnstap", "health", "prometheus", "ready", "reload", "timeouts"];

/// Directives that are honoured, for the hint on an unknown one.
const HONOURED: [&str; 24] = [
    "acl",
    "any",
    "bind",
    "bufsize",
    "cache",
    "debug",
    "dns64",
    "dnstap",
    "errors",
    "forward",
    "health",
    "hosts",
    "import",
    "loadbalance",
    "log",
    "loop",
    "minimal",
    "prometheus",
    "ready",
    "reload",
    "rewrite",
    "template",
    "timeouts",
    "whoami",
];

#[derive(Clone, Debug)]
pub struct Options {
    /// The port of zones without one.
    pub port: u16,
    /// Names of the cluster come from a hub: leave no source out.
    pub hub: bool,
    /// The address of the cluster's DNS service: the zone that is asked of it is the cluster's.
    pub cluster_dns: Option<IpAddr>,
    /// The addresses of an interface of this machine, by its name.
    pub interface: fn(&str) -> Option<Vec<IpAddr>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { port: 53, hub: false, cluster_dns: None, interface: |_| None }
    }
}

/// A Corefile in holdfast's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    pub yaml: String,
    /// Options that are not honoured, or not to the letter, in the order of the file.
    pub notes: Vec<Note>,
    /// How often the file asks to be looked at for changes; `None` if it does not.
    pub reload: Option<Duration>,
}

/// The forward zones of one address.
type Zones = BTreeMap<String, (Shown, Position)>;

/// Translates a file.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file.
pub fn translate(file: &Corefile, options: &Options) -> Result<Translation, Vec<Error>> {
    let mut found = Findings::default();
    let servers: Vec<Server<'_>> = file.blocks.iter().map(|block| server(block, options, &mut found)).collect();
    let v6 = servers.iter().flat_map(|server| &server.listen).any(|(address, _)| address.is_ipv6());
    let any = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let mut whole = Whole { any, ..Whole::default() };
    let mut addresses: Vec<(SocketAddr, Zones)> = Vec::new();
    for server in &servers {
        let content = whole.block(server.directives, &mut found);
        for (address, zones) in &server.listen {
            let at = addresses.iter().position(|(known, _)| known == address).unwrap_or_else(|| {
                addresses.push((*address, Zones::new()));
                addresses.len() - 1
            });
            for (zone, token) in zones {
                add(&mut addresses[at].1, zone, token, &content, &mut found);
            }
        }
    }
    if addresses.is_empty() && found.errors.is_empty() {
        found.error(Position { file: 0, line: 1, column: 1 }, "no block of this file can be served");
    }
    if !found.errors.is_empty() {
        found.errors.sort_by_key(|error| error.at);
        return Err(found.errors.into_iter().map(|error| error.within(&file.files)).collect());
    }
    if whole.logs > 0 && whole.logs < file.blocks.len() {
        found.note(
            whole.log_at,
            "log",
            Weight::Manner,
            "questions of every zone are logged, not of this block's alone",
        );
    }
    found.notes.extend(file.notes.iter().cloned());
    found.notes.sort_by_key(|note| note.at);
    for note in &mut found.notes {
        note.file = super::imported(note.at, &file.files);
    }
    let yaml = whole.yaml(group(addresses), options);
    Ok(Translation { yaml, notes: found.notes, reload: whole.reload })
}

/// Adds the forward zones of `zone` of one block to those of an address.
fn add(all: &mut Zones, zone: &str, token: &Token, content: &Content, found: &mut Findings) {
    for (name, fields) in content.zones(zone) {
        let own = name == zone;
        match all.get(&name) {
            Some((_, first)) if own && *first != Position::default() => {
                found.error(token.at, format!("zone {zone:?} is served by the block at {first} already"));
            }
            // A block of its own says more of a zone than a directive of the block around it.
            Some(_) if !own => {}
            _ => drop(all.insert(name, (fields, if own { token.at } else { Position::default() }))),
        }
    }
}

/// Addresses that answer alike, the ones with most zones first.
fn group(addresses: Vec<(SocketAddr, Zones)>) -> Vec<(Vec<SocketAddr>, Vec<Shown>)> {
    let mut groups: Vec<(Vec<SocketAddr>, Vec<Shown>)> = Vec::new();
    for (address, mut zones) in addresses {
        let refused = || Shown::Map(vec![("zone".into(), text(".")), ("answer".into(), text("refused"))]);
        // CoreDNS refuses what no block is for.
        zones.entry(".".into()).or_insert_with(|| (refused(), Position::default()));
        // The root last, as people write it.
        let mut list: Vec<(String, Shown)> = zones.into_iter().map(|(zone, (fields, _))| (zone, fields)).collect();
        list.sort_by_key(|(zone, _)| (zone == ".", zone.clone()));
        let list: Vec<Shown> = list.into_iter().map(|(_, fields)| fields).collect();
        match groups.iter_mut().find(|(_, known)| *known == list) {
            Some((listen, _)) => listen.push(address),
            None => groups.push((vec![address], list)),
        }
    }
    groups.sort_by_key(|(_, zones)| std::cmp::Reverse(zones.len()));
    groups
}

/// The directives of a file that concern the whole process.
#[derive(Debug)]
struct Whole {
    /// The address that stands for all.
    any: IpAddr,
    listeners: Listeners,
    debug: bool,
    logs: usize,
    log_at: Position,
    logs_all: bool,
    log_classes: Vec<String>,
    reload: Option<Duration>,
    tcp_idle: Option<Duration>,
    tcp_read: Option<Duration>,
    tcp_write: Option<Duration>,
    dnstap: Option<String>,
}

impl Default for Whole {
    fn default() -> Self {
        Self {
            any: Ipv4Addr::UNSPECIFIED.into(),
            listeners: Listeners::default(),
            debug: false,
            logs: 0,
            log_at: Position::default(),
            logs_all: false,
            log_classes: Vec::new(),
            reload: None,
            tcp_idle: None,
            tcp_read: None,
            tcp_write: None,
            dnstap: None,
        }
    }
}

impl Whole {
    /// Reads what a block says.
    fn block(&mut self, directives: &[Directive], found: &mut Findings) -> Content {
        let mut content = Content::default();
        for directive in directives {
            let silent = SILENT.contains(&directive.name.text.as_str());
            content.handles |= !silent;
            self.directive(directive, &mut content, found);
        }
        content
    }

    fn directive(&mut self, directive: &Directive, content: &mut Content, found: &mut Findings) {
        let name = directive.name.text.as_str();
        match name {
            // Read before, or always so.
            "bind" | "loop" => {}
            "errors" => errors(directive, found),
            "log" => self.log(directive, found),
            "debug" => self.debug = true,
            "timeouts" => self.timeouts(directive, found),
            "dnstap" => self.dnstap(directive, found),
            "reload" => self.reload(directive, found),
            "bufsize" => content.udp_bytes = bufsize(directive, found),
            "health" | "ready" | "prometheus" => self.listeners.read(directive, self.any, found),
            "forward" => content.forwards.extend(forward::read(directive, found)),
            "cache" if content.cache.is_some() => found.error(directive.name.at, "cache is given twice in this block"),
            "cache" => content.cache = Some(cache::read(directive, found)),
            "hosts" => content.hosts.push(local::hosts(directive, found)),
            "rewrite" => rewrite(directive, content, found),
            "template" => content.templates.extend(local::template(directive, found)),
            "dns64" => content.dns64 = local::dns64(directive, found),
            "acl" => content.acls.push(local::acl(directive, found)),
            "any" => content.any = true,
            "loadbalance" => content.rotate |= loadbalance(directive, found),
            "minimal" => {
                let said = "answers carry the records asked for, and an authority section only where there are none";
                found.note(directive.name.at, name, Weight::Met, said);
            }
            "whoami" => {
                content.whoami = true;
                found.note(
                    directive.name.at,
                    name,
                    Weight::Manner,
                    "the answer is empty: the client's address is not in it",
                );
            }
            _ => unhonoured(directive, found),
        }
    }

    /// `log [NAMES…] [FORMAT]`, with the classes of answers.
    fn log(&mut self, directive: &Directive, found: &mut Findings) {
        self.log_at = directive.name.at;
        self.logs += 1;
        if directive.args.iter().any(|token| token.text != ".") {
            let said = "questions are logged for all names, in the form of the log: log.format";
            found.note(directive.name.at, "log", Weight::Manner, said);
        }
        let before = self.log_classes.len();
        for property in &directive.properties {
            if property.name.text != "class" {
                found.unknown(directive, property);
                continue;
            }
            for token in &property.args {
                match token.text.as_str() {
                    "all" => self.logs_all = true,
                    class @ ("success" | "denial" | "error") => self.log_classes.push(class.to_owned()),
                    other => found.error(token.at, format!("{other:?} is not all, success, denial or error")),
                }
            }
        }
        self.logs_all |= self.log_classes.len() == before;
    }

    fn timeouts(&mut self, directive: &Directive, found: &mut Findings) {
        for property in &directive.properties {
            let Some(duration) = found.one(property).and_then(|token| found.take(words::duration(token))) else {
                continue;
            };
            match property.name.text.as_str() {
                "idle" => longest(&mut self.tcp_idle, duration, TCP_IDLE),
                "read" => longest(&mut self.tcp_read, duration, TCP_STEP),
                "write" => longest(&mut self.tcp_write, duration, TCP_STEP),
                _ => found.unknown(directive, property),
            }
        }
    }

    fn dnstap(&mut self, directive: &Directive, found: &mut Findings) {
        let socket = directive.args.first().map(|token| token.text.as_str());
        match socket.map(|text| text.strip_prefix("unix://").unwrap_or(text)) {
            None => found.error(directive.name.at, "dnstap takes the socket of a collector"),
            Some(path) if path.starts_with('/') && self.dnstap.as_deref().is_none_or(|known| known == path) => {
                self.dnstap = Some(path.to_owned());
            }
            Some(_) => {
                let said = "one collector is told, on a unix socket: log.dnstap";
                found.note(directive.name.at, "dnstap", Weight::Manner, said);
            }
        }
    }

    fn reload(&mut self, directive: &Directive, found: &mut Findings) {
        let durations: Vec<Duration> =
            directive.args.iter().filter_map(|token| found.take(words::duration(token))).collect();
        let interval = durations.first().copied().unwrap_or(RELOAD).max(RELOAD_MIN);
        if durations.len() > 1 {
            let said = "each process looks at its files from its own start on, which spreads the nodes";
            found.note(directive.name.at, "reload jitter", Weight::Met, said);
        }
        self.reload = Some(self.reload.map_or(interval, |known| known.min(interval)));
    }

    fn yaml(&self, groups: Vec<(Vec<SocketAddr>, Vec<Shown>)>, options: &Options) -> String {
        let list = |addresses: &[SocketAddr]| Shown::List(addresses.iter().map(text).collect());
        let map = |entries: Vec<(&str, Shown)>| {
            Shown::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
        };
        let mut entries = Vec::new();
        let mut groups = groups.into_iter();
        let (listen, zones) = groups.next().unwrap_or_default();
        if options.hub {
            let (zone, upstreams) = cluster_zone(&zones, options.cluster_dns);
            entries.push(("zone", text(zone)));
            entries.push(("cluster_fallback", upstreams));
        } else {
            entries.push(("source", map(vec![("none", text(true))])));
        }
        entries.push(("listen", list(&listen)));
        entries.push(("forward", Shown::List(zones)));
        let views: Vec<Shown> = groups
            .map(|(listen, zones)| map(vec![("listen", list(&listen)), ("forward", Shown::List(zones))]))
            .collect();
        if !views.is_empty() {
            entries.push(("views", Shown::List(views)));
        }
        let kinds = [("http", "http_more", &self.listeners.http), ("metrics", "metrics_more", &self.listeners.metrics)];
        for (one, more, addresses) in kinds {
            match addresses.as_slice() {
                [] => entries.push((one, text("none"))),
                [first] => entries.push((one, text(first))),
                [first, rest @ ..] => entries.extend([(one, text(first)), (more, list(rest))]),
            }
        }
        let mut log = Vec::new();
        if self.debug {
            log.push(("filter", text("debug")));
        }
        if self.logs > 0 {
            log.push(("query_every", text(1)));
            if !self.logs_all {
                let mut classes = self.log_classes.clone();
                classes.sort();
                classes.dedup();
                log.push(("query_classes", Shown::List(classes.iter().map(text).collect())));
            }
        }
        if let Some(path) = &self.dnstap {
            log.push(("dnstap", text(path)));
        }
        let times = [
            ("idle", self.tcp_idle, TCP_IDLE.1),
            ("read", self.tcp_read, TCP_STEP.1),
            ("write", self.tcp_write, TCP_STEP.1),
        ];
        let tcp: Vec<_> =
            times.into_iter().filter_map(|(key, time, most)| Some((key, words::shown(time?, most)))).collect();
        if !tcp.is_empty() {
            entries.push(("tcp", map(tcp)));
        }
        if !log.is_empty() {
            entries.push(("log", map(log)));
        }
        yaml(&map(entries))
    }
}

/// The zone whose names the cluster's DNS service is asked for, and its upstreams.
fn cluster_zone(zones: &[Shown], cluster_dns: Option<IpAddr>) -> (String, Shown) {
    let word = |fields: &[(String, Shown)], key: &str| match fields.iter().find(|(name, _)| name == key) {
        Some((_, Shown::Text(word))) => word.clone(),
        _ => String::new(),
    };
    let mut best: Option<((bool, bool, bool), String, Shown)> = None;
    for zone in zones {
        let Shown::Map(fields) = zone else { continue };
        let name = word(fields, "zone");
        let Some((_, Shown::List(upstreams))) = fields.iter().find(|(name, _)| name == "upstreams") else { continue };
        let asked = |ip: IpAddr| upstreams.iter().any(|one| *one == text(ip) || *one == text(SocketAddr::new(ip, 53)));
        let named = cluster_dns.is_some_and(asked);
        let outside = name == "." || holds("in-addr.arpa", &name) || holds("ip6.arpa", &name);
        let rank = (named, name == "cluster.local", holds("local", &name));
        if !outside && best.as_ref().is_none_or(|(known, ..)| rank > *known) {
            best = Some((rank, name, Shown::List(upstreams.clone())));
        }
    }
    let local = |(rank, ..): &((bool, bool, bool), String, Shown)| rank.0 || rank.1 || rank.2;
    best.filter(local)
        .map_or_else(|| ("cluster.local".into(), Shown::List(Vec::new())), |(_, name, upstreams)| (name, upstreams))
}

/// One setting is for every block: the longest.
fn longest(time: &mut Option<Duration>, duration: Duration, (least, most): (Duration, Duration)) {
    *time = Some(duration.clamp(least, most)).max(*time);
}

fn errors(directive: &Directive, found: &mut Findings) {
    for property in &directive.properties {
        match property.name.text.as_str() {
            "consolidate" => {
                let said = "failures of upstreams are logged once a minute, with the number left out";
                found.met(directive, property, said);
            }
            "stacktrace" => found.met(directive, property, "a panic is logged with its place"),
            _ => found.unknown(directive, property),
        }
    }
}

fn rewrite(directive: &Directive, content: &mut Content, found: &mut Findings) {
    let rule = local::rewrite(directive, found);
    if content.rewrites_end {
        let said = "no rule is reached behind one for edns0 without `continue`, as in CoreDNS";
        return found.note(directive.name.at, "rewrite", Weight::Manner, said);
    }
    match rule {
        Some(Rewriting::Rule(rule)) => content.rewrites.push(rule),
        Some(Rewriting::Option { option, last }) => {
            content.edns.push(option);
            content.rewrites_end = last;
        }
        None => {}
    }
}

/// The bound of `bufsize`, if it is below the one there is always.
fn bufsize(directive: &Directive, found: &mut Findings) -> Option<usize> {
    let token = directive.args.first()?;
    let size = usize::try_from(found.take(words::number(token))?).unwrap_or(usize::MAX);
    if !(512..=4_096).contains(&size) {
        found.error(token.at, format!("bufsize is from 512 to 4096, found {size}"));
        return None;
    }
    if size > UDP_BYTES_MAX {
        let said = "UDP answers have at most 1232 bytes, which no network cuts; longer ones go over TCP";
        found.note(directive.name.at, "bufsize", Weight::Met, said);
    }
    (size < UDP_BYTES_MAX).then_some(size)
}

/// `loadbalance [round_robin]`: whether records of an answer are turned.
fn loadbalance(directive: &Directive, found: &mut Findings) -> bool {
    let at = directive.name.at;
    match directive.args.first() {
        Some(token) if token.text == "weighted" => {
            found.note(at, "loadbalance weighted", Weight::Manner, "addresses take turns, without weights");
        }
        Some(token) if token.text != "round_robin" => {
            found.error(token.at, format!("{:?} is neither round_robin nor weighted", token.text));
        }
        _ => {}
    }
    for property in &directive.properties {
        match property.name.text.as_str() {
            "limit_answers" => {
                let said = "answers have all their records";
                found.note(property.name.at, "loadbalance limit_answers", Weight::Answers, said);
            }
            "prefer" => found.manner(directive, property, "addresses take turns, without preference for networks"),
            "reload" => found.manner(directive, property, "no file of weights is read"),
            _ => found.unknown(directive, property),
        }
    }
    true
}

/// A directive that is known and does nothing here, or none at all.
fn unhonoured(directive: &Directive, found: &mut Findings) {
    let name = directive.name.text.as_str();
    let of =
        |list: &[(&'static str, &'static str)]| list.iter().find(|(known, _)| *known == name).map(|(_, said)| *said);
    if let Some(said) = of(&MANNER) {
        return found.note(directive.name.at, name, Weight::Manner, said);
    }
    if let Some(said) = of(&ANSWERS) {
        return found.note(directive.name.at, name, Weight::Answers, said);
    }
    let near = HONOURED.iter().map(|known| (strsim::osa_distance(name, known), *known)).min();
    let hint = near.filter(|(distance, known)| *distance <= 1 + known.len() / 4);
    match hint {
        Some((_, known)) => {
            found.error(directive.name.at, format!("unknown directive {name:?}, did you mean {known:?}?"));
        }
        // Builds of CoreDNS with plugins of their own take it.
        None => found.note(directive.name.at, name, Weight::Answers, "this plugin is not known and has no effect"),
    }
}
