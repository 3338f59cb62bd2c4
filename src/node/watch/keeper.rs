//! Starts a watch, and another one whenever it dies: the process between an agent and its watch.
//!
//! The agent gives up the right to start programs once it answers, so this process starts the watch. The watch has the agent's
//! pipes; between two watches, orders wait unread. Sets up nothing and asks nothing itself.

use std::{
    io::{self, Read, Write},
    os::fd::AsFd,
    process::{Command, ExitStatus},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{Event, to_line};
use crate::sys::{Interest, Poll};

/// The longest configuration that is read, in bytes.
const CONFIG_BYTES_MAX: usize = 64 * 1024;
/// The pause before a watch that died is started again, the first time. It doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A watch that lived this long did not die of its start.
const LIVED: Duration = Duration::from_secs(60);

/// The line of standard input with the configuration, and not a byte of what follows.
///
/// # Errors
/// If it cannot be read, or does not end.
pub fn config_line(mut input: impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while input.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
        if line.len() > CONFIG_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line does not end"));
        }
    }
    String::from_utf8(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Keeps a watch with this configuration running until it ends by itself, as it was told to.
pub fn keep(config: &str) {
    let mut pause = PAUSE;
    // The one before has read the order to begin.
    let mut begun: &[&str] = &[];
    loop {
        let started = Instant::now();
        // The program this process runs, whatever stands in its place by now.
        let mut watch = Command::new("/proc/self/exe");
        let ended = watch.args(["node", "watch", "--kept", config]).args(begun).status();
        begun = &["--begun"];
        if ended.as_ref().is_ok_and(ExitStatus::success) {
            return;
        }
        if started.elapsed() >= LIVED {
            pause = PAUSE;
        }
        let how = ended.map_or_else(|error| format!("start it: {error}"), |status| status.to_string());
        let died = Event::Died(format!("{how}; started again after {pause:?}"));
        // The receiver may be gone; the next watch finds the same again.
        let _ = writeln!(io::stdout(), "{}", to_line(&died));
        sleep(PAUSE);
        // An order, or the end of the sender, ends the wait at once.
        let input = io::stdin();
        let _ = Poll::new([(input.as_fd(), Interest::Read)]).wait(Some(pause.saturating_sub(PAUSE)));
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_after_the_configuration_are_left_to_the_watch() {
        let mut input = &b"{}\nleave\n"[..];
        assert_eq!(config_line(&mut input).unwrap(), "{}");
        assert_eq!(input, b"leave\n");
        assert_eq!(config_line(&b"{"[..]).unwrap(), "{");
        assert!(config_line(io::repeat(b'x')).is_err());
        assert!(config_line(&b"\xff\n"[..]).is_err());
    }
}
