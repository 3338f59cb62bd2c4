use std::{sync::atomic::AtomicBool, thread, time::Duration};

use hickory_proto::rr::{
    Name, RData, Record,
    rdata::{A, CNAME},
};

use super::*;
use crate::{
    dns::{
        Transport,
        cache::{Age, Cache, Key, Kind, Metrics, Parts, RouteId},
    },
    wire::{self, Class, Parsed, Rtype, TCP_BYTES_MAX},
};

const NOW: UnixMillis = UnixMillis(1_733_941_800_000);
const ROUTE: RouteId = RouteId(0);

fn cache(max_bytes: u64, worker_caches: usize) -> Cache {
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    Cache::new(&Config { max_bytes, worker_caches, ..Config::default() }, metrics)
}

fn asked(name: &str) -> Question {
    Question::new(name.parse().unwrap(), Rtype::A)
}

/// An answer with so many addresses, good for 100 s from [`NOW`].
fn entry(name: &str, addresses: u8, mark: u8) -> Arc<Entry> {
    with(name, (0..addresses).map(|nth| [10, 0, nth, mark]))
}

fn with(name: &str, addresses: impl Iterator<Item = [u8; 4]>) -> Arc<Entry> {
    let name = Name::from_ascii(name).unwrap();
    let parts = Parts {
        answers: addresses.map(|ip| Record::from_rdata(name.clone(), 100, RData::A(A(ip.into())))).collect(),
        name,
        rtype: Rtype::A,
        class: Class::IN,
        kind: Kind::Data,
        authorities: Vec::new(),
        authentic: true,
        continues: false,
    };
    Arc::new(Entry::new(&parts, NOW, 100).unwrap())
}

fn insert(cache: &Cache, entry: &Arc<Entry>, question: &Question) {
    assert!(cache.insert(&Key::new(ROUTE, question.by_ref()), Arc::clone(entry)));
}

fn after(millis: u64) -> UnixMillis {
    NOW.plus(Duration::from_millis(millis))
}

#[test]
fn a_copy_is_written_as_its_original_is() {
    let mut worker_cache = cache(64 << 20, 1).worker_cache();
    let names: Vec<String> = (1..=12).map(|nth| format!("host-{nth}.example.org.")).collect();
    let mut entries: Vec<Arc<Entry>> = (1..=12).zip(&names).map(|(nth, name)| entry(name, nth, 7)).collect();
    let soa = Record::from_rdata(Name::root(), 20, RData::CNAME(CNAME(Name::root())));
    for kind in [Kind::NoData, Kind::NxDomain] {
        let parts = Parts {
            name: Name::from_ascii("gone.example.org.").unwrap(),
            rtype: Rtype::A,
            class: Class::IN,
            kind,
            answers: Vec::new(),
            authorities: vec![soa.clone()],
            authentic: false,
            continues: false,
        };
        entries.push(Arc::new(Entry::new(&parts, NOW, 20).unwrap()));
    }
    let edns = b"\0\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00";
    for entry in &entries {
        let question = &entry.wire()[HEADER_BYTES..];
        let name = wire::Name::from_wire(question).unwrap();
        let asked = asked(&name.to_string());
        let probe = worker_cache.probe(asked.by_ref(), 0);
        worker_cache.keep(&probe, entry, NOW);
        for additional in [&b""[..], &edns[..]] {
            let counts = [1, 0, 0, u8::try_from(additional.len().min(1)).unwrap()];
            let header: Vec<u8> =
                [0x12, 0x34, 0x01, 0x20].into_iter().chain(counts.into_iter().flat_map(|count| [0, count])).collect();
            let message = [&header, name.wire(), b"\0\x01\0\x01", additional].concat();
            let Parsed::Query(query) = wire::parse(&message) else { panic!("a query") };
            for later in [0, 999, 1_000, 1_999] {
                let now = after(later);
                let (mut ours, mut theirs) = (vec![0; TCP_BYTES_MAX], vec![0; TCP_BYTES_MAX]);
                for transport in Transport::ALL {
                    let found = worker_cache.find(&probe, now).expect("kept");
                    let length = found.write(&query, transport, now, Age::Fresh, &mut ours);
                    assert_eq!(length, entry.write(&query, transport, now, Age::Fresh, &mut theirs));
                    assert_eq!(ours[..length], theirs[..length], "{name} {later} ms later");
                }
            }
        }
    }
}

