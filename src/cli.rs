//! The command line: commands and flags, and the part of holdfast that runs each.
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

use std::{ffi::OsString, io, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use tracing::{error, info};

use crate::{
    config::{self, AgentFlags, Config, Flags, HubFlags, Role, RoleFlags},
    ctl::{
        self, ControlPlaneArgs, DiffArgs, DumpArgs, Exit, Failed, GuardArgs, LookupArgs, Output, PinArgs, StatusArgs,
        UnpinArgs, print,
    },
    node::{parent, privileges::directory_of},
    role::{
        Reread, Signals, Why,
        agent::{self, Agent, Confined},
        descriptors,
        hub::Hub,
        memory,
    },
    sys::{self, Clock, FdStore, ResidentMemory, fdstore},
};

/// Cluster DNS that outlives the control plane.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, disable_help_subcommand = true, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 found or equal, 1 not found or different, 2 usage or configuration, 3 could not read; `holdfast status` has more."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The form of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    Yaml,
    Json,
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
    /// Watch the apiserver and stream all DNS records to agents and other hubs
    Hub {
        /// Every setting that has a flag
        #[command(flatten)]
        flags: HubFlags,
    },
    /// Run in place of NodeLocal DNSCache, with its flags, its Corefile and its config maps
    NodeCache(node_cache::NodeCacheArgs),
    /// Translate a Corefile into a holdfast configuration, and list what is not supported
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
    /// Test every known apiserver address from this node, or write a kubeconfig for one of them
    ControlPlane(ControlPlaneArgs),
    /// Show deletions that are blocked (safety hold) and why, or release them
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
        /// The role, and the flags of that role
        #[command(flatten)]
        flags: RoleFlags,
        /// Check for another machine: assume the environment of a pod, look for no files
        #[arg(long)]
        offline: bool,
        /// Format: YAML as a file of the configuration, or JSON with the warnings
        #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
        output: Form,
    },
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version {
        /// Output format
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
}

/// Runs the command.
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
        Command::CheckConfig { flags, offline, output } => check_config(&flags, offline, output),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "holdfast", &mut text);
            print(&text)?;
            Ok(Exit::Ok)
        }
        Command::Version { output } => {
            let version = env!("CARGO_PKG_VERSION");
            match output {
                Output::Table => print(format!("holdfast {version}\n"))?,
                Output::Json => print(format!("{}\n", serde_json::json!({ "version": version })))?,
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
    let cli = match Cli::try_parse_from(line) {
        Ok(cli) => cli,
        Err(error) => return refused(&error, json),
    };
    let exit = run(cli).unwrap_or_else(|error| {
        // The error comes last: log lines that still wait go first.
        log::flush();
        tell_parent(format!("{error:#}").lines().next().unwrap_or_default());
        ctl::tell(&error, json)
    });
    log::flush();
    ExitCode::from(exit as u8)
}

/// Ends a process whose command line is not understood, or asks for help.
fn refused(error: &clap::Error, json: bool) -> ExitCode {
    // A closed pipe is no reason to fail.
    let _ = error.print();
    if error.use_stderr() && json {
        ctl::tell_json(&without_usage(&error.render().to_string()), Exit::Usage);
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8))
}

