//! The nftables table of holdfast: what it should hold, what it holds, and how it is written, all over netlink.
//!
//! The rules have the effect of node-cache's: queries to the node's own addresses and the answers to them are not tracked,
//! and are accepted. While the failsafe is on, queries are redirected to its relay instead. Queries to an address of ours that no
//! interface has, or at which no process listens, are steered to the cluster's DNS, by the kernel alone. One table for both families and all
//! agents of the node, replaced as a whole in one transaction, so that there is no moment with half of it; rules for addresses of
//! other agents stay.

mod expression;

use std::{collections::HashSet, io, net::IpAddr, sync::OnceLock};

use netlink_packet_core::NlasIterator;
use netlink_sys::protocols::NETLINK_NETFILTER;
use xxhash_rust::xxh3::xxh3_64;

use self::expression::{Attributes, Field};
pub(super) use self::expression::{Expression, attributes, text, u32_of};
use super::{
    Config,
    netlink::{Message, Netlink},
};

pub(super) const TABLE: &str = "holdfast";
const TRIAL: &str = "holdfast-trial";
/// The errors of a kernel that lacks an expression or a kind of chain.
const MISSING: [i32; 3] = [libc::ENOENT, libc::EOPNOTSUPP, libc::EINVAL];

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = SUBSYSTEM;
const GETTABLE: u16 = SUBSYSTEM | 1;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const GETCHAIN: u16 = SUBSYSTEM | 4;
const NEWRULE: u16 = SUBSYSTEM | 6;
const GETRULE: u16 = SUBSYSTEM | 7;

const FAMILY_INET: u8 = 1;
/// The subsystem a batch is for, as its resource id.
const BATCH_RESOURCE: u16 = 10;

const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

// The attributes of tables, chains and rules (linux/netfilter/nf_tables.h).
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;

const POLICY_ACCEPT: u32 = 1;

/// A chain at a hook.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Chain {
    name: String,
    hook: u32,
    priority: i32,
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rule {
    chain: String,
    expressions: Vec<Expression>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ruleset {
    chains: Vec<Chain>,
    rules: Vec<Rule>,
}

/// Before connections are tracked (`raw` in iptables), and where `filter` is.
const CHAINS: [(&str, u32, i32); 4] =
    [("prerouting", 0, -300), ("output", 3, -300), ("input", 1, 0), ("output_filter", 3, 0)];
/// Before kube-proxy's, which are at -100. There only while something is redirected: not every kernel has NAT for both families.
const REDIRECTS: [(&str, u32, i32); 2] = [("redirect", 0, -110), ("redirect_output", 3, -110)];

const PORTS: &str = "steered_ports";
/// Addresses are changed before connections are tracked and before the rules of others that look at addresses, and changed back after
/// kube-proxy's rules. The chains exist only while a query is steered: not every kernel can.
const STEERING: [(&str, u32, i32, &str); 5] = [
    ("steer", 0, -310, "filter"),
    ("steer_output", 3, -310, "route"),
    // Without rules: where NAT is at work the kernel gives a connection another source port, if the one it has leads to the same server by
    // another address. Without, it drops the packets.
    (PORTS, 4, 100, "nat"),
    ("steered", 4, 310, "filter"),
    ("steered_input", 1, 310, "filter"),
];

/// Packets with this mark are never redirected, nor steered. None of the bits that kube-proxy (0xc000), Calico (0xffff0000) and Cilium (0xf00) use.
pub(super) const PROBE_MARK: u32 = 0x53;

/// The rules for the addresses of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Queries to these and answers from these are not tracked.
    pub serve: Vec<IpAddr>,
    /// Only answers from these are not tracked: those under way when an address is given away.
    pub answer: Vec<IpAddr>,
    /// Queries to these go to another port of the same address.
    pub redirect: Vec<(IpAddr, u16)>,
    /// Queries to the first go to the second while no interface of this node has it, those of pods also while no process listens.
    pub steer: Vec<(IpAddr, IpAddr)>,
}

const UDP: u8 = 17;
const TCP: u8 = 6;

