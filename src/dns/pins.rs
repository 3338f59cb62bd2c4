//! Names that an operator pinned to addresses, for the time that the records or an upstream are wrong.
//!
//! Owns the pins in memory and their file beside the records. Never decides what else a name answers, and never forgets a
//! pin that is in effect because the disk is broken.

use std::{
    collections::HashMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::{ArcSwap, Guard};
use prometheus::{IntGauge, Registry};
use serde::{Deserialize, Serialize};
use tracing::error;

use crate::{
    sys::{ASIDE_MAX, Clock, Lock, Registrar, UnixMillis, put_file, set_aside},
    wire::Name,
};

/// The most names that can be pinned: pins are for an hour of need, not a second source of records.
pub const PINS_MAX: usize = 1000;
/// The most addresses of one pin; as A or AAAA they fit a UDP answer.
pub const ADDRESSES_MAX: usize = 32;
/// The longest TTL of a pin, in seconds: an `unpin` is to be seen while people watch.
pub const TTL_MAX: u32 = 300;

/// The file's name in the directory of the store.
const FILE: &str = "pins.json";

/// The pin of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The name, in lower case and with its final dot.
    pub name: String,
    /// The addresses of A and AAAA answers; a family without an address answers NODATA.
    pub addresses: Vec<IpAddr>,
    /// TTL of the answers, in seconds.
    pub ttl: u32,
    pub since: UnixMillis,
    /// When the pin ends by itself; `None` for never.
    pub until: Option<UnixMillis>,
    /// The reason that the operator gave.
    pub reason: Option<String>,
}

impl Pin {
    /// Whether it is in effect.
    pub fn holds(&self, now: UnixMillis) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Why a pin was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PinError {
    /// The name cannot be asked for.
    #[error("{0:?} is no name: {1}")]
    Name(String, crate::wire::NameError),
    /// No address, or more than an answer holds.
    #[error("{0} addresses: a pin has 1 to {ADDRESSES_MAX}")]
    Addresses(usize),
    /// A TTL that would outlive the pin.
    #[error("TTL {0} s: the TTL of a pin is 0 to {TTL_MAX} s")]
    Ttl(u32),
    #[error("{PINS_MAX} names are pinned already: unpin one first")]
    Full,
}

/// The pins of one moment.
#[derive(Clone, Debug, Default)]
pub struct PinSet(HashMap<Box<[u8]>, Pin>);

impl PinSet {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pin of a name, if it is in effect.
    pub fn get(&self, name: &Name, now: UnixMillis) -> Option<&Pin> {
        self.0.get(name.wire()).filter(|pin| pin.holds(now))
    }

    /// Every pin in effect, by name.
    pub fn list(&self, now: UnixMillis) -> Vec<Pin> {
        let mut pins: Vec<Pin> = self.0.values().filter(|pin| pin.holds(now)).cloned().collect();
        pins.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        pins
    }

    /// Reads what [`read`] and the tools find.
    fn of(pins: Vec<Pin>) -> Result<Self, PinError> {
        pins.into_iter().map(|pin| Ok((name_of(&pin.name)?.wire().into(), pin))).collect::<Result<_, _>>().map(Self)
    }
}

/// The name that a person wrote, in the form of questions.
///
/// # Errors
/// If it is no name.
pub fn name_of(text: &str) -> Result<Name, PinError> {
    let whole = text.trim().trim_end_matches('.').to_ascii_lowercase();
    Name::from_labels(whole.split('.').map(str::as_bytes)).map_err(|error| PinError::Name(text.to_owned(), error))
}

/// The pins of a process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Pins(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    set: ArcSwap<PinSet>,
    file: Option<PathBuf>,
    /// Held while pins change, so that file and memory agree.
    changing: Lock<()>,
}

/// The result of a change: it is in effect, and this is why a restart may lose it.
pub type Saved = Result<(), String>;

impl Pins {
    /// Takes the pins from the store's directory, or keeps them in memory alone if there is none. A file that cannot be
    /// read is set aside, and says so: answers matter more than pins.
    pub fn open(dir: Option<&Path>, now: UnixMillis) -> Self {
        let file = dir.map(|dir| dir.join(FILE));
        let set = file.as_deref().map_or_else(PinSet::default, |file| {
            load(file).unwrap_or_else(|error| {
                let kept = match set_aside(file, now) {
                    Ok(Some(aside)) => format!("kept as {}", aside.display()),
                    Ok(None) => format!("{ASIDE_MAX} like it are kept already, so the next pin overwrites it"),
                    Err(error) => format!("not set aside: {error}"),
                };
                error!(%error, file = %file.display(), kept, "pins not read, none in effect");
                PinSet::default()
            })
        });
        Self(Arc::new(Inner { set: ArcSwap::from_pointee(set), file, changing: Lock::default() }))
    }

