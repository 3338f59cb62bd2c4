//! Decodes the server's objects into trimmed ones.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    record::ServiceKey,
    source::{
        Objects,
        convert::{self, Broken, Object},
        objects, one_line,
    },
};

/// `Status`: the body of a refusal, and the object of an ERROR event.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    #[serde(default)]
    pub(super) code: u16,
    /// The reason in one word, as `Expired`.
    pub(super) reason: Option<String>,
    pub(super) message: Option<String>,
    pub(super) details: Option<StatusDetails>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusDetails {
    pub(super) retry_after_seconds: Option<u64>,
}

/// A line of a watch.
#[derive(Debug)]
pub(super) enum Event {
    /// An object was added or changed.
    Put(Result<Box<Object>, Broken>, Option<String>),
    Delete(ServiceKey, Option<String>),
    /// Nothing changed up to this version.
    Bookmark {
        version: String,
        /// It ends the initial events of a streaming list.
        ends_list: bool,
    },
    Error(Status),
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// Reads a line of a watch.
///
/// # Errors
/// If it is no event at all: the stream cannot be trusted any further.
pub(super) fn event(of: Objects, line: &[u8]) -> Result<Event, String> {
    let Line { kind, object } = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    match &*kind {
        "ADDED" | "MODIFIED" => {
            let version = metadata(object).and_then(|metadata| metadata.resource_version);
            Ok(Event::Put(self::object(of, object).map(Box::new), version))
        }
        "DELETED" => {
            let metadata = metadata(object).ok_or("a DELETED event without metadata")?;
            let key = convert::key(of, &metadata)?;
            Ok(Event::Delete(key, metadata.resource_version))
        }
        "BOOKMARK" => {
            let metadata = metadata(object).ok_or("a bookmark without metadata")?;
            let version = metadata.resource_version.filter(|version| !version.is_empty());
            let end = metadata.annotations.and_then(|annotations| annotations.initial_events_end);
            Ok(Event::Bookmark {
                version: version.ok_or("a bookmark without a version")?,
                ends_list: end.as_deref() == Some("true"),
            })
        }
        "ERROR" => serde_json::from_str(object.get()).map(Event::Error).map_err(|error| error.to_string()),
        other => Err(format!("an event of type {other:?}")),
    }
}

/// A page of a list.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) objects: Vec<Object>,
    pub(super) broken: Vec<Broken>,
    /// The version the list stands for.
    pub(super) version: Option<String>,
    /// Where the next page begins, unless this is the last.
    pub(super) next: Option<String>,
}

#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(default)]
    metadata: objects::Metadata,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
    kind: Option<String>,
}

/// Reads a page of a list.
///
/// # Errors
/// If it is no list.
pub(super) fn page(of: Objects, body: &[u8]) -> Result<Page, String> {
    let raw: RawPage<'_> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if !raw.kind.as_deref().is_some_and(|kind| kind.ends_with("List")) {
        return Err(format!("an answer of kind {:?} is no list", raw.kind.unwrap_or_default()));
    }
    let mut page = Page {
        objects: Vec::new(),
        broken: Vec::new(),
        version: raw.metadata.resource_version.filter(|version| !version.is_empty()),
        next: raw.metadata.next.filter(|next| !next.is_empty()),
    };
    for item in raw.items.into_iter().flatten() {
        match object(of, item) {
            Ok(object) => page.objects.push(object),
            Err(broken) => page.broken.push(broken),
        }
    }
    Ok(page)
}

/// The UID of the one namespace the probe asks for, and the version of the answer.
///
/// # Errors
/// If it is no list.
pub(super) fn probe(body: &[u8]) -> Result<(Option<String>, Option<String>), String> {
    #[derive(Deserialize)]
    struct Answer {
        metadata: objects::Metadata,
        items: Option<Vec<objects::Namespace>>,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let named = |namespace: &objects::Namespace| namespace.metadata.name.as_deref() == Some("kube-system");
    let uid = answer.items.into_iter().flatten().find(named).and_then(|namespace| namespace.metadata.uid);
    Ok((uid, answer.metadata.resource_version))
}

fn object(of: Objects, raw: &RawValue) -> Result<Object, Broken> {
    let text = raw.get();
    let decoded = match of {
        Objects::Services => serde_json::from_str(text).map(convert::service),
        Objects::Slices => serde_json::from_str(text).map(convert::slice),
        Objects::Namespaces => serde_json::from_str(text).map(convert::namespace_object),
    };
    decoded.unwrap_or_else(|error| {
        let key = metadata(raw).and_then(|metadata| convert::key(of, &metadata).ok());
        Err(Broken { key, reason: one_line(&error.to_string()) })
    })
}

fn metadata(raw: &RawValue) -> Option<objects::Metadata> {
    serde_json::from_str::<objects::Namespace>(raw.get()).ok().map(|object| object.metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_object_is_an_event_and_a_broken_line_is_none() {
        let line = br#"{"type":"ADDED","object":{"metadata":{"namespace":"prod","name":"db","resourceVersion":"7"},"spec":{"clusterIP":5}}}"#;
        let Event::Put(Err(broken), Some(version)) = event(Objects::Services, line).unwrap() else { panic!("a put") };
        assert_eq!((broken.key.unwrap().as_str(), version.as_str()), ("prod/db", "7"));
        for line in [
            &b"{\"type\":\"ADDED\",\"object\":{\"metadata\""[..],
            b"garbage",
            b"",
            b"{}",
            b"\xff\xfe",
            b"{\"type\":\"SURPRISE\",\"object\":{}}",
            b"{\"type\":\"BOOKMARK\",\"object\":{}}",
            b"{\"type\":\"DELETED\",\"object\":{}}",
            b"<html>502 Bad Gateway</html>",
        ] {
            assert!(event(Objects::Services, line).is_err(), "{}", String::from_utf8_lossy(line));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_reading_panic(
            noise in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            at in 0..150_usize,
            cut in 0..150_usize,
        ) {
            let mut line = br#"{"type":"ADDED","object":{"metadata":{"namespace":"prod","name":"db","labels":{"kubernetes.io/service-name":"db"}},"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"]}],"ports":[{"port":1}]}}"#.to_vec();
            line.splice(at..(at + cut).min(line.len()), noise.iter().copied());
            for of in [Objects::Services, Objects::Slices, Objects::Namespaces] {
                for bytes in [&line[..], &noise[..]] {
                    let _ = event(of, bytes);
                    let _ = page(of, bytes);
                    let _ = probe(bytes);
                }
            }
        }
    }

    #[test]
    fn an_answer_that_is_no_list_is_not_an_empty_list() {
        for body in [&b"{}"[..], b"{\"items\":[]}", b"{\"kind\":\"Status\",\"code\":200}", b"[]", b"", b"<html>"] {
            assert!(page(Objects::Services, body).is_err(), "{}", String::from_utf8_lossy(body));
        }
        let page =
            page(Objects::Services, br#"{"kind":"ServiceList","metadata":{"resourceVersion":"9"},"items":null}"#);
        assert_eq!(page.unwrap().version.as_deref(), Some("9"));
    }
}
