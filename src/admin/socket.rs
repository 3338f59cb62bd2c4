//! The unix socket of the tools: the users that may open it, and whether another process has it already.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

/// Only the user the daemon runs as.
const SOCKET_MODE: u32 = 0o600;
/// A directory made for it: the user, and the group to look.
const DIRECTORY_MODE: u32 = 0o750;
/// How long a process that answers may still be ending.
const PATIENCE: Duration = Duration::from_millis(300);
/// Connections the kernel keeps for us.
const BACKLOG: i32 = 64;

/// Why the socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers on it.
    #[error("admin socket {}: another process answers on it; stop that one, or give --admin another path", path.display())]
    InUse { path: PathBuf },
    /// Something else has the name.
    #[error("admin socket {}: there is a file of this name that is no socket; give --admin another path", path.display())]
    NotASocket { path: PathBuf },
    /// The system refused a step.
    #[error("admin socket {}: {step}: {error}; give --admin {}", path.display(), remedy(error))]
    Io { path: PathBuf, step: &'static str, error: io::Error },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::InvalidInput => "a shorter path, of 107 bytes at most",
        _ => "a path this user can write",
    }
}

/// The file of a socket, removed with this. To be dropped after the listener.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    /// Device and inode of the file, which tell it from another's of the same name.
    file: Option<(u64, u64)>,
}

impl AdminSocket {
    /// Whether the file is gone, or is another's.
    pub fn is_lost(&self) -> bool {
        identity(&self.path) != self.file
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

impl Drop for AdminSocket {
    /// Removes the file, unless a successor listens there by now.
    fn drop(&mut self) {
        let _ = remove_stale(&self.path);
    }
}

/// Listens on `path`. The socket of a dead process is removed; that of a living one stays.
///
/// # Errors
/// If another process answers on it, the name is taken by something else, or the system refuses.
pub fn bind(path: &Path) -> Result<(AdminSocket, UnixListener), SocketError> {
    make_parent(path)?;
    remove_stale(path)?;
    let fail = |step| move |error| SocketError::Io { path: path.to_owned(), step, error };
    let listener = listen(path).map_err(fail("listen"))?;
    Ok((AdminSocket { path: path.to_owned(), file: identity(path) }, listener))
}

/// As [`bind`], for a start: a process that answers may be one that was killed, and gets [`PATIENCE`] to be gone.
///
/// # Errors
/// As there.
pub fn bind_patiently(path: &Path) -> Result<(AdminSocket, UnixListener), SocketError> {
    let deadline = Instant::now() + PATIENCE;
    bind_when_free(path, || {
        thread::sleep(Duration::from_millis(5));
        Instant::now() < deadline
    })
}

/// Binds as soon as no process answers there, for as long as `wait` returns true.
fn bind_when_free(path: &Path, mut wait: impl FnMut() -> bool) -> Result<(AdminSocket, UnixListener), SocketError> {
    loop {
        match bind(path) {
            Err(SocketError::InUse { .. }) if wait() => {}
            bound => return bound,
        }
    }
}

/// Listens on `path` in the place of a living process, without a moment in which no process does.
///
/// # Errors
/// If the system refuses.
pub fn replace(path: &Path) -> Result<(AdminSocket, UnixListener), SocketError> {
    make_parent(path)?;
    let fail = |step| move |error| SocketError::Io { path: path.to_owned(), step, error };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // Left by a process that died between the two steps.
    let _ = fs::remove_file(&beside);
    let listener = listen(&beside).map_err(fail("listen"))?;
    fs::rename(&beside, path).map_err(fail("take its place"))?;
    Ok((AdminSocket { path: path.to_owned(), file: identity(path) }, listener))
}

fn make_parent(path: &Path) -> Result<(), SocketError> {
    let fail = |step| move |error| SocketError::Io { path: path.to_owned(), step, error };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(parent);
        made.map_err(fail("make its directory"))?;
    }
    Ok(())
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let fail = |step| move |error| SocketError::Io { path: path.to_owned(), step, error };
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail("look at it")(error)),
    };
    if !file.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    match connect(path) {
        Ok(()) => Err(SocketError::InUse { path: path.to_owned() }),
        // It listens and takes no more connections: stuck, but alive.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::InUse { path: path.to_owned() }),
        // The receiver is gone.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(fail("remove what a dead process left"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(fail("ask who listens")(error)),
    }
}

/// Connects without waiting, whatever state the other side is in.
fn connect(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // On Linux the file that bind makes takes the mode of the socket, so it is closed from its first moment on.
    let socket = File::from(OwnedFd::from(socket));
    socket.set_permissions(Permissions::from_mode(SOCKET_MODE))?;
    let socket = Socket::from(OwnedFd::from(socket));
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    UnixListener::from_std(OwnedFd::from(socket).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_is_for_its_user_alone_and_goes_with_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/agent.sock");
        let (socket, listener) = bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()) & !DIRECTORY_MODE, 0, "whatever the umask takes away more");
        drop((listener, socket));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_living_owner_is_left_alone_and_a_dead_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let (first, listener) = bind(&path).unwrap();
        let error = bind(&path).unwrap_err();
        assert!(matches!(error, SocketError::InUse { .. }), "{error}");
        // A process that is killed leaves the file and no listener.
        std::mem::forget(first);
        drop(listener);
        assert!(path.exists());
        let (_second, _listener) = bind(&path).unwrap();
    }

    #[tokio::test]
    async fn an_owner_on_its_way_out_is_waited_for_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let (first, listener) = bind(&path).unwrap();
        std::mem::forget(first);
        let mut waits = 3;
        let error = bind_when_free(&path, || {
            waits -= 1;
            waits > 0
        });
        assert!(matches!(error.unwrap_err(), SocketError::InUse { .. }) && waits == 0);
        let mut ending = Some(listener);
        bind_when_free(&path, || ending.take().is_some()).unwrap();
    }

    #[tokio::test]
    async fn the_file_of_a_successor_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let (first, listener) = bind(&path).unwrap();
        drop(listener);
        let (_second, _listener) = bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_successor_takes_the_place_of_a_living_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let (first, _listener) = bind(&path).unwrap();
        let (second, _listening) = replace(&path).unwrap();
        assert!(first.is_lost() && !second.is_lost());
        assert_eq!(mode(&path), 0o600);
        drop(first);
        assert!(connect(&path).is_ok(), "the successor is left alone");
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        fs::write(&path, "precious").unwrap();
        let error = bind(&path).unwrap_err();
        assert!(matches!(error, SocketError::NotASocket { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_path_too_long_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = bind(&dir.path().join("x".repeat(120))).unwrap_err();
        assert!(matches!(error, SocketError::Io { step: "listen", .. }), "{error}");
    }
}