/// A message of clap without the usage that a person is shown after it.
fn without_usage(message: &str) -> String {
    let told = message.strip_prefix("error: ").unwrap_or(message);
    let end = told.find("\n\nUsage:").or_else(|| told.find("\n\nFor more information"));
    let lines = told[..end.unwrap_or(told.len())].lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

/// Whether `-o json` was given: then errors are JSON too.
fn wants_json(line: &[OsString]) -> bool {
    let mut words = line.iter().map(|word| word.to_string_lossy()).take_while(|word| word != "--");
    while let Some(word) = words.next() {
        // `-vo json`: switches may stand before it.
        let short = word.strip_prefix('-').map(|letters| letters.trim_start_matches(['v', 'y']));
        let short = short.and_then(|short| short.strip_prefix('o'));
        let Some(value) = word.strip_prefix("--output").or(short) else { continue };
        let json = match value.strip_prefix('=').unwrap_or(value) {
            "" => words.next().is_some_and(|word| word == "json"),
            value => value == "json",
        };
        if json {
            return true;
        }
    }
    false
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
    let config = load().map_err(Failed::faults)?;
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
                    error!(%error, "new log.filter refused: the old one stays in effect");
                }
                Ok(Some(config))
            }
            Err(errors) => {
                let reason = errors.to_string();
                for error in errors.0 {
                    error!(%error, "new configuration refused: the old one stays in effect");
                }
                Err(reason)
            }
        }
    };
    tool::offer(config.settings.node_tool_path.as_deref());
    let interval = flags.file.is_some().then_some(CONFIG_EVERY);
    let readable: Vec<_> = flags.file.iter().map(|file| directory_of(file)).collect();
    let memory = ResidentMemory::open();
    let prepared = agent::prepare(&config, &[], &readable);
    log::start_thread(prepared.on_thread_start());
    descriptors::raise();
    let on_thread_start = prepared.on_thread_start();
    run_to_end(on_thread_start, serve(role, config, prepared, memory, interval, reload))
}

async fn serve(
    role: Role,
    config: Config,
    prepared: Confined,
    memory: io::Result<ResidentMemory>,
    interval: Option<Duration>,
    read: impl FnMut(Why) -> Reread,
) -> anyhow::Result<()> {
    let signals = Signals::take().context("take over the signals")?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        role = role.as_str(),
        source = %config.source,
        config = %config.file.as_deref().map_or_else(|| "flags only".into(), |file| file.display().to_string()),
        digest = config.digest(),
        "holdfast starts"
    );
    match memory {
        Ok(memory) => drop(tokio::spawn(memory::give_back(memory))),
        Err(error) => info!(%error, "/proc cannot be read: free memory is kept"),
    }
    match role {
        Role::Agent => Agent::start_prepared(config, Clock::System, prepared).await?.run(signals, interval, read).await,
        Role::Hub => Hub::start_prepared(config, Clock::System, prepared).await?.run(signals, interval, read).await,
    }
    Ok(())
}

fn check_config(RoleFlags { role, flags }: &RoleFlags, offline: bool, output: Form) -> anyhow::Result<Exit> {
    let environment = if offline { offline::environment } else { config::environment };
    let config = config::load(*role, flags, environment).map_err(Failed::faults)?;
    // Faults that depend on the machine are warnings: the configuration may be for another one.
    let mut warnings = Vec::new();
    if offline {
        if let Some(assumed) = offline::assumed(&config) {
            eprintln!("note: {assumed}");
        }
    } else {
        let missing = |told| format!("{told}: missing on this machine; for another one give --offline");
        warnings.extend(offline::missing(&config).into_iter().map(missing));
        if config.role == Role::Agent {
            warnings.extend(Agent::warnings(&config));
        }
    }
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    let yaml = config.to_yaml();
    match output {
        Form::Yaml => print(yaml)?,
        Form::Json => {
            let configuration: serde_json::Value = serde_saphyr::from_str(&yaml)?;
            let document = serde_json::json!({ "configuration": configuration, "warnings": warnings });
            print(format!("{document:#}\n"))?;
        }
    }
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
    fn json_is_wanted_in_every_spelling_of_the_flag() {
        let wants = |line: &str| wants_json(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in
            ["-o json", "-ojson", "-o=json", "-vo json", "-vojson", "--output json", "--output=json", "x -o json y"]
        {
            assert!(wants(line), "{line}");
        }
        for line in ["json", "-o table", "-o", "--output=yaml json", "-n -o=table json", "-- -o json"] {
            assert!(!wants(line), "{line}");
        }
    }

    #[test]
    fn a_message_of_the_command_line_is_one_line_without_the_usage() {
        let told = |line: &str| {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert!(error.use_stderr(), "{line}");
            without_usage(&error.render().to_string())
        };
        let unknown = "unexpected argument '--admn' found; tip: a similar argument exists: '--admin'";
        assert_eq!(told("holdfast status --admn x -o json"), unknown);
        assert_eq!(told("holdfast lookup"), "the following required arguments were not provided:; <NAME>");
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
