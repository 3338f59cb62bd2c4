//! The copy of the program for people on the node: without `kubectl exec`, a pod's file system is out of their reach.

use std::{
    fs::{self, File, FileTimes, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use tracing::warn;

/// The file of this process.
const SELF: &str = "/proc/self/exe";

/// Puts a copy of this program at `path`. Called before files are out of reach: a process that answers must not be able to
/// change a program that people run as root.
pub fn offer(path: Option<&Path>) {
    if let Some(path) = path
        && let Err(error) = copy(Path::new(SELF), path)
    {
        warn!(path = %path.display(), %error, "no copy of the tool on the node: DNS is not affected");
    }
}

/// In one step. A copy that is there already costs a look at its size and time.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut program = File::open(from)?;
    let of = program.metadata()?;
    let made = of.modified()?;
    let same = |there: fs::Metadata| {
        there.is_file() && there.len() == of.len() && there.modified().is_ok_and(|modified| modified == made)
    };
    if fs::symlink_metadata(to).is_ok_and(same) {
        return Ok(());
    }
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut beside = to.as_os_str().to_owned();
    beside.push(".new");
    // Another start left a file behind, or makes one now: in the end either is in place, and both are whole.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o755).open(&beside)?;
    io::copy(&mut program, &mut copy)?;
    copy.set_times(FileTimes::new().set_modified(made))?;
    drop(copy);
    fs::rename(&beside, to)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn a_copy_is_made_once_and_replaced_when_the_program_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (program, tool) = (dir.path().join("program"), dir.path().join("bin/holdfast"));
        fs::write(&program, "one").unwrap();
        copy(&program, &tool).unwrap();
        let first = fs::metadata(&tool).unwrap();
        assert_eq!((fs::read(&tool).unwrap().as_slice(), first.permissions().mode() & 0o777), (&b"one"[..], 0o755));
        copy(&program, &tool).unwrap();
        assert_eq!(fs::metadata(&tool).unwrap().ino(), first.ino(), "nothing was written");
        fs::write(&program, "another").unwrap();
        fs::write(dir.path().join("bin/holdfast.new"), "left behind").unwrap();
        copy(&program, &tool).unwrap();
        assert_eq!(fs::read(&tool).unwrap(), b"another");
        assert!(!dir.path().join("bin/holdfast.new").exists());
        // A link in its place is replaced, and what it leads to is left alone.
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        fs::remove_file(&tool).unwrap();
        std::os::unix::fs::symlink(&victim, &tool).unwrap();
        copy(&program, &tool).unwrap();
        assert_eq!((fs::read(&tool).unwrap(), fs::read(&victim).unwrap()), (b"another".to_vec(), b"precious".to_vec()));
        let directory = dir.path().join("in-the-way");
        fs::create_dir(&directory).unwrap();
        assert!(copy(&program, &directory).is_err());
        assert!(directory.is_dir());
    }
}
