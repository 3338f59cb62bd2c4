//! docs/migration.md, walked through on a node made of network namespaces: nodelocaldns, drop-in, hub, and back. What each stage
//! is started with comes from `deploy/`.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{
    deploy::yaml,
    node::rig::{LINK_LOCAL, Node, VIP, have},
    support::process::Agent,
};

/// The service in front of CoreDNS that no node has on an interface.
const UPSTREAM: &str = "10.96.0.99";
const HUB: &str = "10.96.0.11";
/// What a name of the cluster answers if CoreDNS is asked, and if the hub's records are.
const BY_COREDNS: &str = "10.96.7.1";
const BY_HUB: &str = "10.96.7.2";
const WHO: &str = "who.prod.svc.cluster.local";
const OUTSIDE: &str = "www.example.org";

/// The cluster as somebody sees it who says where a service is.
fn cluster(address: &str) -> String {
    let service = |namespace: &str, name: &str, ip: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{clusterIP: {ip}, clusterIPs: [{ip}], ports: [{{name: x, port: 80, protocol: TCP}}]}}\n---\n"
        )
    };
    service("default", "kubernetes", "10.96.0.1") + &service("prod", "who", address)
}

/// A process that is not the agent of the node. Killed when dropped.
struct Other(Child);

impl Other {
    /// Runs it, and comes back once this stands in its log.
    fn spawn(mut command: Command, text: &str) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut seen = Vec::new();
        while !seen.last().is_some_and(|line: &String| line.contains(text)) {
            seen.push(log.next().unwrap_or_else(|| panic!("no {text:?} in {seen:#?}")));
        }
        std::thread::spawn(move || log.for_each(drop));
        Self(child)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct World {
    node: Node,
    /// The arguments and the Corefile of `deploy/kustomize/overlays/drop-in`.
    arguments: Vec<String>,
}

impl World {
    fn new() -> Option<Self> {
        let node = Node::new()?;
        if !have("dig") || !have("curl") {
            return None;
        }
        for ip in [VIP, UPSTREAM, HUB] {
            node.ip("out", "link set lo up");
            node.ip("out", &format!("addr add {ip}/32 dev lo"));
        }
        let forward = ["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"];
        assert!(node.command("node", "sh", &forward).status().unwrap().success());
        let manifest =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kustomize/overlays/drop-in/node-local-dns.yaml");
        let pillars = |text: &str| {
            let filled = [("LOCAL__DNS", LINK_LOCAL), ("DNS__SERVER", VIP), ("DNS__DOMAIN", "cluster.local")];
            filled
                .iter()
                .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("__PILLAR__{name}__"), value))
        };
        let objects = yaml::documents(&pillars(&yaml::read(&manifest)));
        let find = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
        let home = node.home.path();
        fs::write(home.join("Corefile.base"), yaml::text(find("ConfigMap"), "/data/Corefile")).unwrap();
        fs::create_dir(home.join("kube-dns")).unwrap();
        fs::write(home.join("kube-dns/upstreamNameservers"), "[\"192.0.2.1\"]").unwrap();
        let arguments = find("DaemonSet").pointer("/spec/template/spec/containers/0/args").and_then(Value::as_array);
        let mut arguments: Vec<String> =
            arguments.unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect();
        // Files of a container, which these namespaces have not; the fixed ones first.
        let conf = arguments.iter().position(|word| word == "-conf").unwrap();
        arguments[conf + 1] = home.join("Corefile").display().to_string();
        for (flag, file) in [
            ("-basecorefile", "Corefile.base"),
            ("-kubednscm", "kube-dns"),
            ("--store", "store"),
            ("--admin", "agent.sock"),
        ] {
            arguments.extend([flag.to_owned(), home.join(file).to_str().unwrap().to_owned()]);
        }
        Some(Self { node, arguments })
    }

    fn path(&self, name: &str) -> String {
        self.node.home.path().join(name).to_str().unwrap().to_owned()
    }

    /// CoreDNS behind its services, and the resolver of the world outside.
    fn coredns(&self) -> Other {
        fs::write(self.path("coredns.yaml"), cluster(BY_COREDNS)).unwrap();
        let outside = format!(
            "allow: [0.0.0.0/0]\nforward:\n  - {{ zone: ., answer: nxdomain, hosts: [198.51.100.7 {OUTSIDE}] }}\n"
        );
        fs::write(self.path("outside.yaml"), outside).unwrap();
        let listen = format!("{VIP},{UPSTREAM},192.0.2.1");
        let (config, manifests, admin) =
            (self.path("outside.yaml"), self.path("coredns.yaml"), self.path("coredns.sock"));
        let flags = ["--config", &config, "--manifests", &manifests, "--admin", &admin, "--listen", &listen];
        let none = ["--store", "none", "--http", "none", "--metrics", "none", "--sandbox", "false"];
        let words = [&["agent"][..], &flags, &none].concat();
        Other::spawn(self.node.holdfast("out", &words), "records complete")
    }

    fn hub(&self) -> Other {
        fs::write(self.path("hub.yaml"), cluster(BY_HUB)).unwrap();
        let (manifests, admin, tls) = (self.path("hub.yaml"), self.path("hub.sock"), self.path("certs/hub"));
        let words =
            ["hub", "--manifests", &manifests, "--admin", &admin, "--tls", &tls, "--listen", &format!("{HUB}:7443")];
        let none = ["--store", "none", "--http", "none", "--metrics", "none"];
        Other::spawn(self.node.holdfast("out", &[&words[..], &none].concat()), "records complete")
    }

    /// The container of the `DaemonSet`.
    fn node_cache(&self, more: &[&str]) -> Agent {
        let words: Vec<&str> = self.arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let mut command = self.node.holdfast("node", &words);
        command.env("KUBE_DNS_UPSTREAM_SERVICE_HOST", UPSTREAM).arg0("ip");
        Agent::spawn(&mut command)
    }

    fn dig(&self, from: &str, server: &str, name: &str) -> String {
        let words = ["+short", "+time=2", "+tries=2", &format!("@{server}"), name];
        let done = self.node.command(from, "dig", &words).output().unwrap();
        String::from_utf8(done.stdout).unwrap().trim_end().to_owned()
    }

    /// What pods are told, at both addresses: of a name of the cluster, and of one outside.
    fn answers(&self, who: &str) {
        for (pod, server) in [("pod1", LINK_LOCAL), ("pod2", LINK_LOCAL), ("pod1", VIP), ("pod2", VIP), ("node", VIP)] {
            assert_eq!(self.dig(pod, server, WHO), who, "{pod} {server}");
            assert_eq!(self.dig(pod, server, OUTSIDE), "198.51.100.7", "{pod} {server}");
        }
    }

    /// What pods are told by the cluster's DNS itself.
    fn answers_without_us(&self) {
        for pod in ["pod1", "pod2"] {
            assert_eq!(self.dig(pod, VIP, WHO), BY_COREDNS, "{pod}");
        }
    }

    fn holdfast(&self, words: &[&str]) -> (Option<i32>, String) {
        let done = self.node.holdfast("node", words).output().unwrap();
        (done.status.code(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
    }

    fn status(&self) -> String {
        self.holdfast(&["status", "--admin", &self.path("agent.sock")]).1
    }
}

#[test]
fn every_stage_answers_and_so_does_every_way_back() {
    let Some(world) = World::new() else { return };
    let coredns = world.coredns();
    world.answers_without_us();

    // Before you begin: every answer will be as before.
    let base = world.path("Corefile.base");
    let import = ["import-corefile", &base, "--localip", &format!("{LINK_LOCAL},{VIP}"), "--cluster-dns", UPSTREAM];
    let (code, told) = world.holdfast(&import);
    assert_eq!(code, Some(0), "{told}");

    // Stage 1 leaves its interface behind when its pod is replaced.
    let made = world.node.ip("node", "link add nodelocaldns type dummy").status.success()
        || world.node.ip("node", "link add nodelocaldns type bridge").status.success();
    assert!(made);
    for words in [
        "link set nodelocaldns up",
        "addr add 169.254.20.10/32 dev nodelocaldns",
        "addr add 10.96.0.10/32 dev nodelocaldns",
    ] {
        world.node.ip("node", words);
    }

    // Stage 2, and what is looked at there.
    let drop_in = world.node_cache(&[]);
    world.answers(BY_COREDNS);
    assert!(world.node.http("169.254.20.10:8080", "/health").starts_with("HTTP/1.1 200 "));
    let metrics = world.node.http("127.0.0.1:9253", "/metrics");
    assert!(
        metrics.contains("\nholdfast_corefile_unhonoured 0\n") && metrics.contains("\ncoredns_dns_requests_total{")
    );
    assert!(world.status().contains("agent"), "{}", world.status());

    // Back to stage 1: nothing of ours is left, and CoreDNS is asked.
    assert!(drop_in.terminate().success());
    assert_eq!(world.node.addresses(), "");
    world.answers_without_us();

    // Stage 3: a hub, and two flags more. The new pod comes up beside the old one.
    let mut drop_in = world.node_cache(&[]);
    let (code, told) = world.holdfast(&["certs", "--out", &world.path("certs")]);
    assert_eq!(code, Some(0), "{told}");
    let hub = world.hub();
    let (address, tls) = (format!("{HUB}:7443"), world.path("certs/agent"));
    let with_hub = ["--hub", &address, "--tls", &tls];
    let mut following = world.node_cache(&with_hub);
    following.wait_for("records complete");
    drop_in.wait_for("the new process is ready");
    assert!(drop_in.terminate().success());
    world.answers(BY_HUB);
    assert!(world.status().contains(&format!("hub {address}")), "{}", world.status());
    // Names that the records do not have are answered, not asked of CoreDNS.
    assert_eq!(world.dig("pod1", VIP, "nothing.prod.svc.cluster.local"), "");
    drop(coredns);
    for server in [LINK_LOCAL, VIP] {
        assert_eq!(world.dig("pod1", server, WHO), BY_HUB, "CoreDNS is out of the path");
    }
    drop(hub);
    assert_eq!(world.dig("pod1", VIP, WHO), BY_HUB, "and so is the hub");
    let _coredns = world.coredns();
    let _hub = world.hub();

    // An agent of its own, with the configuration that the Corefile comes to.
    let (code, config) = world.holdfast(&[&import[..], &["--hub"]].concat());
    assert_eq!(code, Some(0), "{config}");
    let own = format!(
        "{config}store: {{ path: {} }}\nadmin: {}\nnode: {{ setup_interface: true, setup_notrack: true }}\n",
        world.path("store"),
        world.path("agent.sock")
    );
    fs::write(world.path("own.yaml"), own).unwrap();
    let own = world.path("own.yaml");
    let words = [&["agent", "--config", &own][..], &with_hub].concat();
    let agent = Agent::spawn(&mut world.node.holdfast("node", &words));
    following.wait_for("the new process is ready");
    assert!(following.terminate().success());
    for server in [LINK_LOCAL, VIP] {
        assert_eq!(world.dig("pod1", server, WHO), BY_HUB);
    }

    // Back to stage 2, and to stage 1.
    let mut agent = agent;
    let drop_in = world.node_cache(&[]);
    agent.wait_for("the new process is ready");
    assert!(agent.terminate().success());
    world.answers(BY_COREDNS);
    // The store still has the records of the hub: the tools say what DNS answers all the same.
    let admin = ["--admin", &world.path("agent.sock")];
    let (_, told) = world.holdfast(&[&["status"], &admin[..]].concat());
    assert!(told.contains("ok: no source, all names are forwarded") && !told.contains("\nserving "), "{told}");
    let (code, told) = world.holdfast(&[&["lookup", "who.prod"], &admin[..]].concat());
    assert!(code == Some(0) && told.contains(BY_COREDNS) && !told.contains(BY_HUB), "{told}");
    let (code, told) = world.holdfast(&["node", "check"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.starts_with(&format!("kept: {LINK_LOCAL}, {VIP} on nodelocaldns by ")), "{told}");
    assert!(drop_in.terminate().success());
    assert_eq!(world.node.addresses(), "");
    world.answers_without_us();
}
