//! Every setting holdfast has, each defined once; those of a forward zone and of a view stand in `forward`. `docs/config.md`,
//! `--help` and the effective configuration come from these rows.

mod forward;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

pub use self::forward::{ForwardZone, View};
use super::{
    table::{Setting, settings},
    types::{Addr, Bytes, HostPort, InterfaceName, KeepList, LogFormat, Tls, ZoneName},
};
use crate::{
    dns::{
        Allow,
        forward::{AnswerClass, UpstreamSource},
    },
    source::EndpointsMode,
    zone::{Compat, Pods},
};

settings! {
    /// The settings of a process, as given or by default.
    pub struct Settings {
        /// The cluster's DNS zone.
        zone: ZoneName = Setting::new("zone", "cluster.local").flag("--zone", "ZONE");
        /// Addresses that answer DNS over UDP and TCP. Default port: 53.
        listen: Vec<Addr<53>> = Setting::new("listen", "[127.0.0.1]").flag("--listen", "IP[:PORT]").agent();
        /// Addresses that serve records to agents and other hubs. Default port: 7443.
        listen_stream: Vec<Addr<7443>> = Setting::new("listen", "[0.0.0.0]").flag("--listen", "IP[:PORT]").hub();
        /// Addresses at which agents and other hubs reach this hub; the hub sends them to all of them. Default: the addresses
        /// in `listen`, with the pod's address (environment variable `POD_IP`) in place of `0.0.0.0` and `::`.
        advertise: Vec<HostPort> = Setting::new("advertise", "[]").flag("--advertise", "HOST:PORT").hub();
        /// The name of this process, unique among all hubs and agents. Default: the machine's hostname; for a hub, followed by
        /// the port in `listen`.
        name: Option<String> = Setting::new("name", "none").flag("--name", "NAME");
        /// Pod names such as `10-1-2-3.prod.pod.cluster.local`. `insecure`: answered for every address, if the namespace exists.
        /// `disabled`: NXDOMAIN.
        pods: Pods = Setting::new("pods", "insecure").flag("--pods", "insecure|disabled").agent();
        /// The endpoints kept: those of headless services, or all. `all` adds the names that CoreDNS gives to endpoints
        /// behind a cluster IP; it takes more memory, and a watch of every EndpointSlice.
        endpoints: EndpointsMode = Setting::new("endpoints", "headless").flag("--endpoints", "headless|all");
        /// TTL of answers from the cluster zone, in whole seconds.
        ttl: Duration = Setting::new("ttl", "5s").within("0s", "1h", "longer ones keep dead addresses in use").agent();
        /// Answers from records older than this say so (EDE 3, RFC 8914) and carry a TTL of at most 30s. They are never refused.
        /// A hub probes the apiserver as often as its own `stale_after` takes (every 5s to 30s): below 45s, set it on hubs and agents alike.
        stale_after: Duration =
            Setting::new("stale_after", "60s").within("20s", "30d", "behind two hubs, records of a healthy cluster are up to 20s old");
        /// Networks whose reverse names holdfast answers with authority: those of services and pods.
        reverse: Vec<IpNet> = Setting::new("reverse", "[]").agent();
        /// `coredns`: gives CoreDNS's answers where those of holdfast differ, to compare them during a migration.
        compat: Compat = Setting::new("compat", "none").agent();
        /// Answers DNS cookies (RFC 7873, RFC 9018), so that a client can tell real answers from forged ones. Clients without a
        /// cookie are answered too. The secret is in the store (`cookie-secret`); if that file is removed, the next start makes a new one.
        cookies: bool = Setting::new("cookies", "false").agent();
        /// Upstreams for names of the cluster while there are no records: at the first start, with nothing on disk and no source.
        /// Unless given, the cluster's DNS at the first of the services `holdfast-upstream`, `kube-dns-upstream` and `kube-dns` that
        /// the kubelet tells of and that is not an address of this agent.
        cluster_fallback: Vec<UpstreamSource> = Setting::new("cluster_fallback", "[]").agent().reload();
        /// Upstreams for names outside the cluster that no `forward` zone covers; the same as a `forward` entry for the root zone.
        /// While `/etc/resolv.conf` names no server, only names of the cluster are answered; all others get SERVFAIL.
        upstream: Vec<UpstreamSource> =
            Setting::new("upstream", "[/etc/resolv.conf]").flag("--upstream", "IP[:PORT]").agent().reload();

        /// Hubs to follow, in the order of preference. Only one source may be set.
        source_hub_addresses: Vec<HostPort> = Setting::new("source.hub.addresses", "[]").flag("--hub", "HOST:PORT").reload();
        /// Kubeconfig file of the apiserver to watch; `in-cluster` for the pod's service account.
        source_kubernetes_kubeconfig: Option<PathBuf> =
            Setting::new("source.kubernetes.kubeconfig", "none").flag("--kubeconfig", "FILE").reload();
        /// File or directory with namespaces, services and EndpointSlices in YAML or JSON, as
        /// `kubectl get ns,svc,endpointslices -A -o yaml` prints them. Read again when it changes.
        source_manifests_path: Option<PathBuf> =
            Setting::new("source.manifests.path", "none").flag("--manifests", "PATH").reload();
        /// No source and no records: names of the cluster are forwarded like all others, by the `forward` zone that covers them,
        /// as `holdfast node-cache` does without `--hub`.
        source_none: bool = Setting::new("source.none", "false").agent();
        /// The Lease by which the hubs elect a leader, in the namespace of the kubeconfig's context or of the pod. Only the leader
        /// watches the apiserver; the other hubs follow it. `none`: this hub always watches.
        lease_name: Option<String> = Setting::new("lease.name", "holdfast-hub").hub();
        /// Time without a renewal after which another hub takes the lease.
        lease_duration: Duration =
            Setting::new("lease.duration", "15s").within("3s", "5m", "a holder renews every fourth part of it").hub();
        /// Directory with `ca.crt`, `tls.crt` and `tls.key` for connections between hubs and agents, and `ca.crl` if certificates
        /// are revoked; read again when they change. `insecure` for no TLS, on loopback only.
        tls: Option<Tls> = Setting::new("tls", "none").flag("--tls", "DIR");

        /// Directory of the records on disk; `none`: nothing is kept on disk.
        store_path: Option<PathBuf> = Setting::new("store.path", "/var/lib/holdfast").flag("--store", "DIR");

        /// A list may always miss this many services. If it misses more, the guard holds them: they are served still, and reported.
        guard_list_services_min: usize = Setting::new("guard.list_services_min", "50");
        /// A list may miss this percentage of services.
        guard_list_percent: u8 = Setting::new("guard.list_percent", "2").within("0", "100", "percent");
        /// Records of one kind (headless services, endpoints, namespaces …) are held if a list misses all of them and they are at
        /// least this many.
        guard_class_min: usize = Setting::new("guard.class_min", "20");
        /// Time from a list that is held to the second list that may confirm it.
        guard_confirm_after: Duration =
            Setting::new("guard.confirm_after", "10s").within("1s", "1h", "a restarting apiserver says the same twice");
        /// If a list misses a higher percentage of services, a second list does not confirm it: only `holdfast guard release` does.
        guard_confirm_percent_max: u8 = Setting::new("guard.confirm_percent_max", "20").within("0", "100", "percent");
        /// Maximum difference of two lists that confirm each other, in percent of services.
        guard_confirm_tolerance_percent: u8 =
            Setting::new("guard.confirm_tolerance_percent", "1").within("0", "100", "percent");
        /// Fewer deleted services within `guard.deletes_within` are never held.
        guard_deletes_min: usize = Setting::new("guard.deletes_min", "20");
        /// A higher percentage of services deleted within `guard.deletes_within` is held.
        guard_deletes_percent: u8 = Setting::new("guard.deletes_percent", "20").within("0", "100", "percent");
        /// The period in which deleted services are counted.
        guard_deletes_within: Duration = Setting::new("guard.deletes_within", "60s").within("1s", "1h", "memory");
        /// How long deleted services are held; then they are removed if a list on a new connection misses them too.
        guard_deletes_held_for: Duration =
            Setting::new("guard.deletes_held_for", "10m").within("10s", "1d", "an operator must have time to look");
        /// Fewer services deleted together with their namespaces are never held.
        guard_meant_min: usize = Setting::new("guard.meant_min", "50");
        /// This percentage of services deleted together with their namespaces within `guard.deletes_within` is held like other deletes.
        guard_meant_percent: u8 = Setting::new("guard.meant_percent", "50").within("0", "100", "percent");
        /// Namespaces whose services are always held when the namespace is deleted.
        guard_protect: Vec<String> = Setting::new("guard.protect", "[kube-system, default]");
        /// Removed endpoints are held only if more services than this lose some.
        guard_losses_services_min: usize = Setting::new("guard.losses_services_min", "50");
        /// A higher percentage of endpoints removed within `guard.losses_within` is held.
        guard_losses_percent: u8 = Setting::new("guard.losses_percent", "30").within("0", "100", "percent");
        /// The period in which removed endpoints are counted.
        guard_losses_within: Duration = Setting::new("guard.losses_within", "30s").within("1s", "1h", "memory");
        /// Maximum time that removed endpoints are held.
        guard_losses_held_for: Duration =
            Setting::new("guard.losses_held_for", "10m").within("0s", "1d", "addresses of pods are used again");

        /// Upstreams and their options by zone; the longest zone that covers the name is used.
        forward: Vec<ForwardZone> = Setting::new("forward", "[]").agent().reload();
        /// More addresses that answer DNS, each with `forward` zones of its own. Names of the cluster have the same answers
        /// there.
        views: Vec<View> = Setting::new("views", "[]").agent();
        /// Maximum time to answer a query from upstreams; then the client gets SERVFAIL or an expired answer.
        upstream_timeout: Duration =
            Setting::new("upstream_timeout", "5s").within("100ms", "30s", "stub resolvers give up after 5s").agent().reload();
        /// Maximum memory for cached answers, overhead included.
        cache_max_bytes: Bytes =
            Setting::new("cache.max_bytes", "64MiB").within("1MiB", "64GiB", "smaller holds too little to help").agent();
        /// Maximum TTL of cached answers.
        cache_max_ttl: Duration = Setting::new("cache.max_ttl", "1h").within("0s", "7d", "RFC 8767, 4").agent().reload();
        /// Minimum TTL of cached answers.
        cache_min_ttl: Duration =
            Setting::new("cache.min_ttl", "0s").within("0s", "1h", "longer ones keep dead addresses in use").agent().reload();
        /// Maximum TTL of cached negative answers (NXDOMAIN, NODATA).
        cache_negative_ttl: Duration =
            Setting::new("cache.negative_ttl", "30s").within("0s", "3h", "RFC 2308, 5").agent().reload();
        /// Serves expired answers while the upstreams of a zone fail (RFC 8767).
        cache_serve_stale: bool = Setting::new("cache.serve_stale", "true").agent().reload();
        /// How long a client waits for upstreams before it gets an expired answer; `0s`: it gets that at once, and the cache asks again afterwards.
        cache_client_timeout: Duration =
            Setting::new("cache.client_timeout", "1800ms").within("0s", "5s", "RFC 8767, 5").agent().reload();
        /// How long an expired answer is served while an upstream of the zone answers other names. While every upstream
        /// fails it has no end.
        cache_stale_max: Duration = Setting::new("cache.stale_max", "1d").within("0s", "30d", "RFC 8767, 5").agent().reload();
        /// `false` for zones without `denials` of their own to `believe`.
        cache_confirm_negative: bool = Setting::new("cache.confirm_negative", "true").agent().reload();
        /// After NXDOMAIN for a name, answers NXDOMAIN for all names below it without asking (RFC 8020). Some servers send NXDOMAIN
        /// for a name that has names below it, against the RFC: leave it off with those.
        cache_nxdomain_cut: bool = Setting::new("cache.nxdomain_cut", "false").agent().reload();
        /// How often cached answers are written to the store's directory; they are also written at exit.
        cache_save_interval: Duration =
            Setting::new("cache.save_interval", "60s").within("1s", "1d", "shorter wears the disk, longer loses more in a crash").agent();
        /// Asks upstreams again for often used names before their answers expire.
        cache_prefetch: bool = Setting::new("cache.prefetch", "true").agent().reload();
        /// Names outside the cluster without which a cluster does not recover: registry, identity provider, pager, git host, cloud APIs.
        /// Their addresses are resolved ahead, kept in the store, never given up for a denial, and answered for as long as no
        /// upstream answers. `status` names those that cannot be resolved. Also for `views`, by their own upstreams, and for zones with
        /// `cache: false`, where the kept answer is given when upstreams fail or deny.
        keep: KeepList = Setting::new("keep", "[]").agent().reload();
        /// Answers A and AAAA of `external.name.ns.svc.cluster.local` with a CNAME to `external.name` and its addresses, if the
        /// namespace exists and has no service called `name`: one query instead of five or more (`ndots:5`).
        /// The risk: a name that looks like one of a service (`web.db` for `web` of a service `db` that does not exist yet) is sent
        /// to upstreams, and if a public name is the same, the client gets its address. Leave it off where names of services are
        /// also top-level domains, such as `dev` or `app`.
        search_path_completion: bool = Setting::new("search_path_completion", "false").agent();

        /// Unix socket for the tools.
        admin: PathBuf = Setting::new("admin", "/run/holdfast/agent.sock").flag("--admin", "SOCKET");
        /// Address of `/health` and `/ready`; `none` for no listener.
        http: Option<Addr<8080>> = Setting::new("http", "127.0.0.1:8080").flag("--http", "IP:PORT");
        /// Address of `/metrics`; `none` for no listener.
        metrics: Option<Addr<9253>> = Setting::new("metrics", "127.0.0.1:9253").flag("--metrics", "IP:PORT");

        /// More addresses of `/health` and `/ready`.
        http_more: Vec<Addr<8080>> = Setting::new("http_more", "[]");
        /// More addresses of `/metrics`.
        metrics_more: Vec<Addr<9253>> = Setting::new("metrics_more", "[]");
        /// Networks that may read `/health` and `/ready`, besides this node itself. Empty: all networks.
        http_allow: Vec<IpNet> = Setting::new("http_allow", "[]");
        /// Networks that may read `/metrics`, besides this node itself. Empty: all networks.
        metrics_allow: Vec<IpNet> = Setting::new("metrics_allow", "[]");
        /// `coredns`: metrics also have CoreDNS's names, for dashboards and alerts made for CoreDNS and NodeLocal DNSCache.
        metrics_compat: Compat =
            Setting::new("metrics_compat", "none").flag("--metrics-compat", "none|coredns").agent();

        /// Maximum open TCP connections.
        tcp_max_connections: usize = Setting::new("tcp.max_connections", "1000")
            .within("10", "100000", "each takes a file descriptor").agent();
        /// Maximum open TCP connections from one address.
        tcp_max_per_source: usize = Setting::new("tcp.max_per_source", "100")
            .within("1", "100000", "RFC 9210, 4.2").agent();
        /// How long an idle TCP connection is kept open.
        tcp_idle: Duration = Setting::new("tcp.idle", "10s").within("1s", "10m", "RFC 7766, 6.2.3").agent();
        /// How long the rest of a query that has begun may take over TCP.
        tcp_read: Duration = Setting::new("tcp.read", "2s").within("100ms", "60s", "RFC 7766, 10").agent();
        /// How long a TCP client may take no byte of its answers.
        tcp_write: Duration = Setting::new("tcp.write", "5s").within("100ms", "60s", "RFC 7766, 10").agent();

        /// Addresses that answer DNS over TLS (DoT, RFC 7858). Default port: 853.
        encrypted_tls: Vec<Addr<853>> = Setting::new("encrypted.tls", "[]").agent();
        /// Addresses that answer DNS over HTTPS (DoH, RFC 8484) at `/dns-query`, HTTP/2 only. Default port: 443.
        encrypted_https: Vec<Addr<443>> = Setting::new("encrypted.https", "[]").agent();
        /// Addresses that answer DNS over QUIC (DoQ, RFC 9250). Default port: 853.
        encrypted_quic: Vec<Addr<853>> = Setting::new("encrypted.quic", "[]").agent();
        /// Directory with `tls.crt` and `tls.key` for encrypted DNS, as a Kubernetes TLS secret holds them or
        /// `holdfast certs --dns-name` makes them; read again when they change. While it is missing, handshakes are refused. Clients find encrypted DNS by the DNS names
        /// that the certificate has at the start (DDR, RFC 9462).
        encrypted_certificate: Option<PathBuf> = Setting::new("encrypted.certificate", "none").agent();

        /// Clients that are answered: networks, and `node-local` for this node and its pods. Queries of other clients are dropped
        /// and counted. Empty: `node-local` on link-local addresses and those of `node.local_ips`, all clients on the other addresses.
        allow: Vec<Allow> = Setting::new("allow", "[]").flag("--allow", "node-local|CIDR").agent();

        /// Maximum UDP answers per second to one public network (a /24, or a /56 of IPv6), at addresses that answer all clients.
        /// Above that, half of the queries get an empty answer with TC (ask over TCP), the other half none. `0`: no limit.
        open_rate: u32 = Setting::new("open_rate", "50").within("0", "1000000", "a source address can be forged").agent();

        /// The interface that carries `node.local_ips`: of type dummy, or a bridge without ports where the kernel has no dummy.
        node_interface: InterfaceName = Setting::new("node.interface", "nodelocaldns").agent();
        /// Creates the interface with its addresses at start, and again if it is removed. It stays when the process ends.
        node_setup_interface: bool =
            Setting::new("node.setup_interface", "false").flag("--setup-interface", "BOOL").agent();
        /// Adds nftables rules (table `holdfast`) that disable connection tracking for `node.local_ips`, at start, and again if they are
        /// removed. They stay when the process ends.
        node_setup_notrack: bool =
            Setting::new("node.setup_notrack", "false").flag("--setup-notrack", "BOOL").agent();
        /// The addresses of the interface and of the rules; those of `listen` unless given, without loopback and wildcards.
        node_local_ips: Vec<IpAddr> = Setting::new("node.local_ips", "[]").agent();
        /// At an orderly end, leaves rules by which the kernel sends queries to the link-local addresses to `cluster_fallback` until the next
        /// start (without one: leaves the interface with these addresses); `false`: removes everything. What another process listens at is never
        /// removed.
        node_skip_teardown: bool = Setting::new("node.skip_teardown", "true").agent();
        /// If the agent answers nothing for this long, or no process listens for 1 s, or the agent denies `kubernetes.default.svc` while the
        /// cluster's DNS has it, queries to all its addresses go to the cluster's DNS until the agent answers again; not if the cluster's DNS does
        /// not answer either. `none`: never.
        node_intercept_failsafe: Option<Duration> = Setting::new("node.intercept_failsafe", "3s")
            .within("1s", "1h", "a start takes less than a second").flag("--intercept-failsafe", "DURATION").agent();
        /// Addresses that the cluster's DNS has too. The agent takes them once it answers, and gives them back while it does not. Those of
        /// `node.local_ips` that are not link-local unless given.
        node_failsafe_ips: Vec<IpAddr> = Setting::new("node.failsafe_ips", "[]").agent();
        /// The cluster's DNS, at an address that is not one of `node.local_ips`: gets the queries while nothing is answered here.
        /// Unless given, the servers of `cluster_fallback`.
        node_fallback: Vec<Addr<53>> = Setting::new("node.fallback", "[]").agent();
        /// Where the agent puts a copy of itself at its start, for people on the node: a file on a hostPath, such as
        /// `/var/lib/holdfast-tools/holdfast`. In a directory of its own, which the agent cannot write to once it answers.
        node_tool_path: Option<PathBuf> = Setting::new("node.tool_path", "none").agent();
        /// Writes the names of `keep` with their addresses as one block into this hosts file, so that processes of the node (the
        /// kubelet, the container runtime) reach them without DNS. The rest of the file stays byte for byte. The file is replaced in one
        /// step: in a container mount its directory, such as `/etc` of the host. The agent may then write to that directory. The block
        /// stays when the agent ends, unless `node.skip_teardown` is `false`, and goes with `holdfast node teardown`.
        node_hosts_file: Option<PathBuf> = Setting::new("node.hosts_file", "none").agent();
        /// Drops rights after the start: capabilities, system calls, write access outside the store and the admin socket, read
        /// access to home directories and secrets of the system's users. `docs/security.md` has the list.
        sandbox: bool = Setting::new("sandbox", "true").flag("--sandbox", "BOOL");

        /// Lines that are logged, as `level` or `target=level,…` (trace, debug, info, warn, error).
        log_filter: String = Setting::new("log.filter", "info").reload();
        /// Logs one in N queries for outside names, with the name and the server that answered; 0: none.
        log_query_every: u32 = Setting::new("log.query_every", "0").agent().reload();
        /// Answers of which queries are logged: `success`, `denial` (NXDOMAIN or no records), `error`; `[]`: all.
        log_query_classes: Vec<AnswerClass> = Setting::new("log.query_classes", "[]").agent().reload();
        /// Unix socket of a dnstap collector that gets the answers to names outside the cluster (`CLIENT_RESPONSE`, Frame
        /// Streams); `none`: no collector.
        log_dnstap: Option<PathBuf> = Setting::new("log.dnstap", "none").agent();
        /// Sends one in N answers to the collector. An answer that is sent is made off the fast path.
        log_dnstap_every: u32 = Setting::new("log.dnstap_every", "1").within("1", "1000000", "`log.dnstap` turns it off").agent();
        /// Format of log lines.
        log_format: LogFormat = Setting::new("log.format", "text");
    }
}

impl Settings {
    /// The addresses that serve the stream.
    pub fn stream_addresses(&self) -> Vec<SocketAddr> {
        self.listen_stream.iter().map(|address| address.0).collect()
    }

    /// The addresses that answer DNS, those of views left out.
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        self.listen.iter().map(|address| address.0).collect()
    }

    /// The same, and those of the views.
    pub fn every_listen_address(&self) -> Vec<SocketAddr> {
        let views = self.views.iter().flat_map(|view| view.listen.iter().map(|address| address.0));
        self.listen_addresses().into_iter().chain(views).collect()
    }
}
