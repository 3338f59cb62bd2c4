//! The configuration: flags over file over defaults, checked as a whole, every error at once with its place.
//!
//! Owns the table of settings and what follows from it (`--help`, `docs/config.md`, the effective configuration). Never
//! starts anything and never touches what a setting names: that a path or a port can be used is for its user to find out.

#[cfg(test)]
mod doc;
mod error;
mod flags;
pub mod kept;
mod node;
mod parts;
pub mod settings;
mod show;
mod source;
pub mod table;
pub mod types;
mod value;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use error::{ConfigError, ConfigErrors};
pub use flags::{AgentFlags, Flags, Given, HubFlags, RoleFlags};
pub use node::Place;
pub use settings::{ForwardZone, Settings, View};
pub use show::yaml;
pub use source::Source;
pub use table::Role;
pub use value::{Scalar, Shown};

use error::Gather;
use table::Section;
use types::HostPort;

use crate::dns::forward::{Server, UpstreamSource};

/// The most a configuration file may have, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads a duration as settings have it, such as `250ms` or `1h30m`.
///
/// # Errors
/// If it is none.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    Scalar::parse(text)
}

/// A configuration that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub role: Role,
    /// Every setting; `forward` has a zone `.` and its zones have upstreams.
    pub settings: Settings,
    /// Where the records come from.
    pub source: Source,
    /// The file that was read, if one was.
    pub file: Option<PathBuf>,
    /// The Service of the hubs this one is of, as the kubelet tells it.
    pub hubs: Option<HostPort>,
}

impl Config {
    /// The effective settings as YAML, which reads back as the same.
    pub fn to_yaml(&self) -> String {
        yaml(&self.settings.shown(self.role))
    }

    /// Digest of the settings in effect: equal digests are equal settings.
    pub fn digest(&self) -> String {
        format!("{:016x}", xxhash_rust::xxh3::xxh3_64(self.to_yaml().as_bytes()))
    }

    /// The keys in which `next` differs from this, and of them those that take a restart.
    pub fn changes(&self, next: &Self) -> Changes {
        let mut changes = Changes::default();
        for row in Settings::rows() {
            if (row.show)(&self.settings) != (row.show)(&next.settings) {
                let list = if row.setting.reload { &mut changes.reloaded } else { &mut changes.restart };
                list.push(row.setting.key);
            }
        }
        changes
    }
}

/// The settings that a reload would change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys that take effect at once.
    pub reloaded: Vec<&'static str>,
    /// Keys that take effect with the next start.
    pub restart: Vec<&'static str>,
}

/// Reads the file, if any, puts the flags over it and checks the outcome.
///
/// `environment` finds the cluster this process runs in when no source is given.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(
    role: Role,
    flags: &Flags,
    environment: impl Fn(&'static str) -> Option<String>,
) -> Result<Config, ConfigErrors> {
    load_text(role, &read_text(flags)?, flags, environment, Gather::new(flags.file.as_deref()))
}

fn read_text(flags: &Flags) -> Result<String, ConfigErrors> {
    let file = flags.file.as_deref();
    file.map_or(Ok(String::new()), read_file).map_err(|message| {
        let mut errors = Gather::new(file);
        errors.add(Place::Default, "", message);
        errors.finish()
    })
}

/// Reads the file, if any, and puts the flags over it, for commands that need no source of records.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load_settings(role: Role, flags: &Flags) -> Result<Settings, ConfigErrors> {
    let (mut settings, _, errors) = read_settings(role, &read_text(flags)?, flags, Gather::new(flags.file.as_deref()))?;
    source::find_cluster_dns(&mut settings, role, environment);
    if errors.len() == 0 { Ok(settings) } else { Err(errors.finish()) }
}

/// A variable of this process's environment.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// As [`load`], with the configuration's text at hand. Errors name `file` as their place.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load_str(
    role: Role,
    (file, text): (&Path, &str),
    flags: &Flags,
    environment: impl Fn(&'static str) -> Option<String>,
) -> Result<Config, ConfigErrors> {
    load_text(role, text, flags, environment, Gather::new(Some(file)))
}

/// Why this is no log filter, if it is none.
///
/// A word alone that is no level would be taken for the name of a crate, and silence everything else.
fn log_filter_problem(filter: &str) -> Option<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    if let Err(error) = tracing_subscriber::filter::EnvFilter::builder().parse(filter) {
        return Some(format!("{filter:?} is not a log filter: {error}"));
    }
    let words = filter.split(',').map(str::trim).filter(|word| !word.is_empty() && !word.contains(['=', '[', ':']));
    let mut unknown = words.filter(|word| !word.eq_ignore_ascii_case("holdfast"));
    let unknown = unknown.find(|word| !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word)))?;
    let near = LEVELS.iter().map(|level| (strsim::osa_distance(&unknown.to_ascii_lowercase(), level), level)).min();
    let meant = near.filter(|(distance, _)| *distance <= 2).map(|(_, level)| format!(", did you mean {level:?}?"));
    let meant = meant.unwrap_or_else(|| format!(": levels are {}; for one target: {unknown}=debug", LEVELS.join(", ")));
    Some(format!("{unknown:?} is not a log level{meant}"))
}

