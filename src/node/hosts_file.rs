//! One block in the node's hosts file, between markers of its own. Every other byte stays as it is.
//!
//! Never resolves a name. Never touches a file whose markers are not as they were written.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::sys::{Lock, put_file, read_file};

/// Longer files are no hosts files.
const BYTES_MAX: u64 = 4 << 20;
const BEGIN: &[u8] = b"# BEGIN holdfast: names of the keep list, written by holdfast; changes in this block are lost";
/// The first line of a block behind a line without an end, which is to come back.
const BEGIN_JOINED: &[u8] =
    b"# BEGIN holdfast: names of the keep list, written by holdfast; changes in this block are lost.";
const END: &[u8] = b"# END holdfast";
/// The beginning of every first line, of other versions too.
const BEGINS_WITH: &[u8] = b"# BEGIN holdfast";

/// Why the block is not written.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: two blocks of holdfast: remove one", path.display())]
    TwoBlocks { path: PathBuf },
    #[error("{}: a block of holdfast without its first or its last line: remove the rest of it", path.display())]
    Cut { path: PathBuf },
}

/// The block of one file, for threads that may be slow. Clones share it.
#[derive(Clone, Debug)]
pub struct HostsBlock {
    path: PathBuf,
    /// Held while the file is written; true once the block is no longer kept.
    ended: Arc<Lock<bool>>,
}

impl HostsBlock {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, ended: Arc::default() }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// [`put_block`], or nothing after [`end`](Self::end).
    ///
    /// # Errors
    /// As [`put_block`].
    pub fn put(&self, lines: &[String]) -> Result<bool, HostsError> {
        let ended = self.ended.lock();
        if *ended { Ok(false) } else { put_block(&self.path, lines) }
    }

    /// Waits for a write that is under way, and allows no later one. With `remove`, the block goes from the file.
    ///
    /// # Errors
    /// As [`put_block`]; no later write is allowed all the same.
    pub fn end(&self, remove: bool) -> Result<(), HostsError> {
        let mut ended = self.ended.lock();
        *ended = true;
        if remove { put_block(&self.path, &[]).map(|_| ()) } else { Ok(()) }
    }
}

/// The fault of a file's markers.
#[derive(Debug, PartialEq, Eq)]
enum Markers {
    Two,
    Cut,
}

/// Has `lines` as the only block in the file at `path`; without lines there is none. Returns whether the file changed: it is
/// replaced in one step, with its mode.
///
/// # Errors
/// If it cannot be read or replaced, or its markers are not as they were written; it is unchanged then.
pub fn put_block(path: &Path, lines: &[String]) -> Result<bool, HostsError> {
    let failed = |error| HostsError::Io { path: path.to_owned(), error };
    // A link stays one.
    let target = fs::canonicalize(path).map_err(failed)?;
    let text = read_file(&target, BYTES_MAX).map_err(failed)?;
    let next = with_block(&text, lines).map_err(|markers| match markers {
        Markers::Two => HostsError::TwoBlocks { path: path.to_owned() },
        Markers::Cut => HostsError::Cut { path: path.to_owned() },
    })?;
    if next == text {
        return Ok(false);
    }
    let mode = fs::metadata(&target).map_err(failed)?.mode() & 0o7777;
    put_file(&target, &next, mode).map_err(failed)?;
    Ok(true)
}

