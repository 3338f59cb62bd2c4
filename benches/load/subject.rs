//! What is measured: a process of its own on processors of its own.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{busy, options::Options, traffic::Cluster};

/// How long a subject may take until it answers.
const START: Duration = Duration::from_secs(60);

pub struct Subject {
    name: String,
    address: SocketAddr,
    child: Child,
    /// Gives back what is asked, rather than answers.
    echoes: bool,
    home: TempDir,
}

impl Subject {
    pub fn echo(processors: &[usize]) -> Self {
        let itself = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
        let (address, workers) = (free_address(), processors.len().to_string());
        let command = [itself, "echo".into(), address.to_string(), workers];
        let mut subject = Self::start("echo", &command, address, processors, tempfile::tempdir().unwrap(), b"?");
        subject.echoes = true;
        subject
    }

    /// The program measured; with a cache file, if any, that it loads at start.
    pub fn holdfast(options: &Options, cluster: &Cluster, processors: &[usize], cache: Option<&Path>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (address, path) = (free_address(), |name: &str| home.path().join(name).to_str().unwrap().to_owned());
        fs::write(path("cluster.json"), cluster.manifests()).unwrap();
        fs::write(path("agent.yaml"), "cache: { max_bytes: 4GiB }\nhttp: none\nmetrics: none\n").unwrap();
        if let Some(file) = cache {
            fs::create_dir(path("store")).unwrap();
            fs::copy(file, path("store/cache.zst")).unwrap();
            // What it is saved to beside is in the way: a million entries are not written while something else is measured.
            fs::create_dir(path("store/cache.tmp")).unwrap();
        }
        let listen = address.to_string();
        let (config, manifests, store, admin) =
            (path("agent.yaml"), path("cluster.json"), path("store"), path("admin.sock"));
        let command = [
            options.holdfast.as_str(),
            "agent",
            "--config",
            &config,
            "--manifests",
            &manifests,
            "--listen",
            &listen,
            "--store",
            &store,
            "--admin",
            &admin,
            // Nobody answers there.
            "--upstream",
            "127.0.0.1:9",
        ]
        .map(str::to_owned);
        let subject = Self::start("holdfast", &command, address, processors, home, &cluster.probe());
        if cache.is_some() {
            subject.wait_for_log("cache loaded");
        }
        subject
    }

    /// A holdfast that can be made busy by [`be_busy`](Self::be_busy).
    pub fn busy(cluster: &Cluster, processors: &[usize], cache: &Path) -> Self {
        let itself = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
        let (address, home) = (free_address(), tempfile::tempdir().unwrap());
        fs::copy(cache, home.path().join("cache.zst")).unwrap();
        let command = [itself, "busy".into(), address.to_string(), home.path().to_str().unwrap().to_owned()];
        let subject = Self::start("holdfast", &command, address, processors, home, &cluster.probe());
        subject.wait_for_log(busy::CACHE_LOADED);
        subject
    }

    /// Lets its records change and its cache be saved, or leaves it in peace.
    pub fn be_busy(&self, busy: bool) {
        let flag = self.home.path().join(busy::FLAG);
        if busy {
            fs::write(flag, "").unwrap();
        } else {
            fs::remove_file(flag).unwrap();
        }
    }

    /// Starts a server and waits until it answers `probe`.
    pub fn start(
        name: &str,
        command: &[String],
        address: SocketAddr,
        processors: &[usize],
        home: TempDir,
        probe: &[u8],
    ) -> Self {
        let list: Vec<String> = processors.iter().map(usize::to_string).collect();
        let log = fs::File::create(home.path().join("log")).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["pinned", &list.join(",")])
            .args(command)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut subject = Self { name: name.to_owned(), address, child, echoes: false, home };
        subject.wait_for(probe);
        subject
    }

    fn wait_for(&mut self, probe: &[u8]) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let end = Instant::now() + START;
        let mut answer = [0; 512];
        // Refused until it listens, SERVFAIL until it has records.
        while socket.send_to(probe, self.address).is_err()
            || !socket.recv(&mut answer).is_ok_and(|length| length < 12 || answer[3].trailing_zeros() >= 4)
        {
            let log = || fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            assert!(self.child.try_wait().unwrap().is_none(), "{} ended:\n{}", self.name, log());
            assert!(Instant::now() < end, "{} does not answer:\n{}", self.name, log());
        }
    }

    /// Waits until a line of its log has this text.
    fn wait_for_log(&self, text: &str) {
        let end = Instant::now() + START;
        while !fs::read_to_string(self.home.path().join("log")).is_ok_and(|log| log.contains(text)) {
            assert!(Instant::now() < end, "{} does not say {text:?}", self.name);
            thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether its answers are to be looked into.
    pub fn answers(&self) -> bool {
        !self.echoes
    }

    /// The time that all its threads have run so far, those of its children included.
    pub fn processor_time(&self) -> Duration {
        Duration::from_nanos(processor_ns(self.child.id()))
    }
}

fn processor_ns(process: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return 0 };
    let of = |task: fs::DirEntry| {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let own: u64 = read("schedstat").split_ascii_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
        let children = read("children");
        own + children.split_ascii_whitespace().filter_map(|child| child.parse().ok()).map(processor_ns).sum::<u64>()
    };
    tasks.filter_map(Result::ok).map(of).sum()
}

impl Drop for Subject {
    fn drop(&mut self) {
        // Some servers are several processes; they are one group.
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.child.id())]).status();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub fn free_address() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Becomes `command` on these processors.
pub fn become_pinned(processors: &[usize], command: &[String]) {
    holdfast::sys::pin(processors).unwrap();
    let (program, arguments) = command.split_first().expect("a command");
    panic!("{program}: {}", Command::new(program).args(arguments).exec());
}
