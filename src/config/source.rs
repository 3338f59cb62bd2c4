//! Which source the records come from: one of three, given or found in the environment.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use super::{
    Place,
    error::Gather,
    place_of,
    settings::Settings,
    table::Role,
    types::{Addr, HostPort, Tls},
    value::Scalar,
};
use crate::dns::forward::{Server, UpstreamSource};

/// Where the records come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Hubs, in the order of preference.
    Hub(Vec<HostPort>),
    /// The apiserver a kubeconfig names; `None` is the one of the pod's service account.
    Kubernetes(Option<PathBuf>),
    /// A file or directory.
    Manifests(PathBuf),
    /// None at all: names of the cluster are forwarded.
    None,
}

impl Source {
    /// The kind in one word, for the log and the tools.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Hub(_) => "hub",
            Self::Kubernetes(_) => "apiserver",
            Self::Manifests(_) => "manifests",
            Self::None => "source",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(hubs) => {
                let hubs: Vec<String> = hubs.iter().map(ToString::to_string).collect();
                write!(f, "hub {}", hubs.join(", "))
            }
            Self::Kubernetes(None) => f.write_str("apiserver of this cluster"),
            Self::Kubernetes(Some(path)) => write!(f, "apiserver of kubeconfig {}", path.display()),
            Self::Manifests(path) => write!(f, "manifests {}", path.display()),
            Self::None => f.write_str("none"),
        }
    }
}

const KEYS: [&str; 4] =
    ["source.hub.addresses", "source.kubernetes.kubeconfig", "source.manifests.path", "source.none"];

/// The kubeconfig that stands for the pod's service account.
const IN_CLUSTER: &str = "in-cluster";

