//! The end of following a hub, and its reasons in words.

use tonic::Code;

use crate::report::THEN;

/// Why following one hub ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The hub sent no records.
    #[error("{0}")]
    Failed(String),
    /// The hub sent records before the stream ended.
    #[error("{0}")]
    Broken(String),
    /// The hub is left for another that may have newer records.
    #[error("{0}")]
    Elsewhere(&'static str),
    /// The receiver of the updates is gone.
    #[error("stopping")]
    Closed,
}

/// The way to a loss: `hub2 → hub1 → https://10.0.0.1:6443: TLS handshake timed out`.
pub fn chain(hub: &str, reason: &str) -> String {
    // As hubs of older versions say it, once for each hub on the way.
    let reason = reason.trim_start_matches("hub has lost its source: ");
    format!("{hub}{THEN}{reason}")
}

/// Why a greeting was not followed by a stream.
pub fn unanswered(status: &tonic::Status, broke: Option<String>) -> String {
    match (status.code(), broke) {
        // The answer of a hub to followers it turns away.
        (Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented, _) => status.message().to_owned(),
        // With TLS 1.3 a client has shaken hands before its own certificate is looked at.
        (_, Some(error)) if error.contains("fatal alert") => {
            format!("the hub refused the certificate of this process ({error})")
        }
        (_, Some(error)) => format!("the connection broke before the first answer: {error}"),
        (_, None) => format!("no answer to the greeting: {}", status.message()),
    }
}
