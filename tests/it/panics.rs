//! A panic ends the process, on whichever thread it is; one where it is expected does not.
//!
//! Each case runs in a process of its own: this test binary again, told by a variable what to do.

use std::{
    env,
    os::unix::process::ExitStatusExt as _,
    process::{Command, Output},
    sync::Arc,
    thread,
};

use futures::future::{BoxFuture, FutureExt as _};
use holdfast::{
    dns::{Config, Context, ForwardRequest, Metrics, Resolve, Resolved, ServedFrom, Transport, cache::WorkerCache},
    store,
    sys::{Clock, UnixMillis, abort_on_panic, contained},
    wire::{Query, Rtype},
    zone::{self, Zone},
};

use crate::support::{
    ask::query,
    dns::{bind, udp},
};

const CASE: &str = "HOLDFAST_TEST_PANIC";

/// Whoever is asked panics: on the worker's own thread, or on the runtime.
struct Panics {
    on_worker: bool,
}

impl Resolve for Panics {
    fn resolve(&self, _: ForwardRequest) -> BoxFuture<'static, Resolved> {
        async { panic!("the test's, on the runtime") }.boxed()
    }

    fn cached(
        &self,
        _: &Query<'_>,
        _: Transport,
        _: UnixMillis,
        _: &mut WorkerCache,
        _: &mut [u8],
    ) -> Option<(usize, ServedFrom)> {
        assert!(!self.on_worker, "the test's, on a worker");
        None
    }
}

/// Serves, and asks for a name that is forwarded. Returns if nobody answers within the patience of the socket.
fn ask_a_server_that_panics(on_worker: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _entered = runtime.enter();
    let bound = bind(&["127.0.0.1:0"], Config { workers: 1, ..Config::default() });
    let server = bound.addresses()[0];
    let (_writer, reader) = store::open();
    let context = Context::new(Zone::new(&zone::Config::default()), reader, holdfast::dns::AnswerConfig::default());
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    let _running = bound.serve(Arc::new(context), Arc::new(Panics { on_worker }), Clock::System, metrics);
    let client = udp(server);
    client.send(&query(b"\x03www\x07example\0", Rtype::A, None)).unwrap();
    let _ = client.recv(&mut [0; 512]);
}

/// Does nothing but in the processes that the others start.
#[test]
fn child() {
    let Ok(case) = env::var(CASE) else { return };
    abort_on_panic();
    match case.as_str() {
        "worker" => ask_a_server_that_panics(true),
        "task" => ask_a_server_that_panics(false),
        "thread" => drop(thread::spawn(|| panic!("the test's, on a thread")).join()),
        "contained" => {
            let panicked = contained(|| panic!("the test's, expected"));
            assert_eq!(panicked, Err::<(), _>("the test's, expected".to_owned()));
            assert_eq!(contained(|| 7), Ok(7));
        }
        "after" => {
            let _ = contained(|| panic!("the test's, expected"));
            panic!("the test's, after it");
        }
        other => panic!("no such case: {other}"),
    }
}

fn run(case: &str) -> Output {
    let mut command = Command::new(env::current_exe().expect("this binary"));
    command.args(["--exact", "panics::child", "--nocapture", "--test-threads=1"]).env(CASE, case);
    command.output().expect("this binary runs")
}

#[test]
fn a_panic_on_any_thread_or_task_says_where_and_ends_the_process() {
    for (case, told) in [
        ("worker", "the test's, on a worker"),
        ("task", "the test's, on the runtime"),
        ("thread", "the test's, on a thread"),
        ("after", "the test's, after it"),
    ] {
        let Output { status, stderr, .. } = run(case);
        let stderr = String::from_utf8_lossy(&stderr);
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{case}: {status}\n{stderr}");
        assert!(stderr.contains(told) && stderr.contains("tests/it/panics.rs:"), "{case}: {stderr}");
    }
}

#[test]
fn a_panic_where_one_is_expected_is_survived() {
    let Output { status, stderr, .. } = run("contained");
    assert!(status.success(), "{status}\n{}", String::from_utf8_lossy(&stderr));
}
