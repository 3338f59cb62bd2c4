//! Every road of docs/migration.md, walked by a kubelet while a pod asks: what a rollout does, and what is lost.

mod daemonset;
mod install;
mod load;
mod node_cache;
mod pod;
mod walk;

use std::{fs, path::Path, thread, time::Duration};

use holdfast::sys::Batch;
use serde_json::Value;

use self::{
    daemonset::{Rollout, Strategy},
    node_cache::{BY_NODE_CACHE, Ports, TABLE},
    pod::{Image, Template, kill},
    walk::{Row, Walk},
};
use super::rig::{BY_COREDNS, LINK_LOCAL, Node, OWN, UPSTREAM, VIP, have};
use crate::{deploy::yaml, support::process::Agent};

/// The address of CoreDNS, outside of the node.
const OUT: &str = "192.0.2.1";
const HUB: &str = "10.96.0.11";
/// The set of upstream's manifest and of the drop-in, and the one of the agents.
const DROP_IN: &str = "node-local-dns";
const AGENTS: &str = "holdfast-agent";

/// Every road of docs/migration.md: from → to, command, what becomes of the rollout, and what may be lost.
const ROADS: [(&str, &str, &str, Promise); 21] = [
    ("nodelocaldns → drop-in", "kubectl set image", "ends", Promise::Service),
    ("drop-in → drop-in with other mounts", "kubectl apply -k overlays/drop-in", "ends", Promise::Nothing),
    ("drop-in, its pod deleted", "kubectl delete pod", "ends", Promise::Service),
    ("drop-in, the container killed", "kill -9 of all its processes", "back-off", Promise::UntilFailsafe),
    ("drop-in, the container started again", "the kubelet does so after its back-off", "ends", Promise::Service),
    ("drop-in → drop-in with a hub", "kubectl apply", "ends", Promise::Nothing),
    ("drop-in with a hub → drop-in", "kubectl apply", "ends", Promise::Nothing),
    ("drop-in → nodelocaldns", "kubectl replace", "ends", Promise::Service),
    ("nodelocaldns → drop-in, overlay", "kubectl apply -k overlays/drop-in", "ends", Promise::UntilBack),
    ("drop-in → nodelocaldns, undo", "kubectl rollout undo", "ends", Promise::Service),
    (
        "nodelocaldns → drop-in, port held",
        "kubectl apply -k overlays/drop-in, kubectl delete pod",
        "ends",
        Promise::Service,
    ),
    ("CoreDNS → agents", "kubectl apply -k overlays/iptables", "ends", Promise::Nothing),
    ("agents → agents (upgrade)", "kubectl apply", "ends", Promise::Nothing),
    ("agents, the process that answers killed three times", "kill -9", "ends", Promise::AsRead),
    ("agents, the container killed", "kill -9 of all its processes", "back-off", Promise::UntilFailsafe),
    ("agents, the container started again", "the kubelet does so after its back-off", "ends", Promise::Service),
    ("agents → CoreDNS", "kubectl delete daemonset holdfast-agent", "ends", Promise::Service),
    (
        "drop-in → agents with other addresses, and back",
        "kubectl apply -k base, kubectl delete daemonset holdfast-agent",
        "waits",
        Promise::Nothing,
    ),
    (
        "drop-in → agents",
        "kubectl apply -k overlays/iptables, kubectl delete daemonset node-local-dns",
        "ends",
        Promise::Nothing,
    ),
    (
        "agents → drop-in",
        "kubectl apply -k overlays/drop-in, kubectl delete daemonset holdfast-agent",
        "ends",
        Promise::Nothing,
    ),
    (
        "drop-in → agents with other addresses",
        "kubectl apply -k base, kubectl delete daemonset node-local-dns",
        "waits",
        Promise::Service,
    ),
];

/// Packets that a loaded machine may have under way while an address moves. The table shows what it was.
const ON_THE_WAY: u64 = 4;
/// Queries that processes may have read when they are killed, so many times.
const KILLS: usize = 3;
const READ: u64 = (KILLS * Batch::MAX) as u64;

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A node, its cluster's DNS and a hub.
struct World {
    node: Node,
    _coredns: Agent,
}

/// The rules of kube-proxy for the services in front of CoreDNS, which has an address of its own.
fn kube_proxy() -> String {
    let to_coredns = format!("ip daddr {{ {VIP}, {UPSTREAM} }} meta l4proto {{ tcp, udp }} th dport 53 dnat to {OUT}");
    let chain = |hook: &str| format!("chain {hook} {{ type nat hook {hook} priority -100; {to_coredns}; }};");
    format!("table ip kube_proxy {{ {} {} }}", chain("prerouting"), chain("output"))
}

