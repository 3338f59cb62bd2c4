//! A wall clock that is set forward and back by days while answers are cached.

use std::time::Duration;

use holdfast::sys::UnixMillis;
use proptest::prelude::*;

use crate::{
    forward::world::{World, secs},
    support::upstream::Upstream,
};

const TTL: u32 = 60;

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the wall clock says, an answer is asked for again when its TTL is over, and not before.
    #[test]
    fn an_answer_lives_for_its_ttl_whatever_the_wall_clock_is_set_to(
        steps in prop::collection::vec((-10_i64 * 86_400..10 * 86_400, 1_u64..40), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let upstream = Upstream::with_a(TTL, [192, 0, 2, 1]).await;
            let world = World::new(&[&upstream]);
            assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
            let (mut age, mut asked) = (Duration::ZERO, upstream.count());
            for (jump_s, pass_s) in steps {
                let wall = world.clock.now();
                world.clock.set_wall(UnixMillis(wall.0.saturating_add_signed(jump_s * 1_000)));
                world.elapse(secs(pass_s)).await;
                age += secs(pass_s);
                let reply = world.ask("www.example", hickory_proto::rr::RecordType::A).await;
                let left = reply.answers[0].ttl;
                if upstream.count() > asked {
                    // A prefetch may come in the last part of the life of a popular answer.
                    assert!(age >= secs(u64::from(TTL) * 3 / 4), "asked again after {age:?}");
                    (age, asked) = (Duration::ZERO, upstream.count());
                } else {
                    assert!(age <= secs(u64::from(TTL)), "kept for {age:?}");
                    assert_eq!(u64::from(left), u64::from(TTL) - age.as_secs(), "what is left");
                }
            }
        });
    }
}
