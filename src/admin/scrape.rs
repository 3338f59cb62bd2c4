//! `/metrics`: the text of a scrape, made a bounded number of times a second.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use prometheus::{Registry, TextEncoder};
use tokio::time::Instant;

use super::coredns;
use crate::sys::Lock;

/// Scrapes that may follow one another with a text of their own.
const RENDERED_BURST: u32 = 100;
/// Minimum time between two texts: a text is some 300 µs of work, so a flood of scrapes costs 1.5 % of a core.
const RENDERED_EVERY: Duration = Duration::from_millis(20);

#[derive(Clone)]
pub struct Metrics(Arc<Shared>);

struct Shared {
    registry: Registry,
    coredns_server: Option<String>,
    last: Lock<Last>,
}

struct Last {
    text: Option<Bytes>,
    /// From this moment on all of [`RENDERED_BURST`] are allowed again.
    full: Instant,
}

impl Metrics {
    pub fn new(registry: Registry, coredns_server: Option<String>) -> Self {
        let last = Lock::new(Last { text: None, full: Instant::now() });
        Self(Arc::new(Shared { registry, coredns_server, last }))
    }

    /// For any client: repeats the last text when there are too many scrapes.
    pub fn route(self) -> Router {
        Router::new().route("/metrics", get(recent)).with_state(self)
    }

    /// For the admin socket: every text is new.
    pub fn fresh_route(self) -> Router {
        Router::new().route("/metrics", get(fresh)).with_state(self)
    }

    fn render(&self) -> Result<Bytes, prometheus::Error> {
        let mut families = self.0.registry.gather();
        if let Some(server) = &self.0.coredns_server {
            families.extend(coredns::named(&families, server));
        }
        TextEncoder::new().encode_to_string(&families).map(Bytes::from)
    }

    fn recent(&self) -> Result<Bytes, prometheus::Error> {
        let mut last = self.0.last.lock();
        let now = Instant::now();
        let full = last.full.max(now) + RENDERED_EVERY;
        match &last.text {
            Some(text) if full > now + RENDERED_EVERY * RENDERED_BURST => Ok(text.clone()),
            _ => {
                let text = self.render()?;
                *last = Last { text: Some(text.clone()), full };
                Ok(text)
            }
        }
    }
}

async fn recent(State(metrics): State<Metrics>) -> Response {
    respond(metrics.recent())
}

async fn fresh(State(metrics): State<Metrics>) -> Response {
    respond(metrics.render())
}

fn respond(text: Result<Bytes, prometheus::Error>) -> Response {
    match text {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(CONTENT_TYPE, "text/plain; charset=utf-8")],
            format!("cannot write the metrics: {error}\n"),
        )
            .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use prometheus::IntCounter;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_scrapes_is_answered_from_the_last_text() {
        let registry = Registry::new();
        let counter = IntCounter::new("scrapes", "Counts.").unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        let metrics = Metrics::new(registry, None);
        let scrape = || {
            counter.inc();
            metrics.recent().unwrap()
        };
        let texts: Vec<Bytes> = (0..1_000).map(|_| scrape()).collect();
        let different = |texts: &[Bytes]| texts.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert_eq!(different(&texts), 99, "a hundred texts");
        tokio::time::advance(RENDERED_EVERY).await;
        let texts: Vec<Bytes> = std::iter::once(texts[999].clone()).chain((0..100).map(|_| scrape())).collect();
        assert_eq!(different(&texts), 1, "one more for each interval");
        assert_ne!(metrics.render().unwrap(), texts[100], "the admin socket has a new text always");
    }
}
