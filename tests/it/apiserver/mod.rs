//! The apiserver source against the scripted apiserver: what a real one does, and everything that goes wrong with it.
//!
//! Sockets are real, so the clock of the runtime is too; intervals are short instead, and every wait is for something to
//! happen. Where ages count, the wall clock is set by hand.

mod access;
mod addresses;
mod outage;
mod real;
mod refusals;
mod slow;
mod watching;

use std::{
    ops::{Deref, DerefMut},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use holdfast::{
    source::{
        Metrics,
        apiserver::{self, Config, Timing},
    },
    store::{self, Origin, Reader, SourceState, Update, What},
    sys::{Clock, ManualClock, UnixMillis},
};
use prometheus::Registry;
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::support::apiserver::Apiserver;

/// No wait takes longer than this where all is well.
const PATIENCE: Duration = Duration::from_secs(60);

fn timing() -> Timing {
    Timing {
        connect: Some(Duration::from_millis(500)),
        handshake: Duration::from_secs(1),
        answer: Duration::from_secs(3),
        silence: Duration::from_secs(1),
        slow: Duration::from_millis(200),
        idle_initial: Duration::from_millis(500),
        idle_list: Duration::from_secs(2),
        idle_watch: Duration::from_secs(3600),
        probe: Duration::from_millis(200),
        retry: Duration::from_millis(50),
        restarting: Duration::from_millis(500),
        backoff_min: Duration::from_millis(20),
        backoff_max: Duration::from_millis(200),
        ..Timing::default()
    }
}

/// One update, as far as tests look at them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sent {
    Reset { new_epoch: bool },
    Changes,
    Fresh,
    Lost(String),
    Listing,
    Rejected,
}

/// A source that follows the scripted server.
struct Following {
    server: Apiserver,
    feed: Feed,
    dir: TempDir,
}

impl Deref for Following {
    type Target = Feed;

    fn deref(&self) -> &Feed {
        &self.feed
    }
}

impl DerefMut for Following {
    fn deref_mut(&mut self) -> &mut Feed {
        &mut self.feed
    }
}

/// A source at work, and the store it feeds.
struct Feed {
    reader: Reader,
    clock: ManualClock,
    registry: Registry,
    metrics: Metrics,
    published: watch::Receiver<u64>,
    sent: Arc<Mutex<Vec<Sent>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Following {
    fn start(server: Apiserver) -> Self {
        Self::start_with(server, |_| {})
    }

    /// Follows with a changed configuration, from before the first list.
    fn start_with(server: Apiserver, change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kubeconfig = server.kubeconfig(dir.path());
        let mut config = Config { kubeconfig: Some(kubeconfig), timing: timing(), ..Config::default() };
        change(&mut config);
        Self { server, feed: Feed::start(config), dir }
    }

    /// Follows, and waits for the first records.
    async fn synced(server: Apiserver) -> Self {
        let mut following = Self::start(server);
        following.until_synced().await;
        following
    }

    async fn until_synced(&mut self) {
        self.until("synced", |reader| reader.as_of().is_some()).await;
        self.server.until("four watches", |server| server.open_watches() == 4).await;
    }

    /// Lists made of any kind, streaming ones too.
    fn lists(&self) -> usize {
        let seen = self.server.seen();
        let list = |seen: &&crate::support::apiserver::Seen| {
            seen.param("sendInitialEvents").is_some() || (seen.verb == "list" && seen.param("fieldSelector").is_none())
        };
        seen.iter().filter(list).count()
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }
}

impl Feed {
    fn lost(&self) -> Vec<String> {
        let sent = self.sent.lock().unwrap();
        sent.iter().filter_map(|sent| if let Sent::Lost(reason) = sent { Some(reason.clone()) } else { None }).collect()
    }

    fn start(config: Config) -> Self {
        let (mut writer, reader) = store::open();
        let clock = ManualClock::new(UnixMillis(1_000_000));
        let registry = Registry::new();
        let metrics = Metrics::register(&registry, &reader, &Clock::Manual(clock.clone())).unwrap();
        let (sender, mut updates) = mpsc::channel::<Update>(8);
        let sent = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&sent);
        let apply = tokio::spawn(async move {
            while let Some(update) = updates.recv().await {
                log.lock().unwrap().push(match &update.what {
                    What::Reset { origin: Origin::Watched { new_epoch, .. }, .. } => {
                        Sent::Reset { new_epoch: *new_epoch }
                    }
                    What::Reset { .. } | What::Changes { .. } => Sent::Changes,
                    What::Fresh { .. } => Sent::Fresh,
                    What::Lost { reason } => Sent::Lost(reason.clone()),
                    What::Listing => Sent::Listing,
                    What::Rejected(_) => Sent::Rejected,
                });
                writer.apply(update).unwrap();
            }
        });
        let run = tokio::spawn(apiserver::run(config, Clock::Manual(clock.clone()), metrics.clone(), sender));
        let published = reader.subscribe();
        Self { reader, clock, registry, metrics, published, sent, tasks: vec![run, apply] }
    }

    /// Waits for the store to be as wanted.
    async fn until(&mut self, what: &str, holds: impl Fn(&Reader) -> bool) {
        let (published, reader) = (&mut self.published, &self.reader);
        let wait = async {
            while !holds(reader) {
                published.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "{what}: {:?} {:?} {:?}", names(reader), reader.freshness(), self.sent.lock().unwrap());
    }

    async fn until_names(&mut self, expected: &[&str]) {
        self.until(&format!("{expected:?}"), |reader| names(reader) == expected).await;
    }

    /// Waits until the source was said to be lost for a reason like this.
    async fn until_lost(&mut self, part: &str) -> String {
        let sent = Arc::clone(&self.sent);
        let reason = move || {
            let sent = sent.lock().unwrap();
            sent.iter().find_map(|sent| match sent {
                Sent::Lost(reason) if reason.contains(part) => Some(reason.clone()),
                _ => None,
            })
        };
        self.until(&format!("lost with {part:?}"), |_| reason().is_some()).await;
        reason().unwrap()
    }

    async fn until_up(&mut self) {
        self.until("up", |reader| reader.freshness().source == SourceState::Up).await;
    }

    fn resets(&self) -> usize {
        self.sent.lock().unwrap().iter().filter(|sent| matches!(sent, Sent::Reset { .. })).count()
    }

    fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let labelled =
            |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|pair| pair.value() == label);
        family.get_metric().iter().filter(labelled).map(|metric| metric.get_counter().get_value()).sum()
    }
}

/// Every service with its endpoints.
fn names(reader: &Reader) -> Vec<String> {
    let shown = |service: &Arc<holdfast::record::Service>| {
        let endpoints: Vec<String> = service.endpoints().iter().map(|endpoint| endpoint.ip.to_string()).collect();
        if endpoints.is_empty() {
            service.name().to_owned()
        } else {
            format!("{}={}", service.name(), endpoints.join(","))
        }
    };
    let mut names: Vec<String> = reader.snapshot().services().map(shown).collect();
    names.sort();
    names
}
