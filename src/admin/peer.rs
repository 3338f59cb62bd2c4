//! The process at the other end of the admin socket, for the log.

use std::{fmt, fs};

use axum::Extension;
use tokio::net::unix::UCred;

/// No login: the peer was started by the system.
const NO_LOGIN: u32 = u32::MAX;

/// The user and process at the other end of the admin socket.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    uid: Option<u32>,
    /// The user of the login session (`loginuid`), which `sudo` does not change.
    login: Option<u32>,
}

impl Peer {
    pub(super) fn of(cred: &UCred) -> Self {
        let login = cred.pid().and_then(|pid| fs::read_to_string(format!("/proc/{pid}/loginuid")).ok());
        let login = login.and_then(|text| text.trim().parse().ok()).filter(|login| *login != NO_LOGIN);
        Self { uid: Some(cred.uid()), login }
    }
}

/// The peer of a request, where its listener knows it.
pub(super) type Caller = Option<Extension<Peer>>;

pub(super) fn peer(of: Caller) -> Peer {
    of.map_or_else(Peer::default, |Extension(peer)| peer)
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(uid) = self.uid else { return f.write_str("unknown") };
        write!(f, "uid {uid}{}", name(uid))?;
        match self.login {
            Some(login) if login != uid => write!(f, ", logged in as uid {login}{}", name(login)),
            _ => Ok(()),
        }
    }
}

/// The user's name in /etc/passwd, in parentheses.
fn name(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.escape_default().to_string())
    });
    user.map_or_else(String::new, |user| format!(" ({user})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_is_known_by_its_user() {
        let (here, _there) = tokio::net::UnixStream::pair().unwrap();
        let peer = Peer::of(&here.peer_cred().unwrap());
        let uid = here.peer_cred().unwrap().uid();
        assert!(peer.to_string().starts_with(&format!("uid {uid}")), "{peer}");
        assert_eq!(Peer::default().to_string(), "unknown");
    }
}
