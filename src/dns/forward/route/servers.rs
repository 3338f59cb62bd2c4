//! The servers of a zone: the addresses an operator gave, those that files name now, and those that names have.
//!
//! Decides which files are waited for. Sends no question.

use std::{
    collections::HashSet,
    fmt,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use super::{
    UpstreamSource,
    config::{Config, ConfigError, ZoneConfig},
    named::NamedAddresses,
    resolv_conf,
    resolv_conf_cache::ResolvConfCache,
};
use crate::dns::forward::upstream::Server;

/// A file that cannot be used: it names no upstreams, or this process, or holds no certificates. Or the name of an upstream that
/// cannot be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The file, or the name.
    pub path: PathBuf,
    /// The reason that it cannot be used.
    pub reason: String,
}

impl Missing {
    pub fn is_file(&self) -> bool {
        self.path.is_absolute()
    }
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

/// The servers `config` names. With `may_wait`, a file that names no server, or only this process, is no error: the servers
/// it named last are used if they are known, else the file is read again until it names one.
///
/// # Errors
/// The first thing that is wrong.
pub fn servers(
    config: &ZoneConfig,
    listen: &[SocketAddr],
    may_wait: Option<&ResolvConfCache>,
    known: &NamedAddresses,
) -> Result<Servers, ConfigError> {
    let (mut servers, mut missing) = (Vec::new(), None);
    for source in &config.upstreams {
        let path = match source {
            UpstreamSource::Server(server) => {
                servers.push(server.clone());
                continue;
            }
            UpstreamSource::Named(named) => {
                let (addresses, reason) = known.addresses(&named.host);
                let (ours, others): (Vec<_>, Vec<_>) =
                    addresses.into_iter().map(|ip| named.at(ip)).partition(|server| is_own(server.address, listen));
                let own = ours.first().map(|own| format!("has {own}, an address holdfast itself listens on"));
                let kept = if others.is_empty() { "" } else { "; the addresses it had last are asked" };
                let reason = own.or_else(|| reason.map(|reason| reason + kept));
                let path = named.host.to_string().into();
                missing = reason.map(|reason| Missing { path, reason }).or(missing);
                servers.extend(others);
                continue;
            }
            UpstreamSource::ResolvConf(path) => path,
        };
        match resolv_conf::read(path) {
            Ok(named) => {
                // The node's own choice is no error: our address is left out, and that is reported.
                let (ours, others): (Vec<_>, Vec<_>) =
                    named.into_iter().partition(|server| is_own(server.address, listen));
                if let Some(own) = ours.first() {
                    let reason = format!("names {own}, an address holdfast itself listens on");
                    missing = Some(match may_wait {
                        _ if !others.is_empty() => Missing { path: path.clone(), reason },
                        Some(resolv_conf_cache) => fall_back(path, reason, resolv_conf_cache, listen, &mut servers),
                        None => {
                            let (zone, upstream) = (config.zone.to_string(), own.address);
                            return Err(ConfigError::SelfUpstream { zone, upstream });
                        }
                    });
                }
                servers.extend(others);
            }
            Err(error) => {
                let Some(resolv_conf_cache) = may_wait else {
                    let (zone, path, reason) = (config.zone.to_string(), path.clone(), error.to_string());
                    return Err(ConfigError::ResolvConf { zone, path, reason });
                };
                missing = Some(fall_back(path, error.to_string(), resolv_conf_cache, listen, &mut servers));
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

/// Adds the servers that `path` named last, as it names none now, and says so in the reason.
fn fall_back(
    path: &Path,
    reason: String,
    resolv_conf_cache: &ResolvConfCache,
    listen: &[SocketAddr],
    servers: &mut Vec<Server>,
) -> Missing {
    let before = servers.len();
    servers.extend(resolv_conf_cache.last(path).into_iter().filter(|server| !is_own(server.address, listen)));
    let so = if servers.len() > before { "; those it named last are asked" } else { "" };
    Missing { path: path.to_owned(), reason: reason + so }
}

/// The settings of `config` that would keep a forwarder on this machine from starting, and the files it would wait for, in words.
#[must_use]
pub fn problems(config: &Config, listen: &[SocketAddr]) -> Vec<String> {
    let known = NamedAddresses::default();
    let told = |zone: &ZoneConfig| match servers(zone, listen, Some(&ResolvConfCache::default()), &known) {
        Ok(Servers { missing: None, .. }) => None,
        // Names are looked up by the running process.
        Ok(Servers { missing: Some(missing), .. }) if !missing.is_file() => None,
        Ok(Servers { missing: Some(missing), servers }) => {
            let so = if servers.is_empty() { "no upstreams until it names one" } else { "only the others are asked" };
            Some(format!("forward zone {}: {missing}: {so}", zone.zone))
        }
        Err(error) => Some(format!("{error}: an agent does not start with this on this machine")),
    };
    config.zones.iter().filter_map(told).collect()
}

/// Whether `address` is one of our own.
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
    use super::*;

    #[test]
    fn whom_a_file_named_last_is_asked_until_it_names_somebody() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resolv.conf");
        let resolv_conf_cache = ResolvConfCache::in_file(Some(folder.path().join("upstreams.json")));
        let upstreams = vec![UpstreamSource::ResolvConf(file.clone())];
        let config = ZoneConfig { upstreams, ..ZoneConfig::default() };
        let listen = ["192.0.2.9:53".parse().unwrap()];
        let asked = |may_wait: Option<&ResolvConfCache>| {
            let Servers { servers, missing } =
                servers(&config, &listen, may_wait, &NamedAddresses::default()).map_err(|error| error.to_string())?;
            let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
            Ok::<_, String>((servers.join(" "), missing.map(|missing| missing.reason)))
        };
        let gone = "No such file or directory (os error 2)";
        assert_eq!(asked(Some(&resolv_conf_cache)).unwrap(), (String::new(), Some(gone.into())), "never there");
        assert!(asked(None).unwrap_err().contains(gone));
        std::fs::write(&file, "nameserver 192.0.2.9\nnameserver 192.0.2.1\n").unwrap();
        resolv_conf_cache.note(std::slice::from_ref(&file));
        let told = |reason: &str| Some(format!("{reason}; those it named last are asked"));
        for (text, reason) in [
            ("", "no nameserver line with an address"),
            ("nameserver 192.0.2.9\n", "names 192.0.2.9:53, an address holdfast itself listens on"),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(asked(Some(&resolv_conf_cache)).unwrap(), ("192.0.2.1:53".into(), told(reason)));
            assert!(asked(None).is_err(), "those in use are as good");
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(
            asked(Some(&resolv_conf_cache)).unwrap(),
            ("192.0.2.1:53".into(), told("No such file or directory (os error 2)"))
        );
        std::fs::write(&file, "nameserver 192.0.2.2\n").unwrap();
        assert_eq!(asked(Some(&resolv_conf_cache)).unwrap(), ("192.0.2.2:53".into(), None));
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
        let told = problems(&Config { zones, ..Config::default() }, &["192.0.2.9:53".parse().unwrap()]);
        let expect = [
            format!(
                "forward zone waits.: {empty}: no nameserver line with an address: no upstreams until it names one"
            ),
            "forward zone gone.: /nonexistent/resolv.conf: No such file or directory (os error 2): no upstreams until it \
             names one"
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
