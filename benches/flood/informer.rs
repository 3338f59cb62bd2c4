//! Reads a cluster as client-go's reflectors do from 1.35 on: three kinds over one HTTP/2 connection, each by a watch that begins
//! with all objects and a bookmark behind them.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// By which the server tells the informer's requests from others.
pub const AGENT: &str = "informer";
/// The same for those that list everything again and again.
pub const FLOOD: &str = "flood";
const ENDPOINTS: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const PATHS: [&str; 3] = ["/api/v1/services", ENDPOINTS, "/api/v1/namespaces"];
const FROM_NOTHING: &str =
    "watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
/// The annotation of the bookmark behind the last object.
const LISTED: &[u8] = b"k8s.io/initial-events-end";
/// Pauses after a failure, as client-go has them.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(30));

type Connection = SendRequest<Empty<Bytes>>;

/// An apiserver, with the credentials beside its kubeconfig.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    tls: TlsConnector,
}

impl Target {
    pub fn new(address: SocketAddr, home: &Path) -> anyhow::Result<Self> {
        let certificate = |name: &str| CertificateDer::from_pem_file(home.join(name));
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca.crt")?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let key = PrivateKeyDer::from_pem_file(home.join("client.key"))?;
        let mut config =
            config.with_root_certificates(roots).with_client_auth_cert(vec![certificate("client.crt")?], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { address, tls: TlsConnector::from(Arc::new(config)) })
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::from(self.address.ip()), stream).await?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn get(&self, connection: &mut Connection, path: &str, agent: &str) -> anyhow::Result<Incoming> {
        let request = Request::get(format!("https://{}{path}", self.address)).header("user-agent", agent);
        let answer = connection.send_request(request.header("accept", "application/json").body(Empty::new())?).await?;
        ensure!(answer.status().is_success(), "{}", answer.status());
        Ok(answer.into_body())
    }

    /// Reads all objects of one kind, which is watched from then on.
    async fn watch(&self, connection: &mut Connection, path: &str) -> anyhow::Result<()> {
        let mut body = self.get(connection, &format!("{path}?{FROM_NOTHING}"), AGENT).await?;
        let mut read = Vec::new();
        loop {
            let Some(frame) = body.frame().await else { bail!("the watch ended before the list did") };
            read.extend_from_slice(frame?.data_ref().context("data")?);
            if read.windows(LISTED.len()).any(|part| part == LISTED) {
                break;
            }
            read.drain(..read.len().saturating_sub(LISTED.len()));
        }
        tokio::spawn(async move { while body.frame().await.is_some() {} });
        Ok(())
    }

    /// Reads all kinds; how long that took.
    pub async fn ready(self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let mut pause = BACKOFF.0;
        let connection = loop {
            if let Ok(connection) = self.connect().await {
                break connection;
            }
            back_off(&mut pause).await;
        };
        let kinds = PATHS.map(|path| {
            let (mut connection, this) = (connection.clone(), &self);
            async move {
                let mut pause = BACKOFF.0;
                while this.watch(&mut connection, path).await.is_err() {
                    back_off(&mut pause).await;
                    if connection.is_closed() {
                        connection = this.connect().await?;
                    }
                }
                anyhow::Ok(())
            }
        });
        futures::future::try_join_all(kinds).await?;
        Ok(begun.elapsed())
    }

    /// Lists all endpoints again and again.
    pub async fn flood(self) {
        loop {
            if let Ok(mut connection) = self.connect().await {
                while let Ok(body) = self.get(&mut connection, ENDPOINTS, FLOOD).await {
                    if body.collect().await.is_err() {
                        break;
                    }
                }
            }
            tokio::time::sleep(BACKOFF.0).await;
        }
    }
}

async fn back_off(pause: &mut Duration) {
    tokio::time::sleep(pause.mul_f64(rand::random_range(1.0..=2.0))).await;
    *pause = (*pause * 2).min(BACKOFF.1);
}
