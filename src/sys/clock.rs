//! Wall-clock time, which records carry, and steady time for lifetimes. Pure modules never read either: they
//! are handed a [`UnixMillis`].
#![allow(unsafe_code)]

use std::{
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds ignored as POSIX does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// How long before `now` this was; zero if it lies ahead (a clock that was set back must not make data look stale).
    pub fn age(self, now: Self) -> Duration {
        Duration::from_millis(now.0.saturating_sub(self.0))
    }

    /// Moved by `by` milliseconds, at most to either end of the range.
    #[must_use]
    pub fn moved_ms(self, by: i64) -> Self {
        Self(self.0.saturating_add_signed(by))
    }

    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for UnixMillis {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant = i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        match instant {
            Some(instant) => write!(f, "{instant:.3}"),
            None => write!(f, "{} ms after 1970", self.0),
        }
    }
}

/// The source of time: the system, or a test that sets it by hand.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    #[default]
    System,
    /// A clock that moves only by [`ManualClock::advance`].
    Manual(ManualClock),
}

impl Clock {
    pub fn now(&self) -> UnixMillis {
        match self {
            Self::System => wall(),
            Self::Manual(clock) => clock.now(),
        }
    }

    /// A time that begins with the wall clock's and then goes on steadily, whatever the wall clock is set to. For everything that
    /// lives for so long; never stored nor shown.
    pub fn steady(&self) -> UnixMillis {
        match self {
            Self::System => {
                static START: LazyLock<(u64, u64)> = LazyLock::new(|| (wall().0, since_boot_ms()));
                let (wall, since_boot) = *START;
                UnixMillis(wall.saturating_add(since_boot_ms().saturating_sub(since_boot)))
            }
            Self::Manual(clock) => clock.steady(),
        }
    }

    /// How far the wall clock is ahead of the steady time, in milliseconds: to be added to a steady time that is stored or shown.
    pub fn wall_ahead_ms(&self) -> i64 {
        self.now().0.cast_signed().saturating_sub(self.steady().0.cast_signed())
    }
}

fn wall() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMillis(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

/// Time since the machine started, that of its sleep included.
fn since_boot_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is initialised and outlives the call; every Linux since 2.6.39 has the clock.
    let _ = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    u64::try_from(time.tv_sec * 1_000 + time.tv_nsec / 1_000_000).unwrap_or(0)
}

/// A clock set by hand. Clones share the time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<ManualTimes>);

#[derive(Debug)]
struct ManualTimes {
    wall: AtomicU64,
    steady: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `at`.
    pub fn new(at: UnixMillis) -> Self {
        Self(Arc::new(ManualTimes { wall: AtomicU64::new(at.0), steady: AtomicU64::new(at.0) }))
    }

    /// The time it stands at.
    pub fn now(&self) -> UnixMillis {
        UnixMillis(self.0.wall.load(Ordering::Relaxed))
    }

    /// The steady time.
    pub fn steady(&self) -> UnixMillis {
        UnixMillis(self.0.steady.load(Ordering::Relaxed))
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.0.wall.fetch_add(by, Ordering::Relaxed);
        self.0.steady.fetch_add(by, Ordering::Relaxed);
    }

    /// Sets the wall clock, as an operator or NTP does. No time passes.
    pub fn set_wall(&self, at: UnixMillis) {
        self.0.wall.store(at.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_never_negative() {
        assert_eq!(UnixMillis(5_000).age(UnixMillis(2_000)), Duration::ZERO);
        assert_eq!(UnixMillis(2_000).age(UnixMillis(5_000)), Duration::from_secs(3));
    }

    #[test]
    fn shows_as_rfc_3339() {
        assert_eq!(UnixMillis(1_733_941_800_250).to_string(), "2024-12-11T18:30:00.250Z");
        assert_eq!(UnixMillis(u64::MAX).to_string(), format!("{} ms after 1970", u64::MAX));
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let manual = ManualClock::new(UnixMillis(10));
        let clock = Clock::Manual(manual.clone());
        assert_eq!(clock.now(), UnixMillis(10));
        manual.advance(Duration::from_secs(2));
        assert_eq!((clock.now(), clock.steady()), (UnixMillis(2_010), UnixMillis(2_010)));
    }

    #[test]
    fn the_steady_time_goes_on_when_the_wall_clock_is_set() {
        let manual = ManualClock::new(UnixMillis(1_000_000));
        let clock = Clock::Manual(manual.clone());
        manual.set_wall(UnixMillis(400_000));
        manual.advance(Duration::from_secs(1));
        assert_eq!((clock.now(), clock.steady()), (UnixMillis(401_000), UnixMillis(1_001_000)));
        assert_eq!(clock.steady().moved_ms(clock.wall_ahead_ms()), clock.now());
        let system = Clock::System;
        let (before, after) = (system.steady(), system.steady());
        assert!(before <= after && system.wall_ahead_ms().abs() < 60_000);
    }
}
