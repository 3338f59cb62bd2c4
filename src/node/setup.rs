//! Brings the node to the configured state: looks, names each difference, repairs it and changes nothing else.
//!
//! Every step can be done twice. A step that fails leaves the others to be done. Never starts a program.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
};

use super::{
    Config, SetupError,
    interface::{Address, Interfaces, Link, host_prefix},
    nft::{self, Plan, Ruleset, TABLE},
};

/// The kinds of interface that are taken for ours, or for node-cache's, whose place we take.
const KINDS: [&str; 2] = ["dummy", "bridge"];

/// A difference from the wanted state, and so the step that removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    MakeInterface(String),
    BringUp(String),
    Add(IpAddr),
    /// An address is there that should not be.
    TakeOff(IpAddr),
    /// The rules for these addresses are missing or wrong.
    WriteRules(Vec<IpAddr>),
    /// There are rules and nothing to have them for.
    RemoveRules,
    /// The interface is there and should not be.
    RemoveInterface(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeInterface(name) => write!(f, "interface {name}: missing"),
            Self::BringUp(name) => write!(f, "interface {name}: down"),
            Self::Add(ip) => write!(f, "address {ip}: missing"),
            Self::TakeOff(ip) => write!(f, "address {ip}: should not be there"),
            Self::WriteRules(ips) => {
                let ips: Vec<String> = ips.iter().map(ToString::to_string).collect();
                write!(f, "nftables table {TABLE}: not the rules for {}", ips.join(", "))
            }
            Self::RemoveRules => write!(f, "nftables table {TABLE}: should not be there"),
            Self::RemoveInterface(name) => write!(f, "interface {name}: should not be there"),
        }
    }
}

/// The wanted state for the addresses of one agent. Addresses of others on the same interface stay as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    Serving,
    /// The cluster's DNS has the addresses of the failsafe; queries to the others go to these ports of theirs, if there are any.
    Released(Vec<(IpAddr, u16)>),
    /// No address is left; rules steer queries to the others to the cluster's DNS until the next agent.
    Steered,
    /// Only these addresses are left, at which another process listens, and no rules.
    Yielded(Vec<IpAddr>),
    Gone,
}

impl Goal {
    /// The addresses on the interface.
    fn addresses(&self, config: &Config) -> Vec<IpAddr> {
        let kept = |kept: &dyn Fn(&IpAddr) -> bool| config.local_ips.iter().copied().filter(kept).collect();
        match self {
            Self::Serving => config.local_ips.clone(),
            Self::Released(_) => kept(&|ip| !config.failsafe_ips.contains(ip)),
            Self::Yielded(others) => kept(&|ip| others.contains(ip)),
            Self::Steered | Self::Gone => Vec::new(),
        }
    }
}

impl Config {
    /// Whether queries to every address outside of `failsafe_ips` can be steered to the cluster's DNS.
    pub(super) fn can_steer(&self) -> bool {
        let others = self.local_ips.iter().filter(|ip| !self.failsafe_ips.contains(ip));
        let steered = self.steered(&Goal::Steered);
        self.setup_notrack && !steered.is_empty() && steered.len() == others.count()
    }

    /// The addresses for which queries are steered while no process listens, and where to.
    fn steered(&self, goal: &Goal) -> Vec<(IpAddr, IpAddr)> {
        let steered = self.to_steer(goal);
        if steered.is_empty() || nft::can_steer() { steered } else { Vec::new() }
    }

    /// The same, of a kernel that can.
    fn to_steer(&self, goal: &Goal) -> Vec<(IpAddr, IpAddr)> {
        let wanted = |ip: &&IpAddr| match goal {
            Goal::Serving => true,
            // kube-proxy has the others.
            Goal::Released(_) | Goal::Steered => !self.failsafe_ips.contains(ip),
            Goal::Yielded(_) | Goal::Gone => false,
        };
        // The port stays.
        let servers = || self.fallback.iter().filter(|server| server.port() == self.dns_port).map(SocketAddr::ip);
        let to = |ip: IpAddr| servers().find(|to| to.is_ipv4() == ip.is_ipv4() && !self.local_ips.contains(to));
        self.local_ips.iter().filter(wanted).filter_map(|ip| Some((*ip, to(*ip)?))).collect()
    }
}

#[derive(Debug, Default)]
pub struct Outcome {
    /// The differences found, repaired unless `errors` says otherwise.
    pub steps: Vec<Step>,
    /// The steps that failed.
    pub errors: Vec<SetupError>,
}

