//! The store on disk behind a process's memory: opened, given to a successor, and taken back if that one dies.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use tracing::{error, info, warn};

use crate::{
    store::{
        self,
        disk::{self, DiskStatus, Follower},
    },
    sys::{Clock, Lock, UnixMillis},
};

/// How far records may be ahead of the clock.
const AHEAD_MAX: Duration = Duration::from_secs(86_400);
/// The time the last flush of the store may take. Together with the drain within the 5 s a supervisor is promised.
const FLUSH: Duration = Duration::from_millis(800);

/// A store that was opened and that nothing is written to yet.
pub(in crate::role) struct Opened {
    config: Option<disk::Config>,
    clock: Clock,
    metrics: disk::Metrics,
    disk: Result<disk::Disk, String>,
}

/// A store that follows memory.
#[derive(Debug)]
pub(in crate::role) struct Store {
    config: Option<disk::Config>,
    clock: Clock,
    metrics: disk::Metrics,
    reader: store::Reader,
    follower: Lock<Result<Follower, String>>,
}

impl Opened {
    /// Loads the disk into memory, or notes why the process runs without a disk.
    ///
    /// # Errors
    /// If another process has the store: two would serve different records.
    pub(in crate::role) fn load(
        config: Option<disk::Config>,
        clock: &Clock,
        metrics: disk::Metrics,
        writer: &mut store::Writer,
    ) -> Result<Self, disk::OpenError> {
        let disk = match &config {
            None => Err("store.path is none".into()),
            Some(wanted) => match disk::open(wanted, clock, &metrics) {
                Ok((disk, loaded)) => {
                    if let Some(loaded) = loaded {
                        writer.restore(loaded.snapshot, not_after_tomorrow(loaded.as_of, clock.now()));
                    }
                    Ok(disk)
                }
                Err(error @ disk::OpenError::InUse { .. }) => return Err(error),
                Err(error @ disk::OpenError::NewerFormat { .. }) => {
                    error!(%error, "running without a store: a restart begins with no records");
                    Err(error.to_string())
                }
            },
        };
        Ok(Self { config, clock: clock.clone(), metrics, disk })
    }

    /// Begins to write the records of `reader`.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(in crate::role) fn follow(self, reader: &store::Reader) -> anyhow::Result<Store> {
        let follower = self.disk.map(|disk| disk.follow(reader).context("start the thread of the store"));
        let follower = match follower {
            Ok(started) => Ok(started?),
            Err(reason) => Err(reason),
        };
        let Self { config, clock, metrics, .. } = self;
        Ok(Store { config, clock, metrics, reader: reader.clone(), follower: Lock::new(follower) })
    }
}

impl Store {
    pub(in crate::role) fn status(&self) -> DiskStatus {
        match &*self.follower.lock() {
            Ok(follower) => follower.status(),
            Err(reason) => DiskStatus::off(reason),
        }
    }

    /// Where it is; `None` if there is none.
    pub(in crate::role) fn path(&self) -> Option<&Path> {
        self.config.as_ref().map(|config| config.path.as_path())
    }

    /// Writes the records in memory, as far as time allows, and closes the store.
    pub(in crate::role) async fn release(&self) {
        let follower = self.follower.lock().clone();
        let Ok(follower) = follower else { return };
        match follower.release(FLUSH).await {
            // A successor has it.
            Ok(()) | Err(disk::FlushError::Released) => {}
            Err(error) => warn!(%error, "the last write to the store failed: a restart begins with older records"),
        }
    }

    /// Takes the store back, unless another process has it. True if it is ours then.
    pub(in crate::role) fn take_back(&self) -> bool {
        let Some(config) = &self.config else { return false };
        let opened = disk::open(config, &self.clock, &self.metrics);
        let Ok((disk, _)) = opened else { return false };
        match disk.follow(&self.reader) {
            Ok(follower) => {
                info!(path = %config.path.display(), "the new process died; this one took the store back");
                *self.follower.lock() = Ok(follower);
                true
            }
            Err(error) => {
                error!(%error, "the store is not written any more: a restart begins with older records");
                false
            }
        }
    }
}

/// A time of the store as it is, or `now` if it is more than a day ahead: a clock was or is wrong, and the age would be 0 until then.
fn not_after_tomorrow(as_of: UnixMillis, now: UnixMillis) -> UnixMillis {
    if as_of <= now.plus(AHEAD_MAX) {
        return as_of;
    }
    warn!(%as_of, "the records in the store are more than a day in the future: a clock was wrong; their age counts from now");
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_from_the_future_is_as_old_as_this_moment() {
        let now = UnixMillis(1_700_000_000_000);
        let (hour, year) = (Duration::from_secs(3_600), Duration::from_secs(365 * 86_400));
        assert_eq!(not_after_tomorrow(now.plus(hour), now), now.plus(hour), "clocks differ");
        assert_eq!(not_after_tomorrow(now.plus(year), now), now);
    }
}