impl World {
    fn new() -> Option<Self> {
        let node = Node::new()?;
        for program in ["dig", "curl", "nft", "unshare", "nsenter"] {
            if !have(program) {
                return None;
            }
        }
        let rules = node.command("node", "nft", &[&kube_proxy()]).output().unwrap();
        assert!(rules.status.success(), "{rules:?}");
        node.ip("out", "link set lo up");
        node.ip("out", &format!("addr add {HUB}/32 dev lo"));
        let forward = ["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"];
        assert!(node.command("node", "sh", &forward).status().unwrap().success());
        let coredns = Self::coredns(&node);
        let objects = yaml::documents(&Self::pillars());
        let home = node.home.path();
        let corefile = objects.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
        fs::write(home.join("Corefile.base"), yaml::text(corefile, "/data/Corefile")).unwrap();
        fs::create_dir(home.join("kube-dns")).unwrap();
        fs::write(home.join("kube-dns/upstreamNameservers"), "[\"192.0.2.1\"]").unwrap();
        let overlay = yaml::file(&repository("deploy/kustomize/overlays/iptables/agent.yaml"));
        // Folders that no pod has here: tools for people, and certificates, which the arguments name.
        let config = yaml::text(&overlay[0], "/data/agent.yaml");
        let kept = config.lines().filter(|line| !["tool_path:", "tls:"].iter().any(|key| line.trim().starts_with(key)));
        fs::write(home.join("overlay.yaml"), kept.collect::<Vec<_>>().join("\n")).unwrap();
        let (code, told) = node.tool(&["certs", "--out", home.join("certs").to_str().unwrap()]);
        assert_eq!(code, 0, "{told}");
        Some(Self { node, _coredns: coredns })
    }

    /// Upstream's manifest as the overlay has it.
    fn pillars() -> String {
        let manifest = yaml::read(&repository("deploy/kustomize/overlays/drop-in/node-local-dns.yaml"));
        [("LOCAL__DNS", LINK_LOCAL), ("DNS__SERVER", VIP), ("DNS__DOMAIN", "cluster.local")]
            .iter()
            .fold(manifest, |text, (name, value)| text.replace(&format!("__PILLAR__{name}__"), value))
    }

    fn path(&self, name: &str) -> String {
        self.node.home.path().join(name).to_str().unwrap().to_owned()
    }

    fn coredns(node: &Node) -> Agent {
        let path = |name: &str| node.home.path().join(name).to_str().unwrap().to_owned();
        let cluster = fs::read_to_string(path("cluster.yaml")).unwrap();
        fs::write(path("coredns.yaml"), cluster.replace(OWN, BY_COREDNS)).unwrap();
        fs::write(path("outside.yaml"), "allow: [0.0.0.0/0]\nforward:\n  - {zone: ., answer: nxdomain}\n").unwrap();
        let (config, manifests, admin) = (path("outside.yaml"), path("coredns.yaml"), path("coredns.sock"));
        let flags = ["--config", &config, "--manifests", &manifests, "--admin", &admin, "--listen", OUT];
        let off = ["--store", "none", "--http", "none", "--metrics", "none", "--sandbox", "false"];
        Agent::spawn_until(&mut node.holdfast("out", &[&["agent"][..], &flags, &off].concat()), "records complete")
    }

    fn hub(&self) -> Agent {
        let (manifests, admin, tls) = (self.path("cluster.yaml"), self.path("hub.sock"), self.path("certs/hub"));
        let listen = format!("{HUB}:7443");
        let words = ["hub", "--manifests", &manifests, "--admin", &admin, "--tls", &tls, "--listen", &listen];
        let none = ["--store", "none", "--http", "none", "--metrics", "none"];
        Agent::spawn_until(&mut self.node.holdfast("out", &[&words[..], &none].concat()), "records complete")
    }

    fn with_hub(&self) -> Vec<String> {
        ["--hub", &format!("{HUB}:7443"), "--tls", &self.path("certs/agent")].map(str::to_owned).to_vec()
    }

