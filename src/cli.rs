//! The command line: what it takes, and which part of holdfast does it.
//!
//! Owns the subcommands and how their errors reach the terminal. A new subcommand is a variant of
//! [`Command`] and its arm in [`run`].

mod certs;
mod go_flags;
mod import;
pub mod log;
mod node;
mod node_cache;
mod offline;
mod simulate;
mod tool;

use std::{ffi::OsString, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use tracing::{error, info, warn};

use crate::{
    config::{self, AgentFlags, Config, Flags, HubFlags, Role, RoleFlags},
    ctl::{
        self, ControlPlaneArgs, DiffArgs, DumpArgs, Exit, GuardArgs, LookupArgs, Output, PinArgs, StatusArgs,
        UnpinArgs, print,
    },
    node::{parent, privileges::directory_of},
    role::{
        Reread, Signals, Why,
        agent::{self, Agent, Prepared},
        descriptors,
        hub::Hub,
    },
    sys::{self, Clock, FdStore, fdstore},
};

/// Cluster DNS that outlives the control plane.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, disable_help_subcommand = true, max_term_width = 110)]
#[command(after_help = "Exit codes: 0 found or equal, 1 not found or different, 2 usage, 3 could not read.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer DNS on this node from records in memory and on disk
    Agent {
        /// Every setting that has a flag
        #[command(flatten)]
        flags: AgentFlags,
    },
    /// Follow a cluster and stream its records to agents and other hubs
    Hub {
        /// Every setting that has a flag
        #[command(flatten)]
        flags: HubFlags,
    },
    /// Run in place of NodeLocal DNSCache, with its flags, its Corefile and its config maps
    NodeCache(node_cache::NodeCacheArgs),
    /// Translate a Corefile into a holdfast configuration, and list what is not honoured
    ImportCorefile(import::ImportArgs),
    /// Print every record: services, ports and endpoints
    Dump(DumpArgs),
    /// Show the answer DNS gives for a name, and where it comes from
    Lookup(LookupArgs),
    /// Show the state of a process: records and their age, source, disk
    Status(StatusArgs),
    /// Answer a name with fixed addresses, whatever the cluster says; without a name, list all pins
    Pin(PinArgs),
    /// Remove a pin
    Unpin(UnpinArgs),
    /// Compare two sets of records
    Diff(DiffArgs),
    /// Test every known apiserver address from here; or write a kubeconfig for one of them
    ControlPlane(ControlPlaneArgs),
    /// Show deletions that the guard holds back, and why; or release them
    Guard(GuardArgs),
    /// Make a CA and certificates for hubs and agents, where there is no cert-manager
    Certs(certs::Certs),
    /// Load tests: thousands of agents on a hub, or queries on an agent
    #[command(subcommand)]
    Simulate(simulate::Simulate),
    /// Set up the node: the interface with the DNS addresses, and rules that disable connection tracking for them
    #[command(subcommand)]
    Node(node::Node),
    /// Check a configuration: print all errors, or the configuration in effect
    CheckConfig {
        /// Whose it is, and its flags, as they would be given to it
        #[command(flatten)]
        flags: RoleFlags,
        /// Check for another machine: what a pod has in its environment is taken as given, and no file is looked for
        #[arg(long)]
        offline: bool,
    },
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version {
        /// How
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
}

/// Does what the command line says.
///
/// # Errors
/// A file or process that could not be read, reached or written, for [`Exit::Unreadable`].
pub fn run(cli: Cli) -> anyhow::Result<Exit> {
    match cli.command {
        Command::Agent { flags } => daemon(Role::Agent, &flags.0),
        Command::Hub { flags } => daemon(Role::Hub, &flags.0),
        Command::NodeCache(args) => node_cache::run(&args),
        Command::ImportCorefile(args) => import::run(&args),
        Command::Dump(args) => ctl::dump(&args),
        Command::Lookup(args) => ctl::lookup(&args),
        Command::Status(args) => ctl::status(&args),
        Command::Pin(args) => ctl::pin(&args),
        Command::Unpin(args) => ctl::unpin(&args),
        Command::Diff(args) => ctl::diff(&args),
        Command::ControlPlane(args) => ctl::control_plane(&args),
        Command::Guard(args) => ctl::guard(&args),
        Command::Certs(args) => certs::run(&args),
        Command::Simulate(what) => simulate::run(&what),
        Command::Node(what) => node::run(&what),
        Command::CheckConfig { flags, offline } => check_config(&flags, offline),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "holdfast", &mut text);
            print(&text)?;
            Ok(Exit::Ok)
        }
        Command::Version { output } => {
            let version = env!("CARGO_PKG_VERSION");
            match output {
                Output::Table => print(format!("holdfast {version}\n").as_bytes())?,
                Output::Json => print(format!("{}\n", serde_json::json!({ "version": version })).as_bytes())?,
            }
            Ok(Exit::Ok)
        }
    }
}

