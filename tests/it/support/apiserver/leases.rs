//! Leases: read, made, replaced.

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

use super::{
    Seen, Shared,
    serve::{Body, faulty, note, status, status_object, whole},
    store::Store,
};

/// Reads, makes or replaces a lease; replacing takes the version it has.
pub(super) async fn lease(request: Request<Incoming>, path: &str, shared: &Shared) -> Response<Body> {
    let mut parts = path.split('/');
    let (namespace, name) = (parts.next().unwrap().to_owned(), parts.nth(1).map(str::to_owned));
    let verb = match *request.method() {
        http::Method::POST => "create",
        http::Method::PUT => "update",
        _ => "get",
    };
    let seen = Seen {
        verb,
        resource: "leases".to_owned(),
        params: Vec::new(),
        accept: String::new(),
        authorization: String::new(),
        user_agent: String::new(),
    };
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let fault = note(&seen, shared);
    if let Some(reply) = fault {
        return faulty(reply).await;
    }
    let mut state = shared.state();
    let Some(name) = name else {
        let mut object: Value = serde_json::from_slice(&body).unwrap();
        object["metadata"]["namespace"] = namespace.as_str().into();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        if state.store.get("leases", &namespace, &name).is_some() {
            return status(409, "AlreadyExists", None);
        }
        return put_lease(&mut state.store, shared, object);
    };
    let Some(held) = state.store.get("leases", &namespace, &name).cloned() else {
        let mut object = status_object(404, "NotFound", None);
        object["message"] = format!("leases.coordination.k8s.io \"{name}\" not found").into();
        let mut response = whole(object.to_string().into(), false);
        *response.status_mut() = http::StatusCode::NOT_FOUND;
        return response;
    };
    if verb == "get" {
        return whole(held.to_string().into(), false);
    }
    let mut object: Value = serde_json::from_slice(&body).unwrap();
    object["metadata"]["namespace"] = namespace.into();
    if object["metadata"]["resourceVersion"] != held["metadata"]["resourceVersion"] {
        return status(409, "Conflict", None);
    }
    put_lease(&mut state.store, shared, object)
}

fn put_lease(store: &mut Store, shared: &Shared, object: Value) -> Response<Body> {
    let key = (object["metadata"]["namespace"].clone(), object["metadata"]["name"].clone());
    store.put(object);
    shared.version.send_replace(store.version());
    let kept = store.get("leases", key.0.as_str().unwrap(), key.1.as_str().unwrap()).unwrap();
    whole(kept.to_string().into(), false)
}
