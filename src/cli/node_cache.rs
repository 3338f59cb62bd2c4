//! `holdfast node-cache`: takes node-cache's flags as they stand in its `DaemonSet`, and some of holdfast's own.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use tracing::{error, info, warn};

use super::go_flags::{self, GoFlag, Takes};
use crate::{
    config::{
        self, Flags, Given, Role, Settings,
        table::{Row, Section as _},
        types::InterfaceName,
    },
    corefile::{ComposeError, Composer, NodeCache, NodeSettings},
    ctl::{Exit, Failed},
    node::privileges::directory_of,
    role::{
        Signals, Why,
        agent::{self, Agent},
        descriptors,
    },
    sys::Clock,
};

/// Where the kube-dns `ConfigMap` is looked for when no flag says so.
const KUBE_DNS: &str = "/etc/kube-dns";

/// Where the tool is put for people on the node, if its pod mounts this directory of the host.
const TOOLS: &str = "/var/lib/holdfast-tools";

/// The flags, read by rules of their own.
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub struct NodeCacheArgs {
    /// Flags of node-cache (-localip, -conf, -upstreamsvc, …) and of the agent (--hub, --tls, --store, …)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    pub words: Vec<String>,
}

/// Flags of node-cache and of the CoreDNS in it.
const FLAGS: [(&str, Takes, &str); 24] = [
    ("localip", Takes::Value, "listen addresses, separated by commas; required"),
    ("conf", Takes::Value, "Corefile: written from the template; without a template it is read [/etc/Corefile]"),
    ("corefile", Takes::Value, "same as -conf"),
    ("basecorefile", Takes::Value, "template of the Corefile [/etc/coredns/Corefile.base]"),
    ("kubednscm", Takes::Value, "directory of the ConfigMap kube-dns [/etc/kube-dns if it exists]"),
    ("upstreamsvc", Takes::Value, "service of the cluster's DNS, which is asked for names of the cluster [kube-dns]"),
    ("interfacename", Takes::Value, "interface to create [nodelocaldns]"),
    ("setupinterface", Takes::Switch, "create the interface with the addresses of -localip [true]"),
    ("setupiptables", Takes::Switch, "disable connection tracking for them (nftables) [true]"),
    ("skipteardown", Takes::Switch, "keep interface and rules at exit [false]"),
    ("syncinterval", Takes::Value, "accepted, no effect: interface and rules are repaired at once"),
    ("health-port", Takes::Value, "port of /health [8080]"),
    ("metrics-listen-address", Takes::Value, "listen address for metrics of the node setup [0.0.0.0:9353]"),
    ("pidfile", Takes::Value, "file for the process ID"),
    ("reloadwithsignal", Takes::Switch, "take over changed files even if the Corefile has no `reload` [false]"),
    ("dns.port", Takes::Value, "port of zones whose Corefile line has none [53]"),
    ("p", Takes::Value, "same as -dns.port"),
    ("quiet", Takes::Switch, "accepted, no effect"),
    ("version", Takes::Switch, "print the version"),
    ("plugins", Takes::Switch, "accepted, no effect"),
    ("setupebtables", Takes::Switch, "accepted, no effect"),
    ("initialdelay", Takes::Value, "accepted, no effect"),
    ("help", Takes::Switch, "print this help"),
    ("h", Takes::Switch, "print this help"),
];

/// Whether a command line is one of node-cache: called by that name, or with a flag of it in the place of a subcommand.
/// The image of node-cache has no subcommand before its flags.
pub fn is_meant(mut line: impl Iterator<Item = String>) -> bool {
    let called = line.next().unwrap_or_default();
    let first = line.next().unwrap_or_default();
    if Path::new(&called).file_name().is_some_and(|name| name == "node-cache") {
        return first.is_empty() || first.starts_with('-');
    }
    let Some(name) = first.strip_prefix("--").or_else(|| first.strip_prefix('-')) else { return false };
    let name = name.split('=').next().unwrap_or_default();
    // These two are clap's as well.
    !matches!(name, "help" | "h" | "version") && FLAGS.iter().any(|(known, ..)| *known == name)
}

/// The result of the flags.
#[derive(Debug)]
struct Parsed {
    node_cache: NodeCache,
    pid_file: Option<PathBuf>,
    ignored: Vec<&'static str>,
}