#[test]
fn every_part_of_the_question_tells_copies_apart() {
    let mut worker_cache = cache(64 << 20, 1).worker_cache();
    let name = asked("www.example.org.");
    let probe = worker_cache.probe(name.by_ref(), 0);
    worker_cache.keep(&probe, &entry("www.example.org.", 1, 7), NOW);
    assert!(worker_cache.find(&probe, NOW).is_some());
    for other in [
        asked("wwv.example.org."),
        asked("a.www.example.org."),
        asked("www.example.org.org."),
        asked("."),
        Question { rtype: Rtype::AAAA, ..name.clone() },
        Question { class: Class(3), ..name.clone() },
        Question { dnssec_ok: true, ..name.clone() },
        Question { checking_disabled: true, ..name.clone() },
    ] {
        // Even if all of them had one hash.
        let same = Probe { question: other.by_ref(), ..probe };
        assert!(worker_cache.find(&same, NOW).is_none(), "{other:?}");
        assert!(worker_cache.find(&worker_cache.probe(other.by_ref(), 0), NOW).is_none(), "{other:?}");
    }
}

#[test]
fn a_copy_ends_with_what_it_depends_on() {
    let cache = cache(64 << 20, 1);
    let mut worker_cache = cache.worker_cache();
    let (name, other) = (asked("www.example.org."), asked("mail.example.org."));
    let first = entry("www.example.org.", 1, 1);
    insert(&cache, &first, &name);
    let keep = |worker_cache: &mut WorkerCache| {
        let probe = worker_cache.probe(name.by_ref(), 0);
        worker_cache.keep(&probe, &first, NOW);
        assert!(worker_cache.find(&probe, NOW).is_some());
    };
    let is_there = |worker_cache: &WorkerCache, generation| {
        worker_cache.find(&worker_cache.probe(name.by_ref(), generation), NOW).is_some()
    };

    keep(&mut worker_cache);
    assert!(!is_there(&worker_cache, 1), "another configuration");
    insert(&cache, &entry("mail.example.org.", 1, 1), &other);
    assert!(is_there(&worker_cache, 0), "something else was stored");
    insert(&cache, &entry("www.example.org.", 1, 2), &name);
    assert!(!is_there(&worker_cache, 0), "another answer was stored");
    keep(&mut worker_cache);
    cache.clear();
    assert!(!is_there(&worker_cache, 0), "everything was forgotten");

    // Looked up before, and copied after it was replaced.
    let probe = worker_cache.probe(name.by_ref(), 0);
    insert(&cache, &entry("www.example.org.", 1, 3), &name);
    worker_cache.keep(&probe, &first, NOW);
    assert!(!is_there(&worker_cache, 0), "it had been replaced before it was copied");
}

#[test]
fn the_shared_cache_is_asked_again_after_two_seconds_and_towards_the_end() {
    let mut worker_cache = cache(64 << 20, 1).worker_cache();
    let name = asked("www.example.org.");
    let entry = entry("www.example.org.", 1, 7);
    let probe = worker_cache.probe(name.by_ref(), 0);
    worker_cache.keep(&probe, &entry, after(10_000));
    let is_there = |worker_cache: &WorkerCache, millis| worker_cache.find(&probe, after(millis)).is_some();
    assert!(is_there(&worker_cache, 10_000) && is_there(&worker_cache, 11_999));
    assert!(!is_there(&worker_cache, 12_000));
    assert!(!is_there(&worker_cache, 9_999), "the clock was set back");
    worker_cache.keep(&probe, &entry, after(89_500));
    assert!(is_there(&worker_cache, 89_999));
    assert!(!is_there(&worker_cache, 90_000), "it is to be renewed from now on");
    worker_cache.keep(&probe, &entry, after(90_000));
    assert!(!is_there(&worker_cache, 90_000), "nothing is kept that is about to end");
}

#[test]
fn what_is_long_or_answers_something_else_is_not_kept() {
    let mut worker_cache = cache(64 << 20, 1).worker_cache();
    let name = asked("www.example.org.");
    let probe = worker_cache.probe(name.by_ref(), 0);
    worker_cache.keep(&probe, &entry("www.example.org.", 15, 7), NOW);
    assert!(worker_cache.find(&probe, NOW).is_none(), "288 bytes");
    worker_cache.keep(&probe, &entry("mail.example.org.", 1, 7), NOW);
    assert!(worker_cache.find(&probe, NOW).is_none(), "another name");
    worker_cache.keep(&probe, &entry("www.example.org.", 12, 7), NOW);
    assert!(worker_cache.find(&probe, NOW).is_some());
}

