//! Memory that the heap has free and the system does not: it goes back.
//!
//! glibc keeps what a burst of small blocks took: after each attack of `benches/soak` the agent had up to 40 MiB of free pages
//! resident, and the hub 26 MiB (docs/decisions/allocator.md).

use std::time::Duration;

use tokio::{task, time};

use crate::sys::{ResidentMemory, give_free_pages_back};

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Growth that is worth the milliseconds.
const GROWTH: u64 = 4 << 20;
/// Of which a call must give back so much to be worth another soon.
const WORTH: u64 = 1 << 20;
/// Looks between two calls that gave nothing back, at most: 5 min.
const WAIT_MAX: u32 = 60;

/// When free pages are worth giving back: at each growth, and again after it, since what an attack takes is free only when it ends.
struct Due {
    /// Resident bytes: the least there were, and those at the last call.
    least: u64,
    last: u64,
    /// Looks since the last call, and those to wait for.
    looks: u32,
    wait: u32,
}

impl Due {
    const fn new() -> Self {
        Self { least: u64::MAX, last: u64::MAX, looks: 0, wait: 1 }
    }

    fn is_now(&mut self, resident: u64) -> bool {
        self.least = self.least.min(resident);
        self.last = self.last.min(resident);
        self.looks += 1;
        if resident >= self.last + GROWTH {
            self.wait = 1;
            return true;
        }
        resident >= self.least + GROWTH && self.looks >= self.wait
    }

    fn called(&mut self, before: u64, after: u64) {
        self.wait = if before.saturating_sub(after) >= WORTH { 1 } else { (self.wait * 2).min(WAIT_MAX) };
        (self.last, self.looks) = (after, 0);
    }
}

/// Gives free pages back when the process has grown, until dropped. It costs a look every 5 s otherwise. For the process as a
/// whole: to be run once in it.
pub async fn give_back(memory: ResidentMemory) {
    let mut due = Due::new();
    loop {
        time::sleep(LOOK_EVERY).await;
        let Some(resident) = memory.bytes() else { return };
        if !due.is_now(resident) {
            continue;
        }
        // A panic ends the process, so this cannot fail but at the end of the runtime.
        if task::spawn_blocking(give_free_pages_back).await.is_err() {
            return;
        }
        due.called(resident, memory.bytes().unwrap_or(resident));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Whether there is a call at each look at so many MiB, of which the first is the MiB before it and the second those after it.
    fn calls(looks: &[(u64, u64)]) -> Vec<bool> {
        let mut due = Due::new();
        let call = |&(before, after): &(u64, u64)| {
            let now = due.is_now(before * MIB);
            if now {
                due.called(before * MIB, after * MIB);
            }
            now
        };
        looks.iter().map(call).collect()
    }

    #[test]
    fn little_growth_is_no_reason() {
        assert_eq!(calls(&[(30, 30), (33, 33), (30, 30), (33, 33)]), [false; 4]);
    }

    #[test]
    fn pages_that_are_free_only_after_the_growth_are_given_back() {
        let looks = [(30, 30), (50, 50), (50, 50), (50, 32), (32, 32)];
        assert_eq!(calls(&looks), [false, true, false, true, false]);
    }

    #[test]
    fn calls_that_give_nothing_back_become_rare() {
        let looks = vec![(30, 30); 1].into_iter().chain(vec![(60, 60); 1_000]).collect::<Vec<_>>();
        let called = calls(&looks).into_iter().filter(|&called| called).count();
        assert!((16..=24).contains(&called), "{called}");
    }
}