/// Runs it.
///
/// # Errors
/// The reason that an agent could not be started.
pub fn run(args: &NodeCacheArgs) -> anyhow::Result<Exit> {
    let wants =
        |name: &str| args.words.iter().any(|word| word.trim_start_matches('-') == name && word.starts_with('-'));
    if wants("help") || wants("h") {
        crate::ctl::print(usage())?;
        return Ok(Exit::Ok);
    }
    if wants("version") {
        crate::ctl::print(format!("holdfast {} in the place of node-cache\n", env!("CARGO_PKG_VERSION")))?;
        return Ok(Exit::Ok);
    }
    let Parsed { node_cache, pid_file, ignored } =
        parse(&args.words, config::environment).map_err(|message| Failed::Usage(format!("node-cache: {message}")))?;
    // Before the first thing that can fail: the Corefile, which may ask for another filter.
    let filter = super::log::init(&log_settings(&node_cache.flags))?;
    let mut composer = Composer::new(node_cache);
    let config = match composer.compose(config::environment) {
        Ok(config) => config,
        Err(error @ (ComposeError::Corefile { .. } | ComposeError::Config(_) | ComposeError::Template { .. })) => {
            return Err(Failed::Faults(error.to_string()).into());
        }
        Err(error) => return Err(error.into()),
    };
    filter.set(&config.settings.log_filter)?;
    for name in ignored {
        info!(flag = name, "this flag of node-cache has no effect");
    }
    // The Corefile is written when the ConfigMaps change, the pid file is removed at the end.
    let writable: Vec<_> =
        [Some(composer.corefile()), pid_file.as_deref()].into_iter().flatten().map(directory_of).collect();
    let _pid_file = pid_file.and_then(|path| match PidFile::write(path) {
        Ok(file) => Some(file),
        Err(error) => {
            error!(error = format!("{error:#}"), "cannot write the pid file");
            None
        }
    });
    let tools = Path::new(TOOLS);
    let path = config.settings.node_tool_path.clone().or_else(|| tools.is_dir().then(|| tools.join("holdfast")));
    super::tool::offer(path.as_deref());
    let prepared = agent::prepare(&config, &writable, &[]);
    super::log::start_thread(prepared.on_thread_start());
    descriptors::raise();
    super::run_to_end(prepared.on_thread_start(), async {
        let signals = Signals::take().context("take over the signals")?;
        let agent = Agent::start_prepared(config, Clock::System, prepared).await?;
        composer.register(agent.registry())?;
        let poll = composer.poll();
        let reload = |why| {
            let reread = composer.reload(why == Why::Signal, config::environment)?;
            let Some(config) = reread else { return Ok(None) };
            if let Err(error) = filter.set(&config.settings.log_filter) {
                warn!(%error, "new log.filter refused: the old one stays in effect");
            }
            Ok(Some(config))
        };
        Box::pin(agent.run(signals, poll, reload)).await;
        Ok(())
    })
}

/// The settings of the log, as far as flags and environment give them.
fn log_settings(flags: &Flags) -> Settings {
    let hub = flags.given.iter().any(|given| given.key.starts_with("source."));
    let text = if hub { "" } else { "source: {none: true}" };
    let loaded = config::load_str(Role::Agent, (Path::new("Corefile"), text), flags, config::environment);
    loaded.map(|config| config.settings).unwrap_or_default()
}

fn usage() -> String {
    let mut text = String::from(
        "Run in place of NodeLocal DNSCache's node-cache, with its flags, its Corefile and its ConfigMaps.\n\nUsage: holdfast node-cache -localip IP[,IP]… [FLAGS]\n\n",
    );
    for (name, takes, help) in FLAGS {
        let flag = if takes == Takes::Value { format!("-{name} VALUE") } else { format!("-{name}") };
        let _ = writeln!(text, "  {flag:<32} {help}");
    }
    text + "\nFlags of the agent work too (--hub, --tls, --store, --admin, …): see `holdfast agent --help`.\n"
}

