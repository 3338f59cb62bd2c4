//! A client of encrypted DNS: one connection over TLS, HTTPS or QUIC that asks one question after the other.
//!
//! Checks the server's certificate, or accepts any on request: it measures a server, and sends no secret.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use http::{Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier, client::Resumption, crypto::ring, pki_types::ServerName,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::tls::accepting_any;

/// The encrypted transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tls,
    Https,
    Quic,
}

impl Protocol {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Tls => b"dot",
            Self::Https => b"h2",
            Self::Quic => b"doq",
        }
    }
}

/// Which certificates of a server are good.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Every one.
    Any,
    /// Certificates for `name`, signed by one of `roots`.
    Authority { roots: Arc<RootCertStore>, name: ServerName<'static> },
}

/// A server and how to connect to it.
#[derive(Clone, Debug)]
pub struct Client {
    protocol: Protocol,
    server: SocketAddr,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Client {
    /// A client that makes a full handshake for each connection.
    pub fn new(protocol: Protocol, server: SocketAddr, trust: &Trust) -> Self {
        let alpn = protocol.alpn();
        let (mut config, name) = match trust {
            Trust::Any => (client_config(alpn), ServerName::IpAddress(server.ip().into())),
            Trust::Authority { roots, name } => {
                let config = versions().with_root_certificates(Arc::clone(roots)).with_no_client_auth();
                (config, name.clone())
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        Self { protocol, server, name, config: Arc::new(config) }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Errors of the socket, the handshake and the protocol, as a system error.
    pub async fn connect(&self) -> io::Result<Connection> {
        let (server, config) = (self.server, Arc::clone(&self.config));
        match self.protocol {
            Protocol::Tls => Ok(Connection::Tls(Box::new(tls(server, self.name.clone(), config).await?))),
            Protocol::Https => {
                let stream = TokioIo::new(tls(server, self.name.clone(), config).await?);
                let (send, connection) =
                    http2::handshake(TokioExecutor::new(), stream).await.map_err(io::Error::other)?;
                tokio::spawn(connection);
                let host = match &self.name {
                    ServerName::DnsName(name) => format!("{}:{}", name.as_ref(), server.port()),
                    _ => server.to_string(),
                };
                Ok(Connection::Https(send, format!("https://{host}/dns-query")))
            }
            Protocol::Quic => {
                let own: IpAddr =
                    if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let mut endpoint = quinn::Endpoint::client(SocketAddr::new(own, 0))?;
                let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).map_err(io::Error::other)?;
                endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
                let connection = endpoint.connect(server, &self.name.to_str()).map_err(io::Error::other)?;
                Ok(Connection::Quic(connection.await?, endpoint))
            }
        }
    }
}

#[derive(Debug)]
pub enum Connection {
    Tls(Box<TlsStream<TcpStream>>),
    /// With the address of the resource (RFC 8484, 3).
    Https(http2::SendRequest<Full<Bytes>>, String),
    Quic(quinn::Connection, quinn::Endpoint),
}

impl Connection {
    /// Connects to `server`, whatever certificate it has.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn open(protocol: Protocol, server: SocketAddr) -> io::Result<Self> {
        Client::new(protocol, server, &Trust::Any).connect().await
    }

    /// True if it is known to have ended. TLS notices that on a read.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Tls(_) => false,
            Self::Https(send, _) => send.is_closed(),
            Self::Quic(connection, _) => connection.close_reason().is_some(),
        }
    }

    /// Sends `message` and waits for what comes back.
    ///
    /// Over QUIC it is sent with the id 0 (RFC 9250, 4.2.1), and the answer gets the id asked.
    ///
    /// # Errors
    /// If the server closes the connection or the stream, or says by HTTP that it has no answer.
    pub async fn ask(&mut self, message: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Tls(stream) => {
                stream.write_all(&framed(message)).await?;
                receive(stream).await
            }
            Self::Https(send, uri) => {
                let request = Request::post(uri.as_str())
                    .header(CONTENT_TYPE, "application/dns-message")
                    .body(Full::new(Bytes::copy_from_slice(message)))
                    .map_err(io::Error::other)?;
                poll_fn(|context| send.poll_ready(context)).await.map_err(io::Error::other)?;
                let response = send.send_request(request).await.map_err(io::Error::other)?;
                if response.status() != StatusCode::OK {
                    return Err(io::Error::other(response.status().to_string()));
                }
                Ok(response.into_body().collect().await.map_err(io::Error::other)?.to_bytes().into())
            }
            Self::Quic(connection, _) => {
                let mut message = message.to_vec();
                let id = message.first_chunk_mut::<2>().map(std::mem::take);
                let (mut send, mut receive) = connection.open_bi().await?;
                send.write_all(&framed(&message)).await?;
                send.finish().map_err(io::Error::other)?;
                let framed = receive.read_to_end(2 + usize::from(u16::MAX)).await.map_err(io::Error::other)?;
                let mut answer = framed.get(2..).ok_or(io::ErrorKind::UnexpectedEof)?.to_vec();
                if let (Some(id), Some(first)) = (id, answer.first_chunk_mut::<2>()) {
                    *first = id;
                }
                Ok(answer)
            }
        }
    }
}

/// The next message of a stream.
///
/// # Errors
/// If the server closes the connection first.
pub async fn receive(stream: &mut TlsStream<TcpStream>) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// `message` behind its length.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], message].concat()
}

async fn tls(
    server: SocketAddr,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(config).connect(name, stream).await
}

fn versions() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
}

/// A configuration that takes any certificate.
pub fn client_config(alpn: &[u8]) -> ClientConfig {
    let mut config = accepting_any();
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}
