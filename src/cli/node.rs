//! `holdfast node`: interface and rules by hand, and the watch over them.

use std::{os::fd::AsFd as _, path::Path};

use anyhow::Context as _;
use clap::Subcommand;
use tracing::{info, warn};

use super::log;
use crate::{
    config::{self, AgentFlags, Role, Settings},
    ctl::{self, Exit, Failed},
    node::{
        self, Config, Goal, Outcome,
        privileges::{InheritedCaps, confine_files, drop_capabilities},
        watch::{
            self, About, Event, Mode, Orders,
            keeper::{config_line, keep},
        },
    },
    report::Time,
    sys::Clock,
};

/// What to do with the node.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// Create or repair the interface, its addresses and the rules
    Setup {
        /// The flags of the agent, as they would be given to it
        #[command(flatten)]
        flags: AgentFlags,
    },
    /// Compare the node with the configuration; exit code 1 if something is missing or differs
    Check {
        /// The flags of the agent, as they would be given to it
        #[command(flatten)]
        flags: AgentFlags,
    },
    /// Remove the interface and the rules
    Teardown {
        /// The flags of the agent, as they would be given to it
        #[command(flatten)]
        flags: AgentFlags,
    },
    /// Exit code 0 if the agent of this container is ready: for a startup probe
    Ready {
        /// The flags of the agent, as they would be given to it
        #[command(flatten)]
        flags: AgentFlags,
    },
    /// Set up and keep running: repair changes, and give the address to the cluster's DNS while no agent answers
    Watch {
        /// Started by an agent: the configuration comes by standard input, and so does the end
        #[arg(long, hide = true)]
        child: bool,
        /// Started by such a one, with the configuration
        #[arg(long, hide = true, value_name = "JSON")]
        kept: Option<String>,
        /// The one before it had begun
        #[arg(long, hide = true, requires = "kept")]
        begun: bool,
        /// The flags of the agent, as they would be given to it
        #[command(flatten)]
        flags: AgentFlags,
    },
}

/// Does it.
///
/// # Errors
/// If the system has no threads or signals for us.
pub fn run(what: &Node) -> anyhow::Result<Exit> {
    let flags = match what {
        Node::Watch { child: true, .. } => return keeper(),
        Node::Watch { kept: Some(config), begun, .. } => return kept(config, *begun),
        Node::Setup { flags }
        | Node::Check { flags }
        | Node::Teardown { flags }
        | Node::Ready { flags }
        | Node::Watch { flags, .. } => flags,
    };
    let settings = config::load_settings(Role::Agent, &flags.0).map_err(Failed::faults)?;
    if matches!(what, Node::Ready { .. }) {
        return ready(&settings.admin);
    }
    // A command by hand means both.
    let config = Config { setup_interface: true, setup_notrack: true, ..settings.node() };
    if matches!(what, Node::Watch { .. }) && !config.local_ips.is_empty() {
        return resident(&settings, &config);
    }
    let runtime = runtime()?;
    let keepers = runtime.block_on(watch::keepers());
    // Without flags, the settings of the processes of this node.
    let configs = match config.local_ips.as_slice() {
        [] if !matches!(what, Node::Watch { .. }) => keepers.iter().map(|about| about.config.clone()).collect(),
        [] => Vec::new(),
        _ => vec![config],
    };
    if configs.is_empty() {
        let told = "no address for the interface, and no agent keeps one on this node: give --listen 169.254.20.10, or \
                    node.local_ips in the file";
        return Err(Failed::Usage(told.into()).into());
    }
    let mut worst = Exit::Ok;
    for config in &configs {
        let done = match what {
            Node::Check { .. } => checked(config, &keepers),
            Node::Teardown { .. } => torn_down(config, &runtime),
            _ => told("fixed: ", &node::reach(config, &Goal::Serving), Exit::Ok),
        };
        if worst == Exit::Ok {
            worst = done;
        }
    }
    Ok(worst)
}

/// Removes the interface, the rules and the block in the hosts file: each, whatever becomes of the others.
fn torn_down(config: &Config, runtime: &tokio::runtime::Runtime) -> Exit {
    runtime.block_on(watch::dismiss(config));
    let exit = told("fixed: ", &node::reach(config, &Goal::Gone), Exit::Ok);
    let Some(path) = &config.hosts_file else { return exit };
    match node::put_block(path, &[]) {
        Ok(true) => println!("removed the keep list from {}", path.display()),
        Ok(false) => {}
        Err(error) => {
            eprintln!(
                "holdfast: the keep list is not removed: {error}; run this in the agent's container, or remove its block by hand"
            );
            return Exit::Unreadable;
        }
    }
    exit
}