/// The differences from `goal`; changes nothing.
#[must_use]
pub fn check(config: &Config, goal: &Goal) -> Outcome {
    Planner::open(config, goal, false).outcome
}

/// Whether the addresses of the failsafe are the only thing that is missing, as [`Goal::Released`] leaves the node.
#[must_use]
pub fn is_released(config: &Config) -> bool {
    let missing = |step: &Step| matches!(step, Step::Add(ip) if config.failsafe_ips.contains(ip));
    let steps = check(config, &Goal::Serving).steps;
    steps.iter().any(missing) && steps.iter().all(|step| missing(step) || matches!(step, Step::WriteRules(_)))
}

/// Whether there are rules of ours for the addresses: an agent has set them up, and none has given them away since.
pub fn was_set_up(config: &Config) -> bool {
    Ruleset::present().is_ok_and(|present| present.is_some_and(|present| present.concerns(&config.local_ips)))
}

/// Brings the node to `goal`.
#[must_use]
pub fn reach(config: &Config, goal: &Goal) -> Outcome {
    Planner::open(config, goal, false).carried_out()
}

/// Brings the node towards `goal`, and lets answers under way out of the addresses that are given away: for
/// [`reach`] to end once they have left.
#[must_use]
pub fn approach(config: &Config, goal: &Goal) -> Outcome {
    Planner::open(config, goal, true).carried_out()
}

struct Planner<'a> {
    config: &'a Config,
    interfaces: Option<Interfaces>,
    link: Option<Link>,
    rules: Option<Ruleset>,
    outcome: Outcome,
}

impl<'a> Planner<'a> {
    fn open(config: &'a Config, goal: &Goal, answers_leave: bool) -> Self {
        let outcome = Outcome::default();
        let mut planner = Self { config, interfaces: None, link: None, rules: None, outcome };
        let mut ips = goal.addresses(config);
        let given_away: Vec<IpAddr> = config.local_ips.iter().copied().filter(|ip| !ips.contains(ip)).collect();
        let mut on_interface = Vec::new();
        if config.setup_interface {
            match planner.plan_interface(goal, &mut ips, answers_leave) {
                Ok(steps) => on_interface = steps,
                Err(error) => planner.outcome.errors.push(error),
            }
        }
        let mut on_rules = Vec::new();
        if config.setup_notrack {
            let mut plan = Plan { serve: ips, steer: config.steered(goal), ..Plan::default() };
            match goal {
                Goal::Released(redirect) => {
                    plan.serve.retain(|ip| !redirect.iter().any(|(redirected, _)| redirected == ip));
                    plan.redirect.clone_from(redirect);
                }
                Goal::Yielded(_) => plan.serve.clear(),
                Goal::Serving | Goal::Steered | Goal::Gone => {}
            }
            if answers_leave {
                plan.answer = given_away;
            }
            match planner.plan_rules(&plan) {
                Ok(step) => on_rules.extend(step),
                Err(error) => planner.outcome.errors.push(error),
            }
        }
        // An address that others take over must be tracked before they do: their DNAT needs that.
        let steps = if *goal == Goal::Serving { [on_interface, on_rules] } else { [on_rules, on_interface] };
        planner.outcome.steps = steps.concat();
        planner
    }

    fn carried_out(mut self) -> Outcome {
        let steps = self.outcome.steps.clone();
        for step in &steps {
            if let Err(error) = self.apply(step) {
                self.outcome.errors.push(error);
            }
        }
        self.outcome
    }

    fn plan_rules(&mut self, plan: &Plan) -> Result<Option<Step>, SetupError> {
        let present = Ruleset::present().map_err(|error| nft_failed(error, "read"))?;
        let wanted = Ruleset::wanted(self.config, plan).with_others(present.as_ref(), &self.config.local_ips);
        let step = match &present {
            Some(_) if wanted.is_empty() => Some(Step::RemoveRules),
            None if wanted.is_empty() => None,
            Some(present) if present.same(&wanted) => None,
            _ => Some(Step::WriteRules(self.config.local_ips.clone())),
        };
        self.rules = Some(wanted);
        Ok(step)
    }

