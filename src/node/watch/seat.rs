//! One watch at a time for an agent's addresses in a network namespace.
//!
//! The seat is the name of an abstract unix socket: names belong to a network namespace, and end with the process. The watch that
//! has it says what it is (one byte) and can be asked to leave (one byte back) by its own user.

use std::{
    collections::VecDeque,
    fs, io,
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
    sync::mpsc,
    task::{AbortHandle, JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use super::Mode;
use crate::sys::{self, Lock};

/// How long the one before may take to leave.
const PATIENCE: Duration = Duration::from_secs(3);
/// Tries to take a seat that was left.
const TRIES: usize = 20;
const TRY_EVERY: Duration = Duration::from_millis(50);
/// How long one that was asked to leave stays away from the seat.
const DISPLACED: Duration = TRY_EVERY.saturating_mul(10);
/// Connections at once. Watches that wait for the seat say nothing, so silence has no limit; the oldest connection makes room instead.
const CONNECTIONS_MAX: usize = 16;
/// Watches over the same addresses that are asked to end, one after the other: the containers of two pods, and their agents'.
const WATCHES: usize = 8;

const CHILD: u8 = b'c';
const RESIDENT: u8 = b'r';
/// A newcomer takes the seat.
const LEAVE: u8 = b'l';
/// Asks the watch for its description.
const WHO: u8 = b'w';
/// The longest text of a watch about itself that is read, in bytes.
const ABOUT_BYTES_MAX: u64 = 64 * 1024;
/// The beginning of a seat's name.
const PREFIX: &str = "holdfast-node-";
/// The seat stays empty: no watch is wanted any more.
const END: u8 = b'e';

/// The outcome of a claim.
pub(super) enum Claimed {
    Seat(Seat),
    /// Another watch holds it and keeps it.
    Taken(Held),
    /// Another program holds the name, or a watch that does not answer.
    Foreign(String),
}

/// Why the holder is asked to leave its seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaveReason {
    /// Another watch, which has it from now on.
    Newcomer,
    /// A process that wants the node without a watch.
    End,
}

/// The seat, as long as this lives.
#[derive(Debug)]
pub(super) struct Seat {
    asked: mpsc::Receiver<LeaveReason>,
    about: Arc<Lock<String>>,
    task: Option<JoinHandle<()>>,
}

impl Seat {
    /// No seat: no request to leave ever comes.
    pub(super) fn none() -> Self {
        Self { asked: mpsc::channel(1).1, about: Arc::default(), task: None }
    }

    fn serve(listener: UnixListener, mode: Mode, about: String) -> Self {
        let (asks, asked) = mpsc::channel(1);
        let word = if mode == Mode::Resident { RESIDENT } else { CHILD };
        let about = Arc::new(Lock::new(about));
        let task = Some(tokio::spawn(serve(listener, word, Arc::clone(&about), asks)));
        Self { asked, about, task }
    }

    /// Changes the text that the watch says of itself.
    pub(super) fn set_about(&self, about: String) {
        *self.about.lock() = about;
    }

    pub(super) async fn asked_to_leave(&mut self) -> LeaveReason {
        match self.asked.recv().await {
            Some(asked) => asked,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// A connection to the holder of the seat; it ends when the holder does.
pub(super) struct Held(UnixStream);

impl Held {
    pub(super) async fn ended(&mut self) {
        // Nothing more is said.
        let _ = self.0.read(&mut [0; 8]).await;
    }
}

fn name(seat: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("{PREFIX}{seat}"))
}

/// Takes the seat, if need be from the watch before: a child from another child, a resident from every other. One that was
/// `displaced` takes it from none of its own kind any more. As the holder, it answers requests with `about`.
pub(super) async fn claim(seat: &str, mode: Mode, displaced: bool, about: impl Fn() -> String) -> Claimed {
    let stays = |word| match (mode, word) {
        (Mode::Resident, RESIDENT) | (Mode::Child, CHILD) => displaced,
        (Mode::Child, _) => true,
        // A child may have been faster when the seat was free.
        (Mode::Resident, _) => false,
    };
    if displaced {
        // The process that asked has the first try.
        sleep(DISPLACED).await;
    }
    for _ in 0..TRIES {
        match listen(seat) {
            Ok(listener) => return Claimed::Seat(Seat::serve(listener, mode, about())),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Claimed::Foreign(error.to_string()),
        }
        match timeout(PATIENCE, ask(seat, LEAVE, stays)).await {
            Ok(Ok(None)) => sleep(TRY_EVERY).await,
            Ok(Ok(Some(held))) => return Claimed::Taken(held),
            // It has gone by itself in between.
            Ok(Err(error)) if is_gone(&error) => sleep(TRY_EVERY).await,
            Ok(Err(error)) => return Claimed::Foreign(error.to_string()),
            Err(_) => return Claimed::Foreign(format!("who has the seat does not leave within {PATIENCE:?}")),
        }
    }
    Claimed::Foreign("the seat is taken again and again".into())
}

/// Asks the watch that has the seat to end, and waits until it has; then each that stayed behind it.
pub(super) async fn dismiss(seat: &str) {
    for _ in 0..WATCHES {
        // An empty seat is the aim; a watch that does not end is noticed when its rules come back.
        match timeout(PATIENCE, ask(seat, END, |_| false)).await {
            // A watch that stayed behind takes the seat.
            Ok(Ok(_)) => sleep(DISPLACED + TRY_EVERY * 2).await,
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// The description of the watch that has this seat; `None` if none comes in time, or another user has the seat.
pub(super) async fn about(seat: &str) -> Option<String> {
    let asked = async {
        let mut stream = connect(seat)?;
        stream.read_u8().await?;
        stream.write_u8(WHO).await?;
        let mut text = String::new();
        stream.take(ABOUT_BYTES_MAX).read_to_string(&mut text).await?;
        io::Result::Ok(text)
    };
    timeout(PATIENCE, asked).await.ok()?.ok()
}

/// The seats that are taken in this network namespace.
pub(super) fn taken() -> Vec<String> {
    seats(&fs::read_to_string("/proc/net/unix").unwrap_or_default())
}

/// The seats in a text of `/proc/net/unix`.
fn seats(sockets: &str) -> Vec<String> {
    let seat = |line: &str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        // The flag of a socket that listens (`__SO_ACCEPTCON`).
        let listens = columns.get(3) == Some(&"00010000");
        columns.get(7)?.strip_prefix('@')?.strip_prefix(PREFIX).filter(|_| listens).map(str::to_owned)
    };
    sockets.lines().filter_map(seat).collect()
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | UnexpectedEof)
}

fn listen(seat: &str) -> io::Result<UnixListener> {
    let listener = StdListener::bind_addr(&name(seat)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn connect(seat: &str) -> io::Result<UnixStream> {
    let stream = StdStream::connect_addr(&name(seat)?)?;
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    if !is_of_our_user(&stream) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user has the seat"));
    }
    Ok(stream)
}

/// Sends `word` to the holder and waits until it gives the seat up; returns a connection instead if the holder `stays`.
async fn ask(seat: &str, word: u8, stays: impl Fn(u8) -> bool) -> io::Result<Option<Held>> {
    let mut stream = connect(seat)?;
    if stays(stream.read_u8().await?) {
        return Ok(Some(Held(stream)));
    }
    stream.write_u8(word).await?;
    Held(stream).ended().await;
    Ok(None)
}

/// Whether the other end runs as the user we run as.
fn is_of_our_user(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| sys::own_user().is_none_or(|ours| peer.uid() == ours))
}

async fn serve(listener: UnixListener, word: u8, about: Arc<Lock<String>>, asks: mpsc::Sender<LeaveReason>) {
    // They end with this.
    let mut connections = JoinSet::new();
    let mut by_age = VecDeque::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((mut stream, _)) = listener.accept().await else {
            sleep(TRY_EVERY).await;
            continue;
        };
        // Other users take no place: a connection may stay for as long as its client lives.
        if !is_of_our_user(&stream) {
            continue;
        }
        by_age.retain(|connection: &AbortHandle| !connection.is_finished());
        if by_age.len() >= CONNECTIONS_MAX
            && let Some(oldest) = by_age.pop_front()
        {
            oldest.abort();
        }
        let (asks, about) = (asks.clone(), Arc::clone(&about));
        let connection = connections.spawn(async move {
            if stream.write_u8(word).await.is_err() {
                return;
            }
            let asked = match stream.read_u8().await {
                Ok(LEAVE) => LeaveReason::Newcomer,
                Ok(END) => LeaveReason::End,
                Ok(WHO) => {
                    let about = about.lock().clone();
                    // A client that hangs up meanwhile has lost interest.
                    let _ = stream.write_all(about.as_bytes()).await;
                    return;
                }
                _ => return,
            };
            if asks.send(asked).await.is_ok() {
                // Stays open until the seat is given up, which is the answer.
                let _ = stream.read_u8().await;
            }
        });
        by_age.push_back(connection);
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
        let Claimed::Seat(mut first) = claim(&name, Mode::Child, false, String::new).await else { panic!("free") };
        let leaving = async {
            first.asked_to_leave().await;
            drop(first);
        };
        let (second, ()) = tokio::join!(claim(&name, Mode::Child, false, String::new), leaving);
        assert!(matches!(second, Claimed::Seat(_)));
    }

    #[tokio::test]
    async fn the_holder_says_what_it_is_and_stays() {
        let name = unique("about");
        assert_eq!(about(&name).await, None, "free");
        let Claimed::Seat(holder) = claim(&name, Mode::Child, false, || "of an agent".into()).await else {
            panic!("free")
        };
        for _ in 0..2 {
            assert_eq!(about(&name).await.as_deref(), Some("of an agent"));
        }
        holder.set_about("of another mind".into());
        assert_eq!(about(&name).await.as_deref(), Some("of another mind"));
        assert!(taken().contains(&name));
        let others = "Num RefCount Protocol Flags Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 7 @holdfast-node-dns-1
0000000000000000: 00000003 00000000 00000000 0001 03 8 @holdfast-node-connected
0000000000000000: 00000002 00000000 00010000 0001 01 9 /run/@holdfast-node-file
0000000000000000: 00000002 00000000 00010000 0001 01 9
";
        assert_eq!(seats(others), ["dns-1"]);
    }

    /// Clients that say nothing take no place for good.
    #[tokio::test]
    async fn silent_clients_keep_nobody_from_the_seat() {
        let name = unique("silent-clients");
        let Claimed::Seat(mut holder) = claim(&name, Mode::Child, false, || "of an agent".into()).await else {
            panic!("free")
        };
        let mut silent = Vec::new();
        for _ in 0..3 * CONNECTIONS_MAX {
            let mut stream = connect(&name).unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), CHILD);
            silent.push(stream);
        }
        assert_eq!(about(&name).await.as_deref(), Some("of an agent"));
        let leaving = async {
            let asked = holder.asked_to_leave().await;
            drop(holder);
            asked
        };
        let (newcomer, asked) = tokio::join!(claim(&name, Mode::Child, false, String::new), leaving);
        assert!(matches!(newcomer, Claimed::Seat(_)) && asked == LeaveReason::Newcomer);
    }

    /// A holder that accepts connections and says nothing delays no watch for longer than [`PATIENCE`].
    #[tokio::test(start_paused = true)]
    async fn a_silent_holder_is_given_up() {
        let name = unique("silent-holder");
        let _holder = listen(&name).unwrap();
        let began = tokio::time::Instant::now();
        let Claimed::Foreign(why) = claim(&name, Mode::Resident, false, String::new).await else { panic!("taken") };
        assert!(why.contains("does not leave"), "{why}");
        assert_eq!(about(&name).await, None);
        dismiss(&name).await;
        assert!(began.elapsed() < 4 * PATIENCE);
    }

    #[tokio::test]
    async fn a_child_leaves_it_to_a_resident_until_that_ends() {
        let name = unique("resident");
        let Claimed::Seat(resident) = claim(&name, Mode::Resident, false, String::new).await else { panic!("free") };
        let Claimed::Taken(held) = claim(&name, Mode::Child, false, String::new).await else {
            panic!("held by a resident")
        };
        drop((resident, held));
        assert!(matches!(claim(&name, Mode::Child, false, String::new).await, Claimed::Seat(_)));
    }

    #[tokio::test]
    async fn a_displaced_resident_takes_the_seat_from_a_child_that_was_faster() {
        let name = unique("faster");
        let Claimed::Seat(mut child) = claim(&name, Mode::Child, true, String::new).await else { panic!("free") };
        let leaving = async {
            child.asked_to_leave().await;
            drop(child);
        };
        let (resident, ()) = tokio::join!(claim(&name, Mode::Resident, true, String::new), leaving);
        assert!(matches!(resident, Claimed::Seat(_)));
        assert!(matches!(claim(&name, Mode::Child, true, String::new).await, Claimed::Taken(_)));
    }

    #[tokio::test]
    async fn two_residents_do_not_drive_each_other_out_by_turns() {
        let name = unique("displaced");
        let Claimed::Seat(mut first) = claim(&name, Mode::Resident, false, String::new).await else { panic!("free") };
        let leaving = async {
            let asked = first.asked_to_leave().await;
            drop(first);
            asked
        };
        let (second, asked) = tokio::join!(claim(&name, Mode::Resident, false, String::new), leaving);
        let (Claimed::Seat(mut second), LeaveReason::Newcomer) = (second, asked) else { panic!("{asked:?}") };
        // The first stays behind, until the second is gone.
        let Claimed::Taken(mut held) = claim(&name, Mode::Resident, true, String::new).await else { panic!("held") };
        let dismissed = async {
            let asked = second.asked_to_leave().await;
            drop(second);
            asked
        };
        let ((), asked) = tokio::join!(dismiss(&name), dismissed);
        assert_eq!(asked, LeaveReason::End);
        held.ended().await;
        assert!(matches!(claim(&name, Mode::Resident, true, String::new).await, Claimed::Seat(_)));
    }
}