impl Ruleset {
    /// The rules that the table should hold.
    pub(super) fn wanted(config: &Config, plan: &Plan) -> Self {
        let chain = |kind: &str| {
            let kind = kind.to_owned();
            move |(name, hook, priority): (&str, u32, i32)| Chain {
                name: name.to_owned(),
                hook,
                priority,
                kind: kind.clone(),
            }
        };
        let mut chains: Vec<Chain> = CHAINS.map(chain("filter")).into();
        let mut rules = Vec::new();
        let mut rule = |chain: &str, ip, protocol, end, port, verdict| {
            let expressions = Expression::matching(ip, protocol, end, port, verdict);
            rules.push(Rule { chain: chain.to_owned(), expressions });
        };
        let port = config.dns_port;
        for &ip in plan.serve.iter().chain(&plan.answer) {
            for protocol in [UDP, TCP] {
                if plan.serve.contains(&ip) {
                    rule("prerouting", ip, protocol, Field::Destination, port, Expression::Notrack);
                    rule("output", ip, protocol, Field::Destination, port, Expression::Notrack);
                    rule("input", ip, protocol, Field::Destination, port, Expression::Accept);
                }
                rule("output", ip, protocol, Field::Source, port, Expression::Notrack);
                rule("output_filter", ip, protocol, Field::Source, port, Expression::Accept);
            }
            if let Some(health) = config.health
                && (health.ip() == ip || health.ip().is_unspecified())
            {
                rule("output", ip, TCP, Field::Destination, health.port(), Expression::Notrack);
                rule("output", ip, TCP, Field::Source, health.port(), Expression::Notrack);
            }
        }
        if !plan.redirect.is_empty() {
            chains.extend(REDIRECTS.map(chain("nat")));
        }
        for &(ip, to) in &plan.redirect {
            for protocol in [UDP, TCP] {
                for (chain, ..) in REDIRECTS {
                    let expressions = Expression::redirecting(ip, protocol, port, to, PROBE_MARK);
                    rules.push(Rule { chain: chain.to_owned(), expressions });
                }
            }
        }
        if !plan.steer.is_empty() {
            chains.extend(STEERING.map(|(name, hook, priority, kind)| chain(kind)((name, hook, priority))));
        }
        let mut taken = HashSet::new();
        for &(ip, to) in &plan.steer {
            let zone = zone(ip, &mut taken);
            for protocol in [UDP, TCP] {
                let mut rule = |chain: &str, expressions| rules.push(Rule { chain: chain.to_owned(), expressions });
                rule("steer", Expression::heard(ip, protocol, port));
                rule("steer", Expression::steering(ip, protocol, port, to, zone, None));
                rule("steer_output", Expression::steering(ip, protocol, port, to, zone, Some(PROBE_MARK)));
                for chain in ["steered", "steered_input"] {
                    rule(chain, Expression::steered(ip, protocol, port, to, zone));
                }
            }
        }
        Self { chains, rules }
    }

