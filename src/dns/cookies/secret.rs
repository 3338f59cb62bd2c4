//! The secret behind cookies, in a file of its own beside the records.
//!
//! Two processes that start at once, or one that takes over from another, end up with the same one.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use tracing::warn;

/// Its name in the store. Removed, with a restart after it, there is a new secret: nothing else ever changes it.
const FILE: &str = "cookie-secret";
const BYTES: usize = 16;

/// The secret kept in `folder`, or a new one.
pub(super) fn open(folder: Option<&Path>) -> [u8; BYTES] {
    let made: [u8; BYTES] = rand::random();
    let Some(path) = folder.map(|folder| folder.join(FILE)) else { return made };
    kept(&path, &made).unwrap_or_else(|error| {
        warn!(path = %path.display(), %error, "cannot save the secret of DNS cookies: clients get new cookies after a restart");
        made
    })
}

/// The secret in `path`; `made` becomes that if there is none.
fn kept(path: &Path, made: &[u8; BYTES]) -> io::Result<[u8; BYTES]> {
    if let Some(secret) = read(path)? {
        return Ok(secret);
    }
    let beside = path.with_extension(format!("tmp-{:08x}", rand::random::<u32>()));
    let placed = place(&beside, path, made);
    let _ = fs::remove_file(&beside);
    placed?;
    // Not `made`: another process may have been first.
    read(path)?.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it changed meanwhile"))
}

/// The secret in the file `path`; `None` if the file is missing or holds no secret.
fn read(path: &Path) -> io::Result<Option<[u8; BYTES]>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::with_capacity(BYTES + 1);
    file.take(BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if let Ok(secret) = bytes.try_into() {
        return Ok(Some(secret));
    }
    warn!(path = %path.display(), "the secret of DNS cookies is damaged: made a new one");
    fs::remove_file(path)?;
    Ok(None)
}

/// Puts `secret` into `path`, whole from the first moment on, unless there is one already.
fn place(beside: &Path, path: &Path, secret: &[u8; BYTES]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(beside)?;
    file.write_all(secret)?;
    file.sync_all()?;
    match fs::hard_link(beside, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_secret_outlives_the_process_and_is_nobody_elses_to_read() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(Some(folder.path()));
        assert_eq!(open(Some(folder.path())), first);
        let path = folder.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        // Cut short, it is made anew, and kept from then on.
        fs::write(&path, &first[..7]).unwrap();
        let second = open(Some(folder.path()));
        assert_ne!(second, first);
        assert_eq!(open(Some(folder.path())), second);
    }

    #[test]
    fn without_a_folder_that_works_each_process_has_a_secret_of_its_own() {
        assert_ne!(open(None), open(None));
        let gone = Path::new("/nonexistent/store");
        assert_ne!(open(Some(gone)), open(Some(gone)));
    }

    #[test]
    fn who_comes_second_takes_the_first_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        place(&folder.path().join("one"), &path, &[1; BYTES]).unwrap();
        place(&folder.path().join("two"), &path, &[2; BYTES]).unwrap();
        assert_eq!(kept(&path, &[3; BYTES]).unwrap(), [1; BYTES]);
    }
}
