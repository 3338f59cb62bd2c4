//! The cache on disk: one compressed file, written beside the old one and renamed, so that there is always a whole file.
//!
//! Knows the format and its limits. Everything in the file is checked when read: a broken one is set aside, never half used.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use xxhash_rust::xxh3::Xxh3;

use super::{
    entry::{Entry, Kind},
    key::{Key, split},
    memory::Cache,
    protected::{Hold, Reason},
};
use crate::sys::{ASIDE_MAX, Lock, UnixMillis, set_aside};

/// Name and version of the format.
const MAGIC: &[u8; 8] = b"hfcache3";
/// The version before, without upstreams that deny too many names.
const MAGIC_2: &[u8; 8] = b"hfcache2";
/// The first version, without holds.
const MAGIC_1: &[u8; 8] = b"hfcache1";
/// zstd's fastest regular level: the file is written every minute.
const LEVEL: i32 = 1;
/// No cache is larger (`cache.max_bytes`): a bomb ends here.
const READ_BYTES_MAX: u64 = 64 << 30;
/// Extension of files being written, before a random number.
const BESIDE: &str = "tmp";
/// No save takes this long: the process that wrote it is gone.
const LEFT_BEHIND_AFTER: Duration = Duration::from_secs(600);
/// Answers between two looks at whether to go on.
const LOOK_UP_EVERY: u64 = 256;
/// Longer keys and messages are none.
const KEY_BYTES_MAX: usize = 512;
const END: u16 = u16::MAX;

/// The reason that a cache file is refused.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// Not ours, of another version, cut short or changed.
    #[error("{}: {reason}; {}", path.display(), told(aside.as_deref()))]
    Corrupt {
        path: PathBuf,
        /// The part that does not fit.
        reason: String,
        /// Where it is now; `None` if it stays, for as many as are kept are there already, and the next save takes its place.
        aside: Option<PathBuf>,
    },
    /// Another save has come first.
    #[error("given up for another save")]
    GivenUp,
}

fn told(aside: Option<&Path>) -> String {
    let stays = || format!("{ASIDE_MAX} like it are set aside already, move them away; this one will be overwritten");
    aside.map_or_else(stays, |aside| format!("set aside as {}", aside.display()))
}

/// Writes every answer in `cache` to `path`. Returns how many. `wall_ahead_ms` makes a time of the wall clock of one of the cache.
///
/// # Errors
/// The system's; the previous file is then still there.
pub fn save(cache: &Cache, path: &Path, wall_ahead_ms: i64) -> Result<u64, PersistError> {
    save_unless(cache, path, wall_ahead_ms, &Lock::new(0), 0)
}

/// [`save`], unless an urgent save begins: `urgent` counts those, and was `before`.
///
/// # Errors
/// As there, and that it was given up.
pub fn save_unless(
    cache: &Cache,
    path: &Path,
    wall_ahead_ms: i64,
    urgent: &Lock<u64>,
    before: u64,
) -> Result<u64, PersistError> {
    let urgent = || urgent.lock();
    // Two processes may save at once while one hands over to the other.
    let beside = path.with_extension(format!("{BESIDE}-{:08x}", rand::random::<u32>()));
    let write = || -> io::Result<Option<u64>> {
        // The names asked for are private: only the daemon's user reads the file.
        let file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
        let encoder = zstd::Encoder::new(BufWriter::new(file), LEVEL)?;
        let mut out = Summed { inner: encoder, sum: Xxh3::new() };
        let Some(count) = write_all(cache, &mut out, wall_ahead_ms, || *urgent() == before)? else { return Ok(None) };
        let sum = out.sum.digest();
        out.inner.write_all(&sum.to_be_bytes())?;
        let file = out.inner.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        // Held, so that what is older is never put in the place of what is newer.
        let urgent = urgent();
        if *urgent != before {
            return Ok(None);
        }
        fs::rename(&beside, path)?;
        Ok(Some(count))
    };
    let saved = match write() {
        Ok(Some(count)) => return Ok(count),
        Ok(None) => PersistError::GivenUp,
        Err(source) => PersistError::Io { path: path.to_owned(), source },
    };
    // A full disk is not to be left fuller.
    let _ = fs::remove_file(&beside);
    Err(saved)
}

/// Removes what processes killed while saving left beside `path`.
fn sweep(path: &Path) {
    let (Some(folder), Some(stem)) = (path.parent(), path.file_stem()) else { return };
    let begin = [stem.as_encoded_bytes(), b".", BESIDE.as_bytes(), b"-"].concat();
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        let ours = file.file_name().as_encoded_bytes().starts_with(&begin);
        let age = || file.metadata().ok().and_then(|metadata| metadata.modified().ok()?.elapsed().ok());
        if ours && age().is_some_and(|age| age >= LEFT_BEHIND_AFTER) {
            let _ = fs::remove_file(file.path());
        }
    }
}

