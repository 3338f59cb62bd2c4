//! The real binary as a process of its own, on ports of its own, and DNS clients to ask it with.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};

/// Longer than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binary, with these arguments.
pub fn holdfast(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs a command of the tools to its end.
pub fn run(arguments: &[&str]) -> Output {
    holdfast(arguments).output().expect("the binary runs")
}

/// A running agent. Killed when dropped.
pub struct Agent {
    child: Child,
    /// Lines of its log that are still to be looked at.
    log: Receiver<String>,
    seen: Vec<String>,
    started: Instant,
    pub dns: SocketAddr,
}

impl Agent {
    /// Starts an agent on free ports with its store and socket in `home`, and comes back once it answers.
    pub fn start(home: &Path, arguments: &[&str]) -> Self {
        let store = home.join("store");
        let socket = home.join("agent.sock");
        let mut command = holdfast(&["agent", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        // Nobody answers on the discard port: no test asks the resolvers of the machine it runs on.
        command
            .args(["--upstream", "127.0.0.1:9", "--metrics", "127.0.0.1:0", "--store"])
            .arg(&store)
            .arg("--admin")
            .arg(&socket);
        Self::spawn(command.args(arguments))
    }

    /// Runs this command and comes back once it says so in its log. Where it answers is not known then.
    pub fn spawn_until(command: &mut Command, text: &str) -> Self {
        let mut agent = Self::begin(command);
        agent.wait_for(text);
        agent
    }

    /// Runs this command and waits for nothing.
    pub fn begin(command: &mut Command) -> Self {
        let started = Instant::now();
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let log = lines(child.stderr.take().expect("piped"));
        Self { child, log, seen: Vec::new(), started, dns: ([127, 0, 0, 1], 0).into() }
    }

    /// Runs this command and comes back once it answers.
    pub fn spawn(command: &mut Command) -> Self {
        let mut agent = Self::spawn_until(command, "answering DNS listen=");
        let line = agent.wait_for("answering DNS listen=");
        let (_, rest) = line.split_once("listen=").expect("the line names the addresses");
        let (address, _) = rest.split_once([',', ' ']).expect("a list of addresses");
        agent.dns = address.parse().expect("an address");
        agent
    }

    /// Waits until a line with this text is in the log, and gives the line.
    pub fn wait_for(&mut self, text: &str) -> String {
        self.wait_for_nth(text, 1)
    }

    /// Waits until so many lines with this text are in the log since the start, and gives the last of them.
    pub fn wait_for_nth(&mut self, text: &str, count: usize) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.seen.iter().filter(|line| line.contains(text)).nth(count - 1) {
                return line.clone();
            }
            match self.log.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(error) => panic!("{error} before {text:?} stood in the log {count} times: {:#?}", self.seen),
            }
        }
    }

    /// The log so far.
    pub fn log(&mut self) -> &[String] {
        self.seen.extend(self.log.try_iter());
        &self.seen
    }

    /// The process that was started, as the kernel numbers it.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it was ours to wait for").is_some()
    }

    /// Time since the process was made.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// How long its threads were ready to run and had no processor, together (`run_delay`, proc(5): /proc/PID/schedstat).
    pub fn waited_for_processor(&self) -> Duration {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        threads.flatten().map(|thread| run_delay(&thread.path())).sum()
    }

    /// Its resident memory (`VmRSS`), in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// Its resident memory that is not mapped from files (`RssAnon`), in bytes.
    pub fn anonymous_bytes(&self) -> u64 {
        self.status_bytes("RssAnon:")
    }

    /// The most resident memory it ever had (`VmHWM`), in bytes.
    pub fn resident_bytes_most(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, row: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(row)).expect("Linux tells it");
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number of kB");
        kib * 1024
    }

    /// The process that answers: the child of the one that was started, which keeps its sockets open; a hub has none.
    pub fn pid(&self) -> u32 {
        let parent = self.child.id();
        children(parent).first().copied().unwrap_or(parent)
    }

    /// Sends a signal, by its name without SIG. Once told to STOP it has stopped: on a busy machine its threads go on for a
    /// while until one of them has taken the signal.
    pub fn signal(&self, name: &str) {
        // The parent passes the others on.
        let pid = if matches!(name, "STOP" | "CONT" | "KILL" | "ABRT") { self.pid() } else { self.child.id() };
        let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).status().expect("kill runs");
        assert!(sent.success());
        let end = Instant::now() + PATIENCE;
        while name == "STOP" && !self.has_stopped() {
            assert!(Instant::now() < end, "not stopped in time");
            thread::yield_now();
        }
    }

    /// Whether every thread of it is stopped (`T`, proc(5)).
    fn has_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs");
        // One that is gone by now does nothing any more.
        let state = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("stat")).ok();
        threads
            .flatten()
            .filter_map(state)
            .all(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")))
    }

    /// Kills it whole, as the end of a container does, and waits until its ports are free.
    pub fn kill(mut self) {
        let answering = self.pid();
        self.child.kill().expect("it still runs");
        self.child.wait().expect("it was ours to wait for");
        let end = Instant::now() + PATIENCE;
        while is_alive(answering) {
            assert!(Instant::now() < end, "the answering process outlives its parent");
            thread::yield_now();
        }
    }

    /// Asks it to leave with SIGTERM, and waits until it has.
    pub fn terminate(self) -> ExitStatus {
        self.signal("TERM");
        self.ended()
    }

    /// Waits until it has ended by itself.
    pub fn ended(mut self) -> ExitStatus {
        self.child.wait().expect("it was ours to wait for")
    }

    /// Its answer to one question over UDP, asked with EDNS.
    pub fn ask(&self, name: &str, rtype: RecordType) -> Message {
        ask(self.dns, name, rtype)
    }
}

