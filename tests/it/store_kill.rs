//! SIGKILL at any moment: the store opens, and holds a state that once existed.
//!
//! The test runs itself a second time as the process to be killed: that child keeps a store and goes through numbered
//! states, each of which can be worked out from its number, so whatever is found on disk can be told from what should be.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use holdfast::{
    record::{Change, Endpoint, Kind, Port, Protocol, Service, ServiceKey, Snapshot},
    store::{
        self, Origin, What,
        disk::{self, Config, Loaded},
    },
    sys::{Clock, UnixMillis},
};
use rand::RngExt;

/// Services in every state; of these a few differ from one state to the next.
const SERVICES: u64 = 300;
/// Tells the child where its store is.
const DIRECTORY: &str = "HOLDFAST_TEST_KILL_DIRECTORY";
/// Tells the child how long to wait between commits, in milliseconds.
const RECORDS_EVERY: &str = "HOLDFAST_TEST_KILL_RECORDS_EVERY";

/// Service `n` as of state `rev`: a tenth of them change with each state, some by going away.
fn service(n: u64, rev: u64) -> Option<Change> {
    let changed = rev + 10 - (rev + n) % 10;
    if n.is_multiple_of(10) && (changed / 10).is_multiple_of(2) {
        return None;
    }
    let port = Port { name: "web".into(), protocol: Protocol::Tcp, port: u16::try_from(changed % 65_000).unwrap() + 1 };
    let key = ServiceKey::new(&format!("ns-{}", n % 9), &format!("svc-{n}"));
    let ip = [10, 96, u8::try_from(n / 250).unwrap(), u8::try_from(n % 250).unwrap()].into();
    Some(Change::Put(Arc::new(if n.is_multiple_of(2) {
        Service::new(key, Kind::ClusterIp([ip].into()), vec![port], vec![])
    } else {
        let endpoint = Endpoint { ip, hostname: None, ports: [port].into(), ready: true };
        Service::new(key, Kind::Headless, vec![], vec![endpoint])
    })))
}

fn state(rev: u64) -> impl Iterator<Item = Change> {
    (0..SERVICES).filter_map(move |n| service(n, rev))
}

