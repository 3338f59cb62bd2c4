//! Who is to be asked for a zone: the addresses an operator gave, and those that files name now.
//!
//! Decides which files are waited for. Never asks anybody.

use std::{
    collections::HashSet,
    fmt,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use super::{
    config::{Config, ConfigError, Server, UpstreamSource, ZoneConfig},
    resolv_conf::{self, ReadError},
};

/// The file of the system. That it is not there is the state of a node, whoever configured it, and no slip of the pen.
const SYSTEM_FILE: &str = "/etc/resolv.conf";

/// A file that is to name upstreams, and names none so far, or ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

/// The servers of a zone.
#[derive(Debug)]
pub struct Servers {
    /// Each once, in order.
    pub servers: Vec<Server>,
    /// A file that is waited for.
    pub missing: Option<Missing>,
}

/// The servers `config` names. Where it `may_wait`, a file that names nobody yet, or ourselves, is no error.
///
/// # Errors
/// The first thing that is wrong.
pub fn servers(config: &ZoneConfig, listen: &[SocketAddr], may_wait: bool) -> Result<Servers, ConfigError> {
    let (mut servers, mut missing) = (Vec::new(), None);
    for source in &config.upstreams {
        let path = match source {
            UpstreamSource::Server(server) => {
                servers.push(server.clone());
                continue;
            }
            UpstreamSource::ResolvConf(path) => path,
        };
        match resolv_conf::read(path) {
            Ok(named) => {
                // Whom the node asks is not for us to refuse: we are left out, and that is said.
                let (ours, others): (Vec<_>, Vec<_>) =
                    named.into_iter().partition(|server| is_own(server.address, listen));
                if let Some(own) = ours.first() {
                    if others.is_empty() && !may_wait {
                        return Err(ConfigError::SelfUpstream { zone: config.zone.to_string(), upstream: own.address });
                    }
                    let reason = format!("names {own}, an address holdfast itself listens on");
                    missing = Some(Missing { path: path.clone(), reason });
                }
                servers.extend(others);
            }
            Err(error) if may_wait && is_waited_for(path, &error) => {
                missing = Some(Missing { path: path.clone(), reason: error.to_string() });
            }
            Err(error) => {
                let (zone, path, reason) = (config.zone.to_string(), path.clone(), error.to_string());
                return Err(ConfigError::ResolvConf { zone, path, reason });
            }
        }
    }
    let mut seen = HashSet::new();
    servers.retain(|server| seen.insert(server.clone()));
    if servers.is_empty() && missing.is_none() && config.answer.is_none() {
        return Err(ConfigError::NoUpstreams(config.zone.to_string()));
    }
    match servers.iter().find(|server| is_own(server.address, listen)) {
        None => Ok(Servers { servers, missing }),
        Some(server) => Err(ConfigError::SelfUpstream { zone: config.zone.to_string(), upstream: server.address }),
    }
}

/// What of `config` would keep a forwarder on this machine from starting, and what it would wait for, in words.
#[must_use]
pub fn complaints(config: &Config, listen: &[SocketAddr]) -> Vec<String> {
    let told = |zone: &ZoneConfig| match servers(zone, listen, true) {
        Ok(Servers { missing: None, .. }) => None,
        Ok(Servers { missing: Some(missing), servers }) => {
            let so = if servers.is_empty() { "no upstreams until it names one" } else { "only the others are asked" };
            Some(format!("forward zone {}: {missing}: {so}", zone.zone))
        }
        Err(error) => Some(format!("{error}: an agent does not start with this on this machine")),
    };
    config.zones.iter().filter_map(told).collect()
}

/// Whether a file that cannot be used so is waited for: the system's, and one that is there and has no servers yet, as
/// where the network comes up later. Anything else is wrong in the configuration.
fn is_waited_for(path: &Path, error: &ReadError) -> bool {
    path == Path::new(SYSTEM_FILE) || matches!(error, ReadError::NoServer)
}

/// Whether asking `address` would ask ourselves.
fn is_own(address: SocketAddr, listen: &[SocketAddr]) -> bool {
    listen.iter().any(|own| {
        own.port() == address.port()
            && (own.ip() == address.ip()
                // An address of this host is one that a socket can be bound to.
                || (own.ip().is_unspecified() && UdpSocket::bind((address.ip(), 0)).is_ok()))
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn only_the_file_of_the_system_may_be_away_and_any_may_be_without_servers() {
        let other = "/run/systemd/resolve/resolv.conf";
        let gone = || ReadError::Io(io::ErrorKind::NotFound.into());
        let folder = || ReadError::Io(io::ErrorKind::IsADirectory.into());
        for (waited_for, path, error) in [
            (true, SYSTEM_FILE, gone()),
            (true, SYSTEM_FILE, folder()),
            (true, SYSTEM_FILE, ReadError::TooLarge),
            (true, SYSTEM_FILE, ReadError::NoServer),
            (true, other, ReadError::NoServer),
            (false, other, gone()),
            (false, other, folder()),
            (false, other, ReadError::TooLarge),
        ] {
            assert_eq!(is_waited_for(Path::new(path), &error), waited_for, "{path}: {error}");
        }
    }

    #[test]
    fn what_would_not_start_and_what_would_be_waited_for_is_told_beforehand() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let zone = |name: &str, upstream: &str| ZoneConfig {
            zone: hickory_proto::rr::Name::from_ascii(name).unwrap(),
            upstreams: vec![upstream.parse().unwrap()],
            ..ZoneConfig::default()
        };
        let empty = empty.path().to_str().unwrap();
        let both = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(both.path(), "nameserver 192.0.2.9\nnameserver 192.0.2.1\n").unwrap();
        let both = both.path().to_str().unwrap();
        let zones = vec![
            zone("good.", "192.0.2.1"),
            zone("waits.", empty),
            zone("gone.", "/nonexistent/resolv.conf"),
            zone("own.", "192.0.2.9"),
            zone("both.", both),
        ];
        let told = complaints(&Config { zones, ..Config::default() }, &["192.0.2.9:53".parse().unwrap()]);
        let expect = [
            format!(
                "forward zone waits.: {empty}: no nameserver line with an address: no upstreams until it names one"
            ),
            "forward zone gone.: /nonexistent/resolv.conf: No such file or directory (os error 2): an agent does not \
             start with this on this machine"
                .into(),
            "forward zone own.: upstream 192.0.2.9:53 is an address holdfast itself listens on: give the address of \
             another resolver: an agent does not start with this on this machine"
                .into(),
            format!(
                "forward zone both.: {both}: names 192.0.2.9:53, an address holdfast itself listens on: only the others \
                 are asked"
            ),
        ];
        assert_eq!(told, expect);
    }
}
