//! Two hubs and an agent that are to serve and hold the same.

use std::time::{Duration, Instant};

use holdfast::{
    role::{agent::Agent, hub::Hub},
    store::Reader,
};

use crate::support::{
    fleet::{Home, beside, in_time, until, until_equal},
    process::run,
};

/// A leader, a hub that follows it, and an agent of that one, in the first three homes.
pub struct Trio {
    pub leader: Hub,
    pub second: Hub,
    pub agent: Agent,
}

impl Trio {
    fn readers(&self) -> [&Reader; 3] {
        [self.leader.reader(), self.second.reader(), self.agent.reader()]
    }

    /// Waits until every process serves and holds so many services, and their records are the same to `diff`; how long that took
    /// without the tools.
    pub async fn all_serve(&self, homes: &[Home], what: &str, services: usize, held: usize) -> Duration {
        let begun = Instant::now();
        for reader in self.readers() {
            let so = |reader: &Reader| {
                let counts = reader.held().counts();
                (reader.load().counts().services, counts.services) == (services, held)
            };
            until(what, reader, so).await;
        }
        for reader in &self.readers()[1..] {
            in_time(what, until_equal(reader, self.leader.reader())).await;
            assert_eq!(reader.held().digest(), self.leader.reader().held().digest(), "{what}");
        }
        let took = begun.elapsed();
        for other in 1..3 {
            let pair = [0, other].map(|n: usize| homes[n].socket().to_str().unwrap().to_owned());
            let output = beside(move || run(&["diff", &pair[0], &pair[1]])).await;
            assert_eq!(output.status.code(), Some(0), "{what}: {}", String::from_utf8_lossy(&output.stdout));
        }
        for home in &homes[..3] {
            let (told, code) = home.tool(&["guard"]).await;
            let told_held = told["held"]["counts"]["services"].as_u64();
            assert_eq!((told_held, code), (Some(held as u64), i32::from(held > 0)), "{what}: {told:#}");
        }
        took
    }

    pub async fn stop(self) {
        Box::pin(self.agent.stop()).await;
        Box::pin(self.second.stop()).await;
        Box::pin(self.leader.stop()).await;
    }
}
