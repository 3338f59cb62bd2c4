//! Who watches: one process for each interface name in a network namespace.
//!
//! The seat is the name of an abstract unix socket, which the kernel keeps for each network namespace apart and frees with
//! the process. Who holds it says what it is (one byte) and can be asked to leave (one byte back) by its own user.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream},
    },
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{Notify, Semaphore},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use super::Mode;

/// How long the one before may take to leave.
const PATIENCE: Duration = Duration::from_secs(3);
/// Tries to take a seat that was left.
const TRIES: usize = 20;
const TRY_EVERY: Duration = Duration::from_millis(50);
/// Connections at once.
const CONNECTIONS: usize = 16;

const CHILD: u8 = b'c';
const RESIDENT: u8 = b'r';
const LEAVE: u8 = b'l';

/// What became of a claim.
pub(super) enum Claimed {
    /// It is ours.
    Seat(Seat),
    /// A resident watch has it, and a child leaves it to that one.
    Resident(Held),
    /// Somebody has it who does not speak with us.
    Foreign(String),
}

/// The seat, as long as this lives.
#[derive(Debug)]
pub(super) struct Seat {
    leave: Arc<Notify>,
    task: Option<JoinHandle<()>>,
}

impl Seat {
    /// No seat at all, from which nobody is asked to leave.
    pub(super) fn none() -> Self {
        Self { leave: Arc::default(), task: None }
    }

    fn serve(listener: UnixListener, mode: Mode) -> Self {
        let leave = Arc::new(Notify::new());
        let word = if mode == Mode::Resident { RESIDENT } else { CHILD };
        let task = tokio::spawn(serve(listener, word, Arc::clone(&leave)));
        Self { leave, task: Some(task) }
    }

    pub(super) async fn asked_to_leave(&mut self) {
        self.leave.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// A connection to who holds the seat, which ends with them.
pub(super) struct Held(UnixStream);

impl Held {
    pub(super) async fn ended(&mut self) {
        // Nothing more is said.
        let _ = self.0.read(&mut [0; 8]).await;
    }
}

fn name(interface: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("holdfast-node-{interface}"))
}

/// Takes the seat, if need be from the one before.
pub(super) async fn claim(interface: &str, mode: Mode) -> Claimed {
    for _ in 0..TRIES {
        match listen(interface) {
            Ok(listener) => return Claimed::Seat(Seat::serve(listener, mode)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Claimed::Foreign(error.to_string()),
        }
        match timeout(PATIENCE, ask_to_leave(interface, mode)).await {
            Ok(Ok(None)) => sleep(TRY_EVERY).await,
            Ok(Ok(Some(held))) => return Claimed::Resident(held),
            // It has gone by itself in between.
            Ok(Err(error)) if is_gone(&error) => sleep(TRY_EVERY).await,
            Ok(Err(error)) => return Claimed::Foreign(error.to_string()),
            Err(_) => return Claimed::Foreign(format!("who has the seat does not leave within {PATIENCE:?}")),
        }
    }
    Claimed::Foreign("the seat is taken again and again".into())
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | UnexpectedEof)
}

fn listen(interface: &str) -> io::Result<UnixListener> {
    let listener = StdListener::bind_addr(&name(interface)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Asks who holds the seat to leave it and waits for that; gives a connection instead if it is to stay.
async fn ask_to_leave(interface: &str, mode: Mode) -> io::Result<Option<Held>> {
    let stream = StdStream::connect_addr(&name(interface)?)?;
    stream.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(stream)?;
    if !is_of_our_user(&stream) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user has the seat"));
    }
    let word = stream.read_u8().await?;
    if word == RESIDENT && mode == Mode::Child {
        return Ok(Some(Held(stream)));
    }
    stream.write_u8(LEAVE).await?;
    Held(stream).ended().await;
    Ok(None)
}

/// Whether the other end runs as the user we run as.
fn is_of_our_user(stream: &UnixStream) -> bool {
    let ours = stream.local_addr().is_ok().then(own_user).flatten();
    stream.peer_cred().is_ok_and(|peer| ours.is_none_or(|ours| peer.uid() == ours))
}

fn own_user() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").ok().map(|own| own.uid())
}

async fn serve(listener: UnixListener, word: u8, leave: Arc<Notify>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    // They end with this.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((mut stream, _)) = listener.accept().await else {
            sleep(TRY_EVERY).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let leave = Arc::clone(&leave);
        connections.spawn(async move {
            let _slot = slot;
            if stream.write_u8(word).await.is_err() {
                return;
            }
            if stream.read_u8().await.is_ok_and(|asked| asked == LEAVE) && is_of_our_user(&stream) {
                leave.notify_one();
                // Stays open until the seat is given up, which is the answer.
                let _ = stream.read_u8().await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unique(name: &str) -> String {
        format!("{name}-{}", std::process::id())
    }

    #[tokio::test]
    async fn a_newcomer_is_given_the_seat_of_the_one_before() {
        let name = unique("newcomer");
        let Claimed::Seat(mut first) = claim(&name, Mode::Child).await else { panic!("free") };
        let leaving = async {
            first.asked_to_leave().await;
            drop(first);
        };
        let (second, ()) = tokio::join!(claim(&name, Mode::Child), leaving);
        assert!(matches!(second, Claimed::Seat(_)));
    }

    #[tokio::test]
    async fn a_child_leaves_it_to_a_resident_until_that_ends() {
        let name = unique("resident");
        let Claimed::Seat(resident) = claim(&name, Mode::Resident).await else { panic!("free") };
        let Claimed::Resident(held) = claim(&name, Mode::Child).await else { panic!("held by a resident") };
        drop((resident, held));
        assert!(matches!(claim(&name, Mode::Child).await, Claimed::Seat(_)));
    }
}
