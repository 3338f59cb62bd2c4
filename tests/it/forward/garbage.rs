//! Answers spoilt at random: whatever comes, the client is told something true to form, and nothing breaks.

use hickory_proto::{op::Message, rr::RecordType};

use super::world::{World, query, zone};
use crate::support::upstream::{Asked, Say, Upstream, a, cname, soa};
use holdfast::dns::{Transport, cache::Lifetimes, forward::ZoneConfig};

const QUESTIONS: u64 = 3_000;

/// A fixed walk that looks random: a failure can be repeated.
struct Walk(u64);

impl Walk {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// The answer to `asked` with a chain, two addresses, and more than was asked for.
fn answer(asked: &Asked) -> Vec<u8> {
    let owner = asked.name();
    let mut reply = Message::from_vec(&asked.found(Vec::new()).bytes()).unwrap();
    reply.answers = vec![
        cname(&owner, 60, "end.example"),
        a("end.example", 60, [192, 0, 2, 1]),
        a("end.example", 60, [192, 0, 2, 2]),
    ];
    reply.authorities = vec![soa("example", 60)];
    reply.additionals = vec![a("ns.example", 60, [192, 0, 2, 53])];
    reply.to_vec().unwrap()
}

/// Spoils `bytes` behind id and flags, the question included now and then.
fn spoil(bytes: &mut Vec<u8>, walk: &mut Walk) {
    let from = if walk.below(8) == 0 { 4 } else { 12 };
    for _ in 0..=walk.below(4) {
        let at = from + walk.below(bytes.len() - from);
        match walk.below(5) {
            0 => bytes[at] ^= 1 << walk.below(8),
            1 => bytes[at] = 0xFF,
            2 => bytes[at] = 0xC0,
            3 => bytes[at] = 0,
            _ => {
                let length = bytes.len();
                bytes.resize(length + walk.below(20), 0xC0);
            }
        }
    }
    if walk.below(4) == 0 {
        bytes.truncate(12 + walk.below(bytes.len() - 12));
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_spoilt_the_client_is_answered_and_nothing_breaks() {
    for tcp in [false, true] {
        let upstream = Upstream::start(|asked| {
            let good = answer(&asked);
            let number: u64 = asked.name().split('.').next().and_then(|label| label[1..].parse().ok()).unwrap_or(0);
            let mut walk = Walk(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
            let mut bad = good.clone();
            spoil(&mut bad, &mut walk);
            vec![Say::Bytes(bad), Say::Bytes(good)]
        })
        .await;
        // Nothing is served from before: each answer is the one to its own question.
        let lifetimes = Lifetimes { serve_stale: false, ..Lifetimes::default() };
        let world = World::with(vec![ZoneConfig { force_tcp: tcp, lifetimes, ..zone(".", &[&upstream]) }]);
        let mut whole = 0;
        for nth in 0..QUESTIONS {
            let owner = format!("n{nth}.example");
            let resolved = world.resolve(query(&owner, RecordType::A, Some(1_232)), Transport::Tcp).await;
            let reply = Message::from_vec(&resolved.message).unwrap_or_else(|error| panic!("{owner}: {error}"));
            assert_eq!(reply.id, 0x4242, "{owner}");
            assert_eq!(reply.queries[0].name().to_ascii(), format!("{owner}."), "{owner}");
            assert!(!reply.authoritative, "{owner}");
            let broke = super::world::ede(&reply) == Some(0);
            assert!(!broke, "{owner}: an exchange broke off: {reply}");
            whole += u64::from(reply.answers.len() == 3);
        }
        assert!(whole * 2 > QUESTIONS, "most are passed over, and the true answer taken: {whole} of {QUESTIONS}");
        let dropped: u64 =
            holdfast::dns::forward::Mismatch::ALL.iter().map(|kind| world.metrics.mismatches(*kind)).sum();
        assert!(dropped * 4 > QUESTIONS, "{dropped} were dropped");
    }
}
