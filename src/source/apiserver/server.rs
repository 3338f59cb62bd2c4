//! An apiserver: how to reach it, and the errors on the way.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use kube::{
    Client,
    client::{Body, ConfigExt as _},
    config::{KubeConfigOptions, Kubeconfig},
};
use rustls::pki_types::ServerName;
use tokio::{runtime::Handle, sync::oneshot, time::timeout};
use tokio_rustls::TlsConnector;
use tower::ServiceBuilder;
use tracing::{Dispatch, instrument::WithSubscriber as _};

use super::{
    Config, OwnAddresses, Timing,
    decode::Status,
    request::Ask,
    transport::{OnWire, SendError, Sender, Transport},
};
use crate::source::{Metrics, Objects, Resource, metrics::Verb, one_line};

/// Largest body of a refusal that is read, in bytes.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// Longest part of a server's own words that is repeated, in characters.
const QUOTED_MAX: usize = 200;
/// Longest wait a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

/// Why there is no access to an apiserver.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be read or used.
    #[error("kubeconfig {}: {reason}", path.display())]
    Kubeconfig {
        path: PathBuf,
        /// The reason that it cannot be used.
        reason: String,
    },
    /// Not in a pod, or its service account cannot be used.
    #[error("service account: {reason} (outside of a cluster, name a kubeconfig)")]
    InCluster { reason: String },
}

/// Where the way to an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    Tls,
    Answer,
    Body,
    /// Nothing came for too long.
    Silence,
}

impl Step {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "TLS handshake",
            Self::Answer => "answer",
            Self::Body | Self::Silence => "stream",
        }
    }
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server was not reached, or fell silent.
    Unreachable { step: Step, reason: String },
    /// It answered that it will not.
    Refused { code: u16, reason: String, retry_after: Option<Duration> },
    /// The requested version is too old; list again.
    Expired,
    /// It sent something that is no answer.
    Garbage(String),
}

/// Access to one apiserver. Cheap to clone; clones share connections.
#[derive(Clone)]
pub(super) struct Server {
    client: Client,
    timing: Timing,
    metrics: Metrics,
    name: String,
}

impl Server {
    /// Reads the configuration and the credentials; sends the server nothing.
    pub(super) async fn connect(config: &Config, metrics: &Metrics) -> Result<Self, Error> {
        let fail = |reason: String| match &config.kubeconfig {
            Some(path) => Error::Kubeconfig { path: path.clone(), reason: one_line(&reason) },
            None => Error::InCluster { reason: one_line(&reason) },
        };
        let timing = config.timing;
        let (read, metrics) = (config.clone(), metrics.clone());
        let (sender, connected) = oneshot::channel();
        let runtime = Handle::current();
        // Files are read and a credential plugin may be run: neither may hold up the runtime, nor its end.
        let spawned = std::thread::Builder::new().name("credentials".to_owned()).spawn(move || {
            let _ = sender.send(Self::read(read, metrics, &runtime));
        });
        if let Err(error) = spawned {
            return Err(fail(error.to_string()));
        }
        match timeout(timing.credentials, connected).await {
            Ok(Ok(connected)) => connected.map_err(fail),
            Ok(Err(_)) => Err(fail("reading the credentials ended without a result".to_owned())),
            Err(_) => Err(fail(format!("reading the credentials took longer than {:?}", timing.credentials))),
        }
    }

