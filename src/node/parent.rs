//! The parent of the process that answers: keeps its sockets open and starts it again when it dies.
//!
//! Queries that arrive between two children wait in the sockets. Parses no configuration, has no threads, and reads nothing from
//! the network. The other end is [`FdStore`](crate::sys::FdStore).

use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use crate::{
    report::{Deaths, Time},
    sys::{
        self, Clock, Interest, Poll, SignalFd,
        fdstore::{self, Channel, Kind, Message},
    },
};

/// The pause after a child that died before it answered. It doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Descriptors kept at most: sockets for each address and worker.
const KEPT_MAX: usize = 1024;
/// Signals that go on to the child.
const PASSED_ON: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1];

struct Parent {
    line: Vec<OsString>,
    signals: SignalFd,
    kept: Vec<(String, OwnedFd)>,
    deaths: Deaths,
    file: Option<PathBuf>,
    /// Some child has answered.
    ever_answered: bool,
    told_to_end: bool,
}

/// Runs this program with the arguments `line` as a child, and again whenever it dies, until it ends by itself or is told to.
/// Returns the exit code of the last child; `None` if no child can be started, so that this process does the work itself.
pub fn run(line: &[OsString]) -> Option<u8> {
    let signals = SignalFd::take(&[&PASSED_ON[..], &[libc::SIGCHLD]].concat()).ok()?;
    let mut parent = Parent {
        line: line.to_vec(),
        signals,
        kept: Vec::new(),
        deaths: Deaths::default(),
        file: None,
        ever_answered: false,
        told_to_end: false,
    };
    let mut pause = Duration::ZERO;
    loop {
        let (status, answered) = match parent.live() {
            Ok(lived) => lived,
            Err(error) if parent.deaths.count == 0 => {
                sys::write_stderr(&format!(
                    "holdfast: without a parent process, a crash closes the sockets: {error}\n"
                ));
                return None;
            }
            Err(error) => {
                parent.deaths.error = Some(format!("start the process again: {error}"));
                (ExitStatus::from_raw(libc::SIGKILL), false)
            }
        };
        // An orderly end, or a start that cannot succeed: the supervisor shows the code and decides.
        if parent.told_to_end || status.success() || !parent.ever_answered {
            parent.remove_file();
            return Some(code_of(status));
        }
        parent.note(status);
        pause = if answered { Duration::ZERO } else { (pause * 2).clamp(PAUSE, PAUSE_MAX) };
        if !pause.is_zero() {
            parent.write_file();
            if parent.wait(pause) {
                parent.remove_file();
                return Some(code_of(status));
            }
        }
    }
}

/// As a shell has it: 128 and the number of the signal.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(u8::MAX)
}

impl Parent {
    /// Starts a child and stays with it to its end: how it ended, and whether it answered.
    fn live(&mut self) -> io::Result<(ExitStatus, bool)> {
        let (channel, theirs) = Channel::pair()?;
        // The program this process runs, whatever stands in its place by now: both are of one version.
        let mut command = Command::new("/proc/self/exe");
        if let Some((name, arguments)) = self.line.split_first() {
            command.arg0(name).args(arguments);
        }
        let mut child = fdstore::start(&mut command, &theirs)?;
        drop(theirs);
        self.hand_over(&channel);
        let (mut answered, mut talks) = (false, true);
        loop {
            let channel_waits = talks.then(|| (channel.as_fd(), Interest::Read));
            let mut poll = Poll::new([(self.signals.as_fd(), Interest::Read)].into_iter().chain(channel_waits));
            poll.wait(None)?;
            let (signals, message) = (poll.is_ready(0), talks && poll.is_ready(1));
            if message {
                match channel.receive() {
                    Ok(Some(message)) => answered |= self.heard(message, &channel),
                    Ok(None) | Err(_) => talks = false,
                }
            }
            if signals && let Some(status) = self.signalled(&mut child)? {
                // The child's last messages.
                while talks && let Ok(Some(message)) = channel.receive() {
                    answered |= self.heard(message, &channel);
                }
                return Ok((status, answered));
            }
        }
    }

    fn hand_over(&self, channel: &Channel) {
        // A child that is dead already is found out by its signal.
        for (label, fd) in &self.kept {
            let _ = channel.send(Kind::Fd, label, Some(fd.as_fd()));
        }
        if self.deaths.count > 0
            && let Ok(deaths) = serde_json::to_string(&Deaths { running: true, ..self.deaths.clone() })
        {
            let _ = channel.send(Kind::Deaths, &deaths, None);
        }
        let _ = channel.send(Kind::Go, "", None);
    }

    /// Carries out a child's request. True if the child reports that it answers.
    fn heard(&mut self, message: Message, channel: &Channel) -> bool {
        match (message.kind, message.fd) {
            (Kind::Fd, Some(fd)) => {
                self.kept.retain(|(label, _)| *label != message.text);
                if self.kept.len() < KEPT_MAX {
                    self.kept.push((message.text, fd));
                }
            }
            (Kind::Forget, _) => self.kept.retain(|(label, _)| *label != message.text),
            (Kind::Clear, _) => {
                self.kept.clear();
                let _ = channel.send(Kind::Clear, "", None);
            }
            (Kind::Answering, _) => {
                self.ever_answered = true;
                self.deaths.error = None;
                self.remove_file();
                return true;
            }
            (Kind::Failed, _) => self.deaths.error = Some(message.text),
            (Kind::File, _) => self.file = Some(message.text.into()),
            _ => {}
        }
        false
    }

    /// Passes signals on. The status of `child` once it has ended.
    fn signalled(&mut self, child: &mut Child) -> io::Result<Option<ExitStatus>> {
        while let Some(signal) = self.signals.next() {
            if signal == libc::SIGCHLD {
                continue;
            }
            self.told_to_end |= signal == libc::SIGTERM || signal == libc::SIGINT;
            // Ended, but not waited for yet: nothing to pass on.
            let _ = sys::signal_child(child, signal);
        }
        let ended = child.try_wait()?;
        sys::reap_others(child.id());
        Ok(ended)
    }

    /// Waits for a while. True if told to end meanwhile.
    fn wait(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while !self.told_to_end && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            let _ = Poll::new([(self.signals.as_fd(), Interest::Read)]).wait(Some(left));
            while let Some(signal) = self.signals.next() {
                self.told_to_end |= signal == libc::SIGTERM || signal == libc::SIGINT;
            }
            sys::reap_others(0);
        }
        self.told_to_end
    }

    fn note(&mut self, status: ExitStatus) {
        self.deaths.count += 1;
        self.deaths.last_at = Time(Clock::System.now());
        self.deaths.how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with code {code}"),
            (None, signal) => format!("was killed by signal {}", signal.unwrap_or_default()),
        };
        let error = self.deaths.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        let Deaths { count, how, .. } = &self.deaths;
        let line =
            format!("holdfast: the answering process {how}{error}; starting it again, queries wait (death {count})\n");
        sys::write_stderr(&line);
    }

    /// Writes the deaths to disk, where `status` reads them while no process answers.
    fn write_file(&self) {
        let Some(path) = &self.file else { return };
        let new = path.with_extension("deaths.new");
        // Put in place whole: it may be read at any time. A disk that is full only takes the reason away.
        if let Ok(text) = serde_json::to_string(&self.deaths)
            && fs::write(&new, text).is_ok()
        {
            let _ = fs::rename(&new, path);
        }
    }

    fn remove_file(&self) {
        if let Some(path) = &self.file {
            let _ = fs::remove_file(path);
        }
    }
}
