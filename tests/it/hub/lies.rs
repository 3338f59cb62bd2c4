//! A real agent that follows a truthful hub over TCP and mutual TLS, and comes upon one that lies whenever that one is out of
//! reach. Whatever it is told, it goes on answering, names who said so, and is equal to the truth again.

use std::time::Duration;

use bytes::Bytes;
use holdfast::{
    proto::{
        self, Contents, FRAME_BYTES_MAX, Frame, FrameKind, Mode, Part, Vouched, bucket_part, framed, mark,
        snapshot_parts, welcome,
    },
    record::{Change, Snapshot, Version},
    source::hub,
    store::{Origin, What},
    stream,
    sys::Clock,
    tls,
};
use prost::Message as _;

use super::{
    faults::{Told, said, services},
    liar::{End, Liar, Lie, certified, headed},
};
use crate::support::{
    fleet::{Asking, Home, beside, in_time},
    process::Agent,
    unharmed::whole,
    weather::{Way, Weather},
};

const NEVER_ADDS_UP: &str = "records do not add up, whatever the hub repairs";
/// The name of the agent.
const AGENT: &str = "agent-7";

/// One lie, told to an agent that holds `held`.
struct Case {
    what: &'static str,
    lie: fn(held: &Snapshot) -> Lie,
    /// What the agent's log says of it.
    log: Log,
}

