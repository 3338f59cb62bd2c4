//! What the guard holds, over HTTP: `GET /guard` shows all of it, `POST /guard/release` lets go of it or of one namespace.
//!
//! Never decides what is held: whoever writes the store is asked to let go.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::view::{HeldDoc, Time};
use crate::{
    store::{
        Applied, Reader,
        guard::{HeldCounts, Release},
    },
    sys::Clock,
};

/// Asks the writer of the store to let go; nothing if it is gone.
pub type Let = Arc<dyn Fn(Release) -> BoxFuture<'static, Option<Applied>> + Send + Sync>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardDoc {
    pub at: Time,
    /// What is held, all of it.
    pub held: HeldDoc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasedDoc {
    /// How much was held before.
    pub before: HeldCounts,
    /// How much is held now.
    pub after: HeldCounts,
    /// Records that changed with it.
    pub changes: usize,
}

#[derive(Clone)]
struct Shared {
    reader: Reader,
    clock: Clock,
    release: Let,
}

/// The routes of the guard.
pub fn guard_routes(reader: Reader, clock: Clock, release: Let) -> Router {
    Router::new().route("/guard", get(show)).route("/guard/release", post(let_go)).with_state(Shared {
        reader,
        clock,
        release,
    })
}

async fn show(State(shared): State<Shared>) -> Json<GuardDoc> {
    Json(GuardDoc { at: Time(shared.clock.now()), held: HeldDoc::of(&shared.reader.held(), usize::MAX) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseQuery {
    namespace: Option<String>,
}

async fn let_go(State(shared): State<Shared>, Query(query): Query<ReleaseQuery>) -> Response {
    let which = query.namespace.map_or(Release::All, Release::Namespace);
    let before = shared.reader.held().counts();
    match (shared.release)(which).await {
        Some(Applied { changes }) => {
            let after = shared.reader.held().counts();
            Json(ReleasedDoc { before, after, changes }).into_response()
        }
        None => (StatusCode::SERVICE_UNAVAILABLE, "the process is stopping").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use futures::FutureExt as _;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{
        record::{Change, Kind, Service, ServiceKey},
        store::{self, Origin, What, guard},
        sys::UnixMillis,
    };

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
    async fn what_is_held_is_shown_and_let_go_by_namespace_or_at_once() {
        let (writer, reader) = store::open();
        let mut writer = writer.guarded(guard::Config::default(), Clock::System);
        writer.apply(list(200)).unwrap();
        writer.apply(list(0)).unwrap();
        let writer = Arc::new(std::sync::Mutex::new(writer));
        let release: Let = Arc::new(move |which| {
            let writer = Arc::clone(&writer);
            async move { Some(writer.lock().unwrap().release(&which)) }.boxed()
        });
        let routes = guard_routes(reader.clone(), Clock::System, release);
        let shown: GuardDoc = ask(&routes, "GET", "/guard").await;
        assert_eq!((shown.held.counts.services, shown.held.rows.len()), (200, 200), "all of them, by name");
        let first = HeldDoc::of(&reader.held(), 150);
        assert_eq!(
            (first.rows.len(), first.left_out, shown.held.left_out),
            (150, 50, 0),
            "and says how many more there are"
        );
        let released: ReleasedDoc = ask(&routes, "POST", "/guard/release?namespace=odd").await;
        assert_eq!((released.before.services, released.after.services, released.changes), (200, 100, 100));
        assert_eq!(reader.load().counts().services, 100);
        let released: ReleasedDoc = ask(&routes, "POST", "/guard/release").await;
        assert_eq!((released.after.services, released.changes), (0, 100));
        assert_eq!(reader.load().counts().services, 0);
    }
}