/// The processes that this one started and has not waited for.
pub fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut rest = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        rest.next() != Some("Z") && rest.next() == Some(&parent.to_string())
    };
    pids.filter(is_child).collect()
}

/// Whether a process runs; one that has ended and that no one has waited for does not.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The first thread may have ended before others, which keep files and locks until then.
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let ended = |rest: &str| rest.is_empty() || rest.starts_with(" Z") || rest.starts_with(" X");
    stat.rsplit(')').next().is_some_and(|rest| !ended(rest) || threads() > 1)
}

/// A running hub. Killed when dropped.
pub struct Hub(Agent);

impl Hub {
    /// Starts a hub with its store and socket in `home`, and comes back once it serves at `listen`, in the clear.
    pub fn start(home: &Path, listen: &str, arguments: &[&str]) -> Self {
        let line = Self::line(home, listen, "insecure", arguments);
        Self::spawn(holdfast(&line.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    /// The same, with the certificates in `tls`.
    pub fn start_secured(home: &Path, listen: &str, tls: &Path, arguments: &[&str]) -> Self {
        let line = Self::line(home, listen, tls.to_str().expect("UTF-8"), arguments);
        Self::spawn(holdfast(&line.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    /// The same, and no file of it may grow beyond so many blocks of 1 KiB: writing fails, as on a full disk.
    pub fn start_limited(home: &Path, listen: &str, arguments: &[&str], blocks: u32) -> Self {
        let mut command = Command::new("bash");
        // Without the trap the signal would end it.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_holdfast")])
            .args(Self::line(home, listen, "insecure", arguments));
        command.stdin(Stdio::null());
        Self::spawn(command)
    }

    fn line(home: &Path, listen: &str, tls: &str, arguments: &[&str]) -> Vec<String> {
        let path = |name: &str| home.join(name).to_str().expect("UTF-8").to_owned();
        let (store, socket) = (path("store"), path("agent.sock"));
        let ports = ["--listen", listen, "--tls", tls, "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
        let home = ["--store", &store, "--admin", &socket];
        let line = ["hub"].iter().chain(&ports).chain(&home).chain(arguments);
        line.map(|&word| word.to_owned()).collect()
    }

    fn spawn(mut command: Command) -> Self {
        let started = Instant::now();
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary runs");
        let log = lines(child.stderr.take().expect("piped"));
        let mut hub = Agent { child, log, seen: Vec::new(), started, dns: ([127, 0, 0, 1], 0).into() };
        let line = hub.wait_for("serving the stream to agents listen=");
        let (_, rest) = line.split_once("listen=").expect("the line names the addresses");
        let (address, _) = rest.split_once([',', ' ']).expect("a list of addresses");
        hub.dns = address.parse().expect("an address");
        Self(hub)
    }

    /// Where it serves the stream.
    pub fn address(&self) -> SocketAddr {
        self.0.dns
    }

    pub fn wait_for(&mut self, text: &str) -> String {
        self.0.wait_for(text)
    }

    pub fn signal(&self, name: &str) {
        self.0.signal(name);
    }

    pub fn kill(self) {
        self.0.kill();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Gone already, if a test ended it. The answering process goes with its parent.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a log, read as they come so that the process never waits for us.
fn lines(log: ChildStderr) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// How long the thread with this directory in /proc was ready to run and had no processor. Nothing where the kernel does not count it.
pub fn run_delay(thread: &Path) -> Duration {
    let text = std::fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().nth(1).and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

/// One question over UDP, asked with EDNS.
pub fn ask(server: SocketAddr, name: &str, rtype: RecordType) -> Message {
    let mut query = Message::new(0x1234, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).expect("a name"), rtype));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    query.set_edns(edns);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.send_to(&query.to_vec().expect("a query"), server).expect("sent");
    let mut buffer = [0; 4096];
    let (len, _) = socket.recv_from(&mut buffer).expect("an answer in time");
    Message::from_vec(&buffer[..len]).expect("a message")
}

/// The answers of a message as `TTL TYPE RDATA`, sorted.
pub fn answers(message: &Message) -> Vec<String> {
    let mut lines: Vec<String> = message
        .answers
        .iter()
        .map(|record| format!("{} {} {}", record.ttl, record.record_type(), record.data))
        .collect();
    lines.sort();
    lines
}

/// The extended error codes of a message (RFC 8914).
pub fn extended_errors(message: &Message) -> Vec<u16> {
    use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
    let Some(edns) = &message.edns else { return Vec::new() };
    let code = |option: &EdnsOption| match option {
        EdnsOption::Unknown(15, data) => Some(u16::from_be_bytes([data[0], data[1]])),
        _ => None,
    };
    edns.options()
        .as_ref()
        .iter()
        .filter(|(name, _)| *name == EdnsCode::from(15))
        .filter_map(|(_, o)| code(o))
        .collect()
}
