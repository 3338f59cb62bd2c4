//! gRPC over HTTP/2: one message in, messages out, a status behind them.

use std::{convert::Infallible, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Limited, combinators::UnsyncBoxBody};
use tokio::time::timeout;

use crate::proto::split;

/// A greeting is 4 KiB of digests and a few names.
pub(super) const HELLO_BYTES_MAX: usize = 16 << 10;
/// Codes of gRPC.
pub(super) mod code {
    pub const OK: &str = "0";
    pub const INVALID_ARGUMENT: &str = "3";
    pub const FAILED_PRECONDITION: &str = "9";
    pub const UNIMPLEMENTED: &str = "12";
}

pub(super) type ReplyBody = UnsyncBoxBody<Bytes, Infallible>;

/// The one message of a request; `None` if it is too long, broken, or not there within `patience`.
pub(super) async fn message<M, B>(body: B, patience: Duration) -> Option<M>
where
    M: prost::Message + Default,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let collected = timeout(patience, Limited::new(body, HELLO_BYTES_MAX).collect()).await.ok()?.ok()?;
    let mut bytes = BytesMut::from(&*collected.to_bytes());
    split::<M>(&mut bytes, HELLO_BYTES_MAX).ok()?
}

pub(super) fn status(code: &'static str, message: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", HeaderValue::from_static(code));
    // Percent-encoded as gRPC asks, which for these words is leaving out what is not plain.
    let plain: String = message.chars().filter(|c| (' '..='~').contains(c) && *c != '%').collect();
    if let Ok(value) = HeaderValue::from_str(&plain)
        && !plain.is_empty()
    {
        headers.insert("grpc-message", value);
    }
    headers
}

/// A reply that is nothing but a status.
pub(super) fn ended(code: &'static str, message: &str) -> Response<ReplyBody> {
    reply(http_body_util::Empty::new().boxed_unsync(), status(code, message))
}

pub(super) fn reply(body: ReplyBody, headers: HeaderMap) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