    /// `overlays/drop-in`, and how its pods are replaced.
    fn overlay(&self) -> (Strategy, Template) {
        let objects = yaml::documents(&Self::pillars());
        let set = objects.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
        let at = |pointer: &str| set.pointer(pointer);
        let containers = at("/spec/template/spec/containers").unwrap().as_array().unwrap();
        let arguments = |container: &Value| -> Vec<String> {
            container["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        let mut lines: Vec<Vec<String>> = containers.iter().map(arguments).collect();
        // A file that the container can write, and the folders of its ConfigMaps.
        let conf = lines[0].iter().position(|word| word == "-conf").unwrap();
        "/run/Corefile".clone_into(&mut lines[0][conf + 1]);
        for (flag, file) in [("-basecorefile", "Corefile.base"), ("-kubednscm", "kube-dns")] {
            lines[0].extend([flag.to_owned(), self.path(file)]);
        }
        let ports = containers.iter().flat_map(|container| container["ports"].as_array().into_iter().flatten());
        let surge = at("/spec/updateStrategy/rollingUpdate/maxSurge") == Some(&Value::from(1));
        let is_hosts = |volume: &Value| !volume["hostPath"].is_null();
        let template = Template {
            image: Image::Holdfast(lines),
            host_ports: ports.map(|port| u16::try_from(port["containerPort"].as_u64().unwrap()).unwrap()).collect(),
            host_path: at("/spec/template/spec/volumes").unwrap().as_array().unwrap().iter().any(is_hosts),
            probed: !containers[0]["readinessProbe"].is_null(),
        };
        (if surge { Strategy::Surge } else { Strategy::EndFirst }, template)
    }

    /// The overlay with more flags.
    fn overlay_with(&self, more: Vec<String>) -> (Strategy, Template) {
        let (strategy, mut template) = self.overlay();
        let Image::Holdfast(containers) = &mut template.image else { panic!("holdfast") };
        containers[0].extend(more);
        (strategy, template)
    }

    /// Upstream's manifest: it declares ports, mounts no folder of the node, and its strategy ends a pod first.
    fn upstreams(image: Image) -> (Strategy, Template) {
        let template = Template { image, host_ports: vec![53, 9253], host_path: false, probed: false };
        (Strategy::EndFirst, template)
    }

    /// `overlays/iptables`, with these addresses, and following the hub.
    fn agents(&self, listen: &str) -> (Strategy, Template) {
        let config = format!("--config={}", self.path("overlay.yaml"));
        let listen = ["--listen".to_owned(), listen.to_owned()];
        let agent = [&["agent".to_owned(), config.clone()][..], &listen, &self.with_hub()].concat();
        let watch = [&["node".to_owned(), "watch".to_owned(), config][..], &listen, &self.with_hub()].concat();
        let image = Image::Holdfast(vec![agent, watch]);
        (Strategy::Surge, Template { image, host_ports: Vec::new(), host_path: true, probed: true })
    }
}

fn both_addresses() -> String {
    format!("{LINK_LOCAL}:53,{VIP}:53")
}

/// What may be lost on a road.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    /// Nothing at either address.
    Nothing,
    /// What killed processes had read and not answered.
    AsRead,
    /// Nothing at the service's address. Nothing else answers at the link-local one while a pod is away.
    Service,
    /// What comes between the end of node-cache, which removes the interface, and its return. Printed, not bounded.
    UntilBack,
    /// What a killed container had received, until the failsafe answers.
    UntilFailsafe,
}

impl Promise {
    /// As the page has it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::AsRead => "what the process had read",
            Self::Service => "nothing at the service's address",
            Self::UntilBack => "some ms, until the interface is back",
            Self::UntilFailsafe => "1 to 2 s, until the failsafe answers",
        }
    }
}

fn from_nodelocaldns(world: &World) -> Vec<Row> {
    let _hub = world.hub();
    let mut walk = Walk::new(world);
    let (strategy, template) = World::upstreams(Image::NodeCache(Ports::Shared));
    assert_eq!(walk.kubelet.apply(DROP_IN, strategy, template.clone()), Rollout::Ended);

    // Upstream's manifest has one container.
    let Image::Holdfast(lines) = world.overlay().1.image else { panic!("holdfast") };
    let swapped = Template { image: Image::Holdfast(lines[..1].to_vec()), ..template.clone() };
    walk.walk(
        "nodelocaldns → drop-in",
        |kubelet| kubelet.apply(DROP_IN, Strategy::EndFirst, swapped.clone()),
        (BY_COREDNS, Some(BY_COREDNS)),
    );
    walk.check("node-cache's rules are gone", !walk.has_table(TABLE));
    walk.check("our rules are there", walk.has_table("holdfast"));
    // `maxSurge` on upstream's manifest, whose ports are the node's.
    assert_eq!(walk.kubelet.apply(DROP_IN, Strategy::Surge, swapped), Rollout::Pending);

    let (strategy, overlay) = world.overlay();
    walk.walk(
        "drop-in → drop-in with other mounts",
        |kubelet| kubelet.apply(DROP_IN, strategy, overlay.clone()),
        (BY_COREDNS, Some(BY_COREDNS)),
    );
    walk.rules_come_back();
    walk.walk("drop-in, its pod deleted", |kubelet| kubelet.delete_pod(DROP_IN), (BY_COREDNS, Some(BY_COREDNS)));
    walk.walk(
        "drop-in, the container killed",
        |kubelet| {
            kubelet.pod(DROP_IN).kill();
            Rollout::BackOff(Duration::from_secs(10))
        },
        (BY_COREDNS, Some(BY_COREDNS)),
    );
    walk.walk(
        "drop-in, the container started again",
        |kubelet| kubelet.restart(DROP_IN),
        (BY_COREDNS, Some(BY_COREDNS)),
    );
    let (_, with_hub) = world.overlay_with(world.with_hub());
    walk.walk("drop-in → drop-in with a hub", |kubelet| kubelet.apply(DROP_IN, strategy, with_hub), (OWN, Some(OWN)));
    walk.walk(
        "drop-in with a hub → drop-in",
        |kubelet| kubelet.apply(DROP_IN, strategy, overlay),
        (BY_COREDNS, Some(BY_COREDNS)),
    );
    walk.walk(
        "drop-in → nodelocaldns",
        |kubelet| kubelet.apply(DROP_IN, Strategy::EndFirst, template),
        (BY_NODE_CACHE, Some(BY_NODE_CACHE)),
    );
    walk.nothing_of_ours();
    walk.check("node-cache's rules are there", walk.has_table(TABLE));
    walk.leave(&[DROP_IN])
}

