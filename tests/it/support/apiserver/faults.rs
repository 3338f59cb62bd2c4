//! What the server does wrong, to which requests, and how often.

/// How a request is answered instead.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A refusal with a `Status` body.
    Status {
        code: u16,
        reason: String,
        /// `Retry-After`, in seconds.
        retry_after: Option<u64>,
    },
    /// A refusal with no body.
    Bare(u16),
    /// 200 and an ERROR event, after which the watch ends.
    ErrorEvent {
        /// Code of the status in it.
        code: u16,
        reason: String,
    },
    /// 200 with these bytes, then the end.
    Body(String),
    /// 200 with these bytes, then the connection breaks.
    Cut(String),
    Hang,
    /// 200 and the right beginning of a watch, which then delivers nothing: not even the end of the initial events.
    Silent,
}

impl Reply {
    pub fn status(code: u16, reason: &str) -> Self {
        Self::Status { code, reason: reason.to_owned(), retry_after: None }
    }

    /// A refusal that says when to come back, in seconds.
    pub fn busy(code: u16, retry_after: u64) -> Self {
        Self::Status { code, reason: "TooManyRequests".to_owned(), retry_after: Some(retry_after) }
    }

    pub fn error_event(code: u16, reason: &str) -> Self {
        Self::ErrorEvent { code, reason: reason.to_owned() }
    }
}

#[derive(Clone, Debug)]
pub struct Fault {
    pub(super) resource: Option<String>,
    pub(super) verb: Option<String>,
    pub(super) continued: Option<bool>,
    pub(super) times: usize,
    pub(super) reply: Reply,
}

impl Fault {
    /// On requests for a resource, for ever, with 500.
    pub fn on(resource: &str) -> Self {
        Self {
            resource: Some(resource.to_owned()),
            verb: None,
            continued: None,
            times: usize::MAX,
            reply: Reply::status(500, "InternalError"),
        }
    }

    pub fn on_all() -> Self {
        Self { resource: None, ..Self::on("") }
    }

    /// Only on `list` or `watch`.
    #[must_use]
    pub fn verb(self, verb: &str) -> Self {
        Self { verb: Some(verb.to_owned()), ..self }
    }

    /// Only on the second page of a list and those after it.
    #[must_use]
    pub fn continued(self) -> Self {
        Self { continued: Some(true), ..self }
    }

    #[must_use]
    pub fn with(self, reply: Reply) -> Self {
        Self { reply, ..self }
    }

    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }
}
