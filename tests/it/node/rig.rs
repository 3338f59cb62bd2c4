//! A node and two pods as network namespaces of their own, plugged together with veth as Calico does it, and somebody
//! outside.

use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::AsFd,
        unix::{fs::MetadataExt, net::UnixStream},
    },
    path::Path,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::support::process::Agent;

pub const LINK_LOCAL: &str = "169.254.20.10";
pub const VIP: &str = "10.96.0.10";
pub const VIP6: &str = "fd00:10:96::10";

/// What takes longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(20);

const CLUSTER: &str = "apiVersion: v1
kind: Service
metadata: {name: kubernetes, namespace: default}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00:10:96::1'], ports: [{name: https, port: 443, protocol: TCP}]}
";

/// What the service `kubernetes` answers here, and what it answers if the cluster's DNS is asked.
pub const OWN: &str = "10.96.0.1";
pub const BY_COREDNS: &str = "10.96.7.1";
/// A service in front of the cluster's DNS that no node has on an interface.
pub const UPSTREAM: &str = "10.96.0.99";
pub const UPSTREAM6: &str = "fd00:99::1";

/// The cluster's DNS, outside of the node, at the service address and at one of its own. Killed when dropped.
pub struct CoreDns(Agent);

impl CoreDns {
    pub fn kill(self) {
        self.0.kill();
    }
}

