//! `holdfast control-plane`: every apiserver address known, and how it answers from here.
//!
//! Goes past DNS, service addresses and load balancers: the addresses come from records in memory or on disk. Sends no
//! credentials and prints no secret.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hyper::{Request, body::Bytes};
use rustls::pki_types::{CertificateDer, ServerName};
use serde::Serialize;
use tokio::{net::TcpStream, time::timeout};

use super::{
    Exit, Failed, Output, print,
    reach::{Reached, Where, snapshot_of},
    status,
    table::{Table, broken, width},
};
use crate::{
    admin::{
        self,
        view::{Status, Time},
    },
    record::Snapshot,
    report::{FailingAddress, Row},
    sys::{Clock, UnixMillis, put_file},
    tls::{accepting_any, not_after},
};

/// Longest time a connection, a handshake and an answer may each take.
const STEP: Duration = Duration::from_secs(2);
/// Longest answer to `/readyz` that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The name in every apiserver's certificate.
const SERVER_NAME: &str = "kubernetes.default.svc";
/// The port of an apiserver where records do not say.
const PORT: u16 = 6443;

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 an apiserver is ready, 1 none is, 2 usage, 3 no address is known.")]
pub struct ControlPlaneArgs {
    #[command(flatten)]
    pub place: Where,
    /// Write a kubeconfig that goes to one apiserver directly, past DNS and load balancers; needs --server and --kubeconfig
    #[arg(long, value_name = "FILE", requires_all = ["server", "kubeconfig"])]
    pub kubeconfig_out: Option<PathBuf>,
    /// Address of an apiserver to test too; with --kubeconfig-out: the one that the new kubeconfig uses
    #[arg(long, value_name = "IP[:PORT]", value_parser = server)]
    pub server: Option<SocketAddr>,
    /// Kubeconfig with the CA and the credentials to copy
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Output format
    #[arg(short, long, default_value = "table")]
    pub output: Output,
}

fn server(text: &str) -> Result<SocketAddr, String> {
    let alone = |_| text.parse::<IpAddr>().map(|ip| SocketAddr::from((ip, PORT)));
    text.parse::<SocketAddr>()
        .or_else(alone)
        .map_err(|_| format!("{text:?} is not an address: names are not looked up here"))
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ControlPlane {
    at: Time,
    apiservers: Vec<Apiserver>,
    /// The source as the asked process sees it, in words; null without a process.
    source: Option<String>,
}

/// An apiserver address, and how far a request gets.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Apiserver {
    address: SocketAddr,
    /// `endpoint`, `service` (through kube-proxy), `configured` (for the process asked) or `given`.
    from: &'static str,
    ready: bool,
    /// Time of the TCP connect in milliseconds; null if it failed. `tls_ms` and `readyz_ms` likewise.
    tcp_ms: Option<u64>,
    tls_ms: Option<u64>,
    readyz_ms: Option<u64>,
    certificate_ends: Option<Time>,
    /// The failed step with its reason, or the status of `/readyz` if it is not 200.
    error: Option<String>,
    /// When the asked process lost its last connection to this address, if it watches the apiserver; null else, and while it is connected.
    failing_since: Option<Time>,
    /// Why its last connection failed.
    failing_reason: Option<String>,
}

