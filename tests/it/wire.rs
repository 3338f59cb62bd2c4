//! The wire format against hickory-proto, on messages drawn at random. `fuzz/` goes on where these stop.

use holdfast::wire;
use proptest::{collection::vec, prelude::*};

use crate::support::oracle::{Choices, check_query, check_reader, check_response, query};

/// Regressions become test cases of their own, so there is no file of seeds to keep.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// A way to damage a message.
#[derive(Clone, Debug)]
enum Damage {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Copy(prop::sample::Index, prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let byte = prop_oneof![any::<u8>(), Just(0), Just(0xC0), Just(12), Just(41), Just(63), Just(64)];
    prop_oneof![
        4 => (any::<prop::sample::Index>(), byte).prop_map(|(at, byte)| Damage::Set(at, byte)),
        1 => any::<prop::sample::Index>().prop_map(Damage::Cut),
        1 => (any::<prop::sample::Index>(), vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(|(at, from)| Damage::Copy(at, from)),
    ]
}

fn apply(message: &mut Vec<u8>, damage: Damage) {
    if message.is_empty() {
        return;
    }
    match damage {
        Damage::Set(at, byte) => {
            let at = at.index(message.len());
            message[at] = byte;
        }
        Damage::Cut(at) => message.truncate(at.index(message.len())),
        Damage::Insert(at, bytes) => {
            let at = at.index(message.len());
            message.splice(at..at, bytes);
        }
        Damage::Copy(at, from) => {
            let (at, from) = (at.index(message.len()), from.index(message.len()));
            let tail = message[from..].to_vec();
            message.splice(at..at, tail);
        }
    }
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn a_query_is_read_as_hickory_reads_it(choices in vec(any::<u8>(), 0..300)) {
        let message = query(&mut Choices::new(&choices));
        check_query(&message);
    }

    #[test]
    fn messages_that_hickory_rejects_are_never_answered(
        choices in vec(any::<u8>(), 0..200),
        damage in vec(damage(), 1..4),
    ) {
        let mut message = query(&mut Choices::new(&choices));
        for damage in damage {
            apply(&mut message, damage);
        }
        check_query(&message);
    }

    #[test]
    fn any_bytes_are_a_query_or_refused_or_dropped(bytes in vec(any::<u8>(), 0..600)) {
        check_query(&bytes);
    }

    #[test]
    fn names_are_read_as_they_are_shown(labels in vec(vec(any::<u8>(), 1..20), 0..12)) {
        let name = wire::Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
        prop_assert_eq!(name.to_string().parse(), Ok(name));
    }
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn hickory_reads_our_messages_as_the_same(choices in vec(any::<u8>(), 0..3_000)) {
        check_response(&mut Choices::new(&choices));
    }

    #[test]
    fn damaged_responses_are_read_as_hickory_reads_them(
        choices in vec(any::<u8>(), 0..200),
        damage in vec(damage(), 0..4),
    ) {
        let mut message = query(&mut Choices::new(&choices));
        message[2] |= 0x80;
        for damage in damage {
            apply(&mut message, damage);
        }
        check_reader(&message);
    }
}