    /// Adds what `present` has for addresses that are not among `own`: the rules of other agents.
    pub(super) fn with_others(mut self, present: Option<&Self>, own: &[IpAddr]) -> Self {
        for rule in present.iter().flat_map(|present| &present.rules) {
            let theirs = Expression::address(&rule.expressions).is_some_and(|ip| !own.contains(&ip));
            let chain = present.and_then(|present| present.chains.iter().find(|chain| chain.name == rule.chain));
            let Some(chain) = chain.filter(|_| theirs) else { continue };
            if !self.chains.iter().any(|ours| ours.name == chain.name) {
                self.chains.push(chain.clone());
            }
            self.rules.push(rule.clone());
        }
        // The one without rules goes with those that have some.
        let has = |chains: &[Chain], name: &str| chains.iter().any(|chain| chain.name == name);
        let ports = present.and_then(|present| present.chains.iter().find(|chain| chain.name == PORTS));
        if has(&self.chains, "steer") && !has(&self.chains, PORTS) {
            self.chains.extend(ports.cloned());
        }
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether there is a rule for one of these addresses, other than those that steer it elsewhere.
    pub(super) fn concerns(&self, ips: &[IpAddr]) -> bool {
        let steers = |rule: &&Rule| STEERING.iter().any(|(chain, ..)| *chain == rule.chain);
        let mut others = self.rules.iter().filter(|rule| !steers(rule));
        others.any(|rule| Expression::address(&rule.expressions).is_some_and(|ip| ips.contains(&ip)))
    }

    /// The content of the table; `None` if there is no such table.
    pub(super) fn present() -> io::Result<Option<Self>> {
        let mut netlink = Netlink::open(NETLINK_NETFILTER)?;
        let tables = netlink.dump(&get(GETTABLE, Attributes::default()))?;
        if !tables.iter().any(|body| ours(body, TABLE_NAME)) {
            return Ok(None);
        }
        let chains = netlink.dump(&get(GETCHAIN, Attributes::default()))?;
        let mut of_table = Attributes::default();
        of_table.text(RULE_TABLE, TABLE);
        let rules = netlink.dump(&get(GETRULE, of_table))?;
        Ok(Some(Self {
            chains: chains.iter().filter(|body| ours(body, CHAIN_TABLE)).map(|body| chain(body)).collect(),
            rules: rules.iter().filter(|body| ours(body, RULE_TABLE)).map(|body| rule(body)).collect(),
        }))
    }

    /// Whether two tables do the same. Rules of one chain match different packets, so their order says nothing; but for those that steer,
    /// which are written in theirs.
    pub(super) fn same(&self, other: &Self) -> bool {
        let sorted = |ruleset: &Self| {
            let mut ruleset = ruleset.clone();
            ruleset.chains.sort();
            ruleset.rules.sort();
            ruleset
        };
        sorted(self) == sorted(other)
    }

    /// Replaces the content of the table by this.
    pub(super) fn write(&self) -> io::Result<()> {
        // Creating it first makes the removal succeed whether or not it exists; then it is created empty.
        let mut messages =
            vec![table(TABLE, NEWTABLE, CREATE), table(TABLE, DELTABLE, 0), table(TABLE, NEWTABLE, CREATE)];
        messages.extend(self.chains.iter().map(|chain| chain.message(TABLE)));
        messages.extend(self.rules.iter().map(|rule| rule.message(TABLE)));
        batch(&messages)
    }
}

/// The zone of connections steered away from `ip` (conntrack(8)), none of those `taken`: it tells their answers from those to clients that
/// ask the cluster's DNS themselves, and by which address.
fn zone(ip: IpAddr, taken: &mut HashSet<u16>) -> u16 {
    let [low, high, ..] = xxh3_64(ip.to_string().as_bytes()).to_le_bytes();
    let hash = u16::from_le_bytes([low, high]);
    let mut zones = (0..=u16::MAX).map(|step| hash.wrapping_add(step)).filter(|zone| *zone != 0);
    zones.find(|zone| taken.insert(*zone)).expect("a node has fewer addresses")
}

/// Removes the table, if there is one.
pub(super) fn remove() -> io::Result<()> {
    batch(&[table(TABLE, NEWTABLE, CREATE), table(TABLE, DELTABLE, 0)])
}

/// Whether the kernel can steer: tried once, in a table that one transaction makes and removes. True if the try gives no verdict.
pub(super) fn can_steer() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let ip: IpAddr = [169, 254, 20, 10].into();
        let plan = Plan { steer: vec![(ip, ip)], ..Plan::default() };
        let Ruleset { chains, rules } = Ruleset::wanted(&Config::default(), &plan);
        let parts = chains.iter().map(|chain| chain.message(TRIAL)).chain(rules.iter().map(|rule| rule.message(TRIAL)));
        let all = [table(TRIAL, NEWTABLE, CREATE)].into_iter().chain(parts).chain([table(TRIAL, DELTABLE, 0)]);
        let tried = batch(&all.collect::<Vec<_>>());
        !tried.is_err_and(|error| MISSING.contains(&error.raw_os_error().unwrap_or_default()))
    })
}

fn batch(messages: &[Message]) -> io::Result<()> {
    let frame = |kind| Message { kind, flags: 0, body: header(0, BATCH_RESOURCE) };
    Netlink::open(NETLINK_NETFILTER)?.batch(&frame(BATCH_BEGIN), messages, &frame(BATCH_END))
}

