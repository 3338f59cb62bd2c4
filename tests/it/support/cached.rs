//! Made-up answers for the cache, by number: for counting allocations and for benches.

use std::sync::Arc;

use hickory_proto::rr::{Name, RData, Record, rdata::A};
use holdfast::{
    dns::{
        Question,
        cache::{Cache, Entry, Key, Kind, Parts},
    },
    sys::UnixMillis,
    wire::{self, Class, Rtype},
};

/// When every answer was learnt.
pub const LEARNT: UnixMillis = UnixMillis(1_733_941_800_000);

/// A name outside the cluster, in wire form.
pub fn outside_name(nth: u32) -> Vec<u8> {
    let mut wire = vec![13];
    wire.extend(format!("name-{nth:08}").bytes());
    wire.extend(b"\x07example\x03org\0");
    wire
}

/// The question for its addresses.
pub fn key(cache: &Cache, nth: u32) -> Key {
    let name = wire::Name::from_wire(&outside_name(nth)).expect("a name");
    Key::new(cache.route(b"\0"), Question::new(name, Rtype::A).by_ref())
}

/// An answer with two addresses.
pub fn entry(nth: u32) -> Arc<Entry> {
    let name = Name::from_ascii(format!("name-{nth:08}.example.org.")).expect("a name");
    let record = |last| Record::from_rdata(name.clone(), 300, RData::A(A([192, 0, 2, last].into())));
    let parts = Parts {
        answers: vec![record(1), record(2)],
        name,
        rtype: Rtype::A,
        class: Class::IN,
        kind: Kind::Data,
        authorities: Vec::new(),
        authentic: false,
        continues: false,
    };
    Arc::new(Entry::new(&parts, LEARNT, 300).expect("a small answer"))
}