/// Reads `path` into `cache`, at `now` by the wall clock. Returns how many answers there were; a file that is not there holds none.
///
/// # Errors
/// The system's, or that the file is no whole cache file: then it is set aside, and `cache` is empty. Nothing in
/// `cache` may be served before this has returned.
pub fn load(cache: &Cache, path: &Path, now: UnixMillis, wall_ahead_ms: i64) -> Result<u64, PersistError> {
    sweep(path);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(source) => return Err(PersistError::Io { path: path.to_owned(), source }),
    };
    match read_all(cache, file, now, wall_ahead_ms) {
        Ok(count) => {
            cache.settle();
            Ok(count)
        }
        Err(reason) => {
            // Only the end of a file proves it whole.
            cache.clear();
            let aside = set_aside(path, now).map_err(|source| PersistError::Io { path: path.to_owned(), source })?;
            Err(PersistError::Corrupt { path: path.to_owned(), reason: reason.to_string(), aside })
        }
    }
}

/// Writes it all and returns how many answers there were; `None` as soon as `goes_on` is false.
fn write_all(
    cache: &Cache,
    out: &mut impl Write,
    wall_ahead_ms: i64,
    goes_on: impl Fn() -> bool,
) -> io::Result<Option<u64>> {
    out.write_all(MAGIC)?;
    let zones = cache.zones();
    put_u16(out, u16::try_from(zones.len()).unwrap_or(u16::MAX))?;
    for zone in &zones {
        put_bytes(out, zone)?;
    }
    let mut count: u64 = 0;
    let holds = cache.holds();
    let held: HashSet<&[u8]> = holds.iter().map(|(key, _)| key.as_bytes()).collect();
    for (key, entry) in cache.iter() {
        if count.is_multiple_of(LOOK_UP_EVERY) && !goes_on() {
            return Ok(None);
        }
        let Some((route, rest)) = split(&key) else { continue };
        put_bytes(out, rest)?;
        put_u16(out, route.0)?;
        put_time(out, entry.stored(), wall_ahead_ms)?;
        out.write_all(&entry.ttl().to_be_bytes())?;
        let kept = if entry.is_kept() { KEPT } else { 0 };
        // All times of a hold come before this one.
        let over = if entry.hold_is_over(UnixMillis(u64::MAX - 1)) && !held.contains(&**key) { OVER } else { 0 };
        let popular = if entry.is_popular() { POPULAR } else { 0 };
        out.write_all(&[kind_number(entry.kind()), entry.flags() | kept | over | popular])?;
        put_time(out, entry.good_since(), wall_ahead_ms)?;
        put_time(out, entry.asked(), wall_ahead_ms)?;
        put_bytes(out, entry.wire())?;
        count += 1;
    }
    put_u16(out, END)?;
    for (key, hold) in &holds {
        let Some((route, rest)) = split(key.as_bytes()) else { continue };
        put_bytes(out, rest)?;
        put_u16(out, route.0)?;
        put_time(out, hold.since, wall_ahead_ms)?;
        put_time(out, hold.last, wall_ahead_ms)?;
        put_time(out, hold.until.unwrap_or(UnixMillis(u64::MAX)), wall_ahead_ms)?;
        let reason = match hold.reason {
            Reason::Good => 0,
            Reason::Bulk => 1,
            Reason::Keep => 2,
        };
        out.write_all(&[kind_number(hold.denial), reason, u8::from(hold.until.is_none())])?;
        put_bytes(out, hold.by.as_bytes())?;
    }
    put_u16(out, END)?;
    for (route, upstream, until) in cache.all_bulk_denials().lying() {
        put_bytes(out, upstream.as_bytes())?;
        put_u16(out, route.0)?;
        put_time(out, until, wall_ahead_ms)?;
    }
    put_u16(out, END)?;
    Ok(Some(count))
}

/// Beside the flags of an entry: its name is on the keep list.
const KEPT: u8 = 0x80;
/// Its name was held, and is no longer.
const OVER: u8 = 0x40;
/// It, or the answer before it, was given to clients often.
const POPULAR: u8 = 0x20;
/// Longer names of upstreams are none.
const UPSTREAM_BYTES_MAX: usize = 512;

fn kind_number(kind: Kind) -> u8 {
    match kind {
        Kind::Data => 0,
        Kind::NoData => 1,
        Kind::NxDomain => 2,
    }
}

