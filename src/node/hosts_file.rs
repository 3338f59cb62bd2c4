//! One block in the node's hosts file, between markers of its own. Every other byte stays as it is.
//!
//! Never resolves a name. Never touches a file whose markers are not as they were written.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::sys::{put_file, read_file};

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
