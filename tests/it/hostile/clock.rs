//! A wall clock that is set forward and back by days while answers are cached.

use std::time::Duration;

use hickory_proto::rr::RecordType;
use holdfast::sys::UnixMillis;
use proptest::prelude::*;

use crate::{
    forward::world::{World, secs},
    support::upstream::Upstream,
};

const TTL: Duration = Duration::from_secs(60);

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the wall clock says, an answer is asked for again when its TTL is over, and not before.
    #[test]
    fn an_answer_lives_for_its_ttl_whatever_the_wall_clock_is_set_to(
        steps in prop::collection::vec((-10_i64 * 86_400..10 * 86_400, 1_u64..40), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
            let world = World::new(&[&upstream]);
            assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
            // Answers of the upstream that are known to be in the cache, or to have been there.
            let (mut age, mut stored) = (Duration::ZERO, 1);
            for (jump_s, pass_s) in steps {
                let wall = world.clock.now();
                world.clock.set_wall(UnixMillis(wall.0.saturating_add_signed(jump_s * 1_000)));
                world.elapse(secs(pass_s)).await;
                age += secs(pass_s);
                let reply = world.ask("www.example", RecordType::A).await;
                let left = secs(reply.answers[0].ttl.into());
                if Some(left) == TTL.checked_sub(age) {
                    continue;
                }
                // A prefetch may come in the last part of the life of a popular answer.
                assert!(age >= TTL * 3 / 4, "asked again after {age:?}");
                assert!(upstream.count() > stored, "after {age:?} there are {left:?} left, and it was not asked");
                assert!(left <= TTL, "{left:?}");
                (age, stored) = (TTL.saturating_sub(left), stored + 1);
            }
        });
    }
}