/// The namespaces, and a directory for what the agents keep. Gone when dropped.
pub struct Node {
    name: String,
    pub home: tempfile::TempDir,
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn has(program: &str) -> bool {
    Command::new(program).arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Whether there is a program; says so if a part of a test is left out for want of it.
pub fn have(program: &str) -> bool {
    let found = has(program);
    if !found {
        println!("skipped in part: there is no {program}");
    }
    found
}

impl Node {
    /// Makes them. `None`, and a printed reason, where that is not possible.
    pub fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let skip = |reason: &str| {
            println!("skipped: {reason}");
            None
        };
        if fs::metadata("/proc/self").map(|own| own.uid()).ok() != Some(0) {
            return skip("not root, who alone may make network namespaces");
        }
        if !has("ip") {
            return skip("there is no ip (iproute2)");
        }
        let name = format!("hf{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let node = Self { name, home: tempfile::tempdir().unwrap() };
        if !run("ip", &["netns", "add", &node.space("node")]).status.success() {
            return skip("network namespaces cannot be made here");
        }
        node.plug();
        fs::write(node.home.path().join("cluster.yaml"), CLUSTER).unwrap();
        // Two hundred connections from one pod are one source.
        fs::write(node.home.path().join("agent.yaml"), "tcp: { max_per_source: 1000 }\n").unwrap();
        Some(node)
    }

    /// The name of a namespace: `node`, `pod1`, `pod2` or `out`.
    pub fn space(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    /// `ip` with words separated by spaces, in a namespace.
    pub fn ip(&self, part: &str, words: &str) -> Output {
        let space = self.space(part);
        let words: Vec<&str> = ["-n", &space].into_iter().chain(words.split(' ')).collect();
        run("ip", &words)
    }

    fn must(&self, part: &str, words: &str) {
        let done = self.ip(part, words);
        assert!(done.status.success(), "ip -n {part} {words}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn plug(&self) {
        self.must("node", "link set lo up");
        for number in 1..=2 {
            let pod = format!("pod{number}");
            run("ip", &["netns", "add", &self.space(&pod)]);
            self.must("node", &format!("link add cali{number} type veth peer name eth0 netns {}", self.space(&pod)));
            for words in ["link set lo up", "link set eth0 up"] {
                self.must(&pod, words);
            }
            self.must("node", &format!("link set cali{number} up"));
            self.must(&pod, &format!("addr add 10.244.1.{number}/32 dev eth0"));
            self.must(&pod, &format!("addr add fd00:244::{number}/128 dev eth0 nodad"));
            self.must(&pod, "route add 169.254.1.1 dev eth0");
            self.must(&pod, "route add default via 169.254.1.1 dev eth0");
            self.must("node", &format!("addr add 169.254.1.1/32 dev cali{number}"));
            self.must("node", &format!("route add 10.244.1.{number} dev cali{number}"));
            self.must("node", &format!("-6 addr add fe80::1/64 dev cali{number} nodad"));
            self.must("node", &format!("-6 route add fd00:244::{number} dev cali{number}"));
            self.must(&pod, "-6 route add default via fe80::1 dev eth0");
        }
        run("ip", &["netns", "add", &self.space("out")]);
        self.must("node", &format!("link add uplink type veth peer name eth0 netns {}", self.space("out")));
        self.must("node", "link set uplink up");
        self.must("out", "link set eth0 up");
        self.must("node", "addr add 192.0.2.2/24 dev uplink");
        self.must("out", "addr add 192.0.2.1/24 dev eth0");
        self.must("node", "route add default via 192.0.2.1");
        self.must("out", "route add default via 192.0.2.2");
        self.must("node", "addr add fd00:99::2/64 dev uplink nodad");
        self.must("out", &format!("addr add {UPSTREAM6}/64 dev eth0 nodad"));
        self.must("node", &format!("route add default via {UPSTREAM6}"));
        self.must("out", "route add default via fd00:99::2");
    }

    /// A command in a namespace.
    pub fn command(&self, part: &str, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(part), program]).args(arguments).stdin(Stdio::null());
        // As the kubelet tells of the service in front of the cluster's DNS.
        command.env("KUBE_DNS_UPSTREAM_SERVICE_HOST", UPSTREAM);
        command
    }

    /// The binary in a namespace.
    pub fn holdfast(&self, part: &str, arguments: &[&str]) -> Command {
        self.command(part, env!("CARGO_BIN_EXE_holdfast"), arguments)
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).to_str().unwrap().to_owned()
    }

    /// The flags of every agent here.
    pub fn flags(&self) -> Vec<String> {
        let listen = format!("{LINK_LOCAL},{VIP},{VIP6}");
        let (config, cluster) = (self.path("agent.yaml"), self.path("cluster.yaml"));
        let (store, admin) = (self.path("store"), self.path("agent.sock"));
        // Nobody answers on the discard port: no test asks the resolvers of the machine it runs on.
        let pairs = [
            ("--config", config.as_str()),
            ("--listen", &listen),
            ("--manifests", &cluster),
            ("--store", &store),
            ("--admin", &admin),
            ("--http", "169.254.20.10:8080"),
            ("--metrics", "127.0.0.1:9253"),
            ("--upstream", "127.0.0.1:9"),
            ("--setup-interface", "true"),
            ("--setup-notrack", "true"),
        ];
        pairs.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]).collect()
    }

    /// The command of an agent on the node. `more` takes the place of what every agent is told; `--listen` comes on top.
    pub fn agent_command(&self, more: &[&str]) -> Command {
        let flags = self.flags();
        let replaced = |flag: &str| {
            more.contains(&flag) && flag != "--listen" || (flag == "--manifests" && more.contains(&"--hub"))
        };
        let kept = flags.chunks(2).filter(|pair| !replaced(&pair[0])).flatten().map(String::as_str);
        let words: Vec<&str> = ["agent"].into_iter().chain(kept).chain(more.iter().copied()).collect();
        self.holdfast("node", &words)
    }

    /// An agent on the node.
    pub fn agent(&self, more: &[&str]) -> Agent {
        Agent::spawn(&mut self.agent_command(more))
    }

    /// The cluster's DNS. Every agent that is started from now on knows it as its fallback.
    pub fn coredns(&self) -> CoreDns {
        self.ip("out", "link set lo up");
        for ip in [VIP, UPSTREAM] {
            self.ip("out", &format!("addr add {ip}/32 dev lo"));
        }
        let forward = "cd /proc/sys/net; for each in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 1 > $each; done";
        assert!(self.command("node", "sh", &["-c", forward]).status().unwrap().success());
        fs::write(self.path("coredns.yaml"), CLUSTER.replace(OWN, BY_COREDNS)).unwrap();
        let config = "allow: [0.0.0.0/0, '::/0']\nforward:\n  - {zone: cluster.example, answer: nxdomain}\n  \
                      - {zone: registry.example, answer: nxdomain, hosts: [192.0.2.7 registry.example]}\n";
        fs::write(self.path("outside.yaml"), config).unwrap();
        let listen = format!("{VIP},{UPSTREAM},{UPSTREAM6}");
        let (config, manifests, admin) =
            (self.path("outside.yaml"), self.path("coredns.yaml"), self.path("coredns.sock"));
        let flags = ["--config", &config, "--manifests", &manifests, "--admin", &admin, "--listen", &listen];
        let none = ["--store", "none", "--http", "none", "--metrics", "none", "--sandbox", "false"];
        let none = [&none[..], &["--upstream", "127.0.0.1:9"]].concat();
        let mut agent = Agent::spawn(&mut self.holdfast("out", &[&["agent"][..], &flags, &none].concat()));
        agent.wait_for("records complete");
        CoreDns(agent)
    }

    /// The address that `kubernetes.default` answers a pod at this server; `None` without an answer.
    pub fn answer(&self, pod: &str, server: &str) -> Option<String> {
        let words = ["+short", "+time=1", "+tries=1", &format!("@{server}"), "kubernetes.default.svc.cluster.local"];
        let done = self.command(pod, "dig", &words).output().unwrap();
        let told = String::from_utf8(done.stdout).unwrap();
        told.trim().parse::<std::net::IpAddr>().ok().map(|ip| ip.to_string())
    }

    /// A tool on the node: its exit code and what it says.
    pub fn tool(&self, words: &[&str]) -> (i32, String) {
        let done = self.holdfast("node", words).output().unwrap();
        (done.status.code().unwrap(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
    }

    /// What `holdfast status` says of the agent.
    pub fn status(&self) -> Value {
        let (code, told) = self.tool(&["status", "--admin", &self.path("agent.sock"), "-o", "json"]);
        assert_eq!(code, 0, "{told}");
        serde_json::from_str(&told).unwrap()
    }

    /// What a port of the node answers to `GET path`, the head included; empty if nobody is there.
    pub fn http(&self, address: &str, path: &str) -> String {
        let url = format!("http://{address}{path}");
        let done = self.command("node", "curl", &["-s", "-i", "--max-time", "5", &url]).output().unwrap();
        String::from_utf8(done.stdout).unwrap()
    }

    /// `holdfast node …` with the flags of the agent: its exit code and what it says, but for who keeps the interface.
    pub fn node(&self, what: &str) -> (i32, String) {
        let flags = self.flags();
        let flags: Vec<&str> = ["node", what].into_iter().chain(flags.iter().map(String::as_str)).collect();
        let done = self.holdfast("node", &flags).output().unwrap();
        let told = [done.stdout, done.stderr].concat();
        let told = String::from_utf8(told).unwrap();
        let told: String = told.split_inclusive('\n').filter(|line| !line.starts_with("kept: ")).collect();
        (done.status.code().unwrap(), told)
    }

    /// Questions for a second from a namespace: the tallies of UDP and of TCP.
    pub fn ask(&self, from: &str, server: &str, port: u16) -> (Value, Value) {
        let server = if server.contains(':') { format!("[{server}]:{port}") } else { format!("{server}:{port}") };
        let asking =
            ["simulate", "queries", "--server", &server, "--qps", "20", "--tcp", "2", "--seconds", "1", "-o", "json"];
        report(&self.holdfast(from, &asking).output().unwrap())
    }

    /// A metric of the agent, by its name with labels.
    pub fn metric(&self, series: &str) -> u64 {
        let mut stream = UnixStream::connect(self.home.path().join("agent.sock")).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line =
            text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("{series} in {text}"));
        line.trim().parse().unwrap()
    }

    /// The addresses on the interface, as `ip` prints them.
    pub fn addresses(&self) -> String {
        String::from_utf8(self.ip("node", "-o addr show dev nodelocaldns").stdout).unwrap()
    }

    /// Waits until something is so; how long that took.
    pub fn until(&self, what: &str, mut so: impl FnMut(&Self) -> bool) -> Duration {
        let began = Instant::now();
        while !so(self) {
            assert!(began.elapsed() < PATIENCE, "{what}: still not after {PATIENCE:?}; {}", self.addresses());
            // What is waited for needs the processor more.
            std::thread::park_timeout(Duration::from_millis(10));
        }
        began.elapsed()
    }
}

/// Moves this thread into a network namespace.
pub fn enter(namespace: &str) {
    let file = fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// The tallies of UDP and of TCP that `holdfast simulate queries -o json` printed.
pub fn report(done: &Output) -> (Value, Value) {
    let told: Value = serde_json::from_slice(&done.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&done.stderr)));
    (told["udp"].clone(), told["tcp"].clone())
}

pub fn capabilities(pid: u32) -> String {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    status
        .lines()
        .filter(|line| line.starts_with("CapEff") || line.starts_with("NoNewPrivs") || line.starts_with("Seccomp:"))
        .collect::<Vec<_>>()
        .join(" ")
}

impl Drop for Node {
    fn drop(&mut self) {
        for part in ["node", "pod1", "pod2", "out"] {
            // A watch that outlived its agent goes with the namespace it watches.
            if let Ok(pids) = Command::new("ip").args(["netns", "pids", &self.space(part)]).output() {
                for pid in String::from_utf8_lossy(&pids.stdout).split_whitespace() {
                    run("kill", &["-s", "KILL", pid]);
                }
            }
            run("ip", &["netns", "del", &self.space(part)]);
        }
    }
}
