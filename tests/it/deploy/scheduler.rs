//! An upgrade and a drain of the hubs, by the rules of the scheduler, the controller of Deployments, and evictions.

use serde_json::{Value, json};

use super::{object, objects};

/// The label of a node that holds its own name: the only topology here.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// A Deployment on some nodes, of which some take no new pods.
struct Cluster<'a> {
    deployment: &'a Value,
    /// For each node, whether it takes pods.
    nodes: Vec<bool>,
    /// Of the pods that have a node: which, and whether they are of the new revision.
    pods: Vec<(usize, bool)>,
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

impl<'a> Cluster<'a> {
    /// The Deployment after its installation. `None` if some of its pods find no node.
    fn install(deployment: &'a Value, nodes: usize) -> Option<Self> {
        let mut cluster = Self { deployment, nodes: vec![true; nodes], pods: Vec::new() };
        (0..cluster.replicas()).all(|_| cluster.schedule(false)).then_some(cluster)
    }

    fn replicas(&self) -> usize {
        self.number("/spec/replicas")
    }

    fn number(&self, pointer: &str) -> usize {
        let number = self.deployment.pointer(pointer).and_then(Value::as_u64);
        usize::try_from(number.unwrap_or_else(|| panic!("{pointer} is no number"))).unwrap()
    }

    fn on(&self, node: usize) -> usize {
        self.pods.iter().filter(|(at, _)| *at == node).count()
    }

    /// Gives a new pod a node. False if none takes it: it is pending.
    fn schedule(&mut self, new: bool) -> bool {
        let pod = &self.deployment["spec"]["template"]["spec"];
        let labels = &self.deployment["spec"]["template"]["metadata"]["labels"];
        let is_own = |selector: &Value| {
            let wanted = selector["matchLabels"].as_object().expect("labels");
            wanted.iter().all(|(label, value)| labels[label] == *value)
        };
        let required = list(pod, "/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution");
        let apart = required.iter().any(|term| {
            assert_eq!(term["topologyKey"], HOSTNAME);
            is_own(&term["labelSelector"])
        });
        let spread = list(pod, "/topologySpreadConstraints").iter().filter(|constraint| {
            assert_eq!(constraint["topologyKey"], HOSTNAME);
            constraint["whenUnsatisfiable"] == "DoNotSchedule" && is_own(&constraint["labelSelector"])
        });
        let skew = spread.map(|constraint| constraint["maxSkew"].as_u64().unwrap()).min();
        let ports = list(pod, "/containers").iter().flat_map(|container| list(container, "/ports"));
        let of_the_node = ports.filter(|port| pod["hostNetwork"] == true || !port["hostPort"].is_null()).count() > 0;
        let least = (0..self.nodes.len()).map(|node| self.on(node)).min().unwrap_or_default();
        let fits = |node: &usize| {
            let there = self.on(*node);
            self.nodes[*node]
                && (there == 0 || !apart && !of_the_node)
                && skew.is_none_or(|skew| there + 1 - least <= usize::try_from(skew).unwrap())
        };
        let preferred = list(pod, "/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution");
        let prefers = preferred.iter().any(|term| is_own(&term["podAffinityTerm"]["labelSelector"]));
        let node = (0..self.nodes.len()).filter(fits).min_by_key(|node| if prefers { self.on(*node) } else { 0 });
        self.pods.extend(node.map(|node| (node, new)));
        node.is_some()
    }

    /// Replaces every pod by one of a new revision. False if that does not end.
    fn upgrade(&mut self) -> bool {
        let surge = self.number("/spec/strategy/rollingUpdate/maxSurge");
        let unavailable = self.number("/spec/strategy/rollingUpdate/maxUnavailable");
        let replicas = self.replicas();
        loop {
            let new = self.pods.iter().filter(|(_, new)| *new).count();
            if new == self.pods.len() && new == replicas {
                return true;
            }
            if new < replicas && self.pods.len() < replicas + surge && self.schedule(true) {
                continue;
            }
            let old = self.pods.iter().position(|(_, new)| !new);
            match old.filter(|_| self.pods.len() > replicas - unavailable) {
                Some(old) => drop(self.pods.remove(old)),
                None => return false,
            }
        }
    }

