//! Network namespaces for clients, and the daemons they reach. Needs root.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use holdfast::{
    sys::Clock,
    tls::{issue, issue_server},
};
use serde::{Deserialize, Serialize};

use crate::process::Agent;

/// The node's end of the attacker's link; everything listens there.
const NODE: Ipv4Addr = Ipv4Addr::new(10, 211, 0, 1);
/// The file of [`Targets`], and of the records.
pub const TARGETS: &str = "targets.json";
const RECORDS: &str = "cluster.json";

fn run(command: &str) {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr).trim());
}

/// A pod of its own: a network namespace with one address and a link to the node.
pub struct Pod {
    namespace: String,
}

impl Pod {
    /// `number` is the third octet of its network.
    pub fn new(number: u8) -> Self {
        let namespace = format!("hf{}-{number}", std::process::id());
        let link = format!("hf{}.{number}", std::process::id() % 100_000);
        run(&format!("ip netns add {namespace}"));
        let pod = Self { namespace };
        let inside = &pod.namespace;
        run(&format!("ip link add {link} type veth peer name eth0 netns {inside}"));
        run(&format!("ip address add 10.211.{number}.1/24 dev {link}"));
        run(&format!("ip link set {link} up"));
        run(&format!("ip netns exec {inside} ip address add 10.211.{number}.2/24 dev eth0"));
        run(&format!("ip netns exec {inside} ip link set eth0 up"));
        run(&format!("ip netns exec {inside} ip link set lo up"));
        run(&format!("ip netns exec {inside} ip route add default via 10.211.{number}.1"));
        pod
    }

    /// This program inside, with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(std::env::current_exe().unwrap()).args(arguments);
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Its links go with it.
        let _ = Command::new("ip").args(["netns", "delete", &self.namespace]).status();
    }
}

/// Where everything is reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Targets {
    pub dns: SocketAddr,
    pub tls: SocketAddr,
    pub https: SocketAddr,
    pub quic: SocketAddr,
    pub http: SocketAddr,
    pub metrics: SocketAddr,
    pub hub: SocketAddr,
    /// Certificates of an agent.
    pub agent_tls: String,
}

impl Targets {
    pub fn read(path: &str) -> Self {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }
}

/// An agent with every listener, a hub, and their upstream.
pub struct Daemons {
    pub agent: Agent,
    pub hub: Agent,
}

fn free_port() -> SocketAddr {
    TcpListener::bind((NODE, 0)).unwrap().local_addr().unwrap()
}

/// Writes 500 services, one of them named by `turn`, and a headless one with 5,000 endpoints, for the hub to read.
pub fn write_records(home: &Path, turn: u32) {
    let new = home.join("cluster.tmp");
    fs::write(&new, manifests(500, 5_000, turn)).unwrap();
    fs::rename(new, home.join(RECORDS)).unwrap();
}