fn header(family: u8, resource: u16) -> Vec<u8> {
    let [high, low] = resource.to_be_bytes();
    vec![family, 0, high, low]
}

fn message(kind: u16, flags: u16, attributes: Attributes) -> Message {
    let mut body = header(FAMILY_INET, 0);
    body.extend(attributes.into_bytes());
    Message { kind, flags, body }
}

fn get(kind: u16, attributes: Attributes) -> Message {
    message(kind, 0, attributes)
}

fn table(name: &str, kind: u16, flags: u16) -> Message {
    let mut attributes = Attributes::default();
    attributes.text(TABLE_NAME, name);
    message(kind, flags, attributes)
}

impl Chain {
    fn message(&self, table: &str) -> Message {
        let mut attributes = Attributes::default();
        attributes.text(CHAIN_TABLE, table);
        attributes.text(CHAIN_NAME, &self.name);
        attributes.nest(CHAIN_HOOK, |hook| {
            hook.u32(HOOK_NUMBER, self.hook);
            hook.put(HOOK_PRIORITY, &self.priority.to_be_bytes());
        });
        attributes.u32(CHAIN_POLICY, POLICY_ACCEPT);
        attributes.text(CHAIN_TYPE, &self.kind);
        message(NEWCHAIN, CREATE, attributes)
    }
}

impl Rule {
    fn message(&self, table: &str) -> Message {
        let mut attributes = Attributes::default();
        attributes.text(RULE_TABLE, table);
        attributes.text(RULE_CHAIN, &self.chain);
        attributes.nest(RULE_EXPRESSIONS, |list| {
            for expression in &self.expressions {
                list.nest(LIST_ELEMENT, |element| expression.put(element));
            }
        });
        message(NEWRULE, CREATE | APPEND, attributes)
    }
}

/// The bytes after the `struct nfgenmsg` of an answer.
fn answer(body: &[u8]) -> &[u8] {
    body.get(4..).unwrap_or_default()
}

/// Whether an answer is about our table, whose name is its attribute `name`.
fn ours(body: &[u8], name: u16) -> bool {
    body.first() == Some(&FAMILY_INET)
        && attributes(answer(body)).any(|(kind, value)| kind == name && text(value) == TABLE)
}