fn parse(words: &[String], environment: impl Fn(&str) -> Option<String>) -> Result<Parsed, String> {
    let own = |name: &str| {
        let flag =
            |row: &Row<Settings>| row.setting.flag.is_some_and(|flag| flag.name.trim_start_matches("--") == name);
        Settings::rows().iter().find(|row| row.setting.is_for(Role::Agent) && flag(row))
    };
    let takes = |name: &str| {
        let known = FLAGS.iter().find(|(known, ..)| *known == name).map(|(_, takes, _)| *takes);
        known.or_else(|| own(name).map(|_| Takes::Value))
    };
    let mut parsed = Parsed {
        node_cache: NodeCache {
            local_ips: Vec::new(),
            port: 53,
            base: "/etc/coredns/Corefile.base".into(),
            corefile: "/etc/Corefile".into(),
            kube_dns: Path::new(KUBE_DNS).exists().then(|| KUBE_DNS.into()),
            cluster_dns: None,
            setup_metrics: Some(SocketAddr::from(([0, 0, 0, 0], 9353))),
            always_reload: false,
            flags: Flags::default(),
            interface: crate::node::addresses_of,
            node: NodeSettings {
                interface: interface("nodelocaldns")?,
                setup_interface: true,
                setup_notrack: true,
                skip_teardown: false,
            },
        },
        pid_file: None,
        ignored: Vec::new(),
    };
    let mut service = "kube-dns".to_owned();
    for flag in go_flags::read(words, takes)? {
        match own(&flag.name).filter(|_| !FLAGS.iter().any(|(known, ..)| *known == flag.name)) {
            Some(row) => give(&mut parsed.node_cache.flags, row, flag),
            None => take(flag, &mut parsed, &mut service)?,
        }
    }
    if parsed.node_cache.local_ips.is_empty() {
        return Err("invalid localip specified - \"\"".into());
    }
    let variable = format!("{}_SERVICE_HOST", service.replace('-', "_").to_ascii_uppercase());
    parsed.node_cache.cluster_dns = environment(&variable).and_then(|value| value.parse().ok());
    Ok(parsed)
}

fn interface(name: &str) -> Result<InterfaceName, String> {
    <InterfaceName as config::Scalar>::parse(name)
}

/// Adds one of the agent's own flags.
fn give(flags: &mut Flags, row: &Row<Settings>, flag: GoFlag) {
    let values: Vec<String> =
        if row.many { flag.value.split(',').map(str::to_owned).collect() } else { vec![flag.value] };
    match flags.given.iter_mut().find(|given| given.key == row.setting.key) {
        Some(given) => given.values.extend(values),
        None => flags.given.push(Given {
            key: row.setting.key,
            flag: row.setting.flag.map_or(row.setting.key, |flag| flag.name),
            values,
        }),
    }
}

fn known_name(name: &str) -> Option<&'static str> {
    FLAGS.iter().map(|(known, ..)| *known).find(|known| *known == name)
}

/// Takes one of node-cache's flags.
fn take(flag: GoFlag, parsed: &mut Parsed, service: &mut String) -> Result<(), String> {
    let node_cache = &mut parsed.node_cache;
    let invalid = |what: &str| format!("invalid {what} specified - {:?}", flag.value);
    match flag.name.as_str() {
        "localip" => {
            let address =
                |text: &str| text.trim().parse::<IpAddr>().map_err(|_| format!("invalid localip specified - {text:?}"));
            node_cache.local_ips = flag.value.split(',').map(address).collect::<Result<_, _>>()?;
        }
        "conf" | "corefile" => node_cache.corefile = flag.value.into(),
        "basecorefile" => node_cache.base = flag.value.into(),
        "kubednscm" => node_cache.kube_dns = (!flag.value.is_empty()).then(|| flag.value.into()),
        "upstreamsvc" => *service = flag.value,
        "interfacename" => node_cache.node.interface = interface(&flag.value)?,
        "setupinterface" => node_cache.node.setup_interface = flag.switch()?,
        "setupiptables" => node_cache.node.setup_notrack = flag.switch()?,
        "skipteardown" => node_cache.node.skip_teardown = flag.switch()?,
        "reloadwithsignal" => node_cache.always_reload = flag.switch()?,
        "pidfile" => parsed.pid_file = (!flag.value.is_empty()).then(|| flag.value.into()),
        "dns.port" | "p" => node_cache.port = flag.value.parse().map_err(|_| invalid("port"))?,
        "health-port" => drop(flag.value.parse::<u16>().map_err(|_| invalid("healthcheck port"))?),
        "metrics-listen-address" => {
            let text = if flag.value.starts_with(':') { format!("0.0.0.0{}", flag.value) } else { flag.value.clone() };
            let address = (!text.is_empty()).then(|| text.parse().map_err(|_| invalid("metrics-listen-address")));
            node_cache.setup_metrics = address.transpose()?;
        }
        // A bare number is seconds.
        "syncinterval" | "initialdelay" => {
            let seconds = flag.value.parse::<u64>().is_ok();
            if !seconds && crate::corefile::go_duration(&flag.value).is_none() {
                return Err(invalid(&flag.name));
            }
            parsed.ignored.extend(known_name(&flag.name));
        }
        _ if flag.switch()? => parsed.ignored.extend(known_name(&flag.name)),
        _ => {}
    }
    Ok(())
}