/// Runs the command line of this process and says how it ended.
pub fn main() -> ExitCode {
    sys::abort_on_panic();
    let mut line: Vec<OsString> = std::env::args_os().collect();
    if node_cache::is_meant(line.iter().map(|word| word.to_string_lossy().into_owned())) {
        line.insert(1.min(line.len()), "node-cache".into());
    }
    let answers = line.get(1).is_some_and(|role| role == "agent" || role == "node-cache");
    if answers
        && !fdstore::is_child()
        && let Some(code) = parent::run(&line)
    {
        return ExitCode::from(code);
    }
    let json = wants_json(&line);
    let exit = run(Cli::parse_from(line)).unwrap_or_else(|error| {
        // A single line with all causes, after the log lines that still wait.
        log::flush();
        sys::write_stderr(&format!("holdfast: {error:#}\n"));
        tell_parent(&format!("{error:#}"));
        let exit = ctl::exit_of(&error);
        if json {
            let document = serde_json::json!({ "error": format!("{error:#}"), "exit_code": exit as u8 });
            // Standard error has the line already.
            let _ = print(format!("{document}\n").as_bytes());
        }
        exit
    });
    log::flush();
    ExitCode::from(exit as u8)
}

/// Whether `-o json` was given: then errors are JSON too.
fn wants_json(line: &[OsString]) -> bool {
    let words: Vec<_> = line.iter().map(|word| word.to_string_lossy()).collect();
    let joined = |word: &str| matches!(word, "-ojson" | "-o=json" | "--output=json");
    words.iter().any(|word| joined(word))
        || words.windows(2).any(|pair| matches!(&*pair[0], "-o" | "--output") && pair[1] == "json")
}

/// How often the configuration file is looked at for changes, as a changed `ConfigMap` brings them.
const CONFIG_EVERY: Duration = Duration::from_secs(10);

/// Says why this process ends, for `status` of the next one.
fn tell_parent(line: &str) {
    if let Some(store) = FdStore::inherited() {
        store.tell(fdstore::Kind::Failed, line);
    }
}

/// Threads for TCP, forwards and the source; UDP has its own.
const RUNTIME_THREADS: usize = 2;
/// The time for blocking work once everything else has stopped.
const BLOCKING_END: Duration = Duration::from_millis(100);

/// Runs a daemon on a runtime of its own, whose threads begin with `on_thread_start`.
fn run_to_end(
    on_thread_start: impl Fn() + Send + Sync + 'static,
    daemon: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .on_thread_start(on_thread_start)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let done = runtime.block_on(daemon);
    runtime.shutdown_timeout(BLOCKING_END);
    done.map(|()| Exit::Ok)
}