pub fn run(args: &ControlPlaneArgs) -> anyhow::Result<Exit> {
    if let (Some(out), Some(server), Some(from)) = (&args.kubeconfig_out, args.server, &args.kubeconfig) {
        return write_kubeconfig(out, server, from);
    }
    let (snapshot, status) = match args.place.reach()? {
        Reached::Store(stored) => (stored.loaded.snapshot.clone(), None),
        process @ Reached::Process(_) => {
            let Reached::Process(socket) = &process else { unreachable!("just matched") };
            let status: Status = Reached::document(socket, "/status")?;
            (snapshot_of(&process.dump(Some("default"))?)?, Some(status))
        }
    };
    let mut addresses = known(&snapshot);
    let listed = status.as_ref().and_then(|status| status.apiserver.as_ref()).and_then(Row::read);
    for endpoint in listed.into_iter().flat_map(|apiserver| &apiserver.endpoints) {
        addresses.extend(endpoint.parse::<SocketAddr>().ok().map(|address| (address, "endpoint")));
    }
    let failing: BTreeMap<SocketAddr, &FailingAddress> = listed
        .into_iter()
        .flat_map(|apiserver| &apiserver.failing)
        .filter_map(|failing| Some((failing.address.parse().ok()?, failing)))
        .collect();
    let configured = listed.and_then(|apiserver| apiserver.server.parse::<http::Uri>().ok());
    let configured = configured.and_then(|url| url.authority()?.as_str().parse::<SocketAddr>().ok());
    for address in failing.keys().chain(&configured) {
        addresses.entry(*address).or_insert("configured");
    }
    if let Some(server) = args.server {
        addresses.entry(server).or_insert("given");
    }
    anyhow::ensure!(
        !addresses.is_empty(),
        "no apiserver address is known: the records have no service default/kubernetes"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = addresses.into_iter().map(|(address, from)| ask(address, from, failing.get(&address).copied()));
    let apiservers = runtime.block_on(futures::future::join_all(asked));
    let at = Time(Clock::System.now());
    let source = status.as_ref().map(|status| status::source(&status.source, at));
    let document = ControlPlane { at, apiservers, source };
    args.output.print(&document, || text(&document))?;
    Ok(if document.apiservers.iter().any(|apiserver| apiserver.ready) { Exit::Ok } else { Exit::No })
}

/// The addresses of `default/kubernetes`.
fn known(snapshot: &Snapshot) -> BTreeMap<SocketAddr, &'static str> {
    let Some(service) = snapshot.service(b"default", b"kubernetes") else { return BTreeMap::new() };
    let port = service.ports().first().map_or(443, |port| port.port);
    let mut all = BTreeMap::new();
    if let crate::record::Kind::ClusterIp(ips) = service.kind() {
        all.extend(ips.iter().map(|ip| (SocketAddr::from((*ip, port)), "service")));
    }
    for endpoint in service.endpoints() {
        let port = endpoint.ports.first().map_or(PORT, |port| port.port);
        all.insert((endpoint.ip, port).into(), "endpoint");
    }
    all
}

async fn ask(address: SocketAddr, from: &'static str, failing: Option<&FailingAddress>) -> Apiserver {
    let mut apiserver = Apiserver {
        address,
        from,
        ready: false,
        tcp_ms: None,
        tls_ms: None,
        readyz_ms: None,
        certificate_ends: None,
        error: None,
        failing_since: failing.map(|failing| failing.since),
        failing_reason: failing.map(|failing| failing.reason.clone()),
    };
    if let Err(error) = steps(address, &mut apiserver).await {
        apiserver.error = Some(format!("{error:#}"));
    }
    apiserver
}

async fn steps(address: SocketAddr, apiserver: &mut Apiserver) -> anyhow::Result<()> {
    let in_time = |step: &'static str| move |_| anyhow::anyhow!("{step}: no answer within {} s", STEP.as_secs());
    let ms = |began: Instant| u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let began = Instant::now();
    let stream = timeout(STEP, TcpStream::connect(address)).await.map_err(in_time("TCP"))?.context("TCP")?;
    apiserver.tcp_ms = Some(ms(began));
    let began = Instant::now();
    let name = ServerName::try_from(SERVER_NAME).context("server name")?;
    let handshake = tokio_rustls::TlsConnector::from(Arc::new(accepting_any())).connect(name, stream);
    let stream = timeout(STEP, handshake).await.map_err(in_time("TLS"))?.context("TLS")?;
    apiserver.tls_ms = Some(ms(began));
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    apiserver.certificate_ends = certificate.and_then(|der| end(der)).map(Time);
    let began = Instant::now();
    let answer = admin::exchange(stream, Request::get("/readyz"), Bytes::new(), ANSWER_BYTES_MAX);
    let answer = timeout(STEP, answer).await.map_err(in_time("/readyz"))?;
    let (status, _) = answer.map_err(|error| anyhow::anyhow!("/readyz: {error}"))?;
    apiserver.readyz_ms = Some(ms(began));
    apiserver.ready = status.is_success();
    anyhow::ensure!(apiserver.ready, "/readyz: {status}");
    Ok(())
}

fn end(der: &CertificateDer<'_>) -> Option<UnixMillis> {
    not_after(der).map(|seconds| UnixMillis(seconds.saturating_mul(1_000)))
}