/// `text` with `lines` in its block, at the place where that is, or at the end.
fn with_block(text: &[u8], lines: &[String]) -> Result<Vec<u8>, Markers> {
    let (mut begins, mut ends, mut at) = (Vec::new(), Vec::new(), 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let bare = line.trim_ascii_end();
        if bare.starts_with(BEGINS_WITH) {
            begins.push((at, bare == BEGIN_JOINED));
        } else if bare == END {
            ends.push(at + line.len());
        }
        at += line.len();
    }
    let (before, joined, after) = match (begins.as_slice(), ends.as_slice()) {
        ([], []) => (text, text.last().is_some_and(|byte| *byte != b'\n'), &[][..]),
        (&[(begin, joined)], &[end]) if begin < end => {
            let joined = joined && text[..begin].ends_with(b"\n");
            (&text[..begin - usize::from(joined)], joined, &text[end..])
        }
        ([] | [_], [] | [_]) => return Err(Markers::Cut),
        _ => return Err(Markers::Two),
    };
    let mut next = before.to_vec();
    if !lines.is_empty() {
        let begin = if joined { [b"\n", BEGIN_JOINED].concat() } else { BEGIN.to_vec() };
        next.extend([&begin, b"\n".as_slice()].concat());
        for line in lines {
            next.extend_from_slice(line.as_bytes());
            next.push(b'\n');
        }
        next.extend([END, b"\n"].concat());
    } else if joined && !after.is_empty() {
        // Lines came behind the block: theirs must not join the one before it.
        next.push(b'\n');
    }
    next.extend_from_slice(after);
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn the_rest_of_the_file_comes_back_byte_for_byte() {
        for text in [
            &b""[..],
            b"127.0.0.1 localhost\n",
            b"127.0.0.1 localhost",
            b"127.0.0.1 localhost\r\n\n\n",
            b"# caf\xE9\n\t10.0.0.1  a b # c",
        ] {
            let one = with_block(text, &lines(&["192.0.2.1 registry.example"])).unwrap();
            assert!(one.starts_with(text) && one.ends_with(b"\n192.0.2.1 registry.example\n# END holdfast\n"));
            let two = with_block(&one, &lines(&["192.0.2.2 registry.example", "2001:db8::1 login.example"])).unwrap();
            assert!(two.starts_with(text) && !two.windows(9).any(|part| part == b"192.0.2.1"));
            assert_eq!(with_block(&two, &[]).unwrap(), text, "{}", text.escape_ascii());
            let behind = [&two, &b"10.0.0.2 later\n"[..]].concat();
            let renewed = with_block(&behind, &lines(&["192.0.2.3 registry.example"])).unwrap();
            assert!(renewed.ends_with(b"# END holdfast\n10.0.0.2 later\n"));
            let end = if text.is_empty() || text.ends_with(b"\n") { &b""[..] } else { b"\n" };
            assert_eq!(with_block(&renewed, &[]).unwrap(), [text, end, b"10.0.0.2 later\n"].concat());
        }
        assert_eq!(with_block(b"127.0.0.1 localhost", &[]).unwrap(), b"127.0.0.1 localhost");
    }

    #[test]
    fn a_file_with_two_blocks_or_half_of_one_is_left_alone() {
        let block = with_block(b"", &lines(&["192.0.2.1 a.example"])).unwrap();
        let [begin, line, end] = [BEGIN, b"192.0.2.1 a.example", END].map(|line| [line, b"\n"].concat());
        for (text, expect) in [
            ([block.clone(), block.clone()].concat(), Markers::Two),
            ([begin.clone(), block.clone()].concat(), Markers::Two),
            ([begin.clone(), line.clone()].concat(), Markers::Cut),
            ([line.clone(), end.clone()].concat(), Markers::Cut),
            ([end, line, begin].concat(), Markers::Cut),
        ] {
            for lines in [lines(&["192.0.2.2 a.example"]), Vec::new()] {
                assert_eq!(with_block(&text, &lines).unwrap_err(), expect, "{}", text.escape_ascii());
            }
        }
    }

    /// A hosts file on a disk that hangs is written after the process was told to leave.
    #[test]
    fn a_write_that_is_under_way_at_the_end_leaves_no_block_and_no_later_one_is_allowed() {
        use std::{io::Write as _, thread};
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        // A pipe that is read as the file until the test ends it: the writer is within its write.
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(made.success());
        fs::hard_link(path("pipe"), path("hosts")).unwrap();
        let block = HostsBlock::new(path("hosts"));
        let entry = || lines(&["192.0.2.1 a.example"]);
        let writing = thread::spawn({
            let block = block.clone();
            move || block.put(&entry())
        });
        // Open only once the writer reads it.
        let mut pipe = fs::OpenOptions::new().write(true).open(path("pipe")).unwrap();
        let before = with_block(b"127.0.0.1 localhost\n", &entry()).unwrap();
        fs::write(path("real"), &before).unwrap();
        fs::rename(path("real"), path("hosts")).unwrap();
        let ending = thread::spawn({
            let block = block.clone();
            move || block.end(true)
        });
        pipe.write_all(b"127.0.0.1 localhost\n").unwrap();
        drop(pipe);
        assert!(writing.join().unwrap().unwrap());
        ending.join().unwrap().unwrap();
        assert_eq!(fs::read(path("hosts")).unwrap(), b"127.0.0.1 localhost\n");
        assert!(!block.put(&entry()).unwrap());
        assert_eq!(fs::read(path("hosts")).unwrap(), b"127.0.0.1 localhost\n");
    }

    #[test]
    fn the_file_keeps_its_mode_and_its_link_and_one_that_is_missing_is_not_made() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("hosts.real"), folder.path().join("hosts"));
        let put = |lines: &[String]| put_block(&link, lines);
        let error = put(&lines(&["192.0.2.1 a.example"])).unwrap_err().to_string();
        assert!(error.starts_with(&link.display().to_string()) && error.contains("No such file"), "{error}");
        fs::write(&file, "127.0.0.1 localhost\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
        symlink(&file, &link).unwrap();
        assert!(put(&lines(&["192.0.2.1 a.example"])).unwrap());
        assert!(!put(&lines(&["192.0.2.1 a.example"])).unwrap(), "nothing to change");
        assert!(fs::read_to_string(&file).unwrap().contains("192.0.2.1 a.example\n"));
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o604);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(put(&[]).unwrap());
        assert_eq!(fs::read(&file).unwrap(), b"127.0.0.1 localhost\n");
    }
}