/// How the agent takes it.
enum Log {
    /// It leaves, for a reason that begins so.
    Leaves(&'static str),
    /// It asks for a repair, again and again, because records do not add up; and leaves.
    NeverAddsUp,
    /// It cannot know better, follows, and holds back what would be deleted.
    Holds,
}

fn frame(kind: FrameKind) -> Bytes {
    framed(&Frame { kind: Some(kind) })
}

fn part(buckets: &[u8], unpacked_bytes: u32, body: impl Into<Bytes>) -> Bytes {
    frame(FrameKind::Part(Part { buckets: buckets.to_vec().into(), unpacked_bytes, body: body.into() }))
}

fn vouched() -> Vouched {
    Vouched { as_of: Clock::System.now(), path: vec!["liar".into()], window_ms: 500, ..Vouched::default() }
}

fn answer(frames: impl IntoIterator<Item = Bytes>) -> Lie {
    Lie::Answer(frames.into_iter().collect(), End::Never)
}

/// Everything there is, which is nothing, at this version.
fn empty(version: Version) -> Lie {
    let nothing = Snapshot::default().with_version(version);
    let mut frames = vec![welcome(Mode::Snapshot, "liar")];
    frames.extend(snapshot_parts(&nothing));
    frames.push(mark(&nothing, &vouched()));
    answer(frames)
}

fn at(held: &Snapshot, epoch: impl Fn(u64) -> u64) -> Version {
    let Version { cluster, epoch: held, .. } = held.version().clone();
    Version { cluster, epoch: epoch(held), rev: 1 }
}

/// What is no stream of frames.
const BROKEN: &[Case] = &[
    Case {
        what: "garbage instead of TLS",
        lie: |_| Lie::Plain(b"HTTP/1.1 200 OK\r\n\r\n"),
        log: Log::Leaves("received corrupt message"),
    },
    Case {
        what: "garbage instead of HTTP/2",
        lie: |_| Lie::Inside(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n and so on and so forth"),
        log: Log::Leaves("no answer to the greeting: "),
    },
    Case {
        what: "garbage instead of a frame",
        lie: |_| answer([Bytes::from_static(&[0xff; 64])]),
        log: Log::Leaves("protocol error: received message with invalid compression flag"),
    },
    Case {
        what: "a frame that is no message",
        lie: |_| answer([headed(16, &[0xff; 16])]),
        log: Log::Leaves("failed to decode Protobuf message"),
    },
    Case {
        what: "a frame over the limit",
        lie: |_| answer([headed(FRAME_BYTES_MAX + 1, &[0; 1_000])]),
        log: Log::Leaves("Error, decoded message length too large"),
    },
    Case {
        what: "a stream that ends in the middle of a frame",
        lie: |held| {
            let parts = snapshot_parts(held);
            let half = parts[0].slice(..parts[0].len() / 2);
            Lie::Answer(vec![welcome(Mode::Snapshot, "liar"), half], End::Polite)
        },
        log: Log::Leaves("Unexpected EOF"),
    },
    Case {
        what: "a stream that is reset in the middle of a frame",
        lie: |held| {
            let parts = snapshot_parts(held);
            let half = parts[0].slice(..parts[0].len() / 2);
            Lie::Answer(vec![welcome(Mode::Snapshot, "liar"), half], End::Reset)
        },
        log: Log::Leaves("h2 protocol error"),
    },
    Case {
        what: "a part that says it unpacks to more than any",
        lie: |_| answer([welcome(Mode::Snapshot, "liar"), part(&[0], u32::MAX, vec![0; 100])]),
        log: Log::Leaves("bad frame: body of 4294967295 bytes is over the limit"),
    },
    Case {
        what: "a part that does not unpack",
        lie: |_| answer([welcome(Mode::Snapshot, "liar"), part(&[0], 1_000, vec![0x55; 100])]),
        log: Log::Leaves("bad frame: body does not unpack"),
    },
    Case {
        what: "a part whose service is none",
        lie: |_| {
            let contents = Contents { services: vec![Bytes::from_static(b"no service")], ..Contents::default() };
            answer([welcome(Mode::Snapshot, "liar"), part(&[0], 0, contents.encode_to_vec())])
        },
        log: Log::Leaves("bad frame: not a record"),
    },
];

/// What is well formed, and not true.
const FALSE: &[Case] = &[
    Case {
        what: "a part that comes twice",
        lie: |held| {
            let parts = snapshot_parts(held);
            answer([vec![welcome(Mode::Snapshot, "liar")], parts.clone(), parts].concat())
        },
        log: Log::Leaves("bad frame: bucket 0 came twice"),
    },
    Case {
        what: "a part in the middle of batches",
        lie: |held| answer([welcome(Mode::Delta, "liar"), bucket_part(held, 0)]),
        log: Log::Leaves("bad frame: part outside a repair or snapshot"),
    },
    Case {
        what: "a mark before a welcome",
        lie: |held| answer([mark(held, &vouched())]),
        log: Log::Leaves("bad frame: mark before a welcome"),
    },
    Case {
        what: "an older version, with nothing in it",
        lie: |held| empty(at(held, |epoch| epoch - 1)),
        log: Log::Leaves("hub offers version"),
    },
    Case {
        what: "a root digest of something else",
        lie: |held| {
            let other = held.apply([services(1).remove(0)], held.version().clone());
            let other = other.apply([Change::PutNamespace("no-such".into())], held.version().clone());
            answer([welcome(Mode::Delta, "liar"), mark(&other, &vouched())])
        },
        log: Log::NeverAddsUp,
    },
    Case {
        what: "a snapshot that lacks what its digest counts",
        lie: |held| {
            let gone = held.services().next().unwrap().key().clone();
            let less = held.apply([Change::Remove(gone)], held.version().clone());
            answer(
                [vec![welcome(Mode::Snapshot, "liar")], snapshot_parts(&less), vec![mark(held, &vouched())]].concat(),
            )
        },
        log: Log::NeverAddsUp,
    },
    Case {
        what: "a batch that follows nothing we have",
        lie: |held| {
            let (from, made) = (at(held, |epoch| epoch + 1), Clock::System.now());
            let next = held.clone().with_version(at(held, |epoch| epoch + 2));
            answer([welcome(Mode::Delta, "liar"), proto::batch(&from, &[], &next, &vouched(), vec![], made)])
        },
        log: Log::Leaves(NEVER_ADDS_UP),
    },
    Case {
        what: "our own name on its path",
        lie: |held| {
            let vouched = Vouched { path: vec!["liar".into(), AGENT.into()], ..vouched() };
            answer([welcome(Mode::Delta, "liar"), mark(held, &vouched)])
        },
        log: Log::Leaves("loop: this node is on the path"),
    },
    Case { what: "nothing, at the version held", lie: |held| empty(held.version().clone()), log: Log::Holds },
    Case { what: "nothing, at a later version", lie: |held| empty(at(held, |epoch| epoch + 1)), log: Log::Holds },
    Case {
        what: "nothing, of another cluster",
        lie: |held| empty(Version { cluster: "other".into(), ..held.version().clone() }),
        log: Log::Holds,
    },
];

/// Waits until a line with this text stands in the log for the `nth` time.
async fn logged(mut agent: Agent, what: &'static str, text: String, nth: usize) -> Agent {
    beside(move || {
        println!("{what}: {}", agent.wait_for_nth(&text, nth));
        agent
    })
    .await
}

/// What a tool says of the agent in this home.
async fn status(home: &Home) -> (serde_json::Value, hub::Status) {
    let (status, _) = home.tool(&["status"]).await;
    let follows = serde_json::from_value(status["follows"].clone()).unwrap();
    (status, follows)
}

/// Waits until the agent says that it holds exactly what the hub does, at its version.
async fn until_true(what: &str, home: &Home, truth: &Told) {
    in_time(what, async {
        loop {
            let version = truth.writer.reader().load().version().clone();
            let (status, follows) = status(home).await;
            let same = (&status["version"]["epoch"], &status["version"]["rev"])
                == (&version.epoch.into(), &version.rev.into());
            if same && follows.state == hub::State::Live {
                return;
            }
        }
    })
    .await;
}

async fn told(cases: &'static [Case]) {
    let certificates = tempfile::tempdir().unwrap();
    tls::issue(certificates.path(), "test", 1, Clock::System.now()).unwrap();
    let (hubs, agents) = (certificates.path().join("hub"), certificates.path().join("agent"));
    let config =
        stream::Config { node: "truth".into(), heartbeat: Duration::from_millis(250), ..stream::Config::default() };
    let mut truth = Told::start_secured(services(200), 10, config, Some(certified(&hubs)));
    let way = Way::to(truth.address).await;
    let liar = Liar::start(&hubs).await;
    let home = Home::new();
    let arguments = ["--name", AGENT, "--tls", agents.to_str().unwrap()].map(str::to_owned);
    let addresses = [&way.address, &liar.address].map(ToString::to_string);
    let path = home.path().to_owned();
    let hubs = addresses.clone();
    let mut agent = beside(move || {
        let hubs = hubs.iter().flat_map(|hub| ["--hub", hub]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(hubs).collect();
        Agent::start(&path, &arguments)
    })
    .await;
    until_true("the truth, before any lie", &home, &truth).await;

    let (mut count, mut mismatches) = (200, 0);
    let mut seen = std::collections::HashMap::new();
    for (number, Case { what, lie, log }) in cases.iter().enumerate() {
        let asking = Asking::begin(agent.dns, "web-7.prod.svc.cluster.local.", "A 10.96.0.7");
        liar.says(lie(&truth.writer.reader().snapshot()));
        way.weather(Weather::Breaks(0));
        let left = |reason: &str| format!("leaving hub hub={} reason={reason}", addresses[1]);
        let text = match log {
            Log::Leaves(reason) => left(reason),
            Log::NeverAddsUp => left(NEVER_ADDS_UP),
            Log::Holds => "mass deletion blocked".to_owned(),
        };
        let nth = *seen.entry(text.clone()).and_modify(|nth| *nth += 1).or_insert(1);
        agent = logged(agent, what, text, nth).await;
        let (shown, follows) = status(&home).await;
        assert_eq!(shown["serving"]["services"], count, "{what}: {shown:#}");
        match log {
            Log::Leaves(_) => {}
            Log::NeverAddsUp => mismatches += 4,
            Log::Holds => {
                assert_eq!(follows.address, addresses[1], "{what}");
                assert_eq!(shown["held"]["counts"]["services"], count, "{what}: {shown:#}");
            }
        }

        // The truth is in reach again, and has news. The lies are over.
        count += 1;
        let version = Version { cluster: "uid".into(), epoch: 20 + 10 * u64::try_from(number).unwrap(), rev: 1 };
        let records = services(u8::try_from(count).unwrap());
        let update = What::Reset {
            origin: Origin::Stamped(version),
            records: records.clone().into_iter().collect(),
            as_of: Clock::System.now(),
        };
        truth.writer.apply(update).unwrap();
        way.weather(Weather::Fair);
        liar.hangs_up();
        until_true(what, &home, &truth).await;
        asking.all_answered().await;
        let (shown, follows) = status(&home).await;
        assert_eq!(follows.mismatches, mismatches, "{what}");
        assert_eq!(shown["held"]["counts"]["services"], 0, "{what}: {shown:#}");
        tokio::task::block_in_place(|| whole(&said(&records), &truth.writer.reader(), &[&home]));
    }
    drop(agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_told_garbage_is_equal_to_the_truth_again() {
    told(BROKEN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_told_what_is_not_true_is_equal_to_the_truth_again() {
    told(FALSE).await;
}
