//! The nftables table of holdfast: what it should hold, what it holds, and how it is written, all over netlink.
//!
//! The rules have the effect of node-cache's: queries to the node's own addresses and the answers to them are not tracked,
//! and are accepted. One table for both families, replaced as a whole in one transaction, so that there is no moment with
//! half of it.

mod expression;

use std::{io, net::IpAddr};

use netlink_packet_core::NlasIterator;
use netlink_sys::protocols::NETLINK_NETFILTER;

use self::expression::{Attributes, Field};
pub(super) use self::expression::{Expression, attributes, text, u32_of};
use super::{
    Config,
    netlink::{Message, Netlink},
};

pub(super) const TABLE: &str = "holdfast";

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    name: String,
    hook: u32,
    priority: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
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

const UDP: u8 = 17;
const TCP: u8 = 6;

impl Ruleset {
    /// What the table should hold for these addresses.
    pub(super) fn wanted(config: &Config, ips: &[IpAddr]) -> Self {
        let chains = CHAINS.map(|(name, hook, priority)| Chain { name: name.to_owned(), hook, priority });
        let mut rules = Vec::new();
        let mut rule = |chain: &str, ip, protocol, end, port, verdict| {
            let expressions = Expression::matching(ip, protocol, end, port, verdict);
            rules.push(Rule { chain: chain.to_owned(), expressions });
        };
        for &ip in ips {
            for protocol in [UDP, TCP] {
                let port = config.dns_port;
                rule("prerouting", ip, protocol, Field::Destination, port, Expression::Notrack);
                rule("output", ip, protocol, Field::Destination, port, Expression::Notrack);
                rule("output", ip, protocol, Field::Source, port, Expression::Notrack);
                rule("input", ip, protocol, Field::Destination, port, Expression::Accept);
                rule("output_filter", ip, protocol, Field::Source, port, Expression::Accept);
            }
            if let Some(health) = config.health
                && (health.ip() == ip || health.ip().is_unspecified())
            {
                rule("output", ip, TCP, Field::Destination, health.port(), Expression::Notrack);
                rule("output", ip, TCP, Field::Source, health.port(), Expression::Notrack);
            }
        }
        Self { chains: chains.into(), rules }
    }

    /// What the table holds; `None` if there is no such table.
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

    /// Whether two tables do the same: chains in any order, the rules of each chain in theirs.
    pub(super) fn same(&self, other: &Self) -> bool {
        let of = |ruleset: &Self, chain: &str| -> Vec<Rule> {
            ruleset.rules.iter().filter(|rule| rule.chain == chain).cloned().collect()
        };
        self.chains.len() == other.chains.len()
            && self.rules.len() == other.rules.len()
            && self
                .chains
                .iter()
                .all(|chain| other.chains.contains(chain) && of(self, &chain.name) == of(other, &chain.name))
    }

    /// Makes this what the table holds.
    pub(super) fn write(&self) -> io::Result<()> {
        // Made if it is missing, so that it can be removed whatever it holds, and made anew.
        let mut messages = vec![table(NEWTABLE, CREATE), table(DELTABLE, 0), table(NEWTABLE, CREATE)];
        messages.extend(self.chains.iter().map(Chain::message));
        messages.extend(self.rules.iter().map(Rule::message));
        batch(&messages)
    }
}

/// Removes the table, if there is one.
pub(super) fn remove() -> io::Result<()> {
    batch(&[table(NEWTABLE, CREATE), table(DELTABLE, 0)])
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

fn table(kind: u16, flags: u16) -> Message {
    let mut attributes = Attributes::default();
    attributes.text(TABLE_NAME, TABLE);
    message(kind, flags, attributes)
}

impl Chain {
    fn message(&self) -> Message {
        let mut attributes = Attributes::default();
        attributes.text(CHAIN_TABLE, TABLE);
        attributes.text(CHAIN_NAME, &self.name);
        attributes.nest(CHAIN_HOOK, |hook| {
            hook.u32(HOOK_NUMBER, self.hook);
            hook.put(HOOK_PRIORITY, &self.priority.to_be_bytes());
        });
        attributes.u32(CHAIN_POLICY, POLICY_ACCEPT);
        attributes.text(CHAIN_TYPE, "filter");
        message(NEWCHAIN, CREATE, attributes)
    }
}

impl Rule {
    fn message(&self) -> Message {
        let mut attributes = Attributes::default();
        attributes.text(RULE_TABLE, TABLE);
        attributes.text(RULE_CHAIN, &self.chain);
        attributes.nest(RULE_EXPRESSIONS, |list| {
            for expression in &self.expressions {
                list.nest(LIST_ELEMENT, |element| expression.put(element));
            }
        });
        message(NEWRULE, CREATE | APPEND, attributes)
    }
}

/// What follows the `struct nfgenmsg` of an answer.
fn answer(body: &[u8]) -> &[u8] {
    body.get(4..).unwrap_or_default()
}

/// Whether an answer is about our table, whose name is its attribute `name`.
fn ours(body: &[u8], name: u16) -> bool {
    body.first() == Some(&FAMILY_INET)
        && attributes(answer(body)).any(|(kind, value)| kind == name && text(value) == TABLE)
}

fn chain(body: &[u8]) -> Chain {
    let mut chain = Chain { name: String::new(), hook: u32::MAX, priority: i32::MAX };
    for (kind, value) in attributes(answer(body)) {
        match kind {
            CHAIN_NAME => chain.name = text(value),
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

    #[test]
    fn the_rules_of_an_address_are_those_of_node_cache() {
        let ips = ["169.254.20.10".parse().unwrap(), "fd00::10".parse().unwrap()];
        let wanted = Ruleset::wanted(&config(), &ips);
        let count = |chain: &str| wanted.rules.iter().filter(|rule| rule.chain == chain).count();
        assert_eq!((count("prerouting"), count("input"), count("output_filter")), (4, 4, 4));
        assert_eq!(count("output"), 8 + 2, "health is asked at one of the two");
        assert!(wanted.same(&wanted.clone()));
        assert!(!wanted.same(&Ruleset::wanted(&config(), &ips[..1])));
    }

    #[test]
    fn what_is_written_reads_back_as_the_same() {
        for rule in Ruleset::wanted(&config(), &["10.96.0.10".parse().unwrap(), "fd00::10".parse().unwrap()]).rules {
            assert_eq!(super::rule(&rule.message().body), rule);
        }
        let written = Chain { name: "output".into(), hook: 3, priority: -300 };
        assert_eq!(chain(&written.message().body), written);
    }

    #[test]
    fn answers_that_are_cut_short_are_read_without_fault() {
        let rule = &Ruleset::wanted(&config(), &["fd00::10".parse().unwrap()]).rules[0];
        let body = rule.message().body;
        for length in 0..body.len() {
            assert_ne!(super::rule(&body[..length]), *rule);
            let _ = (ours(&body[..length], RULE_TABLE), chain(&body[..length]));
        }
    }
}