    /// Registers `holdfast_pins`, which counts the pins in effect when it is scraped.
    ///
    /// # Errors
    /// If the name is taken in `registry`.
    pub fn register_metrics(&self, registry: &Registry, clock: &Clock) -> Result<(), prometheus::Error> {
        let gauge = IntGauge::new("holdfast_pins", "Names pinned by an operator: they answer the pinned addresses.")?;
        let (pins, clock) = (self.clone(), clock.clone());
        Registrar(registry).refreshed(gauge, move |gauge| {
            let in_effect = pins.load().list(clock.now()).len();
            gauge.set(i64::try_from(in_effect).unwrap_or(i64::MAX));
        })
    }

    /// The pins at present. Not to be kept across a wait.
    pub fn load(&self) -> Guard<Arc<PinSet>> {
        self.0.set.load()
    }

    /// Whether a name is pinned.
    pub fn is_pinned(&self, name: &str, now: UnixMillis) -> bool {
        name_of(name).is_ok_and(|name| self.load().get(&name, now).is_some())
    }

    /// Pins a name; one that was pinned already changes.
    ///
    /// # Errors
    /// If the pin cannot be: then nothing changed.
    pub fn pin(&self, pin: Pin, now: UnixMillis) -> Result<Saved, PinError> {
        let name = name_of(&pin.name)?;
        if pin.addresses.is_empty() || pin.addresses.len() > ADDRESSES_MAX {
            return Err(PinError::Addresses(pin.addresses.len()));
        }
        if pin.ttl > TTL_MAX {
            return Err(PinError::Ttl(pin.ttl));
        }
        self.change(now, |set| {
            if set.len() >= PINS_MAX && !set.contains_key(name.wire()) {
                return Err(PinError::Full);
            }
            set.insert(name.wire().into(), Pin { name: name.to_string(), ..pin });
            Ok(())
        })
        .map(|((), kept)| kept)
    }

    /// Unpins a name, or all of them. Returns how many there were.
    ///
    /// # Errors
    /// If it is no name.
    pub fn unpin(&self, name: Option<&str>, now: UnixMillis) -> Result<(usize, Saved), PinError> {
        let name = name.map(name_of).transpose()?;
        self.change(now, |set| {
            let before = set.len();
            match &name {
                Some(name) => drop(set.remove(name.wire())),
                None => set.clear(),
            }
            Ok(before - set.len())
        })
    }

    /// Changes the pins in memory and then on disk; the ones that ended are dropped on the way.
    fn change<T>(
        &self,
        now: UnixMillis,
        change: impl FnOnce(&mut HashMap<Box<[u8]>, Pin>) -> Result<T, PinError>,
    ) -> Result<(T, Saved), PinError> {
        let _alone = self.0.changing.lock();
        let mut set = PinSet::clone(&self.0.set.load());
        set.0.retain(|_, pin| pin.holds(now));
        let changed = change(&mut set.0)?;
        let pins = set.list(now);
        self.0.set.store(Arc::new(set));
        let kept = match &self.0.file {
            Some(file) => save(file, &pins).map_err(|error| format!("{}: {error}", file.display())),
            None => Err("store.path is none".into()),
        };
        Ok((changed, kept))
    }
}

/// The pins in a store's directory, for tools that look at it without a process.
///
/// # Errors
/// The system's, or that the file is no list of pins.
pub fn read(dir: &Path) -> io::Result<PinSet> {
    load(&dir.join(FILE))
}

fn load(file: &Path) -> io::Result<PinSet> {
    let text = match fs::read(file) {
        Ok(text) => text,
        // The second where the store is a file, which others complain of.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(PinSet::default());
        }
        Err(error) => return Err(error),
    };
    let pins: Vec<Pin> = serde_json::from_slice(&text).map_err(io::Error::other)?;
    PinSet::of(pins).map_err(io::Error::other)
}