    /// Takes all pods from a node, as `kubectl drain` does. False if the budget never lets one go.
    fn drain(&mut self, node: usize, budget: &Value) -> bool {
        self.nodes[node] = false;
        let missing = match &budget["spec"]["maxUnavailable"] {
            // Rounded up, as the controller does.
            Value::String(percent) => {
                (self.replicas() * percent.strip_suffix('%').unwrap().parse::<usize>().unwrap()).div_ceil(100)
            }
            number => usize::try_from(number.as_u64().unwrap()).unwrap(),
        };
        while let Some(leaving) = self.pods.iter().position(|(at, _)| *at == node) {
            if self.pods.len() - 1 + missing < self.replicas() {
                return false;
            }
            self.pods.remove(leaving);
            while self.pods.len() < self.replicas() && self.schedule(false) {}
        }
        true
    }
}

fn hub(place: &str, replicas: usize) -> (Value, Value) {
    let objects = objects(place);
    let mut deployment = object(&objects, "Deployment/holdfast-hub").clone();
    deployment["spec"]["replicas"] = json!(replicas);
    (deployment, object(&objects, "PodDisruptionBudget/holdfast-hub").clone())
}

#[test]
fn an_upgrade_of_the_hubs_ends_on_any_number_of_nodes() {
    for place in ["hub", "helm"] {
        for (nodes, replicas) in [(1, 1), (1, 2), (2, 2), (2, 3), (3, 2), (3, 3)] {
            let (deployment, _) = hub(place, replicas);
            let mut cluster = Cluster::install(&deployment, nodes).expect("every hub has a node");
            let most = (0..nodes).map(|node| cluster.on(node)).max();
            assert_eq!(most, Some(replicas.div_ceil(nodes)), "{place}: spread over {nodes} nodes");
            assert!(cluster.upgrade(), "{place}: {replicas} replicas on {nodes} nodes");
        }
    }
    // What was there before, and each other way to get stuck.
    let (deployment, _) = hub("hub", 2);
    let labels = deployment["spec"]["template"]["metadata"]["labels"].clone();
    let mut required = deployment.clone();
    let term = json!({ "topologyKey": HOSTNAME, "labelSelector": { "matchLabels": labels } });
    required["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"] =
        json!({ "requiredDuringSchedulingIgnoredDuringExecution": [term] });
    assert!(Cluster::install(&required, 1).is_none(), "the second replica is pending");
    assert!(!Cluster::install(&required, 2).unwrap().upgrade());
    assert!(Cluster::install(&required, 3).unwrap().upgrade());
    let mut ports = deployment.clone();
    ports["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    assert!(!Cluster::install(&ports, 2).unwrap().upgrade());
    let mut none = deployment;
    none["spec"]["strategy"]["rollingUpdate"]["maxSurge"] = json!(0);
    assert!(!Cluster::install(&none, 2).unwrap().upgrade());
}

#[test]
fn a_drain_of_any_node_ends_and_of_the_only_one_too() {
    for place in ["hub", "helm"] {
        for (nodes, replicas) in [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 2), (3, 3)] {
            let (deployment, budget) = hub(place, replicas);
            assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow", "a hub that is not ready goes too");
            for node in 0..nodes {
                let mut cluster = Cluster::install(&deployment, nodes).expect("every hub has a node");
                assert!(cluster.drain(node, &budget), "{place}: node {node} of {nodes} with {replicas} replicas");
            }
        }
    }
    let (deployment, mut budget) = hub("hub", 2);
    // What was there before: no other node takes the hubs, and one of them stays.
    for most in [json!(1), json!("50%")] {
        budget["spec"]["maxUnavailable"] = most;
        assert!(!Cluster::install(&deployment, 1).unwrap().drain(0, &budget));
    }
    budget["spec"]["maxUnavailable"] = json!(0);
    assert!(!Cluster::install(&deployment, 2).unwrap().drain(0, &budget), "the check can fail");
}