fn load_text(
    role: Role,
    text: &str,
    flags: &Flags,
    environment: impl Fn(&'static str) -> Option<String>,
    errors: Gather,
) -> Result<Config, ConfigErrors> {
    let (mut settings, given, mut errors) = read_settings(role, text, flags, errors)?;
    source::advertise(&mut settings, role, &environment);
    let hubs = source::hub_service(&environment).filter(|_| role == Role::Hub);
    let source = source::choose(&mut settings, &given, role, &environment, &mut errors);
    source::find_cluster_dns(&mut settings, role, environment);
    source::check_tls(&settings, &given, role, &mut errors);
    default_forward(&mut settings, &given);
    match source {
        Some(source) if errors.len() == 0 => Ok(Config { role, settings, source, file: flags.file.clone(), hubs }),
        _ => Err(errors.finish()),
    }
}

type Read = (Settings, Vec<(&'static str, Place)>, Gather);

/// The settings as given, checked each and together; errors are in the last part.
fn read_settings(role: Role, text: &str, flags: &Flags, mut errors: Gather) -> Result<Read, ConfigErrors> {
    let mut settings = Settings::default();
    let root = node::parse(text).map_err(|broken| {
        for broken in broken {
            errors.add(broken.place, "", broken.message);
        }
        std::mem::take(&mut errors).finish()
    })?;
    let mut given = table::read(&mut settings, &root, Some(role), "", &mut errors);
    given.extend(flags.apply(&mut settings, role, &mut errors));
    check(&settings, &given, &mut errors);
    Ok((settings, given, errors))
}

fn read_file(path: &Path) -> Result<String, String> {
    let text = crate::sys::read_file(path, FILE_BYTES_MAX).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
    });
    text.map_err(|error| format!("cannot be read: {error}"))
}

/// Where a key was given; the last place counts.
fn place_of(given: &[(&'static str, Place)], key: &str) -> Place {
    given.iter().rev().find(|(name, _)| *name == key).map_or(Place::Default, |(_, place)| *place)
}

/// Encrypted DNS takes a certificate, and a build that has it.
fn check_encrypted(settings: &Settings, given: &[(&'static str, Place)], errors: &mut Gather) {
    let of_views =
        settings.views.iter().any(|view| !(view.tls.is_empty() && view.https.is_empty() && view.quic.is_empty()));
    let lists = [
        ("encrypted.tls", settings.encrypted_tls.is_empty()),
        ("encrypted.https", settings.encrypted_https.is_empty()),
        ("encrypted.quic", settings.encrypted_quic.is_empty()),
        ("views", !of_views),
    ];
    let Some((key, _)) = lists.into_iter().find(|(_, is_empty)| !is_empty) else { return };
    if let Some(message) = encrypted_refused(cfg!(feature = "encrypted"), settings.encrypted_certificate.is_some()) {
        errors.add(place_of(given, key), key, message);
    }
}

/// Why addresses of encrypted DNS are refused: in a build that may be without it, with a certificate or none.
fn encrypted_refused(built: bool, certificate: bool) -> Option<&'static str> {
    match (built, certificate) {
        (false, _) => Some(
            "this holdfast is built without encrypted DNS; remove the addresses, or build it with the feature `encrypted`",
        ),
        (true, false) => {
            Some("encrypted DNS takes a certificate: set encrypted.certificate to a directory with tls.crt and tls.key")
        }
        (true, true) => None,
    }
}

/// Checks rules that span several settings.
fn check(settings: &Settings, given: &[(&'static str, Place)], errors: &mut Gather) {
    let name_fits = settings.name.as_ref().is_none_or(|name| (1..=255).contains(&name.len()));
    let faults = [
        (settings.zone.is_root(), "zone", "the cluster's zone cannot be the root"),
        (settings.listen_stream.is_empty(), "listen", "give at least one address, such as 0.0.0.0:7443"),
        (!name_fits, "name", "a name has 1 to 255 bytes"),
        (settings.listen.is_empty(), "listen", "give at least one address, such as 127.0.0.1:53"),
        (settings.ttl.subsec_millis() != 0, "ttl", "a TTL is in whole seconds (RFC 1035, 3.2.1)"),
        (settings.cache_min_ttl > settings.cache_max_ttl, "cache.min_ttl", "is above cache.max_ttl"),
    ];
    for (_, key, message) in faults.into_iter().filter(|(found, ..)| *found) {
        errors.add(place_of(given, key), key, message);
    }
    check_listen(settings, given, errors);
    check_encrypted(settings, given, errors);
    if let Some(message) = log_filter_problem(&settings.log_filter) {
        errors.add(place_of(given, "log.filter"), "log.filter", message);
    }
    let node = settings.node();
    let failsafe =
        settings.node_intercept_failsafe.is_some() && given.iter().any(|(key, _)| *key == "node.intercept_failsafe");
    let nothing_stays = !node.local_ips.is_empty() && node.local_ips.iter().all(|ip| node.failsafe_ips.contains(ip));
    if failsafe && node.setup_interface && nothing_stays {
        let message = "there is no address that stays, at which to find out whether there are answers: listen on \
                       169.254.20.10 too, or name fewer node.failsafe_ips";
        errors.add(place_of(given, "node.intercept_failsafe"), "node.intercept_failsafe", message);
    }
    check_zones(settings, &settings.forward, place_of(given, "forward"), "forward", errors);
    for (index, view) in settings.views.iter().enumerate() {
        check_zones(settings, &view.forward, place_of(given, "views"), &format!("views[{index}].forward"), errors);
    }
    refuse_self(settings, &settings.upstream, place_of(given, "upstream"), "upstream", errors);
    refuse_self(settings, &settings.cluster_fallback, place_of(given, "cluster_fallback"), "cluster_fallback", errors);
    let root = settings.forward.iter().find(|zone| zone.zone.is_root());
    let in_file = |key| given.iter().any(|(name, place)| *name == key && matches!(place, Place::File { .. }));
    if in_file("upstream") && root.is_some_and(|root| root.upstreams != settings.upstream) {
        errors.add(place_of(given, "upstream"), "upstream", "forward has a zone \".\" already: give one of the two");
    }
}

/// Says so when two addresses cannot be had at once: of the second, the socket of the first has the port.
fn check_listen(settings: &Settings, given: &[(&'static str, Place)], errors: &mut Gather) {
    let addresses = settings.every_listen_address();
    for (index, address) in addresses.iter().enumerate() {
        let key = if index < settings.listen.len() { "listen" } else { "views" };
        let has_it = |earlier: &&std::net::SocketAddr| {
            let any = earlier.ip().is_unspecified() || address.ip().is_unspecified();
            earlier.port() == address.port()
                && address.port() != 0
                && earlier.is_ipv4() == address.is_ipv4()
                && (any || earlier.ip() == address.ip())
        };
        match addresses[..index].iter().find(has_it) {
            None => {}
            Some(earlier) if earlier == address => {
                errors.add(place_of(given, key), key, format!("{address} is given twice"));
            }
            Some(earlier) => {
                let message = format!("{address} and {earlier} are the same port of one address: give one of the two");
                errors.add(place_of(given, key), key, message);
            }
        }
    }
}

fn check_zones(settings: &Settings, zones: &[ForwardZone], place: Place, list: &str, errors: &mut Gather) {
    for (index, zone) in zones.iter().enumerate() {
        let key = format!("{list}[{index}]");
        if zones[..index].iter().any(|earlier| earlier.zone == zone.zone) {
            errors.add(place, &key, format!("zone {:?} is given twice", zone.zone.as_str()));
        }
        let min_ttl = zone.min_ttl.unwrap_or(settings.cache_min_ttl);
        if min_ttl > zone.max_ttl.unwrap_or(settings.cache_max_ttl)
            && (zone.min_ttl.is_some() || zone.max_ttl.is_some())
        {
            errors.add(place, &format!("{key}.min_ttl"), "is above max_ttl");
        }
        if zone.resolvers.iter().any(|resolver| matches!(resolver, UpstreamSource::Named(_))) {
            errors.add(place, &format!("{key}.resolvers"), "a resolver is an address or a resolv.conf, not a name");
        }
        refuse_self(settings, &zone.resolvers, place, &format!("{key}.resolvers"), errors);
        if zone.tls_certificate.is_some() != zone.tls_key.is_some() {
            errors.add(place, &key, "tls_certificate and tls_key go together: one of them is missing");
        }
        refuse_self(settings, &zone.upstreams, place, &format!("{key}.upstreams"), errors);
    }
}

/// Says so when an upstream is an address we listen on ourselves.
fn refuse_self(settings: &Settings, upstreams: &[UpstreamSource], place: Place, key: &str, errors: &mut Gather) {
    for upstream in upstreams {
        let UpstreamSource::Server(Server { address, .. }) = upstream else { continue };
        let ours = |listen: std::net::SocketAddr| {
            let any = listen.ip().is_unspecified() && address.ip().is_loopback();
            listen.port() == address.port() && (listen.ip() == address.ip() || any)
        };
        if settings.every_listen_address().into_iter().any(ours) {
            errors.add(place, key, format!("{address} is an address we listen on: questions would come back to us"));
        }
    }
}

/// Makes `upstream` the zone `.` where `forward` has none, or where it came by flag.
fn default_forward(settings: &mut Settings, given: &[(&'static str, Place)]) {
    let by_flag = matches!(place_of(given, "upstream"), Place::Flag(_));
    match settings.forward.iter_mut().find(|zone| zone.zone.is_root()) {
        Some(root) if by_flag => root.upstreams.clone_from(&settings.upstream),
        Some(root) => settings.upstream.clone_from(&root.upstreams),
        None => {
            settings.forward.push(ForwardZone { upstreams: settings.upstream.clone(), ..ForwardZone::default() });
        }
    }
}