fn save(file: &Path, pins: &[Pin]) -> io::Result<()> {
    put_file(file, &serde_json::to_vec_pretty(pins).map_err(io::Error::other)?, 0o640)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn pin(name: &str, addresses: &[&str]) -> Pin {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Pin { name: name.into(), addresses, ttl: 5, since: NOW, until: None, reason: Some("broken".into()) }
    }

    fn name(text: &str) -> Name {
        name_of(text).unwrap()
    }

    #[test]
    fn pins_are_there_after_a_restart_and_gone_when_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::open(Some(dir.path()), NOW);
        pins.pin(pin("DB.prod.svc.cluster.local", &["10.0.0.1", "fd00::1"]), NOW).unwrap().unwrap();
        pins.pin(pin("db.example.com.", &["10.0.0.2"]), NOW).unwrap().unwrap();
        let again = Pins::open(Some(dir.path()), NOW);
        let expected = ["db.example.com.", "db.prod.svc.cluster.local."];
        assert_eq!(again.load().list(NOW).iter().map(|pin| &*pin.name).collect::<Vec<_>>(), expected);
        assert_eq!(again.load().get(&name("db.prod.svc.cluster.local"), NOW).unwrap().addresses.len(), 2);
        assert_eq!(again.unpin(Some("db.PROD.svc.cluster.local"), NOW).unwrap().0, 1);
        assert_eq!(again.unpin(Some("db.prod.svc.cluster.local"), NOW).unwrap().0, 0);
        assert_eq!(read(dir.path()).unwrap().list(NOW).len(), 1);
        assert_eq!(again.unpin(None, NOW).unwrap().0, 1);
        assert!(Pins::open(Some(dir.path()), NOW).load().is_empty());
    }

    #[test]
    fn a_pin_ends_when_its_time_is_over() {
        let pins = Pins::open(None, NOW);
        let kept = pins.pin(Pin { until: Some(UnixMillis(NOW.0 + 10)), ..pin("a.b", &["::1"]) }, NOW).unwrap();
        assert_eq!(kept.unwrap_err(), "store.path is none");
        assert!(pins.load().get(&name("a.b"), UnixMillis(NOW.0 + 9)).is_some());
        assert!(pins.load().get(&name("a.b"), UnixMillis(NOW.0 + 10)).is_none());
        assert!(pins.load().list(UnixMillis(NOW.0 + 10)).is_empty());
    }

    #[test]
    fn what_cannot_be_pinned_changes_nothing_and_says_why() {
        let pins = Pins::open(None, NOW);
        let long = "a".repeat(64);
        for (wrong, text) in [
            (pin(&long, &["::1"]), "is no name"),
            (pin("a", &[]), "0 addresses: a pin has 1 to 32"),
            (Pin { ttl: 301, ..pin("a", &["::1"]) }, "TTL 301 s"),
        ] {
            let error = pins.pin(wrong, NOW).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        assert!(pins.load().is_empty());
        for number in 0..PINS_MAX {
            let _ = pins.pin(pin(&format!("n{number}.test"), &["::1"]), NOW).unwrap();
        }
        assert_eq!(pins.pin(pin("one-more.test", &["::1"]), NOW).unwrap_err(), PinError::Full);
        let _ = pins.pin(pin("n7.test", &["::2"]), NOW).unwrap();
    }

    #[test]
    fn a_broken_file_is_set_aside_and_a_disk_that_fails_costs_no_pin() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..=ASIDE_MAX {
            fs::write(dir.path().join(FILE), format!("{{not pins {n}")).unwrap();
            assert!(Pins::open(Some(dir.path()), NOW).load().is_empty());
        }
        let first = dir.path().join("pins.json.corrupt-19700101T001640.000Z");
        assert_eq!(fs::read_to_string(first).unwrap(), "{not pins 0");
        assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), "{not pins 8", "one too many stays");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), ASIDE_MAX + 1);
        let pins = Pins::open(Some(dir.path()), NOW);
        pins.pin(pin("a.b", &["::1"]), NOW).unwrap().unwrap();
        assert_eq!(read(dir.path()).unwrap().list(NOW).len(), 1, "and is overwritten");

        let gone = Pins::open(Some(&dir.path().join("missing")), NOW);
        let kept = gone.pin(pin("a.b", &["::1"]), NOW).unwrap();
        assert!(kept.unwrap_err().contains("No such file"));
        assert!(gone.load().get(&name("a.b"), NOW).is_some(), "in effect all the same");
    }
}