/// State `rev` as the child's source would list it. The writer numbers states 1, 2, 3… itself.
fn list(rev: u64) -> What {
    What::Reset {
        origin: Origin::Watched { cluster: "uid".into(), new_epoch: false },
        records: state(rev).collect(),
        as_of: UnixMillis(rev),
    }
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

fn config(directory: &Path) -> Config {
    Config { path: directory.to_owned(), ..Config::default() }
}

fn metrics() -> disk::Metrics {
    disk::Metrics::register(&prometheus::Registry::new(), &Clock::System).unwrap()
}

/// The child: from the state on disk through all that follow, saying so after each, until it is killed.
fn write_until_killed(directory: &Path) -> ! {
    let every = env::var(RECORDS_EVERY).unwrap().parse().unwrap();
    let config = Config { records_every: Duration::from_millis(every), ..config(directory) };
    let (disk, loaded) = disk::open(&config, &Clock::System, &metrics()).unwrap();
    let (mut writer, reader) = store::open();
    let mut rev = 0;
    if let Some(loaded) = loaded {
        rev = loaded.snapshot.version().rev;
        writer.restore(loaded.snapshot, loaded.as_of);
    }
    let _follower = disk.follow(&reader).unwrap();
    let mut out = std::io::stdout();
    loop {
        rev += 1;
        writer.apply(list(rev)).unwrap();
        assert_eq!(reader.load().version().rev, rev);
        writeln!(out, "state {rev} {}", now_ms()).unwrap();
        out.flush().unwrap();
    }
}

/// Starts this very test as the child.
fn start_child(test: &str, directory: &Path, records_every: Duration) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .env(RECORDS_EVERY, records_every.as_millis().to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Lets the child run until it reaches a state that is `lifetime` younger than its first, by its own clock, kills it, and
/// gives the states it reached, with their times.
fn kill_after(mut child: Child, lifetime: Duration) -> (Vec<(u64, u128)>, u128) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    // The test runner's own "test … ... " stands before the first.
    let parse = |line: String| {
        let mut words = line.split_once("state ")?.1.split(' ');
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    let mut reached: Vec<(u64, u128)> = Vec::new();
    let lived = |reached: &[(u64, u128)]| match reached {
        [(_, first), .., (_, last)] => last - first >= lifetime.as_millis(),
        [_] => lifetime.is_zero(),
        [] => false,
    };
    while !lived(&reached) {
        reached.push(lines.by_ref().find_map(parse).expect("the child reaches one state after the other"));
    }
    let killed_at = now_ms();
    child.kill().unwrap();
    child.wait().unwrap();
    // What it had said by then; a line may have been cut.
    reached.extend(lines.filter_map(parse));
    (reached, killed_at)
}

/// The state found must be the one its version names, record for record.
fn assert_existed(loaded: &Loaded) -> u64 {
    let version = loaded.snapshot.version();
    let expected = Snapshot::default().apply(state(version.rev), version.clone());
    assert_eq!(loaded.snapshot.root(), expected.root(), "what is on disk is not state {version}");
    assert_eq!(loaded.snapshot.counts(), expected.counts());
    // The age is read before the records, so it may be that of an earlier state, never of a later one.
    assert!(loaded.as_of <= UnixMillis(version.rev), "state {version} looks younger than it is: {}", loaded.as_of.0);
    version.rev
}

#[test]
fn killed_200_times_the_store_always_opens_and_holds_a_state_that_existed() {
    if let Some(directory) = env::var_os(DIRECTORY) {
        write_until_killed(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let mut rng = rand::rng();
    let (mut before, mut found, mut advanced) = (0, 0, 0);
    for kill in 0..200 {
        let child = start_child(
            "store_kill::killed_200_times_the_store_always_opens_and_holds_a_state_that_existed",
            directory.path(),
            Duration::ZERO,
        );
        let (reached, _) = kill_after(child, Duration::from_micros(rng.random_range(0..120_000)));
        let loaded = match disk::read(directory.path()) {
            Ok(loaded) => loaded,
            // Killed before its first commit was done.
            Err(disk::ReadError::Missing { .. }) if found == 0 => continue,
            Err(error) => panic!("kill {kill}: {error}"),
        };
        let rev = assert_existed(&loaded);
        assert!(rev >= before, "kill {kill}: state {rev}, but {before} was on disk before");
        assert!(rev <= reached.last().unwrap().0 + 1, "kill {kill}: state {rev} was never reached");
        advanced += u32::from(rev > before);
        found += 1;
        before = rev;
    }
    assert!(found > 190, "only {found} kills left a store");
    assert!(advanced > 20, "only {advanced} kills came after a commit: this tests nothing");
    let (disk, loaded) = disk::open(&config(directory.path()), &Clock::System, &metrics()).unwrap();
    assert_eq!(disk.status().start, disk::Start::Loaded);
    assert_existed(&loaded.unwrap());
}

#[test]
fn a_kill_loses_no_more_than_the_last_second() {
    if let Some(directory) = env::var_os(DIRECTORY) {
        write_until_killed(Path::new(&directory));
    }
    let mut rng = rand::rng();
    for kill in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let child = start_child(
            "store_kill::a_kill_loses_no_more_than_the_last_second",
            directory.path(),
            Config::default().records_every,
        );
        let (reached, killed_at) = kill_after(child, Duration::from_millis(rng.random_range(2_500..4_000)));
        let rev = assert_existed(&disk::read(directory.path()).unwrap());
        let lost_since = reached.iter().find(|(state, _)| *state > rev).map_or(killed_at, |(_, at)| *at);
        // A second between two commits, and what a loaded machine may need for one of them.
        assert!(killed_at - lost_since <= 2_000, "kill {kill}: {} ms of states are lost", killed_at - lost_since);
    }
}
