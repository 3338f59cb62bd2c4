//! A node with what stands around it, and the sets that are installed there: from the manifests of this repository.

use std::{fs, path::Path};

use serde_json::Value;

use super::{
    daemonset::Strategy,
    pod::{Image, Template},
};
use crate::{
    deploy::yaml,
    node::rig::{BY_COREDNS, LINK_LOCAL, Node, OWN, UPSTREAM, VIP, have},
    support::process::Agent,
};

/// The address of CoreDNS, outside of the node.
const OUT: &str = "192.0.2.1";
pub const HUB: &str = "10.96.0.11";

pub fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A node, its cluster's DNS and a hub.
pub struct World {
    pub node: Node,
    _coredns: Agent,
}

/// The rules of kube-proxy for the services in front of CoreDNS, which has an address of its own.
fn kube_proxy() -> String {
    let to_coredns = format!("ip daddr {{ {VIP}, {UPSTREAM} }} meta l4proto {{ tcp, udp }} th dport 53 dnat to {OUT}");
    let chain = |hook: &str| format!("chain {hook} {{ type nat hook {hook} priority -100; {to_coredns}; }};");
    format!("table ip kube_proxy {{ {} {} }}", chain("prerouting"), chain("output"))
}

impl World {
    pub fn new() -> Option<Self> {
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

    pub fn path(&self, name: &str) -> String {
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

    pub fn hub(&self) -> Agent {
        let (manifests, admin, tls) = (self.path("cluster.yaml"), self.path("hub.sock"), self.path("certs/hub"));
        let listen = format!("{HUB}:7443");
        let words = ["hub", "--manifests", &manifests, "--admin", &admin, "--tls", &tls, "--listen", &listen];
        let none = ["--store", "none", "--http", "none", "--metrics", "none"];
        Agent::spawn_until(&mut self.node.holdfast("out", &[&words[..], &none].concat()), "records complete")
    }

    pub fn with_hub(&self) -> Vec<String> {
        ["--hub", &format!("{HUB}:7443"), "--tls", &self.path("certs/agent")].map(str::to_owned).to_vec()
    }

    /// `overlays/drop-in`, and how its pods are replaced.
    pub fn overlay(&self) -> (Strategy, Template) {
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
    pub fn overlay_with(&self, more: Vec<String>) -> (Strategy, Template) {
        let (strategy, mut template) = self.overlay();
        let Image::Holdfast(containers) = &mut template.image else { panic!("holdfast") };
        containers[0].extend(more);
        (strategy, template)
    }

    /// Upstream's manifest: it declares ports, mounts no folder of the node, and its strategy ends a pod first.
    pub fn upstreams(image: Image) -> (Strategy, Template) {
        let template = Template { image, host_ports: vec![53, 9253], host_path: false, probed: false };
        (Strategy::EndFirst, template)
    }

    /// `overlays/iptables`, with these addresses, and following the hub.
    pub fn agents(&self, listen: &str) -> (Strategy, Template) {
        let config = format!("--config={}", self.path("overlay.yaml"));
        let listen = ["--listen".to_owned(), listen.to_owned()];
        let agent = [&["agent".to_owned(), config.clone()][..], &listen, &self.with_hub()].concat();
        let watch = [&["node".to_owned(), "watch".to_owned(), config][..], &listen, &self.with_hub()].concat();
        let image = Image::Holdfast(vec![agent, watch]);
        (Strategy::Surge, Template { image, host_ports: Vec::new(), host_path: true, probed: true })
    }
}

pub fn both_addresses() -> String {
    format!("{LINK_LOCAL}:53,{VIP}:53")
}
