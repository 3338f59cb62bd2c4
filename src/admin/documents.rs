//! The documents over HTTP: `/status`, `/dump` and `/lookup`, built from the records of this process.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::{
    Readiness, Refused, bad_request, pins,
    view::{self, ListenerDoc, Process, Question, RecordsView, Time},
};
use crate::{
    dns::{
        self,
        forward::{Inspected, Names, Released},
        pins::{PinSet, Pins},
    },
    report::{
        ApiserverStatus, ConfigStatus, ElectionStatus, FollowStatus, ForwardStatus, NodeStatus, OutsideHold,
        QueriesStatus, StreamStatus,
    },
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
    pub answers: dns::AnswerConfig,
    /// How clients find encrypted DNS.
    pub discovery: Arc<dns::Discovery>,
}

impl Rules {
    pub(super) fn of_dns(&self) -> dns::Rules {
        dns::Rules::new(Zone::new(&self.zone), self.answers).with_discovery(Arc::clone(&self.discovery))
    }
}

/// The state of the parts of this process, read for each document.
pub trait StatusInputs: Send + Sync {
    /// The rules that answers follow at present.
    fn rules(&self) -> Rules;

    /// The disk behind the records; `None` without one.
    fn disk(&self) -> Option<DiskStatus>;

    /// Since when the source is lost, if it is.
    fn lost_since(&self) -> Option<UnixMillis> {
        None
    }

    /// The configuration in effect.
    fn config(&self) -> Option<ConfigStatus> {
        None
    }

    /// The queries of the last minute; `None` for a process that answers no DNS.
    fn queries(&self) -> Option<QueriesStatus> {
        None
    }

    /// Upstreams and cache; `None` for a process that does not forward.
    fn forward(&self) -> Option<ForwardStatus> {
        None
    }

    /// The result for a question outside the records.
    fn inspect(&self, rules: &dns::Rules, records: dns::Records<'_>, question: &dns::Question) -> Inspected {
        Names::default().inspect(rules, records, question)
    }

    /// The names outside the cluster that upstreams deny and that are served.
    fn outside_held(&self) -> Vec<OutsideHold> {
        Vec::new()
    }

    /// Ends such holds, or says which would end; `None` for a process that does not forward.
    fn release_outside(&self, _which: &Released, _dry_run: bool) -> Option<Vec<OutsideHold>> {
        None
    }

    /// The hub that is followed; `None` for a process with another source.
    fn follows(&self) -> Option<FollowStatus> {
        None
    }

    /// The apiserver; `None` for a process that does not watch one.
    fn apiserver(&self) -> Option<ApiserverStatus> {
        None
    }

    /// The election among hubs; `None` for a process that takes no part.
    fn lease(&self) -> Option<ElectionStatus> {
        None
    }

    /// The stream to agents and hubs; `None` for a process that serves none.
    fn serves(&self) -> Option<StreamStatus> {
        None
    }

    /// The node's part of an agent; `None` for a hub.
    fn node(&self) -> Option<NodeStatus> {
        None
    }
}

/// The inputs of the documents.
#[derive(Clone)]
pub struct Documents {
    pub role: &'static str,
    pub started: UnixMillis,
    /// The process that handed ports and store over at the start, as it numbers itself.
    pub took_over_from: Option<u32>,
    pub listeners: Vec<ListenerDoc>,
    /// The source in words, as in `manifests cluster.yaml`.
    pub source: String,
    pub reader: Reader,
    /// The pins; none for a process that answers no DNS.
    pub pins: Option<Pins>,
    pub clock: Clock,
    pub inputs: Arc<dyn StatusInputs>,
}

pub(super) struct Shared {
    pub(super) documents: Documents,
    readiness: Readiness,
    dumps: Semaphore,
}

pub(super) fn router(documents: Documents, readiness: Readiness) -> Router {
    let pinned = documents.pins.clone();
    let shared = Arc::new(Shared { documents, readiness, dumps: Semaphore::new(DUMPS) });
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
    pub(super) fn moment<T>(&self, build: impl FnOnce(&RecordsView<'_>, &Rules) -> T) -> T {
        let Documents { reader, clock, source, inputs, .. } = &self.documents;
        let rules = inputs.rules();
        // The age first: read after the records, it could be that of newer ones.
        let freshness = reader.freshness();
        let snapshot = reader.snapshot();
        let held = reader.held();
        let pins = self.documents.pins.as_ref().map_or_else(|| Arc::new(PinSet::default()), |pins| pins.load().clone());
        let moment = RecordsView {
            snapshot: &snapshot,
            held: &held,
            pins: &pins,
            freshness: &freshness,
            source: Some(source),
            lost_since: inputs.lost_since(),
            stale_after: rules.answers.stale_after,
            now: clock.now(),
        };
        build(&moment, &rules)
    }
}

async fn status(State(shared): State<Arc<Shared>>) -> Json<view::Status> {
    let Documents { role, started, took_over_from, listeners, reader, inputs, .. } = &shared.documents;
    let process = Process {
        role: (*role).into(),
        pid: std::process::id(),
        started: Time(*started),
        took_over_from: *took_over_from,
        listeners: listeners.clone(),
        waiting_for: shared.readiness.held().into_iter().map(str::to_owned).collect(),
    };
    let rejected = (*reader.rejections()).clone();
    let status =
        shared.moment(|moment, rules| view::status(moment, &rules.zone, Some(process), inputs.disk(), rejected));
    Json(view::Status {
        config: inputs.config().map(Into::into),
        queries: inputs.queries().map(Into::into),
        forward: inputs.forward().map(Into::into),
        follows: inputs.follows().map(Into::into),
        apiserver: inputs.apiserver().map(Into::into),
        lease: inputs.lease().map(Into::into),
        serves: inputs.serves().map(Into::into),
        node: inputs.node().map(Into::into),
        ..status
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DumpQuery {
    namespace: Option<String>,
}

async fn dump(State(shared): State<Arc<Shared>>, Query(query): Query<DumpQuery>) -> Result<impl IntoResponse, Refused> {
    let failed = |error: &dyn ToString| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    let Ok(_one_of_few) = shared.dumps.acquire().await else { return Err(failed(&"the process is stopping")) };
    let made = Arc::clone(&shared);
    let text = tokio::task::spawn_blocking(move || {
        made.moment(|moment, rules| {
            let dump = view::Dump::of(moment, &rules.zone, query.namespace.as_deref());
            serde_json::to_vec(&dump)
        })
    });
    let text = text.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LookupQuery {
    name: String,
    #[serde(rename = "type")]
    rtype: Option<String>,
    namespace: Option<String>,
}

async fn lookup(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<LookupQuery>,
) -> Result<Json<view::Lookup>, Refused> {
    let rtype = query.rtype.map(|rtype| rtype.parse::<Rtype>()).transpose().map_err(bad_request)?;
    let question = Question { name: query.name, rtype, namespace: query.namespace };
    let inspect = |rules: &dns::Rules, records: dns::Records<'_>, question: &dns::Question| {
        shared.documents.inputs.inspect(rules, records, question)
    };
    let found = shared.moment(|moment, rules| view::lookup(&rules.of_dns(), moment, &question, &inspect));
    found.map(Json).map_err(bad_request)
}
