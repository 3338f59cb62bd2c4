//! One HTTP exchange over a stream, as the tools and a successor have it.
//!
//! Owns the HTTP alone: the caller decides what an answer means and how long it may take.

use axum::BoxError;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{StatusCode, body::Bytes, client::conn::http1, http::request::Builder};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Sends one request and reads its answer of at most `bytes_max`, until the process closes the connection.
///
/// # Errors
/// If that is not HTTP, too long, or cut off.
pub async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Builder,
    body: Bytes,
    bytes_max: usize,
) -> Result<(StatusCode, Bytes), BoxError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = request.header("host", "holdfast").body(Full::new(body))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok((status, Limited::new(response.into_body(), bytes_max).collect().await?.to_bytes()))
    };
    let (answer, _) = tokio::join!(answer, connection);
    answer
}
