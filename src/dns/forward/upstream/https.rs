//! DNS over HTTPS (RFC 8484): one HTTP/2 connection carries all questions to an upstream.
//!
//! Owns which HTTP responses are answers. Never looks a name up: the address is given, the certificate is checked.

use std::{fmt, io, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{
    Method, Request, StatusCode, Uri,
    header::{ACCEPT, AGE, CONTENT_TYPE, HeaderMap},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Server,
    message::{Query, Reply},
    tcp::Answer,
};
use crate::wire::TCP_BYTES_MAX;

/// The media type of messages (RFC 8484, 6).
const MESSAGE: &str = "application/dns-message";
/// The path of servers that are given without one.
pub const PATH: &str = "/dns-query";
/// While questions wait, a connection that has been silent for this long is asked for a sign of life, and ends without one.
const PING_AFTER: Duration = Duration::from_secs(1);
const PING_WAIT: Duration = Duration::from_secs(1);
/// Longest list of headers, in bytes.
const HEADERS_MAX: u32 = 16 << 10;

/// A server's response to a request that is no DNS answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HttpError {
    #[error("HTTP status {0}")]
    Status(u16),
    #[error("the answer is no application/dns-message")]
    MediaType,
    #[error("the answer is longer than {TCP_BYTES_MAX} bytes")]
    TooLong,
    #[error("the answer is not that to the question")]
    NotTheAnswer,
    #[error("the server does not speak HTTP/2")]
    NoHttp2,
}

impl From<HttpError> for io::Error {
    fn from(error: HttpError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// How requests to one server are written.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `https://NAME:PORT/PATH`.
    uri: Arc<str>,
    get: bool,
}

impl Endpoint {
    /// That of `server`; `None` if it is not one of DNS over HTTPS.
    pub fn of(server: &Server, get: bool) -> Option<Self> {
        let path = server.https.as_deref()?;
        let authority = match &server.tls {
            Some(super::TlsName::Dns(name)) => format!("{name}:{}", server.address.port()),
            _ => server.address.to_string(),
        };
        Some(Self { uri: format!("https://{authority}{path}").into(), get })
    }

    fn request(&self, query: &Query) -> Result<Request<Full<Bytes>>, http::Error> {
        let message = query.as_bytes();
        let request = Request::builder().header(ACCEPT, MESSAGE);
        if self.get {
            let separator = if self.uri.contains('?') { '&' } else { '?' };
            let uri = format!("{}{separator}dns={}", self.uri, URL_SAFE_NO_PAD.encode(message));
            return request.method(Method::GET).uri(uri).body(Full::default());
        }
        let body = Full::new(Bytes::copy_from_slice(message));
        request.method(Method::POST).uri(&*self.uri).header(CONTENT_TYPE, MESSAGE).body(body)
    }
}

/// Whether `path` can be asked for.
pub fn is_path(path: &str) -> bool {
    path.starts_with('/') && !path.contains('#') && format!("https://dns.example{path}").parse::<Uri>().is_ok()
}

/// A connection that any number of questions may use at once.
#[derive(Clone)]
pub struct Requests(SendRequest<Full<Bytes>>);

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

/// Begins HTTP/2 on `stream`. The second part has to be polled for the first to get anywhere.
///
/// # Errors
/// If the server does not take it up.
pub async fn begin<S>(stream: S) -> io::Result<(Requests, impl Future<Output = ()> + Send)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_WAIT)
        .max_header_list_size(HEADERS_MAX);
    let (requests, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    Ok((Requests(requests), async move { drop(connection.await) }))
}

impl Requests {
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Asks, and waits without end.
    ///
    /// # Errors
    /// The error that ends the connection, or [`HttpError`].
    pub async fn ask(&self, endpoint: &Endpoint, query: &Query) -> io::Result<Answer> {
        let mut query = query.clone();
        // RFC 8484, 4.1: answers to equal questions are equal, also for a cache on the way.
        query.set_id(0);
        let mut requests = self.0.clone();
        requests.ready().await.map_err(closed)?;
        let request = endpoint.request(&query).map_err(io::Error::other)?;
        let response = requests.send_request(request).await.map_err(closed)?;
        if response.status() != StatusCode::OK {
            return Err(HttpError::Status(response.status().as_u16()).into());
        }
        let headers = response.headers();
        let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(MESSAGE) {
            return Err(HttpError::MediaType.into());
        }
        let age = age(headers);
        let body = Limited::new(response.into_body(), TCP_BYTES_MAX).collect().await;
        let body = match body {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => return Err(HttpError::TooLong.into()),
            Err(error) => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, error)),
        };
        let Ok(Reply::Whole(mut message)) = query.check(&body, false) else {
            return Err(HttpError::NotTheAnswer.into());
        };
        // RFC 8484, 5.1: the time in a cache on the way is subtracted.
        for record in message.answers.iter_mut().chain(&mut message.authorities) {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Ok(Answer { reply: Reply::Whole(message), same_case: query.same_case(&body) })
    }
}

fn closed(error: hyper::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, error)
}

fn age(headers: &HeaderMap) -> u32 {
    headers.get(AGE).and_then(|value| value.to_str().ok()?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Question;

    #[test]
    fn a_request_names_the_server_and_carries_the_message() {
        let server = |text: &str| match text.parse().unwrap() {
            crate::dns::forward::UpstreamSource::Server(server) => server,
            _ => unreachable!(),
        };
        let query = Query::new(&Question::new("www.example.".parse().unwrap(), crate::wire::Rtype::A), false, false);
        let encoded = URL_SAFE_NO_PAD.encode(query.as_bytes());
        for (text, get, method, uri) in [
            ("https://10.0.0.54#dns.example", false, "POST", "https://dns.example:443/dns-query".to_owned()),
            ("https://10.0.0.54:8443/q/abc", false, "POST", "https://10.0.0.54:8443/q/abc".to_owned()),
            ("https://[2001:db8::1]", true, "GET", format!("https://[2001:db8::1]:443/dns-query?dns={encoded}")),
            ("https://10.0.0.54/q?key=1", true, "GET", format!("https://10.0.0.54:443/q?key=1&dns={encoded}")),
        ] {
            let request = Endpoint::of(&server(text), get).unwrap().request(&query).unwrap();
            assert_eq!((request.method().as_str(), request.uri().to_string()), (method, uri), "{text}");
        }
        assert!(Endpoint::of(&server("tls://10.0.0.54"), false).is_none());
    }
}
