//! Files that are replaced whole, so that readers never see a part; a broken file is kept aside for its cause to be found.
//! Never deletes a file that it did not write.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::UnixMillis;

/// Maximum broken files kept of one name. At this number none is added until some are removed: the cause is the same again
/// and again.
pub const ASIDE_MAX: usize = 8;
/// Behind the name of a file that was set aside, before the time.
const ASIDE: &str = ".corrupt-";

/// Reads a file of at most `bytes_max` bytes.
///
/// # Errors
/// The system's, or `FileTooLarge`.
pub fn read_file(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("is larger than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Puts a file with these bytes in the place of `path`: beside it first, with `.new` behind its name, then over it. After a
/// power cut there is the one or the other. `mode` holds for a file that is made, less what the umask takes.
///
/// # Errors
/// The system's error; `path` is unchanged then.
pub fn put_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = with_suffix(path, ".new");
    // A file that a crash left behind may have another mode.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    let put = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = put {
        // A full disk is not to be left fuller.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    sync_directory(directory_of(path))
}

/// Renames a broken file to its own name with `.corrupt-<time>` behind it, and says where it is. `None` if there are
/// [`ASIDE_MAX`] of it already: then it stays where it was. None of them is ever overwritten.
///
/// # Errors
/// The system's error; the file is unchanged then.
pub fn set_aside(path: &Path, now: UnixMillis) -> io::Result<Option<PathBuf>> {
    let aside = files_set_aside(path)?;
    if aside.len() >= ASIDE_MAX {
        return Ok(None);
    }
    let time = now.to_string().replace([':', '-'], "");
    let to = (0..=ASIDE_MAX)
        .map(|n| if n == 0 { String::new() } else { format!("-{n}") })
        .map(|another| with_suffix(path, &format!("{ASIDE}{time}{another}")))
        .find(|to| !aside.contains(to))
        .expect("there are fewer files set aside than names to try");
    fs::rename(path, &to)?;
    sync_directory(directory_of(path))?;
    Ok(Some(to))
}

/// The files of this name that were [set aside](set_aside).
///
/// # Errors
/// The system's error about the directory.
pub fn files_set_aside(path: &Path) -> io::Result<Vec<PathBuf>> {
    let begin = with_suffix(Path::new(path.file_name().unwrap_or_default()), ASIDE);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory_of(path))? {
        let name = entry?.file_name();
        if name.as_encoded_bytes().starts_with(begin.as_os_str().as_encoded_bytes()) {
            found.push(path.with_file_name(name));
        }
    }
    Ok(found)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes renames in a directory outlive a power cut.
///
/// # Errors
/// The system's error.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_whatever_a_crash_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pins.json");
        fs::write(&path, "before").unwrap();
        fs::write(dir.path().join("pins.json.new"), "half of what was never finis").unwrap();
        put_file(&path, b"after", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!(names, ["pins.json"]);
    }

    #[test]
    fn a_failed_write_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pins.json");
        fs::write(&path, "before").unwrap();
        fs::create_dir(dir.path().join("pins.json.new")).unwrap();
        put_file(&path, b"after", 0o600).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"before");
    }

    #[test]
    fn broken_files_pile_up_to_a_bound_and_none_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let (path, now) = (directory.path().join("records-1.redb"), UnixMillis(1_733_941_800_250));
        // Another file's, or none at all.
        fs::write(directory.path().join("records-1.redb.new"), "").unwrap();
        fs::write(directory.path().join("pins.json.corrupt-1"), "").unwrap();
        assert_eq!(set_aside(&path, now).unwrap_err().kind(), io::ErrorKind::NotFound, "there is none to set aside");
        for n in 0..ASIDE_MAX {
            fs::write(&path, n.to_string()).unwrap();
            let to = set_aside(&path, now).unwrap().unwrap();
            assert_eq!(fs::read_to_string(to).unwrap(), n.to_string());
        }
        let first = directory.path().join("records-1.redb.corrupt-20241211T183000.250Z");
        assert_eq!(fs::read_to_string(&first).unwrap(), "0");
        fs::write(&path, "one more").unwrap();
        assert_eq!(set_aside(&path, UnixMillis(1)).unwrap(), None);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one more", "it stays");
        fs::remove_file(first).unwrap();
        assert!(set_aside(&path, now).unwrap().is_some(), "somebody looked");
    }
}
