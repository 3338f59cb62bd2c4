//! Wall clocks that are set forward and back by days: of a node whose answers are cached, and of a hub that stamps records.

use std::{fs, path::Path, time::Duration};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use holdfast::sys::{Clock, ManualClock, UnixMillis};
use proptest::prelude::*;

use crate::{
    forward::world::{World, secs},
    support::{
        fleet::{Home, in_time, until_equal},
        upstream::{Upstream, a},
    },
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

/// A name that failed is asked for again a moment later, also when the clock was ahead at the start and is set right.
#[tokio::test(start_paused = true)]
async fn a_failure_is_remembered_for_its_time_whatever_the_wall_clock_is_set_to() {
    for jump_s in [-8 * 3_600, 8 * 3_600, -400 * 86_400] {
        let upstream = Upstream::start(|asked| vec![asked.code(ResponseCode::ServFail)]).await;
        let world = World::new(&[&upstream]);
        assert!(world.a("www.example").await.starts_with("ServFail"));
        let wall = world.clock.now();
        world.clock.set_wall(UnixMillis(wall.0.saturating_add_signed(jump_s * 1_000)));
        let before = upstream.count();
        assert!(world.a("www.example").await.starts_with("ServFail"));
        assert_eq!(upstream.count(), before, "{jump_s}: remembered");
        upstream.now(|asked| vec![asked.found(vec![a(&asked.name(), 60, [192, 0, 2, 1])])]);
        world.elapse(secs(6)).await;
        assert_eq!(world.a("www.example").await, "NoError 192.0.2.1", "{jump_s}: not remembered for hours");
    }
}

fn services(file: &Path, names: &[&str]) {
    let service = |name: &&str| {
        format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: prod}}, spec: {{clusterIP: 10.96.0.1}}}}\n"
        )
    };
    fs::write(file, names.iter().map(service).collect::<String>()).unwrap();
}

/// A hub whose clock was 400 days ahead loses its store; with a right clock it is followed again.
#[tokio::test]
async fn an_epoch_of_the_far_future_does_not_keep_followers_from_a_hub_with_a_right_clock() {
    let homes: [Home; 3] = std::array::from_fn(|_| Home::new());
    let file = homes[0].path().join("cluster.yaml");
    services(&file, &["web"]);
    let manifests = ["--manifests", file.to_str().unwrap()];
    let ahead = ManualClock::new(Clock::System.now().plus(Duration::from_secs(400 * 86_400)));
    let wrong = homes[0].hub_by(None, &manifests, Clock::Manual(ahead)).await;
    let address = wrong.addresses().stream[0];
    let agent = homes[1].agent(&[&address.to_string()]).await;
    in_time("it follows", until_equal(agent.reader(), wrong.reader())).await;
    assert!(agent.reader().as_of().unwrap() <= Clock::System.now(), "nothing is vouched for after now");
    let future = agent.reader().load().version().epoch;
    wrong.stop().await;

    services(&file, &["web", "late"]);
    let right = homes[2].hub(Some(address), &manifests).await;
    in_time("it follows again", until_equal(agent.reader(), right.reader())).await;
    assert!(agent.reader().load().version().epoch < future);
    assert!(agent.reader().load().service(b"prod", b"late").is_some());
    agent.stop().await;
    right.stop().await;
}
