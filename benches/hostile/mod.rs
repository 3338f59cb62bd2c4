//! A node's daemons, a well-behaved client and one at its worst, each in a network namespace of its own: what `fairness` and `soak` share.
//! Needs root and `ip`.

pub mod attack;
pub mod places;
pub mod victim;

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use attack::Attack;
use places::{Pod, Targets};
use victim::{OF_NODE, OF_POD, Report};

/// The attacker is at work this long before the others begin.
const HEAD_START: Duration = Duration::from_millis(1_500);

/// Plays a client if these arguments of the program are of one.
pub fn played_client(words: &[&str]) -> bool {
    match words[..] {
        ["attacker", targets, name, run] => on_runtime(async {
            Attack::find(name).run(&Targets::read(targets), run.parse().unwrap()).await;
        }),
        ["victim", targets, seconds, run, ref kinds @ ..] => on_runtime(async {
            let (seconds, run) = (seconds.parse().unwrap(), run.parse().unwrap());
            let report = victim::run(&Targets::read(targets), seconds, run, kinds).await;
            println!("{}", serde_json::to_string(&report).unwrap());
        }),
        _ => return false,
    }
    true
}

fn on_runtime(task: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(task);
}

/// Where the clients are.
pub struct Clients {
    attacker: Pod,
    victim: Pod,
}

impl Clients {
    pub fn new() -> Self {
        Self { attacker: Pod::new(0), victim: Pod::new(1) }
    }

    /// One attack, while the victim asks for `seconds`. `run` makes names different from those of other runs.
    pub fn play(&self, targets: &Path, attack: &Attack, seconds: u32, run: u32) -> Report {
        let (targets, seconds, run) = (targets.to_str().unwrap(), seconds.to_string(), run.to_string());
        let mut attacking = self.attacker.command(&["attacker", targets, attack.name, &run]).spawn().unwrap();
        thread::sleep(HEAD_START);
        let asking = |mut command: Command, kinds: &[&str]| -> Child {
            command.args(kinds).stdout(Stdio::piped()).spawn().unwrap()
        };
        let arguments = ["victim", targets, &seconds, &run];
        let pod = asking(self.victim.command(&arguments), &OF_POD);
        // The kubelet asks from the node.
        let mut node = Command::new(std::env::current_exe().unwrap());
        node.args(arguments);
        let node = asking(node, &OF_NODE);
        let reports = [pod, node].map(|child| child.wait_with_output().unwrap().stdout);
        attacking.kill().unwrap();
        attacking.wait().unwrap();
        reports.iter().flat_map(|report| serde_json::from_slice::<BTreeMap<_, _>>(report).unwrap()).collect()
    }
}
