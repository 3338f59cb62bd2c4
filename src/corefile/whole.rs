//! A server block read, and the settings of the whole process.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{
    Directive, Options, Position, Weight, cache,
    cluster::{self, ClusterZone, cluster_zone},
    findings::Findings,
    forward, loadbalance, local,
    plan::Content,
    rewrite::{self, Rewriting},
    server::Listeners,
    template, unhonoured,
    words::{self, text},
};
use crate::{
    config::{Shown, yaml},
    wire::UDP_BYTES_MAX,
};

/// The zone of a cluster unless it says otherwise.
const CLUSTER: &str = "cluster.local";
/// How often CoreDNS looks at its file unless told otherwise, and at most.
const RELOAD: Duration = Duration::from_secs(30);
const RELOAD_MIN: Duration = Duration::from_secs(2);
/// Bounds of tcp.idle.
const TCP_IDLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// Bounds of tcp.read and tcp.write.
const TCP_STEP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// Directives that answer no question.
const SILENT: [&str; 9] = ["bind", "bufsize", "debug", "dnstap", "health", "prometheus", "ready", "reload", "timeouts"];

/// The directives of a file that concern the whole process.
#[derive(Debug)]
pub(super) struct Whole {
    /// The address that stands for all.
    pub any: IpAddr,
    listeners: Listeners,
    debug: bool,
    pub logs: usize,
    pub log_at: Position,
    logs_all: bool,
    log_classes: Vec<String>,
    pub reload: Option<Duration>,
    tcp_idle: Option<Duration>,
    tcp_read: Option<Duration>,
    tcp_write: Option<Duration>,
    dnstap: Option<String>,
    /// The zone of `kubernetes`.
    cluster: Option<String>,
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
            cluster: None,
        }
    }
}

impl Whole {
    /// Reads what a block says.
    pub fn block(&mut self, directives: &[Directive], found: &mut Findings) -> Content {
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
            "rewrite" => rewriting(directive, content, found),
            "template" => content.templates.extend(template::read(directive, found)),
            "dns64" => content.dns64 = local::dns64(directive, found),
            "acl" => content.acls.push(local::acl(directive, found)),
            "any" => content.any = true,
            "loadbalance" => content.order = Some(loadbalance::read(directive, found)),
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
            _ => {
                if name == "kubernetes" && self.cluster.is_none() {
                    self.cluster = cluster::of_kubernetes(directive);
                }
                unhonoured::note(directive, found);
            }
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

    pub fn yaml(&self, groups: Vec<(Vec<SocketAddr>, Vec<Shown>)>, options: &Options) -> String {
        let list = |addresses: &[SocketAddr]| Shown::List(addresses.iter().map(text).collect());
        let map = |entries: Vec<(&str, Shown)>| {
            Shown::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
        };
        let mut entries = Vec::new();
        let mut groups = groups.into_iter();
        let (listen, zones) = groups.next().unwrap_or_default();
        let none = || ClusterZone { name: CLUSTER.to_owned(), upstreams: Shown::List(Vec::new()) };
        let mut cluster = cluster_zone(&zones, options.cluster_dns).unwrap_or_else(none);
        if let Some(said) = self.cluster.as_ref().filter(|said| **said != cluster.name) {
            cluster = ClusterZone { name: said.clone(), ..none() };
        }
        // The tools and the rules for denials go by it without records too.
        if options.hub || cluster.name != CLUSTER {
            entries.push(("zone", text(cluster.name)));
        }
        if options.hub {
            entries.push(("cluster_fallback", cluster.upstreams));
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

fn rewriting(directive: &Directive, content: &mut Content, found: &mut Findings) {
    let rule = rewrite::read(directive, found);
    if content.rewrites_end {
        let said = "no rule is reached behind one for edns0 without `continue`, as in CoreDNS";
        return found.note(directive.name.at, "rewrite", Weight::Manner, said);
    }
    match rule {
        Some(Rewriting::Rule(rule)) => content.rewrites.push(rule),
        Some(Rewriting::Option { option, last }) => {
            content.edns.extend(option);
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
