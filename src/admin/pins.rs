//! Pins over the admin socket: the one thing here that changes what a process answers, and only for whom it trusts.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{
    documents::Shared,
    view::{PinDoc, meant},
};
use crate::{
    dns::pins::{Kept, Pin, Pins},
    sys::Clock,
};

/// What is to be pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinRequest {
    /// The name, whole with a final dot, else completed as a look-up does.
    pub name: String,
    pub addresses: Vec<IpAddr>,
    /// TTL of the answers, in seconds.
    pub ttl: u32,
    /// The time the pin lasts, in seconds; for ever if there is none.
    pub seconds: Option<u64>,
    /// Why, in the operator's words.
    pub reason: Option<String>,
}

/// What is to be let go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnpinRequest {
    /// The name; all if there is none.
    pub name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinsDoc {
    pub changed: usize,
    /// Why they would not be there after a restart; null if they would.
    pub not_kept: Option<String>,
    pub pins: Vec<PinDoc>,
}

/// The routes: `GET /pins`, `POST /pin`, `POST /unpin`.
pub(super) fn router(pins: Pins, shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/pins", get(list))
        .route("/pin", post(pin))
        .route("/unpin", post(unpin))
        .with_state((pins, shared))
}

type Known = State<(Pins, Arc<Shared>)>;

async fn list(State((pins, shared)): Known) -> Json<PinsDoc> {
    Json(document(&pins, &shared.documents.clock, 0, Ok(())))
}

async fn pin(State((pins, shared)): Known, Json(request): Json<PinRequest>) -> Response {
    let PinRequest { name, addresses, ttl, seconds, reason } = request;
    let name = match shared.moment(|moment, rules| meant(&rules.of_dns(), moment, &name)) {
        Ok(name) => name.to_string(),
        Err(error) => return refused(&error),
    };
    let clock = &shared.documents.clock;
    let now = clock.now();
    let until = seconds.map(|seconds| now.plus(Duration::from_secs(seconds)));
    info!(name, ?addresses, ttl, ?seconds, reason, "pinned by an operator");
    match pins.pin(Pin { name, addresses, ttl, since: now, until, reason }, now) {
        Ok(kept) => Json(document(&pins, clock, 1, kept)).into_response(),
        Err(error) => refused(&error.to_string()),
    }
}

async fn unpin(State((pins, shared)): Known, Json(request): Json<UnpinRequest>) -> Response {
    let clock = &shared.documents.clock;
    let name = request.name.map(|given| {
        let meant = shared.moment(|moment, rules| meant(&rules.of_dns(), moment, &given));
        // A pin of the very name goes before one that it would be completed to.
        let pinned = |name: &str| pins.is_pinned(name, clock.now());
        meant.ok().map(|name| name.to_string()).filter(|name| !pinned(&given) && pinned(name)).unwrap_or(given)
    });
    match pins.unpin(name.as_deref(), clock.now()) {
        Ok((changed, kept)) => {
            info!(name, changed, "unpinned by an operator");
            Json(document(&pins, clock, changed, kept)).into_response()
        }
        Err(error) => refused(&error.to_string()),
    }
}

fn refused(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, error.to_owned()).into_response()
}

fn document(pins: &Pins, clock: &Clock, changed: usize, kept: Kept) -> PinsDoc {
    if let Err(error) = &kept {
        warn!(%error, "pins are in effect, but not on disk");
    }
    let pins = pins.load().list(clock.now()).into_iter().map(PinDoc::from).collect();
    PinsDoc { changed, not_kept: kept.err(), pins }
}
