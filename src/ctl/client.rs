//! A request to the admin socket of a running process.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::{Request, StatusCode, body::Bytes, http::request::Builder};
use tokio::{net::UnixStream, time::timeout};

use crate::admin;

/// How long a process may take to say that it is there.
pub const HEALTH_PATIENCE: Duration = Duration::from_secs(5);
/// How long one that is there may take for a document: a dump of a large cluster, on a node with no time to spare.
pub const PATIENCE: Duration = Duration::from_secs(110);
/// The largest answer read, in bytes: the dump of a cluster of a million services.
const ANSWER_BYTES_MAX: usize = 2 << 30;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no process is running at {}: {error}", path.display())]
    Connect { path: PathBuf, error: std::io::Error },
    #[error("the process at {}: {reason}", path.display())]
    Exchange { path: PathBuf, reason: String },
    /// The process does not know what it was asked for.
    #[error("{} at {}", unknown(target), path.display())]
    Unknown {
        path: PathBuf,
        /// The path of the request.
        target: String,
    },
    /// The process says that the question is wrong.
    #[error("{0}")]
    Refused(String),
}

/// The usual reason why a process does not know a path.
fn unknown(target: &str) -> String {
    match target {
        "/pin" | "/pins" | "/unpin" => "pins work on agents; this is a hub's socket, or an older agent's,".into(),
        _ => format!("the process is older than this tool and has no {target},"),
    }
}

/// Asks the process behind a socket. `target` is a path with its query.
///
/// # Errors
/// If no answer comes within `patience`, or it is an error.
pub fn get(socket: &Path, target: &str, patience: Duration) -> Result<Vec<u8>, ClientError> {
    exchange(socket, Request::get(target), Bytes::new(), patience)
}

/// Tells the process behind a socket to do something. `body` is JSON.
///
/// # Errors
/// As for [`get`].
pub fn post(socket: &Path, target: &str, body: Vec<u8>, patience: Duration) -> Result<Vec<u8>, ClientError> {
    exchange(socket, Request::post(target).header("content-type", "application/json"), body.into(), patience)
}

fn exchange(socket: &Path, request: Builder, body: Bytes, patience: Duration) -> Result<Vec<u8>, ClientError> {
    let exchange = |reason: String| ClientError::Exchange { path: socket.to_owned(), reason };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| exchange(error.to_string()))?;
    let answer = runtime.block_on(async { timeout(patience, ask(socket, request, body)).await });
    answer
        .unwrap_or_else(|_| Err(exchange(format!("accepts connections but does not answer ({patience:?}): it hangs"))))
}

async fn ask(socket: &Path, request: Builder, body: Bytes) -> Result<Vec<u8>, ClientError> {
    let exchange = |error: &dyn std::fmt::Display| ClientError::Exchange {
        path: socket.to_owned(),
        reason: format!("its answer cannot be read: {error}"),
    };
    let stream = UnixStream::connect(socket);
    let stream = stream.await.map_err(|error| ClientError::Connect { path: socket.to_owned(), error })?;
    let target = request.uri_ref().map(|uri| uri.path().to_owned()).unwrap_or_default();
    let answer = admin::exchange(stream, request, body, ANSWER_BYTES_MAX).await;
    match answer.map_err(|error| exchange(&error))? {
        (StatusCode::OK, body) => Ok(body.into()),
        (StatusCode::BAD_REQUEST, body) => Err(ClientError::Refused(String::from_utf8_lossy(&body).trim().to_owned())),
        (StatusCode::NOT_FOUND, _) => Err(ClientError::Unknown { path: socket.to_owned(), target }),
        (status, body) => Err(exchange(&format!("{status}: {}", String::from_utf8_lossy(&body).trim()))),
    }
}

/// A value as part of a query.
pub fn encode(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    value.bytes().fold(String::new(), |text, byte| {
        if plain(byte) { text + char::from(byte).encode_utf8(&mut [0; 4]) } else { format!("{text}%{byte:02X}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded() {
        assert_eq!(encode("_x._tcp.a b&c=ä"), "_x._tcp.a%20b%26c%3D%C3%A4");
    }
}