    fn read(read: Config, metrics: Metrics, runtime: &Handle) -> Result<Self, String> {
        let Config { kubeconfig, timing, own_addresses, .. } = read;
        let mut config = match kubeconfig {
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path).map_err(|error| error.to_string())?;
                runtime
                    .block_on(kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()))
                    .map_err(|error| error.to_string())?
            }
            None => kube::Config::incluster().map_err(|error| error.to_string())?,
        };
        config.connect_timeout = Some(timing.handshake);
        config.default_retry = false;
        let name = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let _within = runtime.enter();
        let client = if config.proxy_url.is_some() {
            // A proxy has its own way to connect, which kube knows.
            Client::try_from(config).map_err(|error| deepest(&error))?
        } else {
            direct(&config, &timing, own_addresses, metrics.clone())?
        };
        Ok(Self { client, timing, metrics, name })
    }

    /// The server as people know it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The namespace of the kubeconfig's context, or the pod's.
    pub(super) fn namespace(&self) -> &str {
        self.client.default_namespace()
    }

    /// Sends a request, counts it, and waits for the head of its answer.
    pub(super) async fn send(&self, ask: Ask, within: Duration) -> Result<Answer, Failure> {
        let Ask { verb, of, mut request } = ask;
        self.metrics.request(verb, of);
        let health = self.metrics.health();
        let sent = health.begin(verb, of);
        request.extensions_mut().insert(OnWire(sent.on_wire()));
        let response = match timeout(within, self.client.send(request).with_subscriber(Dispatch::none())).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                sent.failed();
                return Err(failed(&error));
            }
            Err(_) => {
                let step = health.unanswered().map_or(Step::Answer, |unanswered| unanswered.step);
                return Err(Failure::Unreachable { step, reason: format!("timed out ({within:?})") });
            }
        };
        sent.answered(response.status());
        let (parts, body) = response.into_parts();
        let answer = Answer { body, metrics: self.metrics.clone() };
        if parts.status.is_success() {
            return Ok(answer);
        }
        let body = answer.whole(REFUSAL_BYTES_MAX, within).await.unwrap_or_default();
        let mut status: Status = serde_json::from_slice(&body).unwrap_or_default();
        if status.message.is_none() && status.reason.is_none() {
            // A load balancer, or a server too busy for more than a status line.
            status.message = parts.status.canonical_reason().map(|reason| format!("{reason} (no body)"));
        }
        let header = parts.headers.get(http::header::RETRY_AFTER);
        let header = header.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
        Err(refused(parts.status.as_u16(), status, header.map(Duration::from_secs)))
    }

    /// The longest wait for the head of an answer.
    pub(super) fn patience(&self) -> Duration {
        self.timing.answer
    }

    /// A line for people: server, request and error.
    pub(super) fn describe(&self, verb: Verb, of: impl Into<Resource>, failure: &Failure) -> String {
        let of = of.into();
        let asked = format!("{} {}", verb.as_str(), of.name());
        let name = format!("apiserver {}", self.name);
        match failure {
            Failure::Unreachable { step: step @ (Step::Connect | Step::Tls), reason } => {
                format!("{name}: {}{}", step.name(), after(reason))
            }
            Failure::Unreachable { step: step @ (Step::Answer | Step::Body | Step::Silence), reason } => {
                format!("{name}: {asked}: {}{}", step.name(), after(reason))
            }
            Failure::Refused { code: 403, .. } => format!(
                "{name}: 403: may not {} {} ({}): grant verbs {}",
                verb.as_str(),
                of.name(),
                group(of),
                if of == Resource::Leases { "get, create, update" } else { "list, watch" }
            ),
            Failure::Refused { code: 401, .. } => {
                format!("{name}: 401: {asked}: the credentials are not accepted: renew them")
            }
            Failure::Refused { code, reason, .. } => format!("{name}: {asked}: {code}: {reason}"),
            Failure::Expired => format!("{name}: {asked}: the version held is too old"),
            Failure::Garbage(what) => format!("{name}: {asked}: not an answer of an apiserver: {what}"),
        }
    }
}

/// A reason after the name of its step: "TLS handshake timed out (15s)", but "connect: Connection refused".
fn after(reason: &str) -> String {
    if reason.starts_with("timed out") { format!(" {reason}") } else { format!(": {reason}") }
}

/// A client on connections of ours.
fn direct(
    config: &kube::Config,
    timing: &Timing,
    own: Option<OwnAddresses>,
    metrics: Metrics,
) -> Result<Client, String> {
    let failed = |error: kube::Error| deepest(&error);
    let url = &config.cluster_url;
    let address = address(url).ok_or_else(|| format!("{url} names no host"))?;
    let tls = if url.scheme() == Some(&http::uri::Scheme::HTTPS) {
        let mut tls = config.rustls_client_config().map_err(failed)?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = config.tls_server_name.clone().unwrap_or_else(|| address.0.clone());
        let name = ServerName::try_from(name.clone()).map_err(|error| format!("{name}: {error}"))?;
        Some((TlsConnector::from(std::sync::Arc::new(tls)), name))
    } else {
        None
    };
    let transport = Transport::new(address, tls, own, timing, metrics);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(tower_http::decompression::DecompressionLayer::new().gzip(!config.disable_compression))
        .option_layer(config.auth_layer().map_err(failed)?)
        .layer(config.extra_headers_layer().map_err(failed)?)
        .map_err(tower::BoxError::from)
        .service(Sender(std::sync::Arc::new(transport)));
    Ok(Client::new(service, config.default_namespace.clone()))
}

fn group(of: Resource) -> &'static str {
    match of {
        Resource::Of(Objects::Slices) => "discovery.k8s.io",
        Resource::Of(Objects::Services | Objects::Namespaces) => "core group",
        Resource::Leases => "coordination.k8s.io",
    }
}

/// The body of an answer, as it comes in.
pub(super) struct Answer {
    body: Body,
    metrics: Metrics,
}