fn text(document: &ControlPlane) -> String {
    let mut table = Table::new(&["APISERVER", "FROM", "READY", "TCP", "TLS", "READYZ", "CERTIFICATE ENDS", "ERROR"]);
    for apiserver in &document.apiservers {
        let ms = |ms: Option<u64>| ms.map_or_else(|| "-".into(), |ms| format!("{ms} ms"));
        table.row([
            apiserver.address.to_string(),
            apiserver.from.into(),
            if apiserver.ready { "yes" } else { "NO" }.into(),
            ms(apiserver.tcp_ms),
            ms(apiserver.tls_ms),
            ms(apiserver.readyz_ms),
            apiserver.certificate_ends.map_or_else(|| "-".into(), |end| end.short(document.at)),
            error(apiserver, document.at),
        ]);
    }
    let mut text = table.text(width());
    if let Some(source) = &document.source {
        let lines = broken(&format!("this process sees {source}"), width().unwrap_or(usize::MAX));
        let _ = writeln!(text, "\n{}", lines.join("\n"));
        if source.starts_with("hub ") {
            text.push_str("Since when an address takes no connection: run this on the node of the leader hub\n");
        }
    }
    text
}

/// The error met from here, and since when the process asked gets no connection.
fn error(apiserver: &Apiserver, now: Time) -> String {
    let mut text = apiserver.error.clone().unwrap_or_default();
    if let Some(since) = apiserver.failing_since {
        if !text.is_empty() {
            text.push_str("; ");
        }
        let reason = apiserver.failing_reason.as_deref().unwrap_or_default();
        let _ = write!(text, "this process gets no connection for {}: {reason}", since.lasting(now));
    }
    text
}

/// Writes a copy of `from`, with every cluster at `server` and the name its certificate is verified by.
fn write_kubeconfig(out: &Path, server: SocketAddr, from: &Path) -> anyhow::Result<Exit> {
    let place = || from.display().to_string();
    let text = std::fs::read_to_string(from).with_context(place)?;
    let mut config: serde_json::Value = serde_saphyr::from_str(&text).with_context(place)?;
    let clusters = config.get_mut("clusters").and_then(serde_json::Value::as_array_mut);
    let clusters = clusters.ok_or_else(|| Failed::Usage(format!("{}: no clusters: not a kubeconfig", place())))?;
    let beside = std::path::absolute(from)?.parent().map(Path::to_owned).unwrap_or_default();
    for cluster in clusters.iter_mut().filter_map(|entry| entry.get_mut("cluster")?.as_object_mut()) {
        cluster.insert("server".into(), format!("https://{server}").into());
        cluster.entry("tls-server-name").or_insert_with(|| SERVER_NAME.into());
        absolute(cluster, &["certificate-authority"], &beside);
    }
    let users = config.get_mut("users").and_then(serde_json::Value::as_array_mut);
    for user in users.into_iter().flatten().filter_map(|entry| entry.get_mut("user")?.as_object_mut()) {
        absolute(user, &["client-certificate", "client-key", "tokenFile"], &beside);
    }
    let text = serde_json::to_vec_pretty(&config)?;
    put_file(out, &text, 0o600).with_context(|| out.display().to_string())?;
    print(
        format!("{} goes to https://{server} directly: kubectl --kubeconfig {0} get nodes\n", out.display()).as_bytes(),
    )?;
    Ok(Exit::Ok)
}

/// Files named beside a kubeconfig are found from anywhere.
fn absolute(entry: &mut serde_json::Map<String, serde_json::Value>, keys: &[&str], beside: &Path) {
    for key in keys {
        if let Some(path) = entry.get(*key).and_then(serde_json::Value::as_str).map(|path| beside.join(path)) {
            entry.insert((*key).into(), path.display().to_string().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_is_pointed_at_one_apiserver_and_keeps_its_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let [from, out] = ["admin.conf", "direct.conf"].map(|name| dir.path().join(name));
        let text = "clusters: [{name: a, cluster: {server: 'https://lb.example:6443', certificate-authority: ca.crt}}]\n\
                    users: [{name: u, user: {token: secret}}]\n";
        std::fs::write(&from, text).unwrap();
        write_kubeconfig(&out, server("10.0.0.5").unwrap(), &from).unwrap();
        let written: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
        let cluster = &written["clusters"][0]["cluster"];
        assert_eq!(
            (&cluster["server"], &cluster["tls-server-name"]),
            (&"https://10.0.0.5:6443".into(), &SERVER_NAME.into())
        );
        assert_eq!(cluster["certificate-authority"], dir.path().join("ca.crt").to_str().unwrap());
        assert_eq!(written["users"][0]["user"]["token"], "secret");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&out).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert!(server("lb.example").is_err());
    }
}
