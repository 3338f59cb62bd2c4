//! Descriptors that outlive the process that opened them: a parent keeps copies and hands them to the next child.
//!
//! [`Channel`] carries the messages and the descriptors (`SCM_RIGHTS`), [`FdStore`] is the child's end. Knows nothing of what the
//! descriptors are.
#![allow(unsafe_code)]

use std::{
    collections::HashMap,
    io::{self, IoSlice, IoSliceMut},
    mem::{self, MaybeUninit},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Child, Command},
    ptr,
    sync::OnceLock,
};

use rustix::net::{
    self, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use socket2::{Domain, Socket, Type};

use super::Lock;

/// The number of the child's end of the channel.
const VARIABLE: &str = "HOLDFAST_FDSTORE";
/// The longest message, in bytes. A longer text is cut.
const MESSAGE_BYTES_MAX: usize = 2048;
/// Room for one descriptor in a control message, in bytes.
const ROOM: usize = rustix::cmsg_space!(ScmRights(1));

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A descriptor and its label. Child: keep this. Parent: here is one that was kept.
    Fd = b'k',
    /// Child: close the kept descriptor with this label.
    Forget = b'x',
    /// Child: close all of them. Parent: that is done.
    Clear = b'd',
    /// Child: queries are answered.
    Answering = b'a',
    /// Child: the line that says why it ends.
    Failed = b'e',
    /// Child: the file that tells of deaths while no child runs.
    File = b'f',
    /// Parent: how often a child died, and how.
    Deaths = b'i',
    /// Parent: nothing more was kept.
    Go = b'g',
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::{Answering, Clear, Deaths, Failed, Fd, File, Forget, Go};
        [Fd, Forget, Clear, Answering, Failed, File, Deaths, Go].into_iter().find(|kind| *kind as u8 == byte)
    }
}

#[derive(Debug)]
pub struct Message {
    pub kind: Kind,
    pub text: String,
    pub fd: Option<OwnedFd>,
}

/// One end of a socket that keeps messages apart (`SOCK_SEQPACKET`).
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    pub fn pair() -> io::Result<(Self, Self)> {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
        Ok((Self(ours.into()), Self(theirs.into())))
    }

    pub fn send(&self, kind: Kind, text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut bytes = vec![kind as u8];
        bytes.extend(text.bytes().take(MESSAGE_BYTES_MAX - 1));
        let mut room = [MaybeUninit::uninit(); ROOM];
        let mut control = SendAncillaryBuffer::new(&mut room);
        let descriptors = fd.as_slice();
        if fd.is_some() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        net::sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next message; `None` once the other end is gone. One of an unknown kind is skipped.
    pub fn receive(&self) -> io::Result<Option<Message>> {
        loop {
            let mut bytes = [0_u8; MESSAGE_BYTES_MAX];
            let mut room = [MaybeUninit::uninit(); ROOM];
            let mut control = RecvAncillaryBuffer::new(&mut room);
            let received = rustix::io::retry_on_intr(|| {
                net::recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
            })?;
            let fd = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            });
            let Some((kind, text)) = bytes[..received.bytes].split_first() else { return Ok(None) };
            if let Some(kind) = Kind::from_byte(*kind) {
                return Ok(Some(Message { kind, text: String::from_utf8_lossy(text).into_owned(), fd }));
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Starts `command` with `end` as its end of the channel. The child is killed when this process dies.
pub fn start(command: &mut Command, end: &Channel) -> io::Result<Child> {
    let fd = end.0.as_raw_fd();
    let parent = std::process::id();
    let prepare = move || {
        // SAFETY: plain system calls, as between fork and exec they must be; `fd` is open in the child as in the parent.
        unsafe {
            // The parent reads its signals; the child takes them as usual.
            let mut none: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&raw mut none);
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0
                || libc::fcntl(fd, libc::F_SETFD, 0) < 0
                || libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) < 0
            {
                return Err(io::Error::last_os_error());
            }
            // Died before the call above.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                libc::_exit(1);
            }
        }
        Ok(())
    };
    // SAFETY: `prepare` makes system calls only.
    unsafe { command.env(VARIABLE, fd.to_string()).pre_exec(prepare) }.spawn()
}

