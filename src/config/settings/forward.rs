//! The settings of forward zones and of views.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use crate::{
    config::{
        error::Gather,
        node::Node,
        table::{self, Described, Section, Setting, settings},
        types::{Addr, Network, ZoneName},
        value::{Bounds, Shown, Value},
    },
    dns::{
        cache::Denials,
        forward::{
            Acl, DohMethod, EdnsOption, FixedAnswer, Host, Next, Policy, Prefix, Rewrite, Template, UpstreamSource,
            Verdict,
        },
    },
};

settings! {
    /// How the names of one zone are forwarded.
    pub struct ForwardZone {
        /// The zone; `.` for all names that no other zone covers.
        zone: ZoneName = Setting::new("zone", ".").required();
        /// Servers to ask: `IP[:PORT]`, `tls://IP[:PORT]#NAME`, `https://IP[:PORT]/PATH#NAME` (HTTP/2; the path is `/dns-query`
        /// unless given), a name in the place of `IP`, which is looked up (`resolvers`), or the path of a resolv.conf, which is read again when it changes. A file that is missing or names no server is
        /// waited for. Meanwhile the servers that it named last are asked; the store keeps them (`upstreams.json`).
        upstreams: Vec<UpstreamSource> = Setting::new("upstreams", "[]");
        /// Answers every query of this zone with this code, without upstreams: `noerror` (no records), `nxdomain`, `refused` or
        /// `servfail`. Takes the place of `upstreams`; names in `hosts` are still answered.
        answer: Option<FixedAnswer> = Setting::new("answer", "none");
        /// The server asked first. `random` and `round_robin`: another one is asked as well when the first is slow, and the first
        /// usable answer counts. `sequential`: a server is asked only when the ones before it failed (silent for 2s, not reachable,
        /// SERVFAIL and the like), so that its answers never replace theirs.
        policy: Policy = Setting::new("policy", "random");
        /// Always asks over TCP.
        force_tcp: bool = Setting::new("force_tcp", "false");
        /// Sends names in random case, against forged answers.
        case_randomization: bool = Setting::new("case_randomization", "true");
        /// Maximum queries in flight at once; more get SERVFAIL.
        max_concurrent: usize = Setting::new("max_concurrent", "1000").within("1", "100000", "each takes a socket");
        /// Queries in a row without an answer after which a probe is sent; if that has no answer either, the upstream is asked last.
        /// 0: never.
        max_fails: u32 = Setting::new("max_fails", "3").within("0", "1000", "a burst of lost packets is no outage");
        /// How long an idle TCP or TLS connection to an upstream is kept open.
        connection_idle: Duration = Setting::new("connection_idle", "10s").within("1s", "10m", "RFC 7766, 6.2.3");
        /// How long such a connection gets new queries.
        connection_age: Duration = Setting::new("connection_age", "5m").within("1s", "1d", "RFC 7766, 6.2.3");
        /// Connections to one upstream that are kept without queries; 0 for no limit but `connection_idle`.
        idle_connections: usize = Setting::new("idle_connections", "0").within("0", "100", "there are 8 at most");
        /// The address questions to upstreams of its family are sent from; `none` as the system chooses.
        source_address: Option<IpAddr> = Setting::new("source_address", "none");
        /// Answers after which the next upstream is asked, as after a failure; the last one's counts: `nxdomain`, `nodata`,
        /// `noerror`, `servfail`, `refused`, `other`. After the last three it is asked always.
        failover: Vec<Verdict> = Setting::new("failover", "[]");
        /// Upstreams that are asked when the answer so far is one of these, in turn: `nxdomain nodata then 10.0.0.2`. Behind `then`
        /// there may be a policy and `force_tcp`.
        next: Vec<Next> = Setting::new("next", "[]");
        /// Tries of one question that may fail for want of a connection; 0 for as many as there is time for.
        max_attempts: u32 = Setting::new("max_attempts", "0").within("0", "1000", "time ends before");
        /// Silence after which the next upstream is asked with `policy: sequential`.
        read_timeout: Duration = Setting::new("read_timeout", "2s").within("10ms", "1m", "recursion takes time");
        /// With every upstream failing, questions are answered at once with what is known, and SERVFAIL.
        fail_fast: bool = Setting::new("fail_fast", "false");
        /// How often a failing upstream is probed; unless given, every second, and every 5s the longer it is gone.
        probe_interval: Option<Duration> =
            Setting::new("probe_interval", "none").within("100ms", "1h", "an upstream that is back has to be seen");
        /// The name whose NS records probes ask for.
        probe_name: ZoneName = Setting::new("probe_name", ".");
        /// Probes ask for recursion.
        probe_recursion: bool = Setting::new("probe_recursion", "true");
        /// HTTP method for `https://` upstreams: `post`, or `get`, which HTTP caches on the way may answer.
        doh_method: DohMethod = Setting::new("doh_method", "post");
        /// Options of EDNS that go with each question to upstreams: a code and its data, as in `65518 0x6162` or `0xffee text`; the
        /// data may be `{qname}`, `{qtype}` or `{client_ip}`. `subnet 24 56` sends so many bits of the client's address (RFC 7871).
        /// Answers are kept for all clients: take `cache: false` where they differ.
        edns: Vec<EdnsOption> = Setting::new("edns", "[]");
        /// Servers that look up the names among `upstreams`: addresses, or the path of a resolv.conf. A name is looked up again when
        /// its TTL is over. While that fails its last addresses are asked; the store keeps them (`upstreams.json`). Names of
        /// the cluster are answered from the records. Over TLS the certificate must hold the name, or the one behind `#`.
        resolvers: Vec<UpstreamSource> = Setting::new("resolvers", "[/etc/resolv.conf]");
        /// PEM file with the certificate authorities for `tls://` and `https://` upstreams, read again when it changes. While it is
        /// missing, these upstreams are not asked. Default: those of the system.
        tls_ca: Option<PathBuf> = Setting::new("tls_ca", "none");
        /// PEM file with the certificate, and its chain, that `tls://` and `https://` upstreams are shown, for those that ask for one.
        /// Read again when it or `tls_key` changes. While either is missing at the start, these upstreams are not asked.
        tls_certificate: Option<PathBuf> = Setting::new("tls_certificate", "none");
        /// PEM file with the private key of `tls_certificate`.
        tls_key: Option<PathBuf> = Setting::new("tls_key", "none");
        /// Names of this zone with fixed addresses, as lines of a hosts file.
        hosts: Vec<Host> = Setting::new("hosts", "[]");
        /// A file in the form of /etc/hosts with more such names, read again when it changes or appears.
        hosts_file: Option<PathBuf> = Setting::new("hosts_file", "none");
        /// TTL of answers from `hosts` and `hosts_file`.
        hosts_ttl: Duration = Setting::new("hosts_ttl", "30s").within("0s", "1d", "longer ones outlive the file");
        /// Also answers the reverse names of the addresses in `hosts` and `hosts_file`.
        hosts_reverse: bool = Setting::new("hosts_reverse", "true");
        /// Names looked up under other names, before `template` and `hosts` see them: `exact NAME NAME`, `suffix ZONE ZONE` for
        /// all names in a zone, or `regex PATTERN NAME`, where `{1}` in the name is the first group of the pattern. The first
        /// that fits counts; with `continue` in front, the next ones see the new name. Behind it, `answer name PATTERN NAME`
        /// and `answer value PATTERN NAME` rename owners and targets in the answer.
        /// Other rules: `type FROM TO` asks for another type, `class FROM TO` for another class, `ttl PATTERN LEAST-MOST` bounds TTLs, `rcode PATTERN FROM TO` changes
        /// the code of an answer, `cname PATTERN NAME` looks a CNAME's target up under another name. They fit by the name as the
        /// rules before have left it.
        rewrite: Vec<Rewrite> = Setting::new("rewrite", "[]");
        /// Zones of which the longest that covers a rewritten name answers it, or else this zone; unless given, the zone that the
        /// new name is in.
        rewrite_zones: Vec<ZoneName> = Setting::new("rewrite_zones", "[]");
        /// Which clients may ask, by the first rule that fits: `allow`, `block` (REFUSED), `filter` (an empty answer) or `drop` (no answer), then any of
        /// `zone ZONE`, `type TYPE…` and `net NETWORK…`. Rules see rewritten names, and are not for names of the cluster.
        acl: Vec<Acl> = Setting::new("acl", "[]");
        /// Answers ANY with one HINFO record that says so (RFC 8482), and asks no upstream.
        minimal_any: bool = Setting::new("minimal_any", "false");
        /// Answers of upstreams, `hosts` and `template` begin with another address or mail server each time.
        rotate: bool = Setting::new("rotate", "false");
        /// Networks whose addresses come first in answers of upstreams, `hosts` and `template`, in this order.
        prefer: Vec<Network> = Setting::new("prefer", "[]");
        /// A file of how often which address comes first in such answers, read again when it changes or appears: a name alone on
        /// its line, and below it an address and its weight (1 to 255) on each line. Other addresses weigh 1.
        weights_file: Option<PathBuf> = Setting::new("weights_file", "none");
        /// Maximum bytes of answers over UDP, for clients that announce more. An answer that is longer goes over TCP.
        udp_bytes_max: usize = Setting::new("udp_bytes_max", "1232").within("512", "1232", "RFC 9715");
        /// Answers made of text, before `hosts`: a type or `ANY`, then any of `class CLASS`, `zone ZONE`, `match PATTERN`, `var NAME
        /// EXPRESSION`, `expr EXPRESSION`, `answer RECORD`, `authority RECORD`, `additional RECORD`, `rcode CODE`, `ederror NUMBER TEXT`
        /// and `fallthrough`, as in CoreDNS's template, with all of Go's text/template in records:
        /// `A match "^ip-(.*)[.]example[.]$" answer "{{ .Name }} 60 IN A {{ index .Match 1 }}"`. Words with blanks stand in double
        /// quotes. TTLs are kept within the bounds for cached answers.
        template: Vec<Template> = Setting::new("template", "[]");
        /// Makes IPv6 addresses of IPv4 ones with this prefix where a name has no others (RFC 6147), as in `64:ff9b::/96`.
        dns64: Option<Prefix> = Setting::new("dns64", "none");
        /// Does so also where a name has IPv6 addresses.
        dns64_all: bool = Setting::new("dns64_all", "false");
        /// Does so also for clients that ask over IPv4.
        dns64_over_ipv4: bool = Setting::new("dns64_over_ipv4", "true");
        /// Caches answers of this zone. Without it each query is sent to upstreams, and TTLs are not changed.
        cache: bool = Setting::new("cache", "true");
        /// Keeps answers with records.
        cache_positive: bool = Setting::new("cache_positive", "true");
        /// Keeps answers without records.
        cache_negative: bool = Setting::new("cache_negative", "true");
        /// TTLs of kept answers read as they came, and are not counted down.
        keep_ttl: bool = Setting::new("keep_ttl", "false");
        /// How long a failure is remembered, `0s` for not at all; unless given, 1s, and up to 5s while it goes on (RFC 9520).
        failure_ttl: Option<Duration> = Setting::new("failure_ttl", "none").within("0s", "5m", "RFC 2308, 7.1");
        /// TTL of expired answers.
        stale_ttl: Duration = Setting::new("stale_ttl", "30s").within("0s", "1d", "RFC 8767, 4");
        /// `cache.max_ttl` for this zone.
        max_ttl: Option<Duration> = Setting::new("max_ttl", "none").within("0s", "7d", "RFC 8767, 4");
        /// `cache.min_ttl` for this zone.
        min_ttl: Option<Duration> =
            Setting::new("min_ttl", "none").within("0s", "1h", "longer ones keep dead addresses in use");
        /// `cache.negative_ttl` for this zone.
        negative_ttl: Option<Duration> = Setting::new("negative_ttl", "none").within("0s", "3h", "RFC 2308, 5");
        /// Minimum TTL of cached negative answers of this zone.
        min_negative_ttl: Duration =
            Setting::new("min_negative_ttl", "0s").within("0s", "1h", "longer ones hide what is new");
        /// `cache.serve_stale` for this zone.
        serve_stale: Option<bool> = Setting::new("serve_stale", "none");
        /// `cache.stale_max` for this zone.
        stale_max: Option<Duration> = Setting::new("stale_max", "none").within("0s", "30d", "RFC 8767, 5");
        /// `cache.client_timeout` for this zone.
        client_timeout: Option<Duration> = Setting::new("client_timeout", "none").within("0s", "5s", "RFC 8767, 5");
        /// Answers with an address in these networks count as failures of the upstream: private networks in a public zone (DNS
        /// rebinding), `0.0.0.0`, the address of a block page.
        reject: Vec<Network> = Setting::new("reject", "[]");
        /// The effect of NXDOMAIN and NODATA for a name that was good. `believe`: the name is gone. `confirm`: it is gone when two upstreams
        /// say so, or one twice, 2s apart. `hold` or `hold DURATION`: its last good answer is served so long (1h), with a TTL of at
        /// most 30s; `holdfast guard` lists such names and ends their holds. `auto`: `hold 1h` for names that were good for 10m and
        /// were asked in the last day, else `confirm`: a mistake of three hours, as on 2025-10-20 at AWS, is felt after the first. In the
        /// cluster's `zone`, where services go and come, it is `confirm`, as for `cluster_fallback`. For zones of cloud APIs set `hold 6h`, or put the names on `keep`. Records that replace others are used at once always.
        denials: Denials = Setting::new("denials", "auto").within("hold 1s", "hold 30d", "a name that is gone must go");
        /// `cache.prefetch` for this zone.
        prefetch: Option<bool> = Setting::new("prefetch", "none");
    }
}

