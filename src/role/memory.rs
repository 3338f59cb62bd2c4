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

/// Resident bytes beyond which free pages are worth giving back.
struct Watermark(u64);

impl Watermark {
    fn is_passed(&mut self, resident: u64) -> bool {
        self.0 = self.0.min(resident);
        resident >= self.0 + GROWTH
    }
}

/// Gives free pages back whenever the process has grown, until dropped. It costs a look every 5 s otherwise. For the process as a
/// whole: to be run once in it.
pub async fn give_back(memory: ResidentMemory) {
    let mut watermark = Watermark(u64::MAX);
    loop {
        time::sleep(LOOK_EVERY).await;
        let Some(resident) = memory.bytes() else { return };
        if !watermark.is_passed(resident) {
            continue;
        }
        // A panic ends the process, so this cannot fail but at the end of the runtime.
        if task::spawn_blocking(give_free_pages_back).await.is_err() {
            return;
        }
        watermark = Watermark(memory.bytes().unwrap_or(resident));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_counted_from_the_least_there_was() {
        let mut watermark = Watermark(u64::MAX);
        let looks = [
            (30 << 20, false),
            ((34 << 20) - 1, false),
            (34 << 20, true),
            // Had nothing been given back, it would be asked for again.
            (34 << 20, true),
            (20 << 20, false),
            (24 << 20, true),
        ];
        for (resident, passed) in looks {
            assert_eq!(watermark.is_passed(resident), passed, "{resident}");
        }
    }
}
