//! Watches: from the first event to the last.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Response;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Seen, Shared,
    serve::{Body, Pieces, error_event, kind_of, pause, shown, status, streamed},
    store::Selector,
};

/// How long a version ahead of the server's is waited for. Three seconds in a real one.
const AHEAD: Duration = Duration::from_millis(100);

/// What a test tells the open watches.
#[derive(Clone, Debug)]
pub(super) enum Command {
    End,
    Break,
    Mute,
    Bookmark,
    Send(Bytes),
}

pub(super) struct Watcher {
    pub(super) resource: String,
    pub(super) commands: mpsc::UnboundedSender<Command>,
}

pub(super) fn watch_of(seen: &Seen, shared: Arc<Shared>, silent: bool) -> Response<Body> {
    let initial = seen.param("sendInitialEvents") == Some("true");
    if initial && (!shared.state().streaming_lists || seen.param("resourceVersionMatch") != Some("NotOlderThan")) {
        return status(422, "Invalid", None);
    }
    let (pieces, response) = streamed();
    let (commands, commanded) = mpsc::unbounded_channel();
    let watcher = Arc::new(Watcher { resource: seen.resource.clone(), commands });
    {
        let mut state = shared.state();
        state.watchers.push(Arc::clone(&watcher));
        state.most_watchers = state.most_watchers.max(state.watchers.len());
    }
    shared.act();
    let selector = Selector::new(seen.param("labelSelector"), seen.param("fieldSelector"));
    let watching =
        Watching { seen: seen.clone(), shared: Arc::clone(&shared), pieces, commanded, selector, muted: silent };
    tokio::spawn(async move {
        let closed = watching.pieces.clone();
        // Whoever drops the connection ends the watch.
        tokio::select! {
            () = closed.closed() => {}
            _ = watching.run(initial) => {}
        }
        shared.state().watchers.retain(|other| !Arc::ptr_eq(other, &watcher));
        shared.act();
    });
    response
}

struct Watching {
    seen: Seen,
    shared: Arc<Shared>,
    pieces: Pieces,
    commanded: mpsc::UnboundedReceiver<Command>,
    selector: Selector,
    muted: bool,
}

struct Gone;

impl Watching {
    async fn run(mut self, initial: bool) -> Result<(), Gone> {
        let mut at = match self.seen.param("resourceVersion") {
            Some(version) if !initial => version.parse().unwrap(),
            _ => self.shared.state().store.version(),
        };
        if initial {
            self.send_initial().await?;
        } else {
            let (now, compacted) = {
                let state = self.shared.state();
                (state.store.version(), state.store.compacted())
            };
            if at > now {
                tokio::time::sleep(AHEAD).await;
                if self.shared.state().store.version() < at {
                    return self.send(error_event(504, "Timeout")).await;
                }
            }
            if at < compacted {
                return self.send(error_event(410, "Expired")).await;
            }
        }
        let seconds = self.seen.param("timeoutSeconds").map_or(1800, |seconds| seconds.parse().unwrap());
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut version = self.shared.version.subscribe();
        let every = self.shared.state().bookmark_every;
        let mut bookmarks = tokio::time::interval_at(Instant::now() + every, every);
        loop {
            self.shared.running().await;
            version.borrow_and_update();
            let news = self.shared.state().store.since(&self.seen.resource, at);
            for happened in news {
                at = happened.version;
                if let Some((kind, object)) = self.selector.event(&happened) {
                    self.send_event(kind, &object).await?;
                }
            }
            tokio::select! {
                _ = version.changed() => {}
                _ = bookmarks.tick() => self.send_bookmark(&mut at, false).await?,
                () = tokio::time::sleep_until(end) => {
                    return self.send_bookmark(&mut at, false).await;
                }
                Some(command) = self.commanded.recv() => match command {
                    Command::End => return Ok(()),
                    Command::Break => {
                        let _ = self.pieces.send(Err(io::Error::other("broken by the test"))).await;
                        return Ok(());
                    }
                    Command::Mute => self.muted = true,
                    Command::Bookmark => self.send_bookmark(&mut at, false).await?,
                    Command::Send(bytes) => self.send(bytes).await?,
                },
            }
        }
    }

    async fn send_initial(&self) -> Result<(), Gone> {
        let (objects, mut version): (Vec<Value>, u64) = {
            let state = self.shared.state();
            let listed = state.store.list(&self.seen.resource, None).map(|(_, object)| object.clone());
            (listed.filter(|object| self.selector.matches(object)).collect(), state.store.version())
        };
        for object in objects {
            self.send_event("ADDED", &object).await?;
        }
        if self.shared.state().ignores_initial_events {
            return Ok(());
        }
        self.send_bookmark(&mut version, true).await
    }

    async fn send_event(&self, kind: &str, object: &Value) -> Result<(), Gone> {
        self.send(format!("{}\n", json!({"type": kind, "object": shown(object, &self.seen.accept)})).into()).await
    }

    async fn send_bookmark(&self, at: &mut u64, ends_list: bool) -> Result<(), Gone> {
        if self.seen.param("allowWatchBookmarks") != Some("true") {
            return Ok(());
        }
        // A watch ahead of a restored server stays where it was.
        *at = (*at).max(self.shared.state().store.version());
        let mut metadata = json!({"resourceVersion": at.to_string(), "creationTimestamp": null});
        if ends_list {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (kind, api) = kind_of(&self.seen.resource);
        let object = json!({"kind": kind, "apiVersion": api, "metadata": metadata, "spec": {}, "status": {}});
        let object = shown(&object, &self.seen.accept);
        self.send(format!("{}\n", json!({"type": "BOOKMARK", "object": object})).into()).await
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        self.shared.running().await;
        let slow = self.shared.state().slow;
        pause(slow.chunk).await;
        if self.muted {
            return Ok(());
        }
        self.pieces.send(Ok(Frame::data(bytes))).await.map_err(|_| Gone)
    }
}