fn kind_of(number: u8) -> io::Result<Kind> {
    match number {
        0 => Ok(Kind::Data),
        1 => Ok(Kind::NoData),
        2 => Ok(Kind::NxDomain),
        _ => Err(invalid("an unknown kind of answer")),
    }
}

/// Puts what `file` holds into `cache`, which takes no more than it may, and returns how many answers there were.
fn read_all(cache: &Cache, file: File, now: UnixMillis, wall_ahead_ms: i64) -> io::Result<u64> {
    let decoder = zstd::Decoder::new(BufReader::new(file))?;
    let mut input = SummedRead { inner: decoder.take(READ_BYTES_MAX), sum: Xxh3::new() };
    let mut magic = [0; 8];
    input.read_exact(&mut magic)?;
    let version = match &magic {
        MAGIC => 3,
        MAGIC_2 => 2,
        MAGIC_1 => 1,
        _ => return Err(invalid("not a cache file of this version")),
    };
    let zones = usize::from(get_u16(&mut input)?);
    let mut routes = Vec::new();
    for _ in 0..zones {
        let zone = get_bytes(&mut input, KEY_BYTES_MAX)?.ok_or_else(|| invalid("a zone is missing"))?;
        routes.push(cache.route(&zone));
    }
    let mut count = 0;
    while let Some(rest) = get_bytes(&mut input, KEY_BYTES_MAX)? {
        let route = *routes.get(usize::from(get_u16(&mut input)?)).ok_or_else(|| invalid("an unknown zone"))?;
        let key = Key::restore(route, &rest).ok_or_else(|| invalid("a key that is none"))?;
        let stored = UnixMillis(u64::from_be_bytes(get_array(&mut input)?));
        let ttl = u32::from_be_bytes(get_array(&mut input)?);
        let [kind, flags] = get_array(&mut input)?;
        let kind = kind_of(kind)?;
        let (good_since, asked) = if version == 1 {
            (stored, stored)
        } else {
            (get_time(&mut input, now, wall_ahead_ms)?, get_time(&mut input, now, wall_ahead_ms)?)
        };
        let wire = get_bytes(&mut input, usize::from(u16::MAX) - 1)?.ok_or_else(|| invalid("a message is missing"))?;
        // Stored "in the future": the clock was set back meanwhile. Its age is unknown, so it counts as expired.
        let stored = if stored > now { UnixMillis(now.0.saturating_sub(u64::from(ttl) * 1_000)) } else { stored };
        let stored = stored.moved_ms(wall_ahead_ms.saturating_neg());
        let entry = Entry::restore(wire, stored, ttl, kind, flags & !(KEPT | OVER | POPULAR));
        let entry = entry.ok_or_else(|| invalid("a message that is none"))?;
        let popular = flags & POPULAR != 0;
        let entry = if version == 1 { entry } else { entry.remembered(good_since, asked, popular) };
        entry.set_kept(flags & KEPT != 0);
        if flags & OVER != 0 {
            entry.end_hold();
        }
        cache.insert(&key, Arc::new(entry));
        count += 1;
    }
    while version >= 2
        && let Some(rest) = get_bytes(&mut input, KEY_BYTES_MAX)?
    {
        let route = *routes.get(usize::from(get_u16(&mut input)?)).ok_or_else(|| invalid("an unknown zone"))?;
        let key = Key::restore(route, &rest).ok_or_else(|| invalid("a key that is none"))?;
        let since = get_time(&mut input, now, wall_ahead_ms)?;
        let last = get_time(&mut input, now, wall_ahead_ms)?;
        let until = UnixMillis(u64::from_be_bytes(get_array(&mut input)?)).moved_ms(wall_ahead_ms.saturating_neg());
        let [denial, reason, endless] = get_array(&mut input)?;
        let reason = match reason {
            0 => Reason::Good,
            1 => Reason::Bulk,
            2 => Reason::Keep,
            _ => return Err(invalid("an unknown reason for a hold")),
        };
        let by = get_bytes(&mut input, UPSTREAM_BYTES_MAX)?.ok_or_else(|| invalid("an upstream is missing"))?;
        let by = String::from_utf8_lossy(&by).into();
        // An answer that there was no room for is held no more.
        if let Some(entry) = cache.holds_data(&key) {
            let until = (endless == 0).then_some(until);
            cache.hold(&key, Hold { entry, since, last, until, by, denial: kind_of(denial)?, reason });
        }
    }
    while version >= 3
        && let Some(upstream) = get_bytes(&mut input, UPSTREAM_BYTES_MAX)?
    {
        let route = *routes.get(usize::from(get_u16(&mut input)?)).ok_or_else(|| invalid("an unknown zone"))?;
        let until = UnixMillis(u64::from_be_bytes(get_array(&mut input)?)).moved_ms(wall_ahead_ms.saturating_neg());
        let now = now.moved_ms(wall_ahead_ms.saturating_neg());
        cache.all_bulk_denials().resume(route, &String::from_utf8_lossy(&upstream), until, now);
    }
    let sum = input.sum.digest();
    let mut stored_sum = [0; 8];
    input.inner.read_exact(&mut stored_sum)?;
    if u64::from_be_bytes(stored_sum) != sum {
        return Err(invalid("the checksum does not match"));
    }
    Ok(count)
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn put_u16(out: &mut impl Write, value: u16) -> io::Result<()> {
    out.write_all(&value.to_be_bytes())
}

/// A time of the cache, as one of the wall clock.
fn put_time(out: &mut impl Write, time: UnixMillis, wall_ahead_ms: i64) -> io::Result<()> {
    out.write_all(&time.moved_ms(wall_ahead_ms).0.to_be_bytes())
}

/// A time that has passed, as one of the cache; one to come is now, for the clock was set back.
fn get_time(input: &mut impl Read, now: UnixMillis, wall_ahead_ms: i64) -> io::Result<UnixMillis> {
    let time = UnixMillis(u64::from_be_bytes(get_array(input)?)).min(now);
    Ok(time.moved_ms(wall_ahead_ms.saturating_neg()))
}

fn put_bytes(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).ok().filter(|length| *length != END);
    put_u16(out, length.ok_or_else(|| invalid("too long to be stored"))?)?;
    out.write_all(bytes)
}