/// The file that holds the number of the process; gone when dropped.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: PathBuf) -> anyhow::Result<Self> {
        fs::write(&path, format!("{}\n", std::process::id())).with_context(|| format!("write {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // The file may be gone already.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Parsed, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words, |name| (name == "KUBE_DNS_UPSTREAM_SERVICE_HOST").then(|| "10.96.0.99".into()))
    }

    #[test]
    fn the_flags_of_the_daemonset_are_taken_as_they_stand() {
        let line = "-localip 169.254.20.10,10.96.0.10 -conf /etc/Corefile -upstreamsvc kube-dns-upstream -pidfile /tmp/node-cache.pid";
        let Parsed { node_cache, pid_file, ignored } = parsed(line).unwrap();
        assert_eq!(node_cache.local_ips.len(), 2);
        assert_eq!(node_cache.cluster_dns, Some("10.96.0.99".parse().unwrap()));
        assert_eq!((node_cache.port, node_cache.corefile), (53, "/etc/Corefile".into()));
        assert_eq!(node_cache.base, Path::new("/etc/coredns/Corefile.base"));
        assert_eq!(node_cache.setup_metrics, Some("0.0.0.0:9353".parse().unwrap()));
        assert_eq!(pid_file, Some("/tmp/node-cache.pid".into()));
        let NodeSettings { interface, setup_interface, setup_notrack, skip_teardown } = node_cache.node;
        assert_eq!(
            (interface.as_str(), setup_interface, setup_notrack, skip_teardown),
            ("nodelocaldns", true, true, false)
        );
        assert_eq!(ignored, [""; 0]);
    }

    #[test]
    fn every_flag_has_its_effect() {
        let line = "--localip=::1 -setupinterface=false --setupiptables=0 -skipteardown -interfacename dns0 -syncinterval=60 \
                    -health-port 8081 -metrics-listen-address :9999 -reloadwithsignal -dns.port 5353 -kubednscm /cm \
                    -basecorefile /base --hub a:1,b:2 --hub=c --metrics-compat none";
        let Parsed { node_cache, ignored, .. } = parsed(line).unwrap();
        let NodeSettings { interface, setup_interface, setup_notrack, skip_teardown } = node_cache.node;
        assert_eq!((interface.as_str(), setup_interface, setup_notrack, skip_teardown), ("dns0", false, false, true));
        assert_eq!((node_cache.port, node_cache.always_reload), (5353, true));
        assert_eq!((node_cache.kube_dns, node_cache.base), (Some("/cm".into()), "/base".into()));
        assert_eq!(node_cache.setup_metrics, Some("0.0.0.0:9999".parse().unwrap()));
        assert_eq!(ignored, ["syncinterval"]);
        let given: Vec<String> =
            node_cache.flags.given.iter().map(|given| format!("{}={}", given.key, given.values.join("+"))).collect();
        assert_eq!(given, ["source.hub.addresses=a:1+b:2+c", "metrics_compat=none"]);
    }

    #[test]
    fn bad_flags_are_named() {
        for (line, expect) in [
            ("", "invalid localip specified - \"\""),
            ("-localip 1.2.3", "invalid localip specified - \"1.2.3\""),
            ("-localip ::1 -nope", "flag provided but not defined: -nope"),
            ("-localip ::1 -dns.port x", "invalid port specified - \"x\""),
            ("-localip ::1 -health-port x", "invalid healthcheck port specified - \"x\""),
            ("-localip ::1 -syncinterval soon", "invalid syncinterval specified - \"soon\""),
            ("-localip ::1 -setupinterface=maybe", "invalid boolean value \"maybe\" for -setupinterface"),
            ("-localip", "flag needs an argument: -localip"),
        ] {
            assert_eq!(parsed(line).unwrap_err(), expect, "{line}");
        }
    }

    #[test]
    fn the_command_line_of_another_image_is_known_when_it_is_met() {
        let meant = |line: &str| is_meant(line.split(' ').map(str::to_owned));
        for line in
            ["/node-cache", "/usr/bin/node-cache -x", "holdfast -localip 1.2.3.4", "/holdfast --conf=/etc/Corefile"]
        {
            assert!(meant(line), "{line}");
        }
        for line in [
            "holdfast",
            "holdfast agent -localip",
            "holdfast --help",
            "holdfast -h",
            "holdfast --version",
            "holdfast x",
        ] {
            assert!(!meant(line), "{line}");
        }
    }
}