    /// Differences of interface and addresses. Addresses of `ips` that others have are left out.
    fn plan_interface(
        &mut self,
        goal: &Goal,
        ips: &mut Vec<IpAddr>,
        answers_leave: bool,
    ) -> Result<Vec<Step>, SetupError> {
        let name = &self.config.interface;
        let check = |error| {
            failed(error, "look at interfaces", |error| SetupError::InterfaceCheck { name: name.clone(), error })
        };
        let interfaces = Interfaces::open().map_err(|error| SetupError::Netlink { family: "route", error })?;
        let interfaces = self.interfaces.insert(interfaces);
        let links = interfaces.links().map_err(check)?;
        let addresses = interfaces.addresses().map_err(check)?;
        let link = links.iter().find(|link| link.name == *name);
        if let Some(link) = link {
            refuse_foreign(link, &links)?;
        }
        self.link = link.cloned();
        let index = link.map(|link| link.index);
        // The kernel gives every interface a v6 address of its own, with another prefix length.
        let is_set = |address: &&Address| Some(address.index) == index && address.prefix == host_prefix(address.ip);
        let present: Vec<&Address> = addresses.iter().filter(is_set).collect();
        let own = |address: &&&Address| self.config.local_ips.contains(&address.ip);
        if matches!(goal, Goal::Steered | Goal::Gone) && !answers_leave && present.iter().all(|address| own(&address)) {
            return Ok(link.map(|link| Step::RemoveInterface(link.name.clone())).into_iter().collect());
        }
        let mut steps = Vec::new();
        if matches!(goal, Goal::Serving | Goal::Released(_)) {
            match link {
                None => steps.push(Step::MakeInterface(name.clone())),
                Some(link) if !link.up => steps.push(Step::BringUp(name.clone())),
                Some(_) => {}
            }
            ips.retain(|&ip| {
                let elsewhere = addresses.iter().find(|address| address.ip == ip && Some(address.index) != index);
                let Some(elsewhere) = elsewhere else { return true };
                let interface = links.iter().find(|link| link.index == elsewhere.index);
                let interface = interface.map_or_else(|| elsewhere.index.to_string(), |link| link.name.clone());
                self.outcome.errors.push(SetupError::AddressElsewhere { address: ip, interface });
                false
            });
            let missing = ips.iter().filter(|ip| !present.iter().any(|address| address.ip == **ip));
            steps.extend(missing.map(|ip| Step::Add(*ip)));
        }
        let surplus = present.iter().filter(own).filter(|address| !ips.contains(&address.ip));
        steps.extend(surplus.map(|address| Step::TakeOff(address.ip)));
        Ok(steps)
    }

    fn apply(&mut self, step: &Step) -> Result<(), SetupError> {
        match step {
            Step::WriteRules(_) => {
                let written = self.rules.as_ref().map_or(Ok(()), Ruleset::write);
                return written.map_err(|error| nft_failed(error, "write"));
            }
            Step::RemoveRules => return nft::remove().map_err(|error| nft_failed(error, "remove")),
            _ => {}
        }
        let name = self.config.interface.clone();
        let Some(interfaces) = &mut self.interfaces else { return Ok(()) };
        let add = |error| SetupError::InterfaceAdd { name: name.clone(), error };
        if let Step::MakeInterface(_) = step {
            interfaces.make(&name).map_err(|error| failed(error, &format!("make interface {name}"), add))?;
            let links = interfaces.links().map_err(add)?;
            self.link = links.into_iter().find(|link| link.name == name);
            return Ok(());
        }
        // Without an interface, that it could not be made is the one error.
        let Some(link) = &self.link else { return Ok(()) };
        let index = link.index;
        let address = |step, address| {
            let interface = name.clone();
            move |error| {
                failed(error, &format!("{step} address {address}"), |error| SetupError::Address {
                    step,
                    address,
                    interface,
                    error,
                })
            }
        };
        match *step {
            Step::BringUp(_) => {
                interfaces.bring_up(index).map_err(|error| failed(error, "bring the interface up", add))
            }
            Step::RemoveInterface(_) => {
                interfaces.remove(index).map_err(|error| failed(error, "remove the interface", add))
            }
            Step::Add(ip) => interfaces.add(index, ip).map_err(address("add", ip)),
            Step::TakeOff(ip) => {
                interfaces.take_off(Address { index, ip, prefix: host_prefix(ip) }).map_err(address("remove", ip))
            }
            Step::MakeInterface(_) | Step::WriteRules(_) | Step::RemoveRules => Ok(()),
        }
    }
}

/// Refuses an interface with our name that this program would not have made.
fn refuse_foreign(link: &Link, links: &[Link]) -> Result<(), SetupError> {
    let taken = |found: String| Err(SetupError::InterfaceTaken { name: link.name.clone(), found });
    if !KINDS.contains(&link.kind.as_str()) {
        return taken(if link.kind.is_empty() { "hardware".into() } else { format!("of type {}", link.kind) });
    }
    match links.iter().find(|port| port.controller == Some(link.index)) {
        Some(port) => taken(format!("a bridge with the port {}", port.name)),
        None => Ok(()),
    }
}

