//! A Corefile as holdfast's configuration, and what of it cannot be said there.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::{
    Corefile, Error, Note, Position, Token, Weight,
    findings::Findings,
    plan::Content,
    server::{Server, server},
    whole::Whole,
    words::text,
};
use crate::config::Shown;

#[derive(Clone, Debug)]
pub struct Options {
    /// The port of zones without one.
    pub port: u16,
    /// Names of the cluster come from a hub: leave no source out.
    pub hub: bool,
    /// The address of the cluster's DNS service: the zone that is asked of it is the cluster's.
    pub cluster_dns: Option<IpAddr>,
    /// The addresses of an interface of this machine, by its name.
    pub interface: fn(&str) -> Option<Vec<IpAddr>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { port: 53, hub: false, cluster_dns: None, interface: |_| None }
    }
}

/// A Corefile in holdfast's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    pub yaml: String,
    /// Options that are not honoured, or not to the letter, in the order of the file.
    pub notes: Vec<Note>,
    /// How often the file asks to be looked at for changes; `None` if it does not.
    pub reload: Option<Duration>,
}

/// The forward zones of one address.
type Zones = BTreeMap<String, (Shown, Position)>;

/// Translates a file.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file.
pub fn translate(file: &Corefile, options: &Options) -> Result<Translation, Vec<Error>> {
    let mut found = Findings::default();
    let servers: Vec<Server<'_>> = file.blocks.iter().map(|block| server(block, options, &mut found)).collect();
    let v6 = servers.iter().flat_map(|server| &server.listen).any(|(address, _)| address.is_ipv6());
    let any = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let mut whole = Whole::default();
    whole.any = any;
    let mut addresses: Vec<(SocketAddr, Zones)> = Vec::new();
    for server in &servers {
        let content = whole.block(server.directives, &mut found);
        for (address, zones) in &server.listen {
            let at = addresses.iter().position(|(known, _)| known == address).unwrap_or_else(|| {
                addresses.push((*address, Zones::new()));
                addresses.len() - 1
            });
            for (zone, token) in zones {
                add(&mut addresses[at].1, zone, token, &content, &mut found);
            }
        }
    }
    if addresses.is_empty() && found.errors.is_empty() {
        found.error(Position { file: 0, line: 1, column: 1 }, "no block of this file can be served");
    }
    if !found.errors.is_empty() {
        found.errors.sort_by_key(|error| error.at);
        return Err(found.errors.into_iter().map(|error| error.within(&file.files)).collect());
    }
    if whole.logs > 0 && whole.logs < file.blocks.len() {
        found.note(
            whole.log_at,
            "log",
            Weight::Manner,
            "questions of every zone are logged, not of this block's alone",
        );
    }
    found.notes.extend(file.notes.iter().cloned());
    found.notes.sort_by_key(|note| note.at);
    for note in &mut found.notes {
        note.file = super::imported(note.at, &file.files);
    }
    let yaml = whole.yaml(group(addresses), options);
    Ok(Translation { yaml, notes: found.notes, reload: whole.reload })
}

/// Adds the forward zones of `zone` of one block to those of an address.
fn add(all: &mut Zones, zone: &str, token: &Token, content: &Content, found: &mut Findings) {
    for (name, fields) in content.zones(zone) {
        let own = name == zone;
        match all.get(&name) {
            Some((_, first)) if own && *first != Position::default() => {
                found.error(token.at, format!("zone {zone:?} is served by the block at {first} already"));
            }
            // A block of its own says more of a zone than a directive of the block around it.
            Some(_) if !own => {}
            _ => drop(all.insert(name, (fields, if own { token.at } else { Position::default() }))),
        }
    }
}

/// Addresses that answer alike, the ones with most zones first.
fn group(addresses: Vec<(SocketAddr, Zones)>) -> Vec<(Vec<SocketAddr>, Vec<Shown>)> {
    let mut groups: Vec<(Vec<SocketAddr>, Vec<Shown>)> = Vec::new();
    for (address, mut zones) in addresses {
        let refused = || Shown::Map(vec![("zone".into(), text(".")), ("answer".into(), text("refused"))]);
        // CoreDNS refuses what no block is for.
        zones.entry(".".into()).or_insert_with(|| (refused(), Position::default()));
        // The root last, as people write it.
        let mut list: Vec<(String, Shown)> = zones.into_iter().map(|(zone, (fields, _))| (zone, fields)).collect();
        list.sort_by_key(|(zone, _)| (zone == ".", zone.clone()));
        let list: Vec<Shown> = list.into_iter().map(|(_, fields)| fields).collect();
        match groups.iter_mut().find(|(_, known)| *known == list) {
            Some((listen, _)) => listen.push(address),
            None => groups.push((vec![address], list)),
        }
    }
    groups.sort_by_key(|(_, zones)| std::cmp::Reverse(zones.len()));
    groups
}
