//! The guard over HTTP: `GET /guard` shows what is held, `POST /guard/release` deletes it, all or of one namespace,
//! `POST /guard/accept-cluster` takes another cluster in place of the one before, `POST /guard/release-outside` ends holds of
//! names outside the cluster.
//!
//! Never decides what is held: the writer of the store and the forwarder are asked.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::{get, post},
};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::{
    Refused, StatusInputs, bad_request,
    peer::{Caller, peer},
    view::{HeldDoc, Time},
};
use crate::{
    dns::{cache::Reason, forward::Released},
    report::OutsideHold,
    store::{
        Applied, Reader,
        guard::{HeldCounts, Release},
        releasable,
    },
    sys::Clock,
};

/// The reason of holds that only the configuration ends.
const KEEP: &str = Reason::Keep.as_str();

/// Asks the writer of the store to release; `None` if it is gone.
pub type ReleaseFn = Arc<dyn Fn(Release) -> BoxFuture<'static, Option<Applied>> + Send + Sync>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GuardDoc {
    pub at: Time,
    /// All held records.
    pub held: HeldDoc,
    /// True: this process decides which records are held. False: a hub does.
    #[serde(default)]
    pub judges: bool,
    /// The way to the hub that decides: the address of the nearest hub, then the names of the hubs, the nearest first.
    #[serde(default)]
    pub hubs: Vec<String>,
    /// Number of connected agents and hubs, which also serve the held records; null on agents.
    #[serde(default)]
    pub followers: Option<u64>,
    /// Number of them that refuse deletions of this hub.
    #[serde(default)]
    pub refusing: u64,
    /// Names outside the cluster that upstreams deny and whose last good answer is served.
    #[serde(default)]
    pub outside: Vec<OutsideHold>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OutsideReleasedDoc {
    /// The holds that ended, or would.
    pub released: Vec<OutsideHold>,
    /// Holds of the name or zone that stand, for its names are on the keep list.
    pub kept: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReleasedDoc {
    /// Held records before the release.
    pub before: HeldCounts,
    /// Held records after the release.
    pub after: HeldCounts,
    /// Records that changed.
    pub changes: usize,
    /// Services served before the release.
    #[serde(default)]
    pub services: usize,
    /// Held records that only a hub can release.
    #[serde(default)]
    pub held_upstream: usize,
    /// The way to the hub that decides: the address of the nearest hub, then the names of the hubs, the nearest first.
    #[serde(default)]
    pub hubs: Vec<String>,
}

#[derive(Clone)]
struct Shared {
    reader: Reader,
    clock: Clock,
    release: ReleaseFn,
    inputs: Arc<dyn StatusInputs>,
}

pub fn guard_routes(reader: Reader, clock: Clock, release: ReleaseFn, inputs: Arc<dyn StatusInputs>) -> Router {
    Router::new()
        .route("/guard", get(show))
        .route("/guard/release", post(release_held))
        .route("/guard/accept-cluster", post(accept_cluster))
        .route("/guard/release-outside", post(release_outside))
        .with_state(Shared { reader, clock, release, inputs })
}

impl Shared {
    fn hubs(&self) -> Vec<String> {
        let followed = self.inputs.follows();
        followed.map_or_else(Vec::new, |status| std::iter::once(status.address).chain(status.path).collect())
    }
}

async fn show(State(shared): State<Shared>) -> Json<GuardDoc> {
    let stream = shared.inputs.serves();
    Json(GuardDoc {
        at: Time(shared.clock.now()),
        held: HeldDoc::of(&shared.reader.held(), usize::MAX),
        judges: shared.reader.judges(),
        hubs: shared.hubs(),
        followers: stream.as_ref().map(|stream| stream.subscribers),
        refusing: stream.map_or(0, |stream| stream.refusing),
        outside: shared.inputs.outside_held(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseQuery {
    namespace: Option<String>,
    /// Returns the records that would be released, and releases nothing.
    #[serde(default)]
    dry_run: bool,
}

async fn release_held(
    State(shared): State<Shared>,
    from: Caller,
    Query(query): Query<ReleaseQuery>,
) -> Result<Json<ReleasedDoc>, Refused> {
    ask(&shared, from, query.namespace.map_or(Release::All, Release::Namespace), query.dry_run).await
}

async fn accept_cluster(State(shared): State<Shared>, from: Caller) -> Result<Json<ReleasedDoc>, Refused> {
    // The writer knows which cluster was refused.
    ask(&shared, from, Release::Cluster("".into()), false).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutsideQuery {
    name: Option<String>,
    zone: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

async fn release_outside(
    State(shared): State<Shared>,
    from: Caller,
    Query(query): Query<OutsideQuery>,
) -> Result<Json<OutsideReleasedDoc>, Refused> {
    let which = match (&query.name, &query.zone) {
        (Some(name), None) => name.parse().map(Released::Name),
        (None, Some(zone)) => zone.parse().map(Released::Zone),
        _ => return Err(bad_request("give a name or a zone")),
    };
    let which = which.map_err(|error| bad_request(format!("not a domain name: {error}")))?;
    let released = shared.inputs.release_outside(&which, query.dry_run).ok_or_else(|| {
        let told = "this process forwards nothing, it holds no names outside the cluster: ask an agent";
        (StatusCode::NOT_FOUND, told.to_owned())
    })?;
    if !query.dry_run {
        let of = query.name.or(query.zone).unwrap_or_default();
        info!(of, names = released.len(), peer = %peer(from), "guard released names outside the cluster");
    }
    let left = shared.inputs.outside_held();
    let kept = left.iter().filter(|hold| hold.reason == KEEP && which.covers_text(&hold.name)).count();
    Ok(Json(OutsideReleasedDoc { released, kept }))
}

async fn ask(shared: &Shared, from: Caller, which: Release, dry_run: bool) -> Result<Json<ReleasedDoc>, Refused> {
    let snapshot = shared.reader.snapshot();
    let (before, services) = (snapshot.held().counts(), snapshot.counts().services);
    let (applied, after) = if dry_run {
        let (would, applied) = releasable(snapshot.held(), &which, shared.reader.judges());
        let left = |before: usize, would: usize| before.saturating_sub(would);
        let after = HeldCounts {
            services: left(before.services, would.services),
            endpoints: left(before.endpoints, would.endpoints),
            namespaces: left(before.namespaces, would.namespaces),
        };
        (applied, after)
    } else {
        let told = which.to_string();
        let released = (shared.release)(which).await;
        let applied = released.ok_or((StatusCode::SERVICE_UNAVAILABLE, "the process is stopping".to_owned()))?;
        let (changes, peer) = (applied.changes, peer(from));
        info!(which = told, changes, held_upstream = applied.held_upstream, %peer, "guard released");
        (applied, shared.reader.held().counts())
    };
    let Applied { changes, held_upstream } = applied;
    Ok(Json(ReleasedDoc { before, after, changes, services, held_upstream, hubs: shared.hubs() }))
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use futures::FutureExt as _;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{
        admin,
        record::{Change, Kind, Service, ServiceKey},
        store::{self, Origin, What, guard},
        sys::UnixMillis,
    };

    struct Alone;

    impl StatusInputs for Alone {
        fn rules(&self) -> admin::Rules {
            unreachable!("the guard asks for no rules")
        }

        fn disk(&self) -> Option<store::disk::DiskStatus> {
            None
        }
    }

    fn list(count: u8) -> What {
        let service = |n: u8| {
            let kind = Kind::ClusterIp([std::net::IpAddr::from([10, 96, 0, n])].into());
            let key = ServiceKey::new(if n.is_multiple_of(2) { "even" } else { "odd" }, &format!("s{n}"));
            Change::Put(Arc::new(Service::new(key, kind, vec![], vec![])))
        };
        let origin = Origin::Watched { cluster: "uid".into(), new_epoch: false };
        What::Reset { origin, records: (0..count).map(service).collect(), as_of: UnixMillis(1) }
    }

    async fn ask<T: serde::de::DeserializeOwned>(routes: &Router, method: &str, target: &str) -> T {
        let request = Request::builder().method(method).uri(target).body(Body::empty()).unwrap();
        let response = routes.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{target}");
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    #[tokio::test]
    async fn held_records_are_shown_and_released_by_namespace_or_all() {
        let (writer, reader) = store::open();
        let mut writer = writer.guarded(guard::Config::default(), Clock::System);
        writer.apply(list(200)).unwrap();
        writer.apply(list(0)).unwrap();
        let writer = Arc::new(std::sync::Mutex::new(writer));
        let release: ReleaseFn = Arc::new(move |which| {
            let writer = Arc::clone(&writer);
            async move { Some(writer.lock().unwrap().release(&which)) }.boxed()
        });
        let routes = guard_routes(reader.clone(), Clock::System, release, Arc::new(Alone));
        let shown: GuardDoc = ask(&routes, "GET", "/guard").await;
        assert_eq!((shown.held.counts.services, shown.held.rows.len()), (200, 200), "all of them, by name");
        let first = HeldDoc::of(&reader.held(), 150);
        assert_eq!(
            (first.rows.len(), first.left_out, shown.held.left_out),
            (150, 50, 0),
            "and says how many more there are"
        );
        let would: ReleasedDoc = ask(&routes, "POST", "/guard/release?namespace=odd&dry_run=true").await;
        assert_eq!((would.before.services, would.after.services, would.services), (200, 100, 200));
        assert_eq!(reader.held().counts().services, 200, "a dry run releases nothing");
        let released: ReleasedDoc = ask(&routes, "POST", "/guard/release?namespace=odd").await;
        assert_eq!((released.before.services, released.after.services, released.changes), (200, 100, 100));
        assert_eq!(reader.load().counts().services, 100);
        let released: ReleasedDoc = ask(&routes, "POST", "/guard/release").await;
        assert_eq!((released.after.services, released.changes), (0, 100));
        assert_eq!(reader.load().counts().services, 0);
    }
}