/// Says which process keeps the addresses, and what is not as it should be.
fn checked(config: &Config, keepers: &[About]) -> Exit {
    let now = Time(Clock::System.now());
    let shares = |about: &&About| about.keeper.addresses.iter().any(|ip| config.local_ips.contains(ip));
    for About { keeper, .. } in keepers.iter().filter(shares) {
        let ips: Vec<String> = keeper.addresses.iter().map(ToString::to_string).collect();
        println!("kept: {} on {} by {}", ips.join(", "), keeper.interface, keeper.words(now));
    }
    let outcome = node::check(config, &Goal::Serving);
    let differs = if outcome.steps.is_empty() { Exit::Ok } else { Exit::No };
    told("", &outcome, differs)
}

/// Says whether the agent in this container is ready. During a hand-over there are two on the node, and the socket has been
/// taken over by the newcomer or has not.
fn ready(socket: &Path) -> anyhow::Result<Exit> {
    let in_here = runtime()?.block_on(async {
        let stream = tokio::net::UnixStream::connect(socket).await?;
        // The kernel has no number for a process of another container.
        Ok::<_, std::io::Error>(stream.peer_cred()?.pid().is_some_and(|pid| pid != 0))
    });
    let at = || match ctl::silence(socket) {
        Some(told) => told,
        None => format!("admin socket {}", socket.display()),
    };
    if !in_here.with_context(at)? {
        println!("the agent that answers is another container's");
        return Ok(Exit::No);
    }
    match ctl::ready(socket) {
        Ok(()) => Ok(Exit::Ok),
        Err(error) => {
            println!("{error}");
            Ok(Exit::No)
        }
    }
}

/// Prints what differed, after what became of it, and what could not be done.
fn told(done: &str, outcome: &Outcome, exit: Exit) -> Exit {
    let done = if outcome.errors.is_empty() { done } else { "" };
    for step in &outcome.steps {
        println!("{done}{step}");
    }
    for error in &outcome.errors {
        eprintln!("holdfast: {error}");
    }
    if outcome.errors.is_empty() { exit } else { Exit::Unreadable }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")
}

/// Gives up all that looking after interface and rules does not take.
fn confine() -> Vec<String> {
    let capabilities = drop_capabilities(&[caps::Capability::CAP_NET_ADMIN]);
    let files = confine_files(&[], &[], false);
    [capabilities, files].into_iter().filter_map(Result::err).map(|error| error.to_string()).collect()
}

fn resident(settings: &Settings, config: &Config) -> anyhow::Result<Exit> {
    let _filter = log::init(settings)?;
    for error in confine() {
        warn!(error, "the node watch could not drop all its rights");
    }
    let tell = |event: Event| match event {
        Event::Ready => info!(interface = config.interface, "watching"),
        Event::Left => info!("stopping"),
        event => event.log(),
    };
    runtime()?.block_on(watch::run(config, Mode::Resident, Orders::none(), tell))?;
    Ok(Exit::Ok)
}

/// Between an agent and its watch: may start programs, with the one capability these take.
fn keeper() -> anyhow::Result<Exit> {
    let _ = drop_capabilities(&[caps::Capability::CAP_NET_ADMIN]);
    let _ = confine_files(&[], &[], true);
    let _inherited = InheritedCaps::net_admin();
    // Unbuffered: the orders behind the configuration are the watch's to read.
    let input = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    keep(&config_line(input).context("standard input")?);
    Ok(Exit::Ok)
}

fn kept(config: &str, begun: bool) -> anyhow::Result<Exit> {
    let _ = confine();
    let config = serde_json::from_str(config).context("the configuration of the watch")?;
    runtime()?.block_on(async {
        let tell = |event: Event| {
            use std::io::Write;
            // Without an agent to read the pipe, the process that started it reads standard error.
            let line = watch::to_line(&event);
            if writeln!(std::io::stdout(), "{line}").is_err() {
                let _ = writeln!(std::io::stderr(), "holdfast node watch: {line}");
            }
        };
        watch::run(&config, Mode::Child, Orders::stdin(begun)?, tell).await?;
        Ok(Exit::Ok)
    })
}