fn overlay_at_once(world: &World) -> Vec<Row> {
    let mut walk = Walk::new(world);
    let (strategy, template) = World::upstreams(Image::NodeCache(Ports::Shared));
    assert_eq!(walk.kubelet.apply(DROP_IN, strategy, template.clone()), Rollout::Ended);
    let (strategy, overlay) = world.overlay();
    walk.walk(
        "nodelocaldns → drop-in, overlay",
        |kubelet| kubelet.apply(DROP_IN, strategy, overlay.clone()),
        (BY_COREDNS, Some(BY_COREDNS)),
    );
    walk.check("our rules are there", walk.has_table("holdfast"));
    walk.walk(
        "drop-in → nodelocaldns, undo",
        |kubelet| kubelet.undo(DROP_IN, template.clone()),
        (BY_NODE_CACHE, Some(BY_NODE_CACHE)),
    );
    walk.nothing_of_ours();
    walk.check("node-cache's rules are there", walk.has_table(TABLE));
    // The strategy has stayed: node-cache's own next rollout finds no place.
    assert_eq!(walk.kubelet.undo(DROP_IN, template), Rollout::Pending);

    let (strategy, alone) = World::upstreams(Image::NodeCache(Ports::Alone));
    assert_eq!(walk.kubelet.apply(DROP_IN, strategy, alone), Rollout::Ended);
    let before = walk.left();
    let (strategy, overlay) = world.overlay();
    walk.walk(
        "nodelocaldns → drop-in, port held",
        |kubelet| {
            let rollout = kubelet.apply(DROP_IN, strategy, overlay);
            assert_eq!(rollout, Rollout::Waits);
            kubelet.delete_pod(DROP_IN)
        },
        (BY_COREDNS, Some(BY_COREDNS)),
    );
    walk.check("our rules are there", walk.has_table("holdfast"));
    walk.check("something was there before", before.contains(TABLE));
    walk.leave(&[DROP_IN])
}

fn agents(world: &World) -> Vec<Row> {
    let mut walk = Walk::new(world);
    let (strategy, template) = world.agents(&both_addresses());
    let mut hub = None;
    walk.walk(
        "CoreDNS → agents",
        |kubelet| {
            let node = kubelet.node;
            // The hub comes late, and pods do not notice.
            let rollout = kubelet.apply_until(AGENTS, strategy, template.clone(), |node, _| {
                node.answer("pod2", LINK_LOCAL).as_deref() == Some(BY_COREDNS)
            });
            assert_eq!(rollout, Rollout::Waits);
            load::asked(node);
            hub = Some(world.hub());
            kubelet.wait_until_ready(AGENTS)
        },
        (OWN, Some(OWN)),
    );
    walk.walk("agents → agents (upgrade)", |kubelet| kubelet.apply(AGENTS, strategy, template), (OWN, Some(OWN)));
    walk.rules_come_back();
    walk.walk(
        "agents, the process that answers killed three times",
        |kubelet| {
            for death in 1..=KILLS {
                let pod = kubelet.pod(AGENTS);
                kill(pod.answering().unwrap(), "KILL");
                pod.agent().wait_for_nth("starting it again, queries wait", death);
                pod.agent().wait_for_nth("answering DNS listen=", death + 1);
            }
            Rollout::Ended
        },
        (OWN, Some(OWN)),
    );
    walk.walk(
        "agents, the container killed",
        |kubelet| {
            kubelet.pod(AGENTS).kill();
            Rollout::BackOff(Duration::from_secs(10))
        },
        (BY_COREDNS, Some(BY_COREDNS)),
    );
    walk.walk("agents, the container started again", |kubelet| kubelet.restart(AGENTS), (OWN, Some(OWN)));
    walk.walk(
        "agents → CoreDNS",
        |kubelet| {
            kubelet.delete(AGENTS);
            Rollout::Ended
        },
        (BY_COREDNS, None),
    );
    walk.check("the service's address is given back", !world.node.addresses().contains(&format!(" {VIP}/")));
    walk.leave(&[])
}

