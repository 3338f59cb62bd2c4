//! Settings of the guard for names outside the cluster: names to keep, and addresses to refuse.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    super::{
        error::Gather,
        node::{Data, Node},
        value::{Bounds, Scalar, Shown, Value},
    },
    ZoneName,
};
use crate::wire::Name;

/// Names on the keep list.
const NAMES_MAX: usize = 1_000;

/// A list of names of hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeepList(pub Vec<Name>);

impl Value for KeepList {
    const MANY: bool = true;

    fn kind() -> String {
        format!("list of at most {NAMES_MAX} names")
    }

    fn read(node: &Node, key: &str, bounds: Option<Bounds>, errors: &mut Gather) -> Option<Self> {
        if let Data::List(items) = &node.data
            && let Some(first) = items.get(NAMES_MAX)
        {
            let told = format!("{} names, {NAMES_MAX} at most: this is the first beyond", items.len());
            errors.add(first.place, &format!("{key}[{NAMES_MAX}]"), told);
            return None;
        }
        let names = Vec::<ZoneName>::read(node, key, bounds, errors)?;
        let name = |name: &ZoneName| name.as_str().parse::<Name>().ok();
        Some(Self(names.iter().filter_map(name).collect()))
    }

    fn show(&self) -> Shown {
        let text = |name: &Name| Shown::Text(name.to_string().trim_end_matches('.').to_owned());
        Shown::List(self.0.iter().map(text).collect())
    }
}

/// A network, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl Scalar for Network {
    const KIND: &'static str = "CIDR or address";

    fn parse(text: &str) -> Result<Self, String> {
        match text.parse::<IpAddr>() {
            Ok(ip) => Ok(Self(ip.into())),
            Err(_) => IpNet::parse(text).map(Self),
        }
    }

    fn text(&self) -> String {
        let Self(network) = self;
        if network.prefix_len() == network.max_prefix_len() { network.addr().to_string() } else { network.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_shown_as_it_is_written() {
        for text in ["0.0.0.0", "10.0.0.0/8", "fc00::/7", "::"] {
            assert_eq!(Network::parse(text).unwrap().text(), text);
        }
        assert!(Network::parse("10.0.0.1/8").is_err() && Network::parse("private").is_err());
    }
}