fn daemon(role: Role, flags: &Flags) -> anyhow::Result<Exit> {
    if role == Role::Hub {
        sys::keep_little_resident();
    }
    let load = || config::load(role, flags, config::environment);
    let config = match load() {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            tell_parent(errors.to_string().lines().last().unwrap_or_default());
            return Ok(Exit::Usage);
        }
    };
    let filter = log::init(&config.settings)?;
    let mut seen = flags.file.as_ref().and_then(|file| std::fs::read(file).ok());
    let reload = |why| {
        let text = flags.file.as_ref().and_then(|file| std::fs::read(file).ok());
        // A file that is away for a moment, as while a ConfigMap is replaced, is no change.
        if why == Why::Time && (text.is_none() || text == seen) {
            return Ok(None);
        }
        seen = text;
        match load() {
            Ok(config) => {
                if let Err(error) = filter.set(&config.settings.log_filter) {
                    error!(%error, "log.filter refused: the one before stays in effect");
                }
                Ok(Some(config))
            }
            Err(errors) => {
                let reason = errors.to_string();
                for error in errors.0 {
                    error!(%error, "configuration refused: the one before stays in effect");
                }
                Err(reason)
            }
        }
    };
    // Before files are out of reach: a process that answers must not be able to change a program that people run as root.
    if let Some(path) = &config.settings.node_tool_path
        && let Err(error) = tool::put(path)
    {
        warn!(path = %path.display(), %error, "no copy of the tool on the node: DNS is not affected");
    }
    let interval = flags.file.is_some().then_some(CONFIG_EVERY);
    let readable: Vec<_> = flags.file.iter().map(|file| directory_of(file)).collect();
    let prepared = agent::prepare(&config, &[], &readable);
    log::start_thread(prepared.on_thread_start());
    descriptors::raise();
    run_to_end(prepared.on_thread_start(), serve(role, config, prepared, interval, reload))
}

async fn serve(
    role: Role,
    config: Config,
    prepared: Prepared,
    interval: Option<Duration>,
    read: impl FnMut(Why) -> Reread,
) -> anyhow::Result<()> {
    let signals = Signals::take().context("take over the signals")?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        role = role.name(),
        source = %config.source,
        config = %config.file.as_deref().map_or_else(|| "flags only".into(), |file| file.display().to_string()),
        digest = config.digest(),
        "holdfast starts"
    );
    match role {
        Role::Agent => Agent::start_prepared(config, Clock::System, prepared).await?.run(signals, interval, read).await,
        Role::Hub => Hub::start_prepared(config, Clock::System, prepared).await?.run(signals, interval, read).await,
    }
    Ok(())
}

fn check_config(RoleFlags { role, flags }: &RoleFlags, offline: bool) -> anyhow::Result<Exit> {
    let environment = if offline { offline::environment } else { config::environment };
    let config = match config::load(*role, flags, environment) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return Ok(Exit::Usage);
        }
    };
    // Faults that depend on the machine are warnings: the configuration may be for another one.
    if offline {
        if let Some(assumed) = offline::assumed(&config) {
            eprintln!("note: {assumed}");
        }
    } else {
        for told in offline::missing(&config) {
            eprintln!("warning: {told}: missing on this machine; for another one give --offline");
        }
        if config.role == Role::Agent {
            for told in Agent::complaints(&config) {
                eprintln!("warning: {told}");
            }
        }
    }
    print(config.to_yaml().as_bytes())?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_settings_are_read() {
        let line = ["holdfast", "check-config", "--listen", "::1,127.0.0.1", "--listen", "127.0.0.2", "--config", "f"];
        let Command::CheckConfig { flags, .. } = Cli::try_parse_from(line).unwrap().command else { panic!() };
        assert_eq!((flags.role, flags.flags.file.as_deref()), (Role::Agent, Some(Path::new("f"))));
        assert_eq!(flags.flags.given.len(), 1);
        assert_eq!(flags.flags.given[0].values, ["::1", "127.0.0.1", "127.0.0.2"]);
    }

    #[test]
    fn a_configuration_is_checked_for_the_role_that_is_named() {
        let parse = |line: &[&str]| Cli::try_parse_from(["holdfast", "check-config"].iter().chain(line));
        let hub = parse(&["--role", "hub", "--listen", "127.0.0.1:7443", "--advertise", "hub-0:7443"]).unwrap();
        let Command::CheckConfig { flags, .. } = hub.command else { panic!() };
        let keys: Vec<_> = flags.flags.given.iter().map(|given| given.flag).collect();
        assert_eq!((flags.role, keys), (Role::Hub, vec!["--listen", "--advertise"]));
        let refused = parse(&["--advertise", "hub-0:7443"]).unwrap_err().to_string();
        assert!(refused.contains("--advertise is no flag of `holdfast agent`"), "{refused}");
        let refused = parse(&["--role", "hub", "--pods", "disabled"]).unwrap_err().to_string();
        assert!(refused.contains("--pods is no flag of `holdfast hub`"), "{refused}");
        assert!(parse(&["--role", "relay"]).is_err());
    }
}