fn get_array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut array = [0; N];
    input.read_exact(&mut array)?;
    Ok(array)
}

fn get_u16(input: &mut impl Read) -> io::Result<u16> {
    get_array(input).map(u16::from_be_bytes)
}

/// `None` at the end mark.
fn get_bytes(input: &mut impl Read, max: usize) -> io::Result<Option<Box<[u8]>>> {
    let length = get_u16(input)?;
    if length == END {
        return Ok(None);
    }
    if usize::from(length) > max {
        return Err(invalid("longer than anything stored"));
    }
    let mut bytes = vec![0; usize::from(length)].into_boxed_slice();
    input.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

struct Summed<W> {
    inner: W,
    sum: Xxh3,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct SummedRead<R> {
    inner: R,
    sum: Xxh3,
}

impl<R: Read> Read for SummedRead<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.sum.update(&bytes[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::dns::cache::{Config, Metrics};

    #[test]
    fn a_save_leaves_one_file_and_a_load_sweeps_what_the_killed_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.zst");
        let cache = Cache::new(&Config::default(), Metrics::register(&prometheus::Registry::new()).unwrap());
        save(&cache, &path, 0).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (old, young) = (folder.path().join("cache.tmp-1"), folder.path().join("cache.tmp-2"));
        for (file, age) in [(&old, LEFT_BEHIND_AFTER), (&young, Duration::ZERO)] {
            let written = std::time::SystemTime::now() - age;
            File::create(file).unwrap().set_modified(written).unwrap();
        }
        load(&cache, &path, UnixMillis(1), 0).unwrap();
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
        left.sort();
        assert_eq!(left, [young, path.clone()]);
        assert!(save(&cache, &folder.path().join("none/cache.zst"), 0).is_err());
    }

    #[test]
    fn a_save_that_another_overtakes_leaves_everything_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.zst");
        let cache = Cache::new(&Config::default(), Metrics::register(&prometheus::Registry::new()).unwrap());
        fs::write(&path, "what the other wrote").unwrap();
        let urgent = Lock::new(8);
        assert!(matches!(save_unless(&cache, &path, 0, &urgent, 7), Err(PersistError::GivenUp)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::read(&path).unwrap(), b"what the other wrote");
        assert_eq!(save_unless(&cache, &path, 0, &urgent, 8).unwrap(), 0);
        assert_ne!(fs::read(&path).unwrap(), b"what the other wrote");
    }

    #[test]
    fn with_too_many_broken_files_the_next_save_takes_the_place_of_this_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.zst");
        let cache = Cache::new(&Config::default(), Metrics::register(&prometheus::Registry::new()).unwrap());
        for time in 0..20 {
            fs::write(&path, b"no cache").unwrap();
            let Err(PersistError::Corrupt { aside, .. }) = load(&cache, &path, UnixMillis(time), 0) else {
                panic!("{time}")
            };
            assert_eq!((aside.is_some(), path.exists()), (time < 8, time >= 8), "{time}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1 + ASIDE_MAX);
        save(&cache, &path, 0).unwrap();
        assert_eq!(load(&cache, &path, UnixMillis(20), 0).unwrap(), 0, "the one left in its place is overwritten");
    }
}
