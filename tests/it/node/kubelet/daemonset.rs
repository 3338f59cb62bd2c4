//! `DaemonSet`s on one node, by the rules of the controller and the kubelet.

use std::{collections::BTreeMap, time::Duration};

use super::pod::{Pod, Template};
use crate::node::rig::Node;

/// Restarts after a crash before a rollout is given up, each after a longer wait than the one before.
const RESTARTS: u32 = 3;
/// The wait before the first one. It doubles. Nothing waits that long here: the time is counted.
const BACK_OFF: Duration = Duration::from_secs(10);

/// How pods are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// `maxUnavailable: 1`: the old pod ends, then the new one starts.
    EndFirst,
    /// `maxSurge: 1`: the new pod starts beside the old one, which ends when the new one is ready.
    Surge,
}

/// What became of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollout {
    Ended,
    /// The scheduler finds no place for the new pod: a port of the node is taken by the old one.
    Pending,
    /// The new pod runs, is not ready and says why.
    Waits,
    /// It crashes; the time that a kubelet would have waited so far.
    BackOff(Duration),
}

impl Rollout {
    /// As the page has it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ended => "ends",
            Self::Pending => "pending",
            Self::Waits => "waits",
            Self::BackOff(_) => "back-off",
        }
    }
}

struct Set {
    strategy: Strategy,
    template: Template,
    pod: Option<Pod>,
    /// One that is to take its place.
    newcomer: Option<Pod>,
}

/// The sets of a node by name.
pub struct Kubelet<'a> {
    pub node: &'a Node,
    sets: BTreeMap<&'static str, Set>,
}

impl<'a> Kubelet<'a> {
    pub fn new(node: &'a Node) -> Self {
        Self { node, sets: BTreeMap::new() }
    }

    /// `kubectl apply` of a set, up to the end of the rollout or until that cannot go on.
    pub fn apply(&mut self, name: &'static str, strategy: Strategy, template: Template) -> Rollout {
        self.apply_until(name, strategy, template, |_, _| false)
    }

    /// The same, or until `enough`: it waits then.
    pub fn apply_until(
        &mut self,
        name: &'static str,
        strategy: Strategy,
        template: Template,
        enough: impl Fn(&Node, &mut Pod) -> bool,
    ) -> Rollout {
        let taken = |set: &Set| set.template.host_ports.iter().any(|port| template.host_ports.contains(port));
        // The scheduler looks at all pods of the node; one that ends first leaves its ports.
        let pending =
            self.sets.iter().any(|(other, set)| taken(set) && (*other != name || strategy == Strategy::Surge));
        let set =
            self.sets.entry(name).or_insert(Set { strategy, template: template.clone(), pod: None, newcomer: None });
        (set.strategy, set.template) = (strategy, template);
        if let Some(gone) = set.newcomer.take() {
            gone.terminate();
        }
        if pending {
            return Rollout::Pending;
        }
        if strategy == Strategy::EndFirst
            && let Some(old) = set.pod.take()
        {
            old.terminate();
        }
        let rollout = Self::start(self.node, set, enough);
        if rollout == Rollout::Ended {
            self.replace(name);
        }
        rollout
    }

    /// Starts a newcomer, and again when it crashes, until it is ready.
    fn start(node: &Node, set: &mut Set, enough: impl Fn(&Node, &mut Pod) -> bool) -> Rollout {
        let (mut waited, mut wait) = (Duration::ZERO, BACK_OFF);
        for _ in 0..=RESTARTS {
            set.newcomer = Pod::start(node, &set.template);
            let Some(pod) = &mut set.newcomer else {
                waited += wait;
                wait *= 2;
                continue;
            };
            let mut ended = false;
            node.until("ready, waiting or crashed", |node| {
                ended = pod.has_ended();
                ended || pod.waits() || enough(node, pod) || !set.template.probed || pod.is_ready(node)
            });
            if !ended {
                let ready = !set.template.probed || pod.is_ready(node);
                return if ready { Rollout::Ended } else { Rollout::Waits };
            }
            println!("crashed: {}", pod.log());
            waited += wait;
            wait *= 2;
        }
        set.newcomer = None;
        Rollout::BackOff(waited)
    }

    /// Ends the old pod of a set; the newcomer is the pod from now on.
    pub fn replace(&mut self, name: &str) {
        let set = self.sets.get_mut(name).unwrap();
        if let Some(old) = set.pod.take() {
            old.terminate();
        }
        set.pod = set.newcomer.take();
    }

    /// `kubectl delete pod`: the old pod of a set ends, and the controller makes a new one unless there is one already.
    pub fn delete_pod(&mut self, name: &str) -> Rollout {
        let set = self.sets.get_mut(name).unwrap();
        if let Some(old) = set.pod.take() {
            old.terminate();
        }
        if set.newcomer.is_none() {
            let rollout = Self::start(self.node, set, |_, _| false);
            if rollout != Rollout::Ended {
                return rollout;
            }
        }
        set.pod = set.newcomer.take();
        let (node, template) = (self.node, set.template.clone());
        let pod = set.pod.as_mut().unwrap();
        if template.probed {
            node.until("ready", |node| pod.is_ready(node));
        }
        Rollout::Ended
    }

    /// Waits until the newcomer of a set is ready, and ends the old pod.
    pub fn wait_until_ready(&mut self, name: &str) -> Rollout {
        let (node, newcomer) = (self.node, self.newcomer(name));
        node.until("ready", |node| newcomer.is_ready(node));
        self.replace(name);
        Rollout::Ended
    }

    /// The kubelet starts the container that has ended again: its back-off is over.
    pub fn restart(&mut self, name: &str) -> Rollout {
        let set = self.sets.get_mut(name).unwrap();
        let pod = set.pod.as_mut().unwrap();
        pod.restart(self.node, &set.template);
        self.node.until("ready", |node| pod.is_ready(node));
        Rollout::Ended
    }

    /// `kubectl delete daemonset`.
    pub fn delete(&mut self, name: &str) {
        let set = self.sets.remove(name).unwrap();
        for pod in [set.newcomer, set.pod].into_iter().flatten() {
            pod.terminate();
        }
    }

    /// The strategy stays, as at `kubectl rollout undo`: it is no part of a revision.
    pub fn undo(&mut self, name: &'static str, template: Template) -> Rollout {
        let strategy = self.sets[name].strategy;
        self.apply(name, strategy, template)
    }

    /// `kubectl replace` with another strategy and the same template.
    pub fn set_strategy(&mut self, name: &str, strategy: Strategy) {
        self.sets.get_mut(name).unwrap().strategy = strategy;
    }

    /// The pod of a set.
    pub fn pod(&mut self, name: &str) -> &mut Pod {
        let set = self.sets.get_mut(name).unwrap();
        set.pod.as_mut().or(set.newcomer.as_mut()).unwrap()
    }

    /// The pod that is to take the place of another.
    pub fn newcomer(&mut self, name: &str) -> &mut Pod {
        self.sets.get_mut(name).unwrap().newcomer.as_mut().unwrap()
    }

    /// The logs of all pods.
    pub fn logs(&mut self) -> String {
        let pods = self.sets.values_mut().flat_map(|set| [&mut set.pod, &mut set.newcomer]).flatten();
        pods.map(Pod::log).collect::<Vec<_>>().join("\n--\n")
    }
}