#[test]
fn a_small_front_stays_small_and_is_not_swept_by_names_in_turn() {
    let cache = cache(1 << 20, 1);
    let mut worker_cache = cache.worker_cache();
    let room = worker_cache.copies_max;
    assert!((100..=200).contains(&room), "{room}");
    let names: Vec<String> = (0..2_000).map(|nth| format!("host-{nth}.example.org.")).collect();
    let round = |worker_cache: &mut WorkerCache, at: u64| {
        let mut found = 0;
        for name in &names {
            let wire = asked(name);
            let probe = worker_cache.probe(wire.by_ref(), 0);
            let entry = entry(name, 1, 7);
            if let Some(ready) = worker_cache.find(&probe, after(at)) {
                assert_eq!(ready.message, entry.wire(), "{name}");
                found += 1;
            } else {
                worker_cache.keep(&probe, &entry, after(at));
            }
        }
        found
    };
    assert_eq!(round(&mut worker_cache, 0), 0);
    let found: usize = (1..5).map(|nth| round(&mut worker_cache, nth)).sum();
    assert_eq!(worker_cache.copies.len(), room, "all of the room is used");
    assert!(found >= room, "{found} of {room} that were there were found in four rounds");
    assert_eq!(cache.bytes(), (room * COPY_BYTES) as u64);
    assert!(cache.bytes() <= cache.max_bytes() / SHARE);
    drop(worker_cache);
    assert_eq!(cache.bytes(), 0);
}

#[test]
fn as_many_are_lent_as_were_agreed_on_and_their_room_is_that_of_the_cache() {
    let cache = cache(64 << 20, 2);
    let [first, second] = [cache.worker_cache(), cache.worker_cache()];
    assert!(first.copies_max > 5_000 && first.copies_max == second.copies_max, "{}", first.copies_max);
    assert!(cache.worker_caches_bytes_max() <= cache.max_bytes() / SHARE);
    let mut third = cache.worker_cache();
    let name = asked("www.example.org.");
    let probe = third.probe(name.by_ref(), 0);
    third.keep(&probe, &entry("www.example.org.", 1, 7), NOW);
    assert!(third.find(&probe, NOW).is_none(), "there is no room for a third");
    drop(third);
    drop(first);
    assert!(cache.worker_cache().copies_max > 0, "what was given back is lent again");
    for max_bytes in [0, 1, 1_000, 100_000] {
        let cache = self::cache(max_bytes, 4);
        let mut worker_cache = cache.worker_cache();
        worker_cache.keep(&worker_cache.probe(name.by_ref(), 0), &entry("www.example.org.", 1, 7), NOW);
        assert!(cache.bytes() <= max_bytes);
    }
    assert_eq!(self::cache(64 << 20, 0).worker_caches_bytes_max(), 0);
}

/// Whoever was told that an answer is stored never sees the one before.
#[test]
fn nothing_older_is_found_than_what_is_known_to_be_stored() {
    const NAME: &str = "www.example.org.";
    const ROUNDS: u32 = 10_000;
    let cache = cache(64 << 20, 2);
    let name = asked(NAME);
    let key = Key::new(ROUTE, name.by_ref());
    // The number of the answer is its address.
    let numbered = |round: u32| with(NAME, [round.to_be_bytes()].into_iter());
    let number = |message: &[u8]| message.last_chunk().map(|address| u32::from_be_bytes(*address));
    // What is stored for certain, and whether that was the last.
    let (known, over) = (AtomicU32::new(0), AtomicBool::new(false));
    insert(&cache, &numbered(0), &name);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut worker_cache = cache.worker_cache();
                let mut found = 0_u32;
                while found == 0 || !over.load(Ordering::Relaxed) {
                    let least = known.load(Ordering::Acquire);
                    let probe = worker_cache.probe(name.by_ref(), 0);
                    let seen = if let Some(ready) = worker_cache.find(&probe, NOW) {
                        found += 1;
                        number(ready.message)
                    } else {
                        let entry = cache.get(&key).expect("never taken away");
                        worker_cache.keep(&probe, &entry, NOW);
                        number(entry.wire())
                    };
                    assert!(seen >= Some(least), "{seen:?} was found when {least} was known, after {found} were found");
                }
            });
        }
        for round in 1..=ROUNDS {
            insert(&cache, &numbered(round), &name);
            known.store(round, Ordering::Release);
        }
        over.store(true, Ordering::Relaxed);
    });
}
