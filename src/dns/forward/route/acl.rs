//! Which clients may ask a zone for what, by rules of which the first that fits counts.
//!
//! Pure.

use std::{fmt, net::IpAddr, str::FromStr};

use hickory_proto::rr::{Name, RecordType};
use ipnet::IpNet;

use super::{pattern::spelled, words};
use crate::{
    sys::labels,
    wire::{EdeCode, Rcode, Rtype},
};

labels! {
    pub enum Action {
        Allow = "allow",
        /// REFUSED.
        Block = "block",
        /// An empty answer.
        Filter = "filter",
        /// No answer at all.
        Drop = "drop",
    }
}

impl Action {
    /// The answer that the rule gives, with its extended error (RFC 8914); `None` if it gives none.
    pub fn answer(self) -> Option<(Rcode, EdeCode)> {
        match self {
            Self::Allow | Self::Drop => None,
            Self::Block => Some((Rcode::REFUSED, EdeCode::BLOCKED)),
            Self::Filter => Some((Rcode::NOERROR, EdeCode::FILTERED)),
        }
    }
}

/// A rule: what happens to questions of these types by clients of these networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    pub action: Action,
    /// The zone it is for; `None` for that of its `forward` entry.
    pub zone: Option<Name>,
    /// None for all.
    pub types: Vec<RecordType>,
    /// None for all.
    pub networks: Vec<IpNet>,
}

impl Acl {
    fn fits(&self, name: &Name, rtype: RecordType, client: IpAddr) -> bool {
        self.zone.as_ref().is_none_or(|zone| zone.zone_of(name))
            && (self.types.is_empty() || self.types.contains(&rtype))
            && (self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&client)))
    }
}

/// The action for a question of `client`: that of the first rule that fits, or to allow it.
pub fn judge(rules: &[Acl], name: &Name, rtype: Rtype, client: IpAddr) -> Action {
    let (rtype, client) = (RecordType::from(rtype.0), client.to_canonical());
    rules.iter().find(|rule| rule.fits(name, rtype, client)).map_or(Action::Allow, |rule| rule.action)
}

impl FromStr for Acl {
    type Err = String;

    /// `allow|block|filter|drop [zone ZONE] [type TYPE…] [net NETWORK…]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let words = words::split(text)?;
        let mut words = words.iter().map(String::as_str);
        let action = words.next().and_then(|word| Action::ALL.into_iter().find(|action| action.as_str() == word));
        let Some(action) = action else {
            return Err(format!("{text:?} does not begin with allow, block, filter or drop"));
        };
        let mut acl = Self { action, zone: None, types: Vec::new(), networks: Vec::new() };
        let mut about = None;
        for word in words {
            match (word, about) {
                ("zone" | "type" | "net", _) => about = Some(word),
                (_, Some("zone")) => {
                    let mut zone = Name::from_ascii(word).map_err(|error| format!("{word:?}: {error}"))?;
                    zone.set_fqdn(true);
                    acl.zone = Some(zone);
                    about = None;
                }
                (_, Some("type")) => {
                    let rtype = word.to_ascii_uppercase().parse();
                    acl.types.push(rtype.map_err(|_| format!("{word:?} is not a type such as A or AAAA"))?);
                }
                (_, Some(_)) => acl.networks.push(network(word)?),
                (_, None) => return Err(format!("{word:?}: expected zone, type or net")),
            }
        }
        Ok(acl)
    }
}

/// A network, or one address.
fn network(word: &str) -> Result<IpNet, String> {
    let one = || word.parse::<IpAddr>().map(IpNet::from).ok();
    word.parse().ok().or_else(one).ok_or_else(|| format!("{word:?} is not a network such as 10.0.0.0/8"))
}

impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action.as_str())?;
        if let Some(zone) = &self.zone {
            write!(f, " zone {}", spelled(zone))?;
        }
        let list = |word: &str, values: Vec<String>| match values.as_slice() {
            [] => String::new(),
            values => format!(" {word} {}", values.join(" ")),
        };
        f.write_str(&list("type", self.types.iter().map(RecordType::to_string).collect()))?;
        f.write_str(&list("net", self.networks.iter().map(IpNet::to_string).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rules: Vec<Acl> = [
            "allow net 10.1.0.0/16 fd00::/8",
            "filter zone secret.test type TXT AAAA",
            "block type A net 10.0.0.0/8",
            "block zone closed.test",
        ]
        .map(|text| text.parse().unwrap())
        .into();
        for (name, rtype, client, expect) in [
            ("www.example.", Rtype::A, "10.1.2.3", Action::Allow),
            ("www.example.", Rtype::A, "10.2.2.3", Action::Block),
            ("www.example.", Rtype::A, "::ffff:10.2.2.3", Action::Block),
            ("www.example.", Rtype::AAAA, "10.2.2.3", Action::Allow),
            ("www.example.", Rtype::A, "192.0.2.1", Action::Allow),
            ("a.Secret.test.", Rtype::TXT, "192.0.2.1", Action::Filter),
            ("closed.test.", Rtype::TXT, "192.0.2.1", Action::Block),
            ("closed.test.", Rtype::TXT, "fd00::1", Action::Allow),
        ] {
            let name = Name::from_ascii(name).unwrap();
            assert_eq!(judge(&rules, &name, rtype, client.parse().unwrap()), expect, "{name} {rtype} {client}");
        }
    }

    #[test]
    fn rules_are_shown_as_they_are_written() {
        for text in ["block", "allow zone a.example. type A AAAA net 10.0.0.0/8 ::1/128"] {
            assert_eq!(text.parse::<Acl>().unwrap().to_string(), text);
        }
        for text in ["", "refuse", "block 10.0.0.0/8", "block net 10.0.0.0/33", "block type NONSENSE"] {
            assert!(text.parse::<Acl>().is_err(), "{text:?}");
        }
    }
}
