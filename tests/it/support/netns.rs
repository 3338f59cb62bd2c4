//! A network namespace for one test, whose kernel then loses packets as nftables says. Needs root.

use std::process::Command;

/// Set in the process that has the namespace.
const INSIDE: &str = "HOLDFAST_TEST_INSIDE_NETNS";

/// Runs a command to its end, or says why it could not.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("{command:?}: {} {} {}", output.status, text(&output.stdout), text(&output.stderr)))
}

/// True in a namespace of the test's own, whose loopback is up. Where it is not, runs the test again in one, and prints why
/// if there can be none; the test has nothing left to do then.
pub fn entered() -> bool {
    if std::env::var_os(INSIDE).is_some() {
        run(Command::new("ip").args(["link", "set", "lo", "up"])).unwrap();
        return true;
    }
    let this = std::env::current_exe().unwrap();
    let name = std::thread::current().name().unwrap().to_owned();
    if let Err(why) =
        run(Command::new("unshare").args(["--net", "true"])).and_then(|_| run(Command::new("nft").arg("-v")))
    {
        eprintln!("skipped: {why}");
        return false;
    }
    let mut inside = Command::new("unshare");
    inside.arg("--net").arg(this).args([&name, "--exact", "--nocapture"]).env(INSIDE, "1");
    let said = run(&mut inside).unwrap();
    assert!(said.contains("1 passed"), "{said}");
    false
}

/// Puts these rules on what comes in at the loopback of this namespace, in place of those before.
pub fn on_input(rules: &str) {
    let table = "add table inet test; delete table inet test; table inet test";
    let chain = format!("{table} {{ chain input {{ type filter hook input priority 0; {rules}; }}; }}");
    run(Command::new("nft").arg(chain)).unwrap();
}