/// Finds the source. A flag beats the file; two of the same rank are an error, and so is none at all.
pub fn choose(
    settings: &mut Settings,
    given: &[(&'static str, Place)],
    role: Role,
    environment: impl Fn(&'static str) -> Option<String>,
    errors: &mut Gather,
) -> Option<Source> {
    let mut places: Vec<(&str, Place)> = given.iter().filter(|(key, _)| is_set(settings, key)).copied().collect();
    if places.iter().any(|(_, place)| matches!(place, Place::Flag(_))) {
        places.retain(|(_, place)| matches!(place, Place::Flag(_)));
        forget_others(settings, &places);
    }
    if let [(first, at), (second, place), ..] = places[..]
        && first != second
    {
        errors.add(place, second, format!("{} is given too: records come from one source", place_name(first, at)));
        return None;
    }
    if let Some(source) = given_source(settings) {
        return Some(source);
    }
    from_environment(settings, role, environment).or_else(|| {
        let message = "no source: give --manifests PATH, --kubeconfig FILE or --hub HOST:PORT, or `source` in the file \
                       (a pod finds hubs and apiserver in its environment: check-config --offline)";
        errors.add(Place::Default, "", message);
        None
    })
}

fn is_set(settings: &Settings, key: &str) -> bool {
    match KEYS.iter().position(|known| *known == key) {
        Some(0) => !settings.source_hub_addresses.is_empty(),
        Some(1) => settings.source_kubernetes_kubeconfig.is_some(),
        Some(2) => settings.source_manifests_path.is_some(),
        Some(3) => settings.source_none,
        _ => false,
    }
}

fn place_name(key: &str, place: Place) -> String {
    if let Place::Flag(flag) = place { flag.to_owned() } else { key.to_owned() }
}

fn forget_others(settings: &mut Settings, places: &[(&str, Place)]) {
    let kept = |key: &str| places.iter().any(|(name, _)| *name == key);
    if !kept(KEYS[0]) {
        settings.source_hub_addresses.clear();
    }
    if !kept(KEYS[1]) {
        settings.source_kubernetes_kubeconfig = None;
    }
    if !kept(KEYS[2]) {
        settings.source_manifests_path = None;
    }
    settings.source_none &= kept(KEYS[3]);
}

fn given_source(settings: &Settings) -> Option<Source> {
    if !settings.source_hub_addresses.is_empty() {
        return Some(Source::Hub(settings.source_hub_addresses.clone()));
    }
    if let Some(path) = &settings.source_manifests_path {
        return Some(Source::Manifests(path.clone()));
    }
    if settings.source_none {
        return Some(Source::None);
    }
    let path = settings.source_kubernetes_kubeconfig.as_ref()?;
    Some(Source::Kubernetes((path.as_os_str() != IN_CLUSTER).then(|| path.clone())))
}

/// The Service of the hubs of this namespace.
pub fn hub_service(environment: impl Fn(&'static str) -> Option<String>) -> Option<HostPort> {
    let hub = HostPort::parse(&environment("HOLDFAST_HUB_SERVICE_HOST")?).ok()?;
    let port = environment("HOLDFAST_HUB_SERVICE_PORT").and_then(|port| port.parse().ok());
    Some(HostPort { port: port.unwrap_or(hub.port), ..hub })
}

/// The environment that the kubelet gives every container: the addresses of the services in its namespace and of the apiserver.
fn from_environment(
    settings: &mut Settings,
    role: Role,
    environment: impl Fn(&'static str) -> Option<String>,
) -> Option<Source> {
    if let Some(hub) = hub_service(&environment).filter(|_| role == Role::Agent) {
        settings.source_hub_addresses = vec![hub.clone()];
        return Some(Source::Hub(vec![hub]));
    }
    environment("KUBERNETES_SERVICE_HOST")?;
    settings.source_kubernetes_kubeconfig = Some(IN_CLUSTER.into());
    Some(Source::Kubernetes(None))
}

/// Services in front of the cluster's DNS, by the variables that the kubelet makes of their names.
const CLUSTER_DNS: [&str; 3] =
    ["HOLDFAST_UPSTREAM_SERVICE_HOST", "KUBE_DNS_UPSTREAM_SERVICE_HOST", "KUBE_DNS_SERVICE_HOST"];

/// Fills in where the cluster's DNS is, if that was not said: at an address that queries to us do not go to.
pub fn find_cluster_dns(settings: &mut Settings, role: Role, environment: impl Fn(&'static str) -> Option<String>) {
    let said = !settings.cluster_fallback.is_empty() || !settings.node_fallback.is_empty();
    if role != Role::Agent || said {
        return;
    }
    let own =
        [settings.node().local_ips, settings.every_listen_address().iter().map(SocketAddr::ip).collect()].concat();
    let ip =
        CLUSTER_DNS.iter().find_map(|name| environment(name)?.parse::<IpAddr>().ok().filter(|ip| !own.contains(ip)));
    let Some(ip) = ip else { return };
    settings.node_fallback = vec![Addr((ip, 53).into())];
    if !settings.source_none {
        settings.cluster_fallback =
            vec![UpstreamSource::Server(Server { address: (ip, 53).into(), tls: None, https: None })];
    }
}

/// Fills in where a hub is reached, if that was not said.
pub fn advertise(settings: &mut Settings, role: Role, environment: impl Fn(&'static str) -> Option<String>) {
    if role != Role::Hub || !settings.advertise.is_empty() {
        return;
    }
    let pod = environment("POD_IP").and_then(|ip| ip.parse::<IpAddr>().ok());
    for listen in settings.stream_addresses().iter().filter(|listen| listen.port() != 0) {
        let ip = if listen.ip().is_unspecified() { pod } else { Some(listen.ip()) };
        let hub = ip.map(|ip| HostPort { host: ip.to_string(), port: listen.port() });
        settings.advertise.extend(hub.filter(|hub| !settings.advertise.contains(hub)));
    }
}

/// Whether the stream, from hubs or to followers, can be set up at all.
pub fn check_tls(settings: &Settings, given: &[(&'static str, Place)], role: Role, errors: &mut Gather) {
    let place = place_of(given, "tls");
    let mut ends: Vec<(String, bool)> =
        settings.source_hub_addresses.iter().map(|hub| (format!("hub {hub}"), is_loopback(hub))).collect();
    if role == Role::Hub {
        let listen = settings.stream_addresses().into_iter();
        ends.extend(listen.map(|listen| (format!("listening on {listen}"), listen.ip().is_loopback())));
    }
    let far = ends.iter().find(|(_, loopback)| !loopback);
    match (&settings.tls, ends.first(), far) {
        (None, Some((end, _)), _) => {
            let message = format!("{end} takes certificates: give --tls DIR (or --tls insecure on loopback)");
            errors.add(place, "tls", message);
        }
        (Some(Tls::Insecure), _, Some((end, _))) => {
            let message = format!("insecure is for loopback only, and {end} is not: give a directory of certificates");
            errors.add(place, "tls", message);
        }
        _ => {}
    }
}

fn is_loopback(hub: &HostPort) -> bool {
    hub.host == "localhost" || hub.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
