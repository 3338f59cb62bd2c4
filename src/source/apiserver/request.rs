//! The requests made, as HTTP.

use std::fmt::Write as _;

use kube::client::Body;

use crate::source::{EndpointsMode, Objects, Resource, assemble::Part, metrics::Verb};

/// Objects asked for in one page of a list.
const PAGE_OBJECTS: &str = "500";

/// The lists that are followed: at most four.
pub(super) fn parts(mode: EndpointsMode) -> &'static [Part] {
    match mode {
        EndpointsMode::Headless => &[Part::Services, Part::Slices, Part::OtherSlices, Part::Namespaces],
        EndpointsMode::All => &[Part::Services, Part::Slices, Part::Namespaces],
    }
}

#[derive(Debug)]
pub(super) struct Ask {
    pub(super) verb: Verb,
    pub(super) of: Resource,
    pub(super) request: http::Request<Body>,
}

/// Watches that begin with all objects and a bookmark after them.
pub(super) fn streaming_list(part: Part, mode: EndpointsMode, seconds: u64) -> Ask {
    let seconds = seconds.to_string();
    let params = [
        ("watch", "true"),
        ("allowWatchBookmarks", "true"),
        ("sendInitialEvents", "true"),
        ("resourceVersionMatch", "NotOlderThan"),
        ("timeoutSeconds", &seconds),
    ];
    ask(Verb::Watch, part, mode, &params)
}

/// Watches from a version on.
pub(super) fn watch(part: Part, mode: EndpointsMode, version: &str, seconds: u64) -> Ask {
    let seconds = seconds.to_string();
    let params = [
        ("watch", "true"),
        ("allowWatchBookmarks", "true"),
        ("resourceVersion", version),
        ("timeoutSeconds", &seconds),
    ];
    ask(Verb::Watch, part, mode, &params)
}

/// A page of a list; the first without `next`. Consistent: no version is given, with which the server would answer from
/// its past and in one piece.
pub(super) fn page(part: Part, mode: EndpointsMode, next: Option<&str>) -> Ask {
    let mut params = vec![("limit", PAGE_OBJECTS)];
    params.extend(next.map(|next| ("continue", next)));
    ask(Verb::List, part, mode, &params)
}

/// By which audit logs and metrics of the apiserver tell these requests from others.
const USER_AGENT: &str = concat!("holdfast/", env!("CARGO_PKG_VERSION"));

/// The freshness probe: a consistent list that holds `kube-system` and nothing else.
pub(super) fn probe() -> Ask {
    let params = [("fieldSelector", "metadata.name=kube-system"), ("limit", "1")];
    ask(Verb::List, Part::Namespaces, EndpointsMode::default(), &params)
}

/// Reads a lease, makes it or replaces it.
pub(super) fn lease(verb: Verb, namespace: &str, name: &str, body: Option<&serde_json::Value>) -> Ask {
    let mut uri = "/apis/coordination.k8s.io/v1/namespaces/".to_owned();
    encode(namespace, &mut uri);
    uri.push_str("/leases");
    if verb != Verb::Create {
        uri.push('/');
        encode(name, &mut uri);
    }
    let method = match verb {
        Verb::Create => http::Method::POST,
        Verb::Update => http::Method::PUT,
        Verb::Get | Verb::List | Verb::Watch => http::Method::GET,
    };
    let request = http::Request::builder()
        .method(method)
        .uri(uri)
        .header(http::header::USER_AGENT, USER_AGENT)
        .header(http::header::ACCEPT, "application/json")
        .header(http::header::CONTENT_TYPE, "application/json");
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string().into_bytes()));
    Ask { verb, of: Resource::Leases, request: request.body(body).expect("every part of the URI is encoded") }
}

fn ask(verb: Verb, part: Part, mode: EndpointsMode, params: &[(&str, &str)]) -> Ask {
    let of = part.objects();
    let mut uri = match of {
        Objects::Services => "/api/v1/services".to_owned(),
        Objects::Namespaces => "/api/v1/namespaces".to_owned(),
        Objects::Slices => "/apis/discovery.k8s.io/v1/endpointslices".to_owned(),
    };
    for (index, (name, value)) in params.iter().copied().chain(selector(part, mode)).enumerate() {
        uri.push(if index == 0 { '?' } else { '&' });
        uri.push_str(name);
        uri.push('=');
        encode(value, &mut uri);
    }
    let accept = match (of, verb) {
        (Objects::Namespaces, Verb::List) => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        (Objects::Namespaces, Verb::Watch) => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        _ => "application/json",
    };
    let request = http::Request::get(uri).header(http::header::USER_AGENT, USER_AGENT);
    let request = request.header(http::header::ACCEPT, accept);
    // Servers that compress watches do it a member an event, of which the decoder reads only the first.
    let request = match verb {
        Verb::Watch => request.header(http::header::ACCEPT_ENCODING, "identity"),
        _ => request,
    };
    Ask { verb, of: of.into(), request: request.body(Body::empty()).expect("every part of the URI is encoded") }
}

/// The two disjoint selectors that leave out the slices of ClusterIP services. The endpointslice controller labels the
/// slices of headless services; slices others made lack the label even where the service is headless.
fn selector(part: Part, mode: EndpointsMode) -> Option<(&'static str, &'static str)> {
    match (part, mode) {
        (Part::Slices, EndpointsMode::Headless) => Some(("labelSelector", "service.kubernetes.io/headless")),
        (Part::OtherSlices, _) => Some((
            "labelSelector",
            "!service.kubernetes.io/headless,endpointslice.kubernetes.io/managed-by!=endpointslice-controller.k8s.io",
        )),
        _ => None,
    }
}

/// Percent-encodes all but unreserved characters (RFC 3986, 2.3).
fn encode(text: &str, uri: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_ask_for_what_the_server_needs_to_be_asked() {
        let headless = EndpointsMode::Headless;
        let cases = [
            (
                streaming_list(Part::Services, headless, 300),
                "/api/v1/services?watch=true&allowWatchBookmarks=true&sendInitialEvents=true\
                 &resourceVersionMatch=NotOlderThan&timeoutSeconds=300",
            ),
            (
                watch(Part::Slices, headless, "12", 300),
                "/apis/discovery.k8s.io/v1/endpointslices?watch=true&allowWatchBookmarks=true&resourceVersion=12\
                 &timeoutSeconds=300&labelSelector=service.kubernetes.io%2Fheadless",
            ),
            (
                page(Part::OtherSlices, headless, Some("a b&c")),
                "/apis/discovery.k8s.io/v1/endpointslices?limit=500&continue=a%20b%26c&labelSelector=\
                 %21service.kubernetes.io%2Fheadless%2Cendpointslice.kubernetes.io%2Fmanaged-by%21%3D\
                 endpointslice-controller.k8s.io",
            ),
            (page(Part::Slices, EndpointsMode::All, None), "/apis/discovery.k8s.io/v1/endpointslices?limit=500"),
            (probe(), "/api/v1/namespaces?fieldSelector=metadata.name%3Dkube-system&limit=1"),
        ];
        for (ask, expected) in cases {
            assert_eq!(ask.request.uri(), expected);
        }
    }

    #[test]
    fn at_most_four_lists_are_followed() {
        assert_eq!(parts(EndpointsMode::Headless).len(), 4);
        assert_eq!(parts(EndpointsMode::All).len(), 3);
    }
}
