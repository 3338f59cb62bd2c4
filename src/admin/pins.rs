//! Pins over the admin socket: besides the guard, the only requests that change what a process answers. The socket is open to
//! root and this user alone.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{
    Refused, bad_request,
    documents::Shared,
    peer::{Caller, peer},
    view::{self, PinDoc, host_of, meant},
};
use crate::{
    dns::pins::{Pin, Pins, Saved},
    sys::Clock,
};

/// A request to pin a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinRequest {
    /// The name, whole with a final dot, else completed as a look-up does.
    pub name: String,
    /// The namespace of a name without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub addresses: Vec<IpAddr>,
    /// TTL of the answers, in seconds.
    pub ttl: u32,
    /// The time the pin lasts, in seconds; as before if there is none.
    pub seconds: Option<u64>,
    /// Why, in the operator's words; as before if there is none.
    pub reason: Option<String>,
    /// Without `seconds`: the pin has no end, even if the one before had.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_end: bool,
    /// Pin a name that does not exist though one like it does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// A request to unpin a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnpinRequest {
    /// The name; all if there is none.
    pub name: Option<String>,
    /// The namespace of a name without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PinsDoc {
    pub changed: usize,
    /// Why the pins are lost at a restart; null if they are on disk.
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

async fn pin(
    State((pins, shared)): Known,
    from: Caller,
    Json(request): Json<PinRequest>,
) -> Result<Json<PinsDoc>, Refused> {
    let peer = peer(from);
    let PinRequest { name: given, namespace, addresses, ttl, seconds, reason, no_end, force } = request;
    if let Some(problem) = not_a_name(&given) {
        return Err(bad_request(problem));
    }
    let name = shared
        .moment(|moment, rules| meant(&rules.of_dns(), moment, &given, namespace.as_deref(), force))
        .map_err(bad_request)?;
    if !force
        && !given.ends_with('.')
        && let Some(problem) = shared.moment(|moment, rules| view::misspelt(&rules.of_dns(), moment, &name))
    {
        return Err(bad_request(format!("{problem} --force pins it all the same")));
    }
    let name = name.to_string();
    let clock = &shared.documents.clock;
    let now = clock.now();
    // A pin again keeps the end and the reason it has, unless they are given.
    let before = pins.load().list(now).into_iter().find(|pin| pin.name == name);
    let kept_end = before.as_ref().and_then(|pin| pin.until).filter(|_| !no_end);
    let until = seconds.map(|seconds| now.plus(Duration::from_secs(seconds))).or(kept_end);
    let reason = reason.or_else(|| before.and_then(|pin| pin.reason));
    let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let ends = until.map_or_else(|| "no end".to_owned(), |until| until.to_string());
    let pin = Pin { name: name.clone(), addresses, ttl, since: now, until, reason: reason.clone() };
    let kept = pins.pin(pin, now).map_err(bad_request)?;
    info!(
        name,
        addresses = %shown.join(","),
        ttl,
        until = ends,
        reason = reason.as_deref().unwrap_or("none given"),
        peer = %peer,
        "name pinned"
    );
    Ok(Json(document(&pins, clock, 1, kept)))
}

/// Why a pin of this would answer no question, or none that was meant.
fn not_a_name(given: &str) -> Option<String> {
    let bare = host_of(given);
    let bare = bare.trim_end_matches('.');
    if bare.parse::<IpAddr>().is_ok() {
        return Some(format!("{given:?} is an address: give the name first, then its addresses"));
    }
    bare.split('.').any(|label| label == "*").then(|| format!("{given:?}: wildcards cannot be pinned: give each name"))
}

async fn unpin(
    State((pins, shared)): Known,
    from: Caller,
    Json(request): Json<UnpinRequest>,
) -> Result<Json<PinsDoc>, Refused> {
    let clock = &shared.documents.clock;
    let UnpinRequest { name, namespace } = request;
    let name = name.map(|given| {
        let meant = shared.moment(|moment, rules| meant(&rules.of_dns(), moment, &given, namespace.as_deref(), true));
        // A pin of the very name goes before one that it would be completed to.
        let pinned = |name: &str| pins.is_pinned(name, clock.now());
        meant.ok().map(|name| name.to_string()).filter(|name| !pinned(&given) && pinned(name)).unwrap_or(given)
    });
    let (changed, kept) = pins.unpin(name.as_deref(), clock.now()).map_err(bad_request)?;
    let peer = peer(from);
    info!(name = name.as_deref().unwrap_or("all"), changed, peer = %peer, "name unpinned");
    Ok(Json(document(&pins, clock, changed, kept)))
}

fn document(pins: &Pins, clock: &Clock, changed: usize, kept: Saved) -> PinsDoc {
    if let Err(error) = &kept {
        warn!(%error, "pins are in effect, but not on disk: a restart ends them");
    }
    let pins = pins.load().list(clock.now()).into_iter().map(PinDoc::from).collect();
    PinsDoc { changed, not_kept: kept.err(), pins }
}