settings! {
    /// Addresses with forwarding of their own.
    pub struct View {
        /// The addresses. Default port: 53.
        listen: Vec<Addr<53>> = Setting::new("listen", "[]").required();
        /// As `encrypted.tls`, for this view.
        tls: Vec<Addr<853>> = Setting::new("tls", "[]");
        /// As `encrypted.https`, for this view.
        https: Vec<Addr<443>> = Setting::new("https", "[]");
        /// As `encrypted.quic`, for this view.
        quic: Vec<Addr<853>> = Setting::new("quic", "[]");
        /// As `forward`, for queries to these addresses.
        forward: Vec<ForwardZone> = Setting::new("forward", "[]").required();
    }
}

impl Value for View {
    fn kind() -> String {
        "mapping".into()
    }

    fn inner() -> Vec<Described> {
        let mut rows = Self::described();
        // Their settings are described once, at `forward`.
        for row in &mut rows {
            row.inner.clear();
        }
        rows
    }

    fn read(node: &Node, key: &str, _bounds: Option<Bounds>, errors: &mut Gather) -> Option<Self> {
        read(node, key, errors, |view: &Self| {
            view.listen.is_empty().then(|| "a view takes at least one address".into())
        })
    }

    fn show(&self) -> Shown {
        self.shown(table::Role::Agent)
    }
}

impl Value for ForwardZone {
    fn kind() -> String {
        "mapping".into()
    }

    fn inner() -> Vec<Described> {
        Self::described()
    }

    fn read(node: &Node, key: &str, _bounds: Option<Bounds>, errors: &mut Gather) -> Option<Self> {
        read(node, key, errors, |zone: &Self| {
            let fault = match (zone.upstreams.is_empty(), &zone.answer) {
                (true, None) => "no upstreams",
                (false, Some(_)) => "both upstreams and an answer",
                _ => return None,
            };
            Some(format!("zone {:?} has {fault}", zone.zone.as_str()))
        })
    }

    fn show(&self) -> Shown {
        self.shown(table::Role::Agent)
    }
}

/// Reads a mapping whose settings fit together: `fault` says why they do not.
fn read<S: Section + Default>(
    node: &Node,
    key: &str,
    errors: &mut Gather,
    fault: impl FnOnce(&S) -> Option<String>,
) -> Option<S> {
    let mut section = S::default();
    let before = errors.len();
    table::read(&mut section, node, None, key, errors);
    if errors.len() == before
        && let Some(fault) = fault(&section)
    {
        errors.add(node.place, key, fault);
    }
    (errors.len() == before).then_some(section)
}