impl Answer {
    /// The next piece; `None` at the end.
    pub(super) async fn piece(&mut self, idle: Duration) -> Result<Option<Bytes>, Failure> {
        loop {
            match timeout(idle, self.body.frame().with_subscriber(Dispatch::none())).await {
                Err(_) => {
                    let reason = format!("timed out ({idle:?} without a byte)");
                    return Err(Failure::Unreachable { step: Step::Silence, reason });
                }
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => {
                    return Err(Failure::Unreachable { step: Step::Body, reason: deepest(&error) });
                }
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.metrics.health().heard();
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    pub(super) async fn whole(mut self, bytes_max: usize, idle: Duration) -> Result<Vec<u8>, Failure> {
        let mut whole = Vec::new();
        while let Some(piece) = self.piece(idle).await? {
            if whole.len() + piece.len() > bytes_max {
                return Err(Failure::Garbage(format!("more than {bytes_max} bytes")));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }
}

/// The meaning of an HTTP status or of a Status object.
pub(super) fn refused(code: u16, status: Status, retry_after: Option<Duration>) -> Failure {
    let code = if code >= 400 { code } else { status.code };
    if code == 410 || matches!(status.reason.as_deref(), Some("Expired" | "Gone")) {
        return Failure::Expired;
    }
    let asked = status.details.and_then(|details| details.retry_after_seconds).map(Duration::from_secs);
    let words = status.message.or(status.reason).unwrap_or_else(|| "no reason given".to_owned());
    let reason = one_line(&words).chars().filter(|c| !c.is_control()).take(QUOTED_MAX).collect();
    Failure::Refused { code, reason, retry_after: retry_after.or(asked).map(|wait| wait.min(RETRY_AFTER_MAX)) }
}

/// The failure behind an error of the client: of our own connections it says the step itself, of a proxy's its causes do.
fn failed(error: &kube::Error) -> Failure {
    let mut connecting = false;
    for error in causes(error) {
        if let Some(SendError { step, reason }) = error.downcast_ref::<SendError>() {
            return Failure::Unreachable { step: *step, reason: one_line(reason).chars().take(QUOTED_MAX).collect() };
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Failure::Unreachable { step: Step::Tls, reason: error.to_string() };
        }
        connecting |= error
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect);
    }
    let step = if connecting { Step::Connect } else { Step::Answer };
    Failure::Unreachable { step, reason: deepest(error) }
}

/// An error and its causes. What an I/O error wraps is not its source, which is what that has as its source.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn std::error::Error + 'static)),
            None => error.source(),
        }
    })
}

/// The words of the innermost cause.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let innermost = causes(error).last().map(ToString::to_string).unwrap_or_default();
    one_line(&innermost).chars().take(QUOTED_MAX).collect()
}

/// Host and port of a URL.
fn address(url: &http::Uri) -> Option<(String, u16)> {
    let port = url.port_u16().unwrap_or(if url.scheme() == Some(&http::uri::Scheme::HTTP) { 80 } else { 443 });
    let host = url.host()?;
    Some((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_that_of_the_url() {
        let cases = [
            ("https://10.0.0.1:6443", ("10.0.0.1", 6443)),
            ("https://[fd00::1]:6443/prefix", ("fd00::1", 6443)),
            ("https://api.example", ("api.example", 443)),
            ("http://localhost/", ("localhost", 80)),
        ];
        for (url, (host, port)) in cases {
            assert_eq!(address(&url.parse().unwrap()), Some((host.to_owned(), port)), "{url}");
        }
    }

    #[test]
    fn a_status_is_read_wherever_it_comes() {
        let status = |text: &str| serde_json::from_str::<Status>(text).unwrap();
        assert!(matches!(refused(410, Status::default(), None), Failure::Expired));
        assert!(matches!(refused(0, status(r#"{"code":410,"reason":"Expired"}"#), None), Failure::Expired));
        assert!(matches!(refused(500, status(r#"{"code":500,"reason":"Expired"}"#), None), Failure::Expired));
        let busy = refused(429, status(r#"{"code":429,"details":{"retryAfterSeconds":7}}"#), None);
        let Failure::Refused { code: 429, retry_after: Some(wait), .. } = busy else { panic!("{busy:?}") };
        assert_eq!(wait, Duration::from_secs(7));
        let Failure::Refused { retry_after: Some(wait), .. } =
            refused(429, Status::default(), Some(Duration::from_secs(1_000_000)))
        else {
            panic!("a wait")
        };
        assert_eq!(wait, RETRY_AFTER_MAX, "nobody makes us wait for ever");
        let Failure::Refused { reason, .. } = refused(500, status(r#"{"message":"a\nb\u001b[31m"}"#), None) else {
            panic!("refused")
        };
        assert_eq!(reason, "a b[31m");
    }
}
