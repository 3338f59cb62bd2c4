//! The outage, as the last rows of the table: everything above the agents dies, an agent is killed on top, and what comes
//! back says that the cluster is empty.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, RecordType},
};
use holdfast::admin::GuardDoc;

use super::{
    AGENT_DISK, OTHER_DISK, PATIENCE, World,
    cluster::{Expected, SERVICES},
    hub::Hub,
    start_hub, status,
    support::{
        fleet,
        process::{Agent, ask, run},
    },
    table::{Table, millis, seconds},
    text,
};

impl World {
    /// The apiserver goes, both hubs and the agent are killed, the agent comes back alone, then the hubs, then an apiserver
    /// that has nothing; and an operator lets go of what is held.
    pub fn outage(&mut self, table: &mut Table) -> anyhow::Result<()> {
        let mut second = self.second("127.0.0.1:0")?;
        second.wait_for("records complete")?;
        let hubs = [self.hub.address, second.address].map(|address| address.to_string());
        let tls = self.certificates.join("agent");
        let arguments = ["--hub", &hubs[0], "--hub", &hubs[1], "--tls", text(&tls)?];
        let home = self.home.path().join(AGENT_DISK);
        let agent = Agent::start(&home, &arguments);
        // The disks follow memory a moment later: who dies before has not what came last.
        let version = self.observer.reader().load().version().to_string();
        on_disk(&home.join("agent.sock"), &version)?;
        on_disk(&self.hub.socket, &version)?;
        on_disk(&second.socket, &version)?;
        let root = self.observer.reader().load().root();
        let expected = self.apiserver.expected();

        self.apiserver.stop()?;
        second.kill()?;
        self.hub.kill()?;
        agent.kill();
        let agent = Agent::start(&home, &arguments);
        let up = millis(agent.age());
        let right = Asked::every(&expected, agent.dns, Expected::is_answered);
        let what = "apiserver gone, both hubs and an agent killed, the agent started again: names answered";
        table.row(what, format!("{right}, DNS up in {up}"), "all", right.all());

        let begun = Instant::now();
        self.hub = start_hub(self.home.path(), &self.certificates, &hubs[0], OTHER_DISK)?;
        let second = self.second(&hubs[1])?;
        let equal = self.all_at(root, begun);
        table.row(
            "… both hubs started again from disk: all agents equal after",
            seconds(equal),
            "all",
            equal.is_some(),
        );

        self.apiserver.return_empty()?;
        let (holder, guard) = holder([&self.hub, &second])?;
        let right = Asked::every(&expected, agent.dns, Expected::is_answered);
        let kept = self.all_at(root, begun).is_some();
        let measured =
            format!("names answered {right}, all agents with all records: {}", if kept { "yes" } else { "no" });
        table.row("apiserver back with an empty list", measured, "nothing deleted", right.all() && kept);
        let services = guard.held.counts.services;
        let told = run(&["guard", "--admin", text(&holder.socket)?]).stdout;
        let told = String::from_utf8(told)?;
        let held = services == usize::try_from(SERVICES)?;
        table.row("… holdfast guard", told.lines().next().unwrap_or_default().to_owned(), "everything held", held);

        let begun = Instant::now();
        let released = run(&["guard", "release", "--yes", "--admin", text(&holder.socket)?]);
        anyhow::ensure!(released.status.success(), "{}", String::from_utf8_lossy(&released.stderr));
        let reader = self.observer.reader();
        let gone = |reader: &holdfast::store::Reader| reader.load().counts().services == 0;
        self.runtime.block_on(fleet::until("nothing left", reader, gone));
        let empty = reader.load().root();
        let equal = self.all_at(empty, begun);
        let mut none = Asked::every(&expected, agent.dns, |_, message| is_gone(message));
        while !none.all() && begun.elapsed() < PATIENCE {
            none = Asked::every(&expected, agent.dns, |_, message| is_gone(message));
        }
        let measured = format!("names gone {none}, all agents equal after {}", seconds(equal));
        table.row("… holdfast guard release", measured, "everything let go", none.all() && equal.is_some());
        agent.kill();
        Ok(())
    }

    /// The hub that stands by.
    fn second(&self, listen: &str) -> anyhow::Result<Hub> {
        let home = self.home.path();
        Hub::start("second", &home.join("second"), &home.join("kubeconfig"), &self.certificates.join("hub"), listen)
    }
}

/// Waits until the disk of the process with this socket has this version.
fn on_disk(socket: &Path, version: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    while status(socket)?["disk"]["version"] != *version {
        anyhow::ensure!(
            begun.elapsed() < PATIENCE,
            "version {version} does not reach the disk of {}",
            socket.display()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Waits until one of the hubs, whichever watches now, holds something back.
fn holder(hubs: [&Hub; 2]) -> anyhow::Result<(&Hub, GuardDoc)> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        for hub in hubs {
            let doc = guard(&hub.socket)?;
            if doc.held.counts.services > 0 {
                return Ok((hub, doc));
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("no hub holds anything")
}

fn guard(socket: &Path) -> anyhow::Result<GuardDoc> {
    let output = run(&["guard", "--admin", text(socket)?, "-o", "json"]);
    serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// How many of the names were as they should be.
struct Asked {
    right: usize,
    of: usize,
}

impl Asked {
    fn every(expected: &[Expected], dns: SocketAddr, is: impl Fn(&Expected, &Message) -> bool) -> Self {
        let right = expected.iter().filter(|expected| is(expected, &ask(dns, &expected.name, RecordType::A))).count();
        Self { right, of: expected.len() }
    }

    fn all(&self) -> bool {
        self.right == self.of
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.right, self.of)
    }
}

impl Expected {
    fn is_answered(&self, message: &Message) -> bool {
        let address = |data: &RData| match data {
            RData::A(address) => Some(address.0),
            _ => None,
        };
        let mut given: Vec<Option<Ipv4Addr>> = message.answers.iter().map(|record| address(&record.data)).collect();
        let mut expected: Vec<Option<Ipv4Addr>> = self.addresses.iter().copied().map(Some).collect();
        given.sort();
        expected.sort();
        given == expected
    }
}

fn is_gone(message: &Message) -> bool {
    message.metadata.response_code == ResponseCode::NXDomain && message.answers.is_empty()
}
