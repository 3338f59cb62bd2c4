//! The documents over HTTP: `/status`, `/dump` and `/lookup`, built from the records of this process.

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::{
    Readiness, pins,
    view::{self, ListenerDoc, Moment, Process, Question, Time},
};
use crate::{
    dns::pins::{PinSet, Pins},
    store::{Reader, disk::DiskStatus},
    sys::{Clock, UnixMillis},
    wire::Rtype,
    zone::{self, Zone},
};

/// Dumps made at once; each holds the text of every record.
const DUMPS: usize = 2;

/// The rules that answers follow at present.
#[derive(Clone, Debug)]
pub struct Rules {
    pub zone: zone::Config,
    /// The age from which records count as stale.
    pub stale_after: Duration,
}

/// What the documents are made from.
#[derive(Clone)]
pub struct Facts {
    pub role: &'static str,
    pub started: UnixMillis,
    pub listeners: Vec<ListenerDoc>,
    /// What the source is, as in `manifests cluster.yaml`.
    pub source: String,
    pub reader: Reader,
    /// The pins; none for a process that answers no DNS.
    pub pins: Option<Pins>,
    pub clock: Clock,
    pub rules: Arc<dyn Fn() -> Rules + Send + Sync>,
    /// The disk at present, if there is one.
    pub disk: Arc<dyn Fn() -> Option<DiskStatus> + Send + Sync>,
    /// Upstreams and cache at present, as a document of their own; none for a process that does not forward.
    pub forward: Arc<dyn Fn() -> Option<serde_json::Value> + Send + Sync>,
    /// What is cached of upstreams' answers, by name and type; nothing for a process that does not forward.
    pub cached: Arc<view::FindCached>,
    /// Where a follower of hubs stands, as a document of its own; none for a process with another source.
    pub follows: Arc<dyn Fn() -> Option<serde_json::Value> + Send + Sync>,
    /// How the election among hubs stands, as a document of its own; none for a process that stands in none.
    pub lease: Arc<dyn Fn() -> Option<serde_json::Value> + Send + Sync>,
    /// How the stream to others stands, as a document of its own; none for a process that serves none.
    pub serves: Arc<dyn Fn() -> Option<serde_json::Value> + Send + Sync>,
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts").field("role", &self.role).field("source", &self.source).finish_non_exhaustive()
    }
}

pub(super) struct Shared {
    pub(super) facts: Facts,
    readiness: Readiness,
    dumps: Semaphore,
}

/// The routes of the documents.
pub(super) fn router(facts: Facts, readiness: Readiness) -> Router {
    let pinned = facts.pins.clone();
    let shared = Arc::new(Shared { facts, readiness, dumps: Semaphore::new(DUMPS) });
    let pins = pinned.map(|pins| pins::router(pins, Arc::clone(&shared))).unwrap_or_default();
    Router::new()
        .route("/status", get(status))
        .route("/dump", get(dump))
        .route("/lookup", get(lookup))
        .with_state(shared)
        .merge(pins)
}

impl Shared {
    /// Hands the records of this moment to `build`.
    pub(super) fn moment<T>(&self, build: impl FnOnce(&Moment<'_>, &Rules) -> T) -> T {
        let Facts { reader, clock, source, .. } = &self.facts;
        let rules = (self.facts.rules)();
        // The age first: read after the records it could vouch for newer ones than these.
        let freshness = reader.freshness();
        let snapshot = reader.snapshot();
        let held = reader.held();
        let pins = self.facts.pins.as_ref().map_or_else(|| Arc::new(PinSet::default()), |pins| pins.load().clone());
        let moment = Moment {
            snapshot: &snapshot,
            held: &held,
            pins: &pins,
            freshness: &freshness,
            source: Some(source),
            stale_after: rules.stale_after,
            now: clock.now(),
        };
        build(&moment, &rules)
    }
}

async fn status(State(shared): State<Arc<Shared>>) -> Json<view::Status> {
    let facts = &shared.facts;
    let process = Process {
        role: facts.role.into(),
        pid: std::process::id(),
        started: Time(facts.started),
        listeners: facts.listeners.clone(),
        waiting_for: shared.readiness.held().into_iter().map(str::to_owned).collect(),
    };
    let rejected = (*facts.reader.rejections()).clone();
    let status =
        shared.moment(|moment, rules| view::status(moment, &rules.zone, Some(process), (facts.disk)(), rejected));
    let (forward, follows) = ((facts.forward)(), (facts.follows)());
    Json(view::Status { forward, follows, lease: (facts.lease)(), serves: (facts.serves)(), ..status })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DumpQuery {
    namespace: Option<String>,
}

async fn dump(State(shared): State<Arc<Shared>>, Query(query): Query<DumpQuery>) -> Response {
    let Ok(_one_of_few) = shared.dumps.acquire().await else { return failed("the process is stopping") };
    let made = Arc::clone(&shared);
    let text = tokio::task::spawn_blocking(move || {
        made.moment(|moment, rules| {
            let dump = view::Dump::of(moment, &rules.zone, query.namespace.as_deref());
            serde_json::to_vec(&dump)
        })
    });
    match text.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(Err(error)) => failed(&error.to_string()),
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(error: &str) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_owned()).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LookupQuery {
    name: String,
    #[serde(rename = "type")]
    rtype: Option<String>,
    namespace: Option<String>,
}

async fn lookup(State(shared): State<Arc<Shared>>, Query(query): Query<LookupQuery>) -> Response {
    let refuse = |error: String| (StatusCode::BAD_REQUEST, error).into_response();
    let rtype = match query.rtype.map(|rtype| rtype.parse::<Rtype>()).transpose() {
        Ok(rtype) => rtype,
        Err(error) => return refuse(error.to_string()),
    };
    let question = Question { name: query.name, rtype, namespace: query.namespace };
    let found = shared
        .moment(|moment, rules| view::lookup_cached(&Zone::new(&rules.zone), moment, &question, &*shared.facts.cached));
    found.map_or_else(refuse, |lookup| Json(lookup).into_response())
}