fn both_sets(world: &World) -> Vec<Row> {
    let _hub = world.hub();
    let mut walk = Walk::new(world);
    let (strategy, overlay) = world.overlay();
    assert_eq!(walk.kubelet.apply(DROP_IN, strategy, overlay.clone()), Rollout::Ended);
    let (surge, other) = world.agents(&format!("{LINK_LOCAL}:53"));
    walk.walk(
        "drop-in → agents with other addresses, and back",
        |kubelet| {
            let rollout = kubelet.apply(AGENTS, surge, other.clone());
            load::asked(kubelet.node);
            kubelet.delete(AGENTS);
            rollout
        },
        (BY_COREDNS, Some(BY_COREDNS)),
    );
    walk.check(
        "the drop-in has both addresses",
        [LINK_LOCAL, VIP].iter().all(|ip| world.node.addresses().contains(ip)),
    );
    let (_, agents) = world.agents(&both_addresses());
    walk.walk(
        "drop-in → agents",
        |kubelet| {
            let rollout = kubelet.apply(AGENTS, surge, agents);
            kubelet.delete(DROP_IN);
            rollout
        },
        (OWN, Some(OWN)),
    );
    walk.rules_come_back();
    walk.walk(
        "agents → drop-in",
        |kubelet| {
            let rollout = kubelet.apply(DROP_IN, strategy, overlay);
            kubelet.delete(AGENTS);
            rollout
        },
        (BY_COREDNS, Some(BY_COREDNS)),
    );
    walk.rules_come_back();
    walk.walk(
        "drop-in → agents with other addresses",
        |kubelet| {
            let rollout = kubelet.apply(AGENTS, surge, other);
            kubelet.delete(DROP_IN);
            rollout
        },
        (BY_COREDNS, Some(OWN)),
    );
    walk.leave(&[AGENTS])
}

#[test]
fn every_road_of_the_page_ends_and_loses_nothing() {
    let walks = [from_nodelocaldns, overlay_at_once, agents, both_sets];
    let rows: Vec<Row> = thread::scope(|scope| {
        let walk = |walk: fn(&World) -> Vec<Row>| scope.spawn(move || World::new().map(|world| walk(&world)));
        let walks = walks.map(walk);
        walks.into_iter().filter_map(|walk| walk.join().unwrap()).flatten().collect()
    });
    println!("| from → to | command | rollout | asked | lost | lost at {LINK_LOCAL} | longest gap |");
    println!("|---|---|---|---|---|---|---|");
    if rows.is_empty() {
        return;
    }
    for (road, command, ..) in ROADS {
        let row = rows.iter().find(|row| row.road == road).unwrap_or_else(|| panic!("not walked: {road}"));
        let Row { rollout, service, link_local, .. } = row;
        let beside = link_local.as_ref().map_or("-".to_owned(), |tally| tally.lost.to_string());
        let gap = service.gap_ms;
        println!(
            "| {road} | {command} | {} | {} | {} | {beside} | {gap} ms |",
            rollout.as_str(),
            service.asked,
            service.lost
        );
    }
    let faults: Vec<&str> = rows.iter().flat_map(|row| &row.faults).map(String::as_str).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn the_page_says_of_every_road_what_is_walked() {
    let page = yaml::read(&repository("docs/migration.md"));
    let (_, table) = page.split_once("\n## Every road\n").unwrap();
    let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let columns = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|column| column.trim().replace('`', "")).collect()
    };
    let told: Vec<Vec<String>> = rows.take_while(|line| line.starts_with('|')).map(columns).collect();
    let told: Vec<[&str; 4]> = told.iter().map(|row| [0, 1, 2, 3].map(|column| row[column].as_str())).collect();
    assert_eq!(told, ROADS.map(|(road, command, rollout, promise)| [road, command, rollout, promise.as_str()]));
}