/// The child's end.
#[derive(Debug)]
pub struct FdStore {
    channel: Channel,
    /// Descriptors of the previous child that this one has not taken yet.
    kept: Lock<HashMap<String, OwnedFd>>,
    deaths: Option<String>,
}

/// Whether this process was started by a parent that keeps descriptors.
pub fn is_child() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

impl FdStore {
    /// The end that the parent of this process left it; `None` without such a parent.
    pub fn inherited() -> Option<&'static Self> {
        static STORE: OnceLock<Option<FdStore>> = OnceLock::new();
        STORE.get_or_init(Self::inherit).as_ref()
    }

    fn inherit() -> Option<Self> {
        let fd: RawFd = std::env::var(VARIABLE).ok()?.parse().ok()?;
        // SAFETY: asks for a flag; a number that is no descriptor is an error.
        if fd <= libc::STDERR_FILENO || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return None;
        }
        // Started as /proc/self/exe, it would be called `exe`.
        let _ = rustix::thread::set_name(c"holdfast");
        // SAFETY: it is open, as was just seen, and nothing else in this process has it: its parent opened it for this.
        let channel = Channel(unsafe { OwnedFd::from_raw_fd(fd) });
        let (mut kept, mut deaths) = (HashMap::new(), None);
        while let Ok(Some(message)) = channel.receive() {
            match (message.kind, message.fd) {
                (Kind::Fd, Some(fd)) => drop(kept.insert(message.text, fd)),
                (Kind::Deaths, _) => deaths = Some(message.text),
                (Kind::Go, _) => return Some(Self { channel, kept: Lock::new(kept), deaths }),
                _ => {}
            }
        }
        None
    }

    /// The parent's report of the deaths before this start.
    pub fn deaths(&self) -> Option<&str> {
        self.deaths.as_deref()
    }

    /// Takes the descriptor that an earlier child kept under this label.
    pub fn take(&self, label: &str) -> Option<OwnedFd> {
        self.kept.lock().remove(label)
    }

    /// Has the parent keep a copy. Without one, the next child opens its own.
    pub fn keep(&self, label: &str, fd: BorrowedFd<'_>) {
        self.say(Kind::Fd, label, Some(fd));
    }

    /// Closes the sockets that were not taken, here and in the parent: queries would be lost in a socket that no process reads.
    pub fn forget_rest(&self) {
        let rest = mem::take(&mut *self.kept.lock());
        for label in rest.keys() {
            self.say(Kind::Forget, label, None);
        }
    }

    /// Has the parent close all of its copies, and waits until it has.
    pub fn clear(&self) {
        if self.say(Kind::Clear, "", None) {
            // A parent that is gone has closed them too.
            let _ = self.channel.receive();
        }
    }

    /// Tells the parent something.
    pub fn tell(&self, kind: Kind, text: &str) {
        self.say(kind, text, None);
    }

    /// False if the parent is gone, which ends this process as well.
    fn say(&self, kind: Kind, text: &str, fd: Option<BorrowedFd<'_>>) -> bool {
        self.channel.send(kind, text, fd).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_descriptor_and_its_label_arrive_together() {
        let (parent, child) = Channel::pair().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        child.send(Kind::Fd, "udp 127.0.0.1:53 0", Some(socket.as_fd())).unwrap();
        child.send(Kind::Failed, &"x".repeat(2 * MESSAGE_BYTES_MAX), None).unwrap();
        drop(child);
        let message = parent.receive().unwrap().unwrap();
        assert_eq!((message.kind, message.text.as_str()), (Kind::Fd, "udp 127.0.0.1:53 0"));
        let copy = UdpSocket::from(message.fd.unwrap());
        assert_eq!(copy.local_addr().unwrap(), socket.local_addr().unwrap());
        let message = parent.receive().unwrap().unwrap();
        assert_eq!(
            (message.kind, message.text.len(), message.fd.is_none()),
            (Kind::Failed, MESSAGE_BYTES_MAX - 1, true)
        );
        assert!(parent.receive().unwrap().is_none(), "the other end is gone");
    }
}
