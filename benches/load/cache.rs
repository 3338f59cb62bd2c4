//! Cache files with names outside the cluster, for a holdfast to load at start.

use std::{path::Path, sync::Arc};

use hickory_proto::rr::{Name, RData, Record, rdata::A};
use holdfast::{
    dns::{
        Question,
        cache::{self, Cache, Entry, Key, Kind, Parts},
        question::question_name,
    },
    sys::Clock,
    wire::{Class, Rtype},
};
use prometheus::Registry;

use crate::traffic::{EXTERNAL_ADDRESSES, external_name};

/// Longer than a bench takes: every answer is fresh.
const TTL: u32 = 3_600;

/// Fills a cache of at most `max_bytes` with at most `names` names and saves it. Returns how many there was room for.
pub fn write(file: &Path, names: usize, max_bytes: u64) -> usize {
    let metrics = cache::Metrics::register(&Registry::new()).unwrap();
    let cache = Cache::new(&cache::Config { max_bytes, ..cache::Config::default() }, metrics);
    let route = cache.route(b"\0");
    for number in 0..names {
        let name = Name::from_ascii(external_name(number)).unwrap();
        let question = Question::new(question_name(&name), Rtype::A);
        let key = Key::new(route, question.by_ref());
        if !cache.insert(&key, Arc::new(entry(&name))) {
            break;
        }
    }
    cache.settle();
    usize::try_from(cache::save(&cache, file, 0).unwrap()).unwrap()
}

fn entry(name: &Name) -> Entry {
    let record =
        |last| Record::from_rdata(name.clone(), TTL, RData::A(A([192, 0, 2, u8::try_from(last).unwrap()].into())));
    let parts = Parts {
        name: name.clone(),
        rtype: Rtype::A,
        class: Class::IN,
        kind: Kind::Data,
        answers: (0..EXTERNAL_ADDRESSES).map(record).collect(),
        authorities: Vec::new(),
        authentic: false,
        continues: false,
    };
    Entry::new(&parts, Clock::System.now(), TTL).unwrap()
}