fn chain(body: &[u8]) -> Chain {
    let mut chain = Chain { name: String::new(), hook: u32::MAX, priority: i32::MAX, kind: String::new() };
    for (kind, value) in attributes(answer(body)) {
        match kind {
            CHAIN_NAME => chain.name = text(value),
            CHAIN_TYPE => chain.kind = text(value),
            CHAIN_HOOK => {
                for (kind, value) in attributes(value) {
                    match kind {
                        HOOK_NUMBER => chain.hook = u32_of(value),
                        HOOK_PRIORITY => chain.priority = u32_of(value).cast_signed(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    chain
}

fn rule(body: &[u8]) -> Rule {
    let mut rule = Rule { chain: String::new(), expressions: Vec::new() };
    for (kind, value) in attributes(answer(body)) {
        match kind {
            RULE_CHAIN => rule.chain = text(value),
            RULE_EXPRESSIONS => {
                rule.expressions = attributes(value).map(|(_, value)| Expression::read(value)).collect();
            }
            _ => {}
        }
    }
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config { health: Some("169.254.20.10:8080".parse().unwrap()), ..Config::default() }
    }

    fn serving(ips: &[&str]) -> Ruleset {
        let serve = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        Ruleset::wanted(&config(), &Plan { serve, ..Plan::default() })
    }

    #[test]
    fn the_rules_of_an_address_are_those_of_node_cache() {
        let wanted = serving(&["169.254.20.10", "fd00::10"]);
        let count = |chain: &str| wanted.rules.iter().filter(|rule| rule.chain == chain).count();
        assert_eq!((count("prerouting"), count("input"), count("output_filter")), (4, 4, 4));
        assert_eq!(count("output"), 8 + 2, "health is asked at one of the two");
        let mut shuffled = wanted.clone();
        shuffled.rules.reverse();
        assert!(wanted.same(&shuffled));
        assert!(!wanted.same(&serving(&["169.254.20.10"])));
    }

    #[test]
    fn rules_of_other_agents_stay() {
        let (ours, theirs) = (serving(&["10.96.0.10"]), serving(&["169.254.20.11"]));
        let own = ["10.96.0.10".parse().unwrap()];
        let both = ours.clone().with_others(Some(&theirs), &own);
        assert!(both.same(&serving(&["10.96.0.10", "169.254.20.11"])));
        let gone = Ruleset::wanted(&config(), &Plan::default()).with_others(Some(&both), &own);
        assert!(gone.same(&theirs) && !gone.concerns(&own));
        assert!(Ruleset::wanted(&config(), &Plan::default()).with_others(Some(&ours), &own).is_empty());
        let stray = Rule { chain: "input".into(), expressions: vec![Expression::Accept] };
        let mut broken = ours.clone();
        broken.rules.push(stray);
        assert!(ours.clone().with_others(Some(&broken), &own).same(&ours), "a rule about no address is not ours");
    }

    fn steering(pairs: &[(&str, &str)]) -> Ruleset {
        let steer = pairs.iter().map(|(ip, to)| (ip.parse().unwrap(), to.parse().unwrap())).collect();
        Ruleset::wanted(&config(), &Plan { steer, ..Plan::default() })
    }

    #[test]
    fn rules_that_steer_are_those_of_the_address_that_is_asked() {
        let ours = steering(&[("169.254.20.10", "10.96.0.99")]);
        let theirs = steering(&[("169.254.20.11", "10.96.0.99")]);
        let own = ["169.254.20.10".parse().unwrap()];
        let both = ours.clone().with_others(Some(&theirs), &own);
        assert!(both.same(&steering(&[("169.254.20.10", "10.96.0.99"), ("169.254.20.11", "10.96.0.99")])));
        let gone = Ruleset::wanted(&config(), &Plan::default()).with_others(Some(&both), &own);
        assert!(gone.same(&theirs));
        assert!(!ours.concerns(&own) && serving(&["169.254.20.10"]).concerns(&own), "they are left when an agent ends");
    }

    #[test]
    fn an_address_given_away_lets_answers_out_and_no_query_in() {
        let ip: IpAddr = "10.96.0.10".parse().unwrap();
        let wanted = Ruleset::wanted(&config(), &Plan { answer: vec![ip], ..Plan::default() });
        let chains: Vec<&str> = wanted.rules.iter().map(|rule| rule.chain.as_str()).collect();
        assert_eq!(chains, ["output", "output_filter", "output", "output_filter"]);
    }

    #[test]
    fn rules_read_back_as_written() {
        let redirect = vec![("169.254.20.10".parse().unwrap(), 4053), ("fe80::10".parse().unwrap(), 4054)];
        let redirecting = Ruleset::wanted(&config(), &Plan { redirect, ..Plan::default() });
        assert_eq!((redirecting.chains.len(), redirecting.rules.len()), (6, 8));
        let steering = steering(&[("169.254.20.10", "10.96.0.99"), ("fd00::10", "fd00::99")]);
        assert_eq!((steering.chains.len(), steering.rules.len()), (9, 20));
        let chains: Vec<Chain> = redirecting.chains.iter().chain(&steering.chains).cloned().collect();
        let rules = [serving(&["10.96.0.10", "fd00::10"]).rules, redirecting.rules, steering.rules].concat();
        for rule in rules {
            assert_eq!(super::rule(&rule.message(TABLE).body), rule);
            assert!(Expression::address(&rule.expressions).is_some());
        }
        for written in chains {
            assert_eq!(chain(&written.message(TABLE).body), written);
        }
    }

    #[test]
    fn answers_that_are_cut_short_are_read_without_fault() {
        let rule = &serving(&["fd00::10"]).rules[0];
        let body = rule.message(TABLE).body;
        for length in 0..body.len() {
            assert_ne!(super::rule(&body[..length]), *rule);
            let _ = (ours(&body[..length], RULE_TABLE), chain(&body[..length]));
        }
    }
}
