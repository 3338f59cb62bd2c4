//! A pod on the node's network: its containers have a mount and a process namespace each, and share folders only by a hostPath.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, ExitStatus},
};

use super::node_cache::{NodeCache, Ports};
use crate::{
    node::rig::{Node, UPSTREAM},
    support::process::{Agent, children},
};

/// What every container of holdfast's image mounts of its own; `$HOSTPATH` is the folder of the node, if it has one.
const MOUNTS: &str = "set -e
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
mkdir /run/holdfast /var/lib/holdfast
if [ -n \"$HOSTPATH\" ]; then
  mkdir -p \"$HOSTPATH/run\" \"$HOSTPATH/store\"
  mount --bind \"$HOSTPATH/run\" /run/holdfast
  mount --bind \"$HOSTPATH/store\" /var/lib/holdfast
fi
exec \"$@\"";

/// The processes of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    NodeCache(Ports),
    /// A container for each line of arguments.
    Holdfast(Vec<Vec<String>>),
}

/// What a `DaemonSet` says of its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub image: Image,
    /// Ports of the container. On the node's network they are ports of the node.
    pub host_ports: Vec<u16>,
    /// Socket and store are folders of the node.
    pub host_path: bool,
    /// The pod has a readiness probe.
    pub probed: bool,
}

pub enum Pod {
    NodeCache(NodeCache),
    Holdfast(Vec<Agent>),
}

impl Pod {
    /// Starts the containers. `None` if the process ends at once.
    pub fn start(node: &Node, template: &Template) -> Option<Self> {
        match &template.image {
            Image::NodeCache(ports) => NodeCache::start(node, *ports).ok().map(Self::NodeCache),
            Image::Holdfast(containers) => {
                let container = |line: &Vec<String>| {
                    let words: Vec<&str> = line.iter().map(String::as_str).collect();
                    Agent::begin(&mut Self::container(node, template.host_path, &words))
                };
                Some(Self::Holdfast(containers.iter().map(container).collect()))
            }
        }
    }

    fn container(node: &Node, host_path: bool, words: &[&str]) -> Command {
        let apart = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", MOUNTS, "sh"];
        let line = [&apart[..], &[env!("CARGO_BIN_EXE_holdfast")], words].concat();
        let mut command = node.command("node", "unshare", &line);
        let folder = if host_path { node.home.path().join("hostpath").display().to_string() } else { String::new() };
        command.env("HOSTPATH", folder).env("KUBERNETES_SERVICE_HOST", "10.96.0.1").arg0("ip");
        for service in ["KUBE_DNS_UPSTREAM", "HOLDFAST_UPSTREAM"] {
            command.env(format!("{service}_SERVICE_HOST"), UPSTREAM);
        }
        command
    }

    /// Its first container, of holdfast's image.
    pub fn agent(&mut self) -> &mut Agent {
        match self {
            Self::Holdfast(containers) => &mut containers[0],
            Self::NodeCache(_) => panic!("node-cache"),
        }
    }

    /// The first process of a container, as the node numbers it.
    fn first_process(agent: &Agent) -> Option<u32> {
        children(agent.process()).first().copied()
    }

    /// The process that answers.
    pub fn answering(&mut self) -> Option<u32> {
        let parent = Self::first_process(self.agent())?;
        let is_watch = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == b"watch")
        };
        children(parent).into_iter().find(|pid| !is_watch(pid))
    }

    /// A command of the tools in the first container: whether it ends with 0, and what it says.
    pub fn exec(&mut self, node: &Node, words: &[&str]) -> (bool, String) {
        let Some(pid) = Self::first_process(self.agent()) else { return (false, "no process".into()) };
        let pid = pid.to_string();
        let inside = ["-t", &pid, "-m", "-p", env!("CARGO_BIN_EXE_holdfast")];
        let done = node.command("node", "nsenter", &[&inside[..], words].concat()).output().unwrap();
        (done.status.success(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
    }

    /// The probes of the manifests: the startup probe of this container, then whoever has the port.
    pub fn is_ready(&mut self, node: &Node) -> bool {
        match self {
            Self::NodeCache(_) => true,
            Self::Holdfast(_) => {
                self.exec(node, &["node", "ready", "--admin", "/run/holdfast/agent.sock"]).0
                    && node.http("169.254.20.10:8080", "/ready").starts_with("HTTP/1.1 200 ")
            }
        }
    }

    /// Whether a container has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        match self {
            Self::NodeCache(_) => false,
            Self::Holdfast(containers) => containers.iter_mut().any(Agent::has_ended),
        }
    }

    /// Whether it says that it waits beside another process.
    pub fn waits(&mut self) -> bool {
        match self {
            Self::NodeCache(_) => false,
            Self::Holdfast(containers) => {
                containers[0].log().iter().any(|line| line.contains("waiting for another process to end"))
            }
        }
    }

    /// SIGTERM to every container, and the end of each.
    pub fn terminate(self) -> Vec<ExitStatus> {
        match self {
            Self::NodeCache(node_cache) => {
                node_cache.terminate();
                Vec::new()
            }
            Self::Holdfast(containers) => {
                for container in &containers {
                    signal(container, "TERM");
                }
                containers.into_iter().map(Agent::ended).collect()
            }
        }
    }

    /// Ends the first container at once with all of its processes, as the kernel does for want of memory.
    pub fn kill(&mut self) {
        signal(self.agent(), "KILL");
    }

    /// Starts the first container again, as the kubelet does after its back-off.
    pub fn restart(&mut self, node: &Node, template: &Template) {
        let (Self::Holdfast(containers), Image::Holdfast(lines)) = (self, &template.image) else {
            panic!("node-cache");
        };
        let words: Vec<&str> = lines[0].iter().map(String::as_str).collect();
        containers[0] = Agent::begin(&mut Self::container(node, template.host_path, &words));
    }

    pub fn log(&mut self) -> String {
        match self {
            Self::NodeCache(_) => String::new(),
            Self::Holdfast(containers) => {
                containers.iter_mut().flat_map(|one| one.log().to_vec()).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

fn signal(container: &Agent, name: &str) {
    // It may have ended.
    if let Some(pid) = Pod::first_process(container) {
        kill(pid, name);
    }
}

pub fn kill(pid: u32, name: &str) {
    let _ = Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
}
