//! One apiserver: how to reach it, and what went wrong where it was not reached.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use kube::{
    Client,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{net::TcpStream, runtime::Handle, sync::oneshot, time::timeout};
use tracing::{Dispatch, instrument::WithSubscriber as _};

use super::{Config, Timing, decode::Status, request::Ask};
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
        /// What is wrong with it.
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
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "TLS handshake",
            Self::Answer => "answer",
            Self::Body | Self::Silence => "stream",
        }
    }
}

/// Why a request did not do what it was for.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server was not reached, or fell silent.
    Unreachable { step: Step, reason: String },
    /// It answered that it will not.
    Refused { code: u16, reason: String, retry_after: Option<Duration> },
    /// What was asked for is too old; list again.
    Expired,
    /// It sent something that is no answer.
    Garbage(String),
}

/// Access to one apiserver. Cheap to clone.
#[derive(Clone)]
pub(super) struct Server {
    client: Client,
    timing: Timing,
    name: String,
    /// Where to connect to see whether it is there at all; not known behind a proxy.
    address: Option<(String, u16)>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Server {
    /// Reads the configuration and the credentials; asks the server nothing.
    pub(super) async fn connect(config: &Config) -> Result<Self, Error> {
        let fail = |reason: String| match &config.kubeconfig {
            Some(path) => Error::Kubeconfig { path: path.clone(), reason: one_line(&reason) },
            None => Error::InCluster { reason: one_line(&reason) },
        };
        let (path, timing) = (config.kubeconfig.clone(), config.timing);
        let (sender, connected) = oneshot::channel();
        let runtime = Handle::current();
        // Files are read and a credential plugin may be run: neither may hold up the runtime, nor its end.
        let spawned = std::thread::Builder::new().name("credentials".to_owned()).spawn(move || {
            let _ = sender.send(Self::read(path, timing, &runtime));
        });
        if let Err(error) = spawned {
            return Err(fail(error.to_string()));
        }
        match timeout(timing.credentials, connected).await {
            Ok(Ok(connected)) => connected.map_err(fail),
            Ok(Err(_)) => Err(fail("reading the credentials ended without a result".to_owned())),
            Err(_) => Err(fail(format!("the credentials were not had within {:?}", timing.credentials))),
        }
    }

    fn read(path: Option<PathBuf>, timing: Timing, runtime: &Handle) -> Result<Self, String> {
        let mut config = match path {
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
        let address = if config.proxy_url.is_some() { None } else { address(&config.cluster_url) };
        let _within = runtime.enter();
        let client = Client::try_from(config).map_err(|error| deepest(&error))?;
        Ok(Self { client, timing, name, address })
    }

    /// The server as people know it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The namespace of the kubeconfig's context, or the pod's.
    pub(super) fn namespace(&self) -> &str {
        self.client.default_namespace()
    }

    /// Whether a TCP connection comes about.
    pub(super) async fn knock(&self) -> Result<(), Failure> {
        let Some((host, port)) = &self.address else { return Ok(()) };
        let reason = match timeout(self.timing.connect, TcpStream::connect((host.as_str(), *port))).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("nothing within {:?}", self.timing.connect),
        };
        Err(Failure::Unreachable { step: Step::Connect, reason })
    }

    /// Sends a request, counts it, and waits for the head of its answer.
    ///
    /// The client would log each failure as an error; what comes of a failure is told by the session.
    pub(super) async fn send(&self, ask: Ask, within: Duration, metrics: &Metrics) -> Result<Answer, Failure> {
        metrics.request(ask.verb, ask.of);
        let response = match timeout(within, self.client.send(ask.request).with_subscriber(Dispatch::none())).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(failed(&error)),
            Err(_) => {
                return Err(Failure::Unreachable { step: Step::Answer, reason: format!("none within {within:?}") });
            }
        };
        let (parts, body) = response.into_parts();
        let answer = Answer { body };
        if parts.status.is_success() {
            return Ok(answer);
        }
        let body = answer.whole(REFUSAL_BYTES_MAX, within).await.unwrap_or_default();
        let status: Status = serde_json::from_slice(&body).unwrap_or_default();
        let header = parts.headers.get(http::header::RETRY_AFTER);
        let header = header.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
        Err(refused(parts.status.as_u16(), status, header.map(Duration::from_secs)))
    }

    /// One line for people: which server, what was asked, what came of it.
    pub(super) fn describe(&self, verb: Verb, of: impl Into<Resource>, failure: &Failure) -> String {
        let of = of.into();
        let asked = format!("{} {}", verb.name(), of.name());
        match failure {
            Failure::Unreachable { step: step @ (Step::Connect | Step::Tls), reason } => {
                format!("{}: {}: {reason}", self.name, step.name())
            }
            Failure::Unreachable { step, reason } => format!("{}: {asked}: {}: {reason}", self.name, step.name()),
            Failure::Refused { code: 403, .. } => format!(
                "{}: 403: may not {} {} ({}): grant verbs {}",
                self.name,
                verb.name(),
                of.name(),
                group(of),
                if of == Resource::Leases { "get, create, update" } else { "list, watch" }
            ),
            Failure::Refused { code: 401, .. } => {
                format!("{}: 401: {asked}: the credentials are not accepted: renew them", self.name)
            }
            Failure::Refused { code, reason, .. } => format!("{}: {asked}: {code}: {reason}", self.name),
            Failure::Expired => format!("{}: {asked}: the version held is too old", self.name),
            Failure::Garbage(what) => format!("{}: {asked}: not an answer of an apiserver: {what}", self.name),
        }
    }
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
}

impl Answer {
    /// The next piece; `None` at the end.
    pub(super) async fn piece(&mut self, idle: Duration) -> Result<Option<Bytes>, Failure> {
        loop {
            match timeout(idle, self.body.frame().with_subscriber(Dispatch::none())).await {
                Err(_) => {
                    let reason = format!("silent for {idle:?}");
                    return Err(Failure::Unreachable { step: Step::Silence, reason });
                }
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => {
                    return Err(Failure::Unreachable { step: Step::Body, reason: deepest(&error) });
                }
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
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

/// What a status means, wherever it came.
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

/// The failure behind an error of the client: its innermost cause says what it was, its kind where.
fn failed(error: &kube::Error) -> Failure {
    let mut connecting = false;
    for error in causes(error) {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            let hint = match error {
                rustls::Error::InvalidCertificate(_) => " (is the certificate authority configured this cluster's?)",
                _ => "",
            };
            return Failure::Unreachable { step: Step::Tls, reason: format!("{error}{hint}") };
        }
        connecting |= error
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect);
        let io = error.downcast_ref::<std::io::Error>();
        if connecting && io.is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut) {
            return Failure::Unreachable { step: Step::Tls, reason: "no end within its time".to_owned() };
        }
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
