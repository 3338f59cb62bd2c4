//! Signals as a descriptor to wait for, and signals to other processes.
#![allow(unsafe_code)]

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use rustix::process::{Pid, Signal};

/// Signals that wait to be read instead of doing what the system does with them, until this is dropped.
pub struct SignalFd {
    fd: OwnedFd,
    set: libc::sigset_t,
}

impl SignalFd {
    /// Takes these signals over for this thread, and for threads it starts.
    pub fn take(signals: &[i32]) -> io::Result<Self> {
        // SAFETY: the set is initialised by sigemptyset before anything reads it, and outlives the calls.
        let (fd, set) = unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in signals {
                libc::sigaddset(&raw mut set, *signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) < 0 {
                return Err(io::Error::last_os_error());
            }
            (libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK), set)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above made it for us.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, set })
    }

    /// The number of the next signal that waits, if one does.
    pub fn next(&self) -> Option<i32> {
        // SAFETY: all zeros is a valid value, and the kernel writes one whole one or nothing.
        let mut info: libc::signalfd_siginfo = unsafe { mem::zeroed() };
        let size = size_of_val(&info);
        // SAFETY: the buffer is as long as told and outlives the call.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut info).cast(), size) };
        (usize::try_from(read) == Ok(size)).then(|| i32::try_from(info.ssi_signo).ok()).flatten()
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SignalFd {
    fn drop(&mut self) {
        // SAFETY: the set is a valid one and outlives the call.
        unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &raw const self.set, ptr::null_mut()) };
    }
}

/// Sends a signal to a child of this process that was not waited for yet, so that its number is no other's.
pub fn signal_child(child: &std::process::Child, signal: i32) -> io::Result<()> {
    let signal = Signal::from_named_raw(signal).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::kill_process(Pid::from_child(child), signal)?)
}

/// Waits for any ended child of this process but `child`: as process 1 of a container, it inherits those of others.
pub fn reap_others(child: u32) {
    loop {
        // SAFETY: all zeros is a valid value; the kernel fills it in or leaves it.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `info` outlives the call.
        if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) } < 0 {
            return;
        }
        // SAFETY: waitid filled it in for a child, or left it zero.
        let pid = unsafe { info.si_pid() };
        if pid == 0 || u32::try_from(pid) == Ok(child) {
            return;
        }
        // SAFETY: a null status is allowed.
        unsafe { libc::waitpid(pid, ptr::null_mut(), libc::WNOHANG) };
    }
}
