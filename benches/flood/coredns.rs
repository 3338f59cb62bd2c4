//! CoreDNS beside the hub, where the environment variable `COREDNS` names its binary.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::ensure;

/// By which the server tells its requests from others.
pub const AGENT: &str = "coredns";
/// Between two questions whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// The binary, if one is named.
pub fn binary() -> Option<PathBuf> {
    std::env::var_os("COREDNS").map(Into::into)
}

/// Killed when dropped.
pub struct CoreDns(Child);

impl Drop for CoreDns {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl CoreDns {
    /// Starts one on the server of the kubeconfig in `home`; how long it took until it was ready.
    pub fn start(binary: &Path, home: &Path, patience: Duration) -> anyhow::Result<(Self, Duration)> {
        let ready = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        let corefile = format!(
            ".:{port} {{\n bind 127.0.0.1\n ready {ready}\n kubernetes cluster.local {{\n  kubeconfig {} it\n }}\n}}\n",
            home.join("kubeconfig").display()
        );
        std::fs::write(home.join("Corefile"), corefile)?;
        let begun = Instant::now();
        let mut command = Command::new(binary);
        command.arg("-conf").arg(home.join("Corefile")).stdout(Stdio::null()).stderr(Stdio::null());
        let mut coredns = Self(command.spawn()?);
        while !is_ready(ready) {
            ensure!(coredns.0.try_wait()?.is_none(), "{} ended", binary.display());
            ensure!(begun.elapsed() < patience, "{} is not ready in time", binary.display());
            std::thread::sleep(ASK_EVERY);
        }
        Ok((coredns, begun.elapsed()))
    }
}

/// Whether its plugins say that they are ready.
fn is_ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with(b"HTTP/1.0 200") || answer.starts_with(b"HTTP/1.1 200"))
}
