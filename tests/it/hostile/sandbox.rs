//! What a process that was taken over can still do: each forbidden thing is tried from inside.
//!
//! The case runs in a process of its own, this test binary again, which gives up its rights and then runs a script. Perl is in
//! every Debian image and can make any system call.

use std::{env, path::Path, process::Command};

use holdfast::{
    node::privileges::{confine_calls, confine_files},
    role::{agent::prepare, hub::Hub},
    sys::Clock,
};

use crate::support::{apiserver::Apiserver, fleet::hub_config};

const CASE: &str = "HOLDFAST_TEST_SANDBOX";

/// Prints a word and what each attempt came to: 0, or the error.
const ATTEMPTS: &str = r#"
    use strict; use Socket;
    my %call = $ENV{ARCH} eq 'x86_64'
        ? (clone => 56, socket => 41, mmap => 9, mprotect => 10, memfd => 319, unshare => 272, ptrace => 101, bpf => 321)
        : (clone => 220, socket => 198, mmap => 222, mprotect => 226, memfd => 279, unshare => 97, ptrace => 117, bpf => 280);
    sub attempt { my ($name, $call, @args) = @_; $! = 0; my $got = syscall($call{$call}, @args); print "$name ", $got < 0 ? $!+0 : 0, "\n"; }
    attempt('inet', 'socket', 2, 1, 0);
    attempt('routes', 'socket', 16, 3, 0);
    attempt('netfilter', 'socket', 16, 3, 12);
    attempt('vsock', 'socket', 40, 1, 0);
    attempt('packet', 'socket', 17, 3, 0);
    attempt('raw', 'socket', 2, 3, 1);
    attempt('user-namespace', 'clone', 0x10000000 | 17, 0, 0, 0, 0);
    attempt('unshare', 'unshare', 0x10000000);
    attempt('writable-and-executable', 'mmap', 0, 4096, 7, 0x22, -1, 0);
    attempt('writable', 'mmap', 0, 4096, 3, 0x22, -1, 0);
    my $name = "x\0"; attempt('memory-file', 'memfd', $name, 0);
    attempt('ptrace', 'ptrace', 0, 0, 0, 0);
    attempt('bpf', 'bpf', 0, 0, 0);
    for my $path ('/etc/hostname', '/root/.profile', '/etc/shadow') { print "$path ", open(my $file, '<', $path) ? 0 : $!+0, "\n"; }
    print 'elsewhere ', open(my $file, '>', '/tmp/holdfast-sandbox') ? 0 : $!+0, "\n";
    print 'store ', open(my $in, '>', "$ENV{STORE}/file") ? 0 : $!+0, "\n";
"#;

fn run_confined(store: &Path) -> ! {
    confine_files(&[store.to_owned()], &[], true).unwrap();
    confine_calls(true).unwrap();
    attempt_all(store)
}

/// A hub that starts as the command does, and then turns on its machine.
fn run_hub(home: &Path) -> ! {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Its listener is there before: a hub has none of an apiserver's rights.
    let cluster = runtime();
    let server = cluster.block_on(Apiserver::start());
    let kubeconfig = server.kubeconfig(home);
    let arguments = ["--listen", "127.0.0.1:0", "--tls", "insecure", "--kubeconfig", kubeconfig.to_str().unwrap()];
    let config = hub_config(home, &arguments);
    let prepared = prepare(&config, &[], &[]);
    std::thread::spawn(move || cluster.block_on(std::future::pending::<()>()));
    let _hub = runtime().block_on(Hub::start_prepared(config, Clock::System, prepared)).unwrap();
    attempt_all(&home.join("store"))
}

fn attempt_all(store: &Path) -> ! {
    let mut perl = Command::new("/usr/bin/perl");
    let run = perl.args(["-e", ATTEMPTS]).env("ARCH", env::consts::ARCH).env("STORE", store).status().unwrap();
    std::process::exit(run.code().unwrap_or(1));
}

/// Runs the test `name` again, in a process of its own that becomes the case.
fn come_to(name: &str) -> Option<String> {
    if !Path::new("/usr/bin/perl").exists() {
        eprintln!("no perl: nothing is tried from inside the sandbox");
        return None;
    }
    let home = tempfile::tempdir().unwrap();
    let mut again = Command::new(env::current_exe().unwrap());
    again.args(["--exact", &format!("hostile::sandbox::{name}"), "--nocapture"]);
    let output = again.env(CASE, home.path()).output().unwrap();
    Some(format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

fn assert_refused(text: &str) {
    let came_to = |word: &str| -> Option<i32> {
        let line = text.lines().find(|line| line.split(' ').next() == Some(word))?;
        line.split(' ').nth(1)?.parse().ok()
    };
    let refused = Some(libc::EPERM);
    for allowed in ["inet", "routes", "writable", "store"] {
        assert_eq!(came_to(allowed), Some(0), "{allowed}: {text}");
    }
    for forbidden in [
        "netfilter",
        "vsock",
        "packet",
        "raw",
        "user-namespace",
        "unshare",
        "writable-and-executable",
        "memory-file",
        "ptrace",
        "bpf",
    ] {
        assert_eq!(came_to(forbidden), refused, "{forbidden}: {text}");
    }
    assert_eq!(came_to("elsewhere"), Some(libc::EACCES), "{text}");
    // Other users cannot read them anyway, and a machine may have none.
    for secret in ["/root/.profile", "/etc/shadow"] {
        let told = came_to(secret);
        let replaced_in_place = secret == "/etc/shadow" && told == Some(0);
        assert!(replaced_in_place || matches!(told, Some(libc::EACCES | libc::ENOENT)), "{secret}: {text}");
    }
}

#[test]
fn nothing_forbidden_works_from_inside() {
    if let Some(store) = env::var_os(CASE) {
        run_confined(Path::new(&store));
    }
    if let Some(text) = come_to("nothing_forbidden_works_from_inside") {
        assert_refused(&text);
    }
}

#[test]
fn nothing_forbidden_works_from_inside_a_hub() {
    if let Some(home) = env::var_os(CASE) {
        run_hub(Path::new(&home));
    }
    if let Some(text) = come_to("nothing_forbidden_works_from_inside_a_hub") {
        assert_refused(&text);
    }
}
