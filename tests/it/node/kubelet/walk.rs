//! Roads on one node, one after the other: what is lost on each, and what each leaves behind.

use std::process::Command;

use super::{
    daemonset::{Kubelet, Rollout},
    load::{self, Load, Tally},
    node_cache::TABLE,
    roads::{Promise, ROADS},
    world::{World, both_addresses},
};
use crate::node::rig::{LINK_LOCAL, Node, VIP};

pub struct Row {
    pub road: &'static str,
    pub rollout: Rollout,
    pub service: Tally,
    pub link_local: Option<Tally>,
    pub faults: Vec<String>,
}

/// Roads on one node, one after the other.
pub struct Walk<'a> {
    world: &'a World,
    pub kubelet: Kubelet<'a>,
    rows: Vec<Row>,
    /// The parts of the node that are nobody's here, before the first road.
    others: String,
}

impl<'a> Walk<'a> {
    pub fn new(world: &'a World) -> Self {
        Self { world, kubelet: Kubelet::new(&world.node), rows: Vec::new(), others: others(&world.node) }
    }

    /// Walks a road under load. Afterwards `service` answers at the service's address and `link_local` at the other.
    pub fn walk(
        &mut self,
        road: &'static str,
        step: impl FnOnce(&mut Kubelet<'a>) -> Rollout,
        (service, link_local): (&str, Option<&str>),
    ) {
        let (.., expected, promise) = ROADS.into_iter().find(|(name, ..)| *name == road).unwrap();
        let began = std::time::Instant::now();
        let node = &self.world.node;
        let had_link_local = node.answer("node", LINK_LOCAL).is_some();
        let (at_service, beside) = promise.most();
        // What is promised gets the time that a loaded machine may take; every lost query takes as long to be counted.
        let lost_for_good = promise == Promise::AsReceived;
        let timeout = |promised| if promised && !lost_for_good { "10" } else { "1" };
        let load = Load::start(node, VIP, timeout(true));
        let beside_load = had_link_local.then(|| Load::start(node, LINK_LOCAL, timeout(beside.is_some())));
        load::asked(node);
        let rollout = step(&mut self.kubelet);
        let logs = self.kubelet.logs();
        node.until(&format!("{road}: answered, after {logs}"), |node| {
            node.answer("pod1", VIP).as_deref() == Some(service)
                && node.answer("pod1", LINK_LOCAL).as_deref() == link_local
        });
        load::asked(node);
        let (service, link_local) = (load.end(), beside_load.map(Load::end));
        let mut faults = Vec::new();
        for (address, tally, most) in
            [(VIP, Some(&service), Some(at_service)), (LINK_LOCAL, link_local.as_ref(), beside)]
        {
            if let (Some(tally), Some(most)) = (tally, most)
                && (tally.lost > most || tally.bad > most)
            {
                faults.push(format!("{road}: lost at {address}, where {most} may be: {tally:?}"));
            }
        }
        if rollout.as_str() != expected {
            faults.push(format!("{road}: the rollout {}, and {expected} on the page", rollout.as_str()));
        }
        println!("{road}: {rollout:?} {:?} {service:?} {link_local:?}", began.elapsed());
        self.rows.push(Row { road, rollout, service, link_local, faults });
        let now = others(node);
        self.check(&format!("what others have is as before: {}, now {now}", self.others), now == self.others);
        if promise != Promise::AsReceived {
            // It answers for 2 s what it was asked.
            node.until(&format!("{road}: no relay is left"), |node| relays(node).is_empty());
        }
    }

    /// Notes a fault of the last road unless `holds`.
    pub fn check(&mut self, what: &str, holds: bool) {
        if !holds {
            let left = self.left();
            let row = self.rows.last_mut().unwrap();
            row.faults.push(format!("{}: not so: {what}; {left}; {}", row.road, self.kubelet.logs()));
        }
    }

    /// What is on the node.
    pub fn left(&self) -> String {
        let node = &self.world.node;
        let tables = node.command("node", "nft", &["list", "tables"]).output().unwrap();
        let sockets = node.command("node", "cat", &["/proc/net/udp", "/proc/net/unix"]).output().unwrap();
        let sockets = String::from_utf8(sockets.stdout).unwrap();
        let of_dns = sockets.lines().filter(|line| line.contains(":0035 ")).count();
        let names = sockets.lines().filter(|line| line.contains("@holdfast")).count();
        format!(
            "addresses {:?}, tables {:?}, sockets {of_dns}, names {names}",
            node.addresses(),
            String::from_utf8(tables.stdout).unwrap()
        )
    }

    pub fn has_table(&self, name: &str) -> bool {
        self.left().contains(&format!(" {name}\\n"))
    }

    /// Nothing of ours is left: neither rules nor names.
    pub fn nothing_of_ours(&mut self) {
        let left = self.left();
        self.check("no rules of ours are left", !left.contains(" holdfast\\n"));
        self.check("no names of ours are left", left.contains("names 0"));
    }

    /// Rules that somebody deletes are put back, whatever process had them before.
    pub fn rules_come_back(&mut self) {
        let node = &self.world.node;
        let done = node.command("node", "nft", &["delete", "table", "inet", "holdfast"]).status().unwrap();
        self.check("there are rules to delete", done.success());
        let took = node.until("the rules are back", |_| self.has_table("holdfast"));
        println!("rules deleted by hand, back after {took:?}");
    }

    /// Ends these sets, and what the pages say is left then by hand: the node is as it was before the first road.
    pub fn leave(mut self, sets: &[&str]) -> Vec<Row> {
        for set in sets {
            self.kubelet.delete(set);
        }
        let node = &self.world.node;
        for listen in [both_addresses(), format!("{LINK_LOCAL}:53")] {
            let (code, told) = node.tool(&["node", "teardown", "--listen", &listen]);
            self.check(&format!("the teardown ends well: {told}"), code == 0);
        }
        self.nothing_of_ours();
        let left = self.left();
        self.check("no interface is left", node.addresses().is_empty());
        self.check("no rules of node-cache are left", !left.contains(TABLE));
        self.check("no socket for DNS is left", left.contains("sockets 0"));
        self.check("others have what they had", others(node) == self.others);
        let processes = Command::new("ip").args(["netns", "pids", &node.space("node")]).output().unwrap();
        self.check(&format!("no process is left: {processes:?}"), processes.stdout.is_empty());
        let run = node.home.path().join("hostpath/run");
        let files: Vec<_> = run.read_dir().into_iter().flatten().flatten().map(|file| file.file_name()).collect();
        self.check(&format!("no socket and no note is left in the folder of the node: {files:?}"), files.is_empty());
        self.rows
    }
}

/// Interfaces, routes, policies and rules of a node that belong neither to us nor to node-cache.
pub fn others(node: &Node) -> String {
    let told = |program: &str, words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        String::from_utf8(node.command("node", program, &words).output().unwrap().stdout).unwrap()
    };
    let of_ip = ["-4 -o addr", "route", "rule", "-6 rule"].map(|words| told("ip", words)).concat();
    let of_ip: String = of_ip.split_inclusive('\n').filter(|line| !line.contains("nodelocaldns")).collect();
    let tables = told("nft", "list tables");
    let foreign = tables.lines().filter(|line| *line != "table inet holdfast" && !line.ends_with(&format!(" {TABLE}")));
    let rules = foreign.map(|table| told("nft", &format!("list {table}"))).collect::<Vec<_>>().concat();
    of_ip + &rules
}

/// The sockets at addresses of the agents that no agent listens at: those of a relay.
fn relays(node: &Node) -> Vec<String> {
    let known = [53, 8080, 9253, 9353].map(|port| format!(":{port:04X}"));
    let addresses = [LINK_LOCAL, VIP].map(|ip| {
        let octets = ip.parse::<std::net::Ipv4Addr>().unwrap().octets();
        format!("{:08X}:", u32::from_ne_bytes(octets))
    });
    let tables = node.command("node", "cat", &["/proc/net/udp", "/proc/net/tcp"]).output().unwrap();
    let sockets = String::from_utf8(tables.stdout).unwrap();
    let waits = |line: &&str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let (Some(local), Some(state)) = (columns.get(1), columns.get(3)) else { return false };
        // Bound and not connected (UDP), or listening (TCP).
        let open = ["07", "0A"].contains(state);
        open && addresses.iter().any(|ip| local.starts_with(ip)) && !known.iter().any(|port| local.ends_with(port))
    };
    sockets.lines().filter(waits).map(str::to_owned).collect()
}
