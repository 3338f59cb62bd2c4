//! Hubs as processes of their own, over mutual TLS.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
};

use anyhow::Context as _;

use crate::{PATIENCE, support::process::holdfast, text};

/// A running hub. Killed when dropped.
pub struct Hub {
    child: Child,
    log: Receiver<String>,
    /// Where the tools ask it.
    pub socket: PathBuf,
    /// Where it serves the stream.
    pub address: SocketAddr,
}

impl Hub {
    /// Starts one at `listen` with its store and socket in `home`, and comes back once it serves.
    pub fn start(
        name: &str,
        home: &Path,
        kubeconfig: &Path,
        certificates: &Path,
        listen: &str,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(home)?;
        let (store, socket) = (home.join("store"), home.join("hub.sock"));
        let mut command = holdfast(&["hub", "--listen", listen, "--name", name]);
        command.args(["--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
        for (flag, path) in
            [("--kubeconfig", kubeconfig), ("--tls", certificates), ("--store", &store), ("--admin", &socket)]
        {
            command.args([flag, text(path)?]);
        }
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stderr.take().context("piped")?).lines();
        let (sender, log) = mpsc::channel();
        // Read as it comes, so that the process never waits for us.
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut hub = Self { child, log, socket, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let line = hub.wait_for("serving the stream to agents listen=")?;
        let address = line.split_once("listen=").and_then(|(_, rest)| rest.split_once([',', ' ']));
        hub.address = address.context("a list of addresses")?.0.parse()?;
        Ok(hub)
    }

    /// Waits for the next line of its log that has this text.
    pub fn wait_for(&mut self, text: &str) -> anyhow::Result<String> {
        loop {
            let line = self.log.recv_timeout(PATIENCE).with_context(|| format!("{text:?} in the hub's log"))?;
            if line.contains(text) {
                return Ok(line);
            }
        }
    }

    /// Sends a signal, by its name without SIG.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let sent = Command::new("kill").args(["-s", name, &self.id().to_string()]).status()?;
        anyhow::ensure!(sent.success(), "kill -s {name} failed");
        Ok(())
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // Gone already, if it was killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
