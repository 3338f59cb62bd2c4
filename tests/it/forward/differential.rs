//! The same questions through holdfast and directly to a real resolver.

use std::{
    fmt::Write as _,
    net::{SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hickory_proto::{op::Message, rr::RecordType};

use super::world::{World, query, source, zone};
use crate::support::upstream::name;

const NAMES: usize = 500;
const QUESTIONS: usize = 5_000;
/// Longer than unbound takes to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running unbound; killed when dropped.
struct Unbound {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts unbound with a generated zone and waits until it answers; `None` with a printed reason where there is none.
fn start(socket: &UdpSocket) -> Option<Unbound> {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    for _ in 0..10 {
        let mut unbound = spawn()?;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if direct(socket, unbound.address, "n0.test.example", RecordType::A).is_some() {
                return Some(unbound);
            }
            // Somebody else took the port, for TCP perhaps: another one then.
            if unbound.child.try_wait().unwrap().is_some() {
                break;
            }
        }
        assert!(Instant::now() < end, "unbound does not answer within {PATIENCE:?}");
    }
    panic!("unbound ends as soon as it is started")
}

fn spawn() -> Option<Unbound> {
    let folder = tempfile::tempdir().unwrap();
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut text = format!(
        "server:\n interface: 127.0.0.1@{port}\n do-daemonize: no\n chroot: \"\"\n username: \"\"\n pidfile: \"\"\n \
         directory: \"{folder}\"\n use-syslog: no\n do-ip6: no\n access-control: 127.0.0.0/8 allow\n \
         module-config: \"iterator\"\nremote-control:\n control-enable: no\nserver:\n local-zone: \"test.example.\" static\n \
         local-data: \"test.example. 300 IN SOA ns.test.example. admin.test.example. 1 3600 600 86400 60\"\n",
        folder = folder.path().display(),
    );
    for nth in 0..NAMES {
        let (high, low) = (nth / 256, nth % 256);
        for copy in 0..=nth % 4 {
            writeln!(text, " local-data: \"n{nth}.test.example. 300 IN A 10.{copy}.{high}.{low}\"").unwrap();
        }
        if nth % 3 == 0 {
            writeln!(text, " local-data: \"n{nth}.test.example. 300 IN AAAA 2001:db8::{nth:x}\"").unwrap();
        }
        if nth % 5 == 0 {
            writeln!(text, " local-data: 'n{nth}.test.example. 300 IN TXT \"text {nth}\"'").unwrap();
            writeln!(text, " local-data: \"n{nth}.test.example. 300 IN MX 10 n1.test.example.\"").unwrap();
            writeln!(text, " local-data: \"n{nth}.test.example. 300 IN SRV 0 5 {nth} n2.test.example.\"").unwrap();
        }
    }
    let config = folder.path().join("unbound.conf");
    std::fs::write(&config, text).unwrap();
    let child = Command::new("unbound").arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = match child {
        Ok(child) => child,
        Err(error) => {
            eprintln!("skipped: unbound: {error}");
            return None;
        }
    };
    Some(Unbound { child, address: ([127, 0, 0, 1], port).into(), _folder: folder })
}

fn direct(socket: &UdpSocket, address: SocketAddr, owner: &str, qtype: RecordType) -> Option<Message> {
    let mut buffer = [0; 4_096];
    socket.send_to(&query(owner, qtype, Some(1_232)), address).ok()?;
    loop {
        let length = socket.recv(&mut buffer).ok()?;
        let reply = Message::from_vec(&buffer[..length]).ok()?;
        // Late answers to the first questions, asked again while it started, are for others.
        if reply.queries[0].name() == &name(owner) && reply.queries[0].query_type() == qtype {
            return Some(reply);
        }
    }
}

/// Code and records, in an order that does not depend on rotation; TTLs apart.
fn essence(message: &Message) -> (String, Vec<String>, Vec<String>) {
    let sorted = |records: &[hickory_proto::rr::Record]| {
        let each = records
            .iter()
            .map(|record| format!("{} {} {}", record.name.to_lowercase(), record.record_type(), record.data));
        let mut all: Vec<String> = each.collect();
        all.sort();
        all
    };
    // The authority section of positive answers is not ours to relay.
    let negative = message.answers.is_empty();
    let authorities = if negative { sorted(&message.authorities) } else { Vec::new() };
    (format!("{:?}", message.response_code), sorted(&message.answers), authorities)
}

#[tokio::test]
async fn answers_through_holdfast_are_those_of_unbound() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let Some(unbound) = start(&socket) else { return };
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut config = zone(".", &[]);
    config.upstreams = vec![source(&unbound.address.to_string())];
    let world = World::with(vec![config]);
    let types = [
        RecordType::A,
        RecordType::AAAA,
        RecordType::TXT,
        RecordType::MX,
        RecordType::SRV,
        RecordType::NS,
        RecordType::from(65_280),
    ];
    // A fixed walk that looks random: a failure can be repeated.
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for _ in 0..QUESTIONS {
        // One in four names is not there.
        let owner = format!("{}{}.test.example", if next(4) == 0 { "x" } else { "n" }, next(NAMES));
        let qtype = types[next(types.len())];
        let expect = direct(&socket, unbound.address, &owner, qtype).expect("unbound answers");
        let got = world.ask(&owner, qtype).await;
        assert_eq!(essence(&got), essence(&expect), "{owner} {qtype}");
    }
}
