//! Notifications to the service manager, `sd_notify(3)`: the process is ready; it is stopping.
//!
//! Without such a service manager nothing is sent.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{ffi::OsStrExt as _, net},
    },
};

use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::admin::Readiness;

/// Says `READY=1` when nothing is waited for any more, unless it is dropped before.
pub(super) fn when_ready(readiness: &Readiness) -> AbortOnDropHandle<()> {
    let readiness = readiness.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        readiness.ready().await;
        tell("READY=1");
    }))
}

/// Says `STOPPING=1`.
pub(super) fn leaving() {
    tell("STOPPING=1");
}

fn tell(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, state) {
        warn!(%error, state, socket = %socket.display(), "cannot notify the service manager");
    }
}

/// A path, or a name in the abstract namespace behind an `@`.
fn send(socket: &OsString, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => net::SocketAddr::from_abstract_name(name)?,
        path => net::SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    net::UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_addresses_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("holdfast-test-{}", std::process::id());
        let named = net::SocketAddr::from_abstract_name(&name).unwrap();
        let listeners = [
            (net::UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string()),
            (net::UnixDatagram::bind_addr(&named).unwrap(), format!("@{name}").into()),
        ];
        for (listener, socket) in listeners {
            send(&socket, "READY=1").unwrap();
            let mut heard = [0; 16];
            let bytes = listener.recv(&mut heard).unwrap();
            assert_eq!(&heard[..bytes], b"READY=1");
        }
        assert!(send(&dir.path().join("nobody").into_os_string(), "READY=1").is_err());
    }
}
