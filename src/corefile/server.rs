//! Server blocks as listeners: their zones and ports, `bind`, and where health and metrics are served.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Block, Directive, Options, Token, Weight, findings::Findings, words};

/// A server block: its addresses and zones.
#[derive(Clone, Debug)]
pub(super) struct Server<'a> {
    /// Every address it listens on, with the zones it answers there.
    pub listen: Vec<(SocketAddr, Vec<(String, &'a Token)>)>,
    /// The directives of the block.
    pub directives: &'a [Directive],
}

/// Reads the keys and `bind` of a block.
pub(super) fn server<'a>(block: &'a Block, options: &Options, found: &mut Findings) -> Server<'a> {
    let addresses = bind(block, options, found);
    let mut by_port: Vec<(u16, Vec<(String, &Token)>)> = Vec::new();
    for token in &block.keys {
        let Some((zones, port)) = key(token, options.port, found) else { continue };
        let zones = zones.into_iter().map(|zone| (zone, token));
        match by_port.iter_mut().find(|(known, _)| *known == port) {
            Some((_, list)) => list.extend(zones),
            None => by_port.push((port, zones.collect())),
        }
    }
    let at_port = |(port, zones): (u16, Vec<(String, &'a Token)>)| {
        let address = move |ip: &IpAddr| (SocketAddr::new(*ip, port), zones.clone());
        addresses.iter().map(address).collect::<Vec<_>>()
    };
    Server { listen: by_port.into_iter().flat_map(at_port).collect(), directives: &block.directives }
}

fn key(token: &Token, default_port: u16, found: &mut Findings) -> Option<(Vec<String>, u16)> {
    let text = match token.text.split_once("://") {
        None => token.text.as_str(),
        Some(("dns", rest)) => rest,
        Some((scheme, _)) => {
            let said = format!("nothing is served over {scheme} here: this block is left out");
            found.note(token.at, &token.text, Weight::Answers, said);
            return None;
        }
    };
    // The colons of an IPv6 network are not those of a port, which comes after its mask.
    let after_mask = text.find('/').unwrap_or(0);
    let (zone, port) = match text[after_mask..].rfind(':') {
        Some(colon) => (&text[..after_mask + colon], Some(&text[after_mask + colon + 1..])),
        None => (text, None),
    };
    let port = match port.map(str::parse::<u16>) {
        None => default_port,
        Some(Ok(port)) => port,
        Some(Err(_)) => {
            found.error(token.at, format!("{:?} does not end in a port", token.text));
            return None;
        }
    };
    let zone = Token { text: if zone.is_empty() { ".".into() } else { zone.to_owned() }, ..token.clone() };
    found.take(words::zones(&zone)).map(|zones| (zones, port))
}

/// The addresses of `bind`, without those it leaves out, or every one of the host.
fn bind(block: &Block, options: &Options, found: &mut Findings) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    let mut given = false;
    for directive in block.directives.iter().filter(|directive| directive.name.text == "bind") {
        given = true;
        if directive.args.is_empty() {
            found.error(directive.name.at, "bind takes the addresses to listen on");
        }
        let mut except = Vec::new();
        for property in &directive.properties {
            match property.name.text.as_str() {
                "except" => property.args.iter().for_each(|token| except.extend(bound(token, options, found))),
                _ => found.unknown(directive, property),
            }
        }
        for token in &directive.args {
            for address in bound(token, options, found) {
                if !addresses.contains(&address) && !except.contains(&address) {
                    addresses.push(address);
                }
            }
        }
    }
    if !given {
        addresses.push(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }
    addresses
}

/// The addresses of one word of `bind`: itself, or those of the interface of that name. Link-local IPv6 addresses are left
/// out: a listener has no scope.
fn bound(token: &Token, options: &Options, found: &mut Findings) -> Vec<IpAddr> {
    if let Ok(address) = token.text.parse() {
        return vec![address];
    }
    let of_interface = (options.interface)(&token.text);
    let Some(addresses) = of_interface else {
        found.error(token.at, format!("{:?} is neither an address nor an interface of this machine", token.text));
        return Vec::new();
    };
    let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    addresses.into_iter().filter(|ip| !link_local(ip)).collect()
}

/// Where health and metrics are served.
#[derive(Clone, Debug, Default)]
pub(super) struct Listeners {
    pub http: Vec<SocketAddr>,
    pub metrics: Vec<SocketAddr>,
}

impl Listeners {
    /// Reads `health`, `ready` or `prometheus`. An address left open is `any`.
    pub fn read(&mut self, directive: &Directive, any: IpAddr, found: &mut Findings) {
        let (list, default) = match directive.name.text.as_str() {
            "health" => (&mut self.http, ":8080"),
            "ready" => (&mut self.http, ":8181"),
            _ => (&mut self.metrics, "localhost:9153"),
        };
        let default = Token { text: default.into(), ..directive.name.clone() };
        let token = match directive.args.as_slice() {
            [] => &default,
            [token] => token,
            [_, extra, ..] => {
                return found.error(extra.at, format!("{} takes one address", directive.name.text));
            }
        };
        if let Some(address) = found.take(words::listener(token, any))
            && !list.contains(&address)
        {
            list.push(address);
        }
        for property in &directive.properties {
            match (directive.name.text.as_str(), property.name.text.as_str()) {
                ("health", "lameduck") => {
                    let said = "at its end the process answers what it received, and leaves its addresses to the next process or \
                                to the cluster's DNS: there is nothing to wait for";
                    found.met(directive, property, said);
                }
                ("prometheus", "runtime_metrics") => {
                    found.manner(directive, property, "there are no metrics of a Go runtime");
                }
                ("ready", "monitor") => found.manner(directive, property, "readiness is told as it stands"),
                _ => found.unknown(directive, property),
            }
        }
    }
}
