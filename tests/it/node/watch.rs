//! The processes that watch over a node: they die, come back, and make room for one another.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use super::rig::{Node, VIP};

/// The processes in the node's namespace whose command line has this word.
pub fn processes(node: &Node, word: &str) -> Vec<u32> {
    let told = Command::new("ip").args(["netns", "pids", &node.space("node")]).output().unwrap();
    let pids = String::from_utf8(told.stdout).unwrap();
    let has = |pid: &u32| {
        // One that has just ended has no command line.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|found| found == word.as_bytes())
    };
    pids.split_whitespace().map(|pid| pid.parse().unwrap()).filter(has).collect()
}

pub fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().success());
}

/// A resident watch. Killed when dropped.
pub struct Resident(Child);

impl Resident {
    pub fn start(node: &Node, more: &[&str]) -> Self {
        let flags = node.flags();
        let flags = flags.iter().map(String::as_str).chain(more.iter().copied());
        let words: Vec<&str> = ["node", "watch"].into_iter().chain(flags).collect();
        Self(node.holdfast("node", &words).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Whether it has ended by itself, without an error.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some_and(|status| status.success())
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mends(node: &Node) {
    node.ip("node", &format!("addr del {VIP}/32 dev nodelocaldns"));
    node.until("mended", |node| node.node("check").0 == 0);
}

/// Whether this process listens at the name of the watch over the node's interface.
fn has_seat(pid: u32) -> bool {
    let sockets = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap();
    let inode = |line: &str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        // The flag of a socket that listens (`__SO_ACCEPTCON`).
        let listens = columns.get(3) == Some(&"00010000");
        (listens && columns.last()?.starts_with("@holdfast-node-nodelocaldns"))
            .then(|| format!("socket:[{}]", columns[6]))
    };
    let seats: Vec<String> = sockets.lines().filter_map(inode).collect();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    open.filter_map(|fd| fs::read_link(fd.path()).ok())
        .any(|to| seats.iter().any(|seat| to.as_os_str() == seat.as_str()))
}

#[test]
fn a_watch_that_dies_is_counted_and_started_again() {
    let Some(node) = Node::new() else { return };
    let mut agent = node.agent(&[]);
    for deaths in 1..=3 {
        let [watch] = processes(&node, "--kept")[..] else { panic!("one watch") };
        signal(watch, "KILL");
        let line = agent.wait_for_nth("the node watch died: it is started again", deaths);
        assert!(line.contains("signal: 9"), "{line}");
        node.until("started again", |node| matches!(processes(node, "--kept")[..], [new] if new != watch));
        mends(&node);
        assert_eq!(node.metric("holdfast_node_watch_deaths_total "), deaths as u64);
        assert_eq!(node.metric("holdfast_node_setup_errors_total{errortype=\"watch\"}"), deaths as u64);
    }
    // The order at the end reaches the one that is there now.
    assert!(agent.terminate().success());
    node.until("ended", |node| processes(node, "watch").is_empty());
}

#[test]
fn without_anybody_left_to_start_another_that_is_said() {
    let Some(node) = Node::new() else { return };
    let mut agent = node.agent(&[]);
    let [keeper] = processes(&node, "--child")[..] else { panic!("one keeper") };
    signal(keeper, "KILL");
    mends(&node);
    let [watch] = processes(&node, "--kept")[..] else { panic!("one watch") };
    signal(watch, "KILL");
    agent.wait_for("interface and rules are not repaired until the next start");
    assert_eq!(node.metric("holdfast_node_setup_errors_total{errortype=\"watch\"}"), 1);
    let (udp, _) = node.ask("pod1", VIP, 53);
    assert_eq!(udp["lost"], 0, "{udp}");
}

#[test]
fn of_two_resident_watches_the_newer_one_watches_and_the_older_one_stays_behind() {
    let Some(node) = Node::new() else { return };
    let agent = node.agent(&[]);
    let mut first = Resident::start(&node, &["--intercept-failsafe", "none"]);
    mends(&node);
    let mut second = Resident::start(&node, &["--intercept-failsafe", "none"]);
    let socket = || fs::read_to_string(format!("/proc/{}/net/unix", first.0.id())).unwrap();
    // It passes from one to the other.
    node.until("has the seat", |_| socket().contains("@holdfast-node-nodelocaldns"));
    mends(&node);
    assert!(first.0.try_wait().unwrap().is_none() && second.0.try_wait().unwrap().is_none(), "neither has ended");
    second.0.kill().unwrap();
    second.0.wait().unwrap();
    // The agent's own watch may be faster, and leaves the seat then.
    node.until("has the seat", |_| has_seat(first.0.id()));
    mends(&node);
    assert!(first.0.try_wait().unwrap().is_none());
    agent.kill();
    node.until("ended", |node| processes(node, "--kept").is_empty());
    assert_eq!(node.node("teardown").0, 0);
    assert!(first.0.wait().unwrap().success(), "told to end, it does");
    assert_eq!(node.addresses(), "");
}