fn failed(error: io::Error, step: &str, named: impl FnOnce(io::Error) -> SetupError) -> SetupError {
    if error.kind() == io::ErrorKind::PermissionDenied {
        SetupError::NotPermitted { step: step.to_owned() }
    } else {
        named(error)
    }
}

/// A kernel without nftables refuses the socket or its first message; one without `nft_ct` does not find `notrack`.
fn nft_failed(error: io::Error, step: &'static str) -> SetupError {
    let missing = match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => true,
        Some(libc::EINVAL) => step == "read",
        Some(libc::ENOENT) => step == "write",
        _ => false,
    };
    if missing {
        return SetupError::NoNftables;
    }
    failed(error, &format!("{step} nftables table {TABLE}"), |error| SetupError::Nftables { step, table: TABLE, error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::ErrorType;

    fn link(index: u32, kind: &str, controller: Option<u32>) -> Link {
        Link { index, name: format!("if{index}"), kind: kind.into(), up: true, controller }
    }

    #[test]
    fn queries_are_steered_to_a_server_of_the_family_that_is_none_of_ours() {
        let ips = |all: &[&str]| -> Vec<IpAddr> { all.iter().map(|ip| ip.parse().unwrap()).collect() };
        let config = |fallback: &[&str]| Config {
            local_ips: ips(&["169.254.20.10", "10.96.0.10", "fd00::10"]),
            failsafe_ips: ips(&["10.96.0.10", "fd00::10"]),
            fallback: fallback.iter().map(|server| server.parse().unwrap()).collect(),
            ..Config::default()
        };
        let told = |goal, fallback: &[&str]| -> Vec<String> {
            config(fallback).to_steer(&goal).iter().map(|(ip, to)| format!("{ip} {to}")).collect()
        };
        let both = ["10.96.0.10:53", "10.96.0.98:54", "10.96.0.99:53", "[fd00::99]:53"];
        assert_eq!(
            told(Goal::Serving, &both),
            ["169.254.20.10 10.96.0.99", "10.96.0.10 10.96.0.99", "fd00::10 fd00::99"]
        );
        for goal in [Goal::Steered, Goal::Released(Vec::new())] {
            assert_eq!(told(goal, &both), ["169.254.20.10 10.96.0.99"]);
        }
        for goal in [Goal::Gone, Goal::Yielded(Vec::new())] {
            assert!(told(goal, &both).is_empty());
        }
        assert!(told(Goal::Serving, &["10.96.0.10:53"]).is_empty());
        assert!(!config(&["[fd00::99]:53"]).can_steer(), "nothing for the link-local address");
    }

    #[test]
    fn an_interface_of_another_kind_is_not_taken_over() {
        let told = |link: &Link, links: &[Link]| refuse_foreign(link, links).map_err(|error| error.to_string());
        assert_eq!(told(&link(1, "dummy", None), &[]), Ok(()));
        assert_eq!(told(&link(1, "bridge", None), &[link(2, "veth", Some(3))]), Ok(()));
        let remedy = "not one of ours; remove it, or give node.interface another name";
        for (kind, ports, found) in [
            ("veth", vec![], "of type veth"),
            ("", vec![], "hardware"),
            ("bridge", vec![link(2, "veth", Some(1))], "a bridge with the port if2"),
        ] {
            let error = told(&link(1, kind, None), &ports).unwrap_err();
            assert_eq!(error, format!("interface if1 exists and is {found}, {remedy}"));
        }
    }

    #[test]
    fn a_kernel_without_nftables_is_told_from_other_trouble() {
        let named = |code, step| nft_failed(io::Error::from_raw_os_error(code), step);
        for (code, step) in [
            (libc::EOPNOTSUPP, "write"),
            (libc::EPROTONOSUPPORT, "read"),
            (libc::EINVAL, "read"),
            (libc::ENOENT, "write"),
        ] {
            assert!(matches!(named(code, step), SetupError::NoNftables), "{code} {step}");
        }
        assert!(matches!(named(libc::EPERM, "read"), SetupError::NotPermitted { .. }));
        assert_eq!(named(libc::EPERM, "read").kind(), ErrorType::Privilege);
        assert!(matches!(named(libc::EBUSY, "write"), SetupError::Nftables { step: "write", .. }));
        assert_eq!(named(libc::EOPNOTSUPP, "write").kind(), ErrorType::Nftables);
    }
}