fn manifests(services: usize, endpoints: usize, turn: u32) -> String {
    let mut items: Vec<String> = (0..services)
        .map(|number| {
            let ip = format!("10.96.{}.{}", number >> 8, number & 0xFF);
            format!(r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"svc-{number}","namespace":"prod"}},"spec":{{"clusterIP":"{ip}","clusterIPs":["{ip}"],"ports":[{{"name":"http","port":80,"protocol":"TCP"}}]}}}}"#)
        })
        .collect();
    items.push(format!(r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"turn-{turn}","namespace":"prod"}},"spec":{{"clusterIP":"10.97.0.1","clusterIPs":["10.97.0.1"]}}}}"#));
    items.push(r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"big","namespace":"prod"},"spec":{"clusterIP":"None","clusterIPs":["None"],"ports":[{"name":"http","port":80,"protocol":"TCP"}]}}"#.into());
    let addresses: Vec<String> = (0..endpoints)
        .map(|nth| format!(r#"{{"addresses":["10.1.{}.{}"],"conditions":{{"ready":true}}}}"#, nth >> 8, nth & 0xFF))
        .collect();
    for (slice, addresses) in addresses.chunks(1_000).enumerate() {
        let addresses = addresses.join(",");
        items.push(format!(r#"{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4","metadata":{{"name":"big-{slice}","namespace":"prod","labels":{{"kubernetes.io/service-name":"big"}}}},"ports":[{{"name":"http","port":80,"protocol":"TCP"}}],"endpoints":[{addresses}]}}"#));
    }
    format!(r#"{{"apiVersion":"v1","kind":"List","items":[{}]}}"#, items.join(","))
}

impl Daemons {
    /// Starts them with their files in `home`; the attacker's pod has to be there, for the address is on its link.
    pub fn start(home: &Path, holdfast: &str) -> Self {
        let daemon = |arguments: &[&[&str]]| {
            let mut command = Command::new(holdfast);
            command.args(arguments.concat());
            command
        };
        let path = |name: &str| home.join(name).to_str().unwrap().to_owned();
        let now = Clock::System.now();
        issue(home, "bench", 30, now).unwrap();
        issue_server(home, "bench", &[NODE.to_string()], 30, now).unwrap();
        write_records(home, 0);
        let [hub, tls, https, quic, http, metrics] = [(); 6].map(|()| free_port());
        let (hub_text, http_text, metrics_text) = (hub.to_string(), http.to_string(), metrics.to_string());

        fs::create_dir_all(path("hub-home")).unwrap();
        let files =
            ["--store", &path("hub-home/store"), "--admin", &path("hub-home/admin.sock"), "--tls", &path("hub")];
        let listeners = ["--listen", &hub_text, "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
        let mut command = daemon(&[&["hub", "--manifests", &path(RECORDS)], &listeners, &files]);
        let mut hub_process = Agent::spawn_until(&mut command, "serving the stream to agents listen=");
        hub_process.wait_for("records complete");

        let mut config = fs::File::create(path("agent.yaml")).unwrap();
        let dns = path("dns");
        // The memory of the cache has a setting of its own. It is full before anything is measured.
        writeln!(config, "cache: {{ max_bytes: 4MiB }}").unwrap();
        writeln!(config, "encrypted: {{ tls: [{tls}], https: [{https}], quic: [{quic}], certificate: {dns} }}")
            .unwrap();
        let upstream = upstream().to_string();
        fs::create_dir_all(path("agent-home")).unwrap();
        let source = ["--config", &path("agent.yaml"), "--hub", &hub_text, "--upstream", &upstream];
        let listeners = ["--listen", &format!("{NODE}:0"), "--http", &http_text, "--metrics", &metrics_text];
        let (store, socket) = (path("agent-home/store"), path("agent-home/admin.sock"));
        let files = ["--store", &store, "--admin", &socket, "--tls", &path("agent")];
        let mut agent = Agent::spawn(&mut daemon(&[&["agent"], &source, &listeners, &files]));
        agent.wait_for("records complete");
        let targets = Targets { dns: agent.dns, tls, https, quic, http, metrics, hub, agent_tls: path("agent") };
        fs::write(home.join(TARGETS), serde_json::to_vec(&targets).unwrap()).unwrap();
        Self { agent, hub: hub_process }
    }
}

/// Answers every question with one address, but for names below `silent.test`.
fn upstream() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut message = [0; 4_096];
        loop {
            let Ok((length, client)) = socket.recv_from(&mut message) else { continue };
            let Some(end) = question_end(&message[..length]) else { continue };
            if message[..end].to_ascii_lowercase().windows(13).any(|part| part == b"\x06silent\x04test\0") {
                continue;
            }
            let mut answer = message[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
            let _ = socket.send_to(&answer, client);
        }
    });
    address
}

fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = 12;
    while *message.get(at)? != 0 {
        at += usize::from(message[at]) + 1;
    }
    (at + 5 <= message.len()).then_some(at + 5)
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// An address to bind that has no port of its own.
pub const ANY: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
