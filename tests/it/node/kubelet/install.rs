//! Installs that lack something, and a port that is never free: pods notice nothing, and every tool says what is missing.

use std::{path::Path, sync::mpsc, thread};

use tokio_util::sync::CancellationToken;

use super::{
    AGENTS, DROP_IN,
    daemonset::{Kubelet, Rollout},
    load::{self, Load},
    node_cache::{BY_NODE_CACHE, Ports},
    pod::Image,
    walk::others,
    world::{HUB, World, both_addresses},
};
use crate::{
    deploy::alert_rules,
    node::rig::{BY_COREDNS, LINK_LOCAL, Node, OWN, UPSTREAM, VIP, enter},
    support::{
        apiserver::{Apiserver, Fault, Reply, service},
        fleet,
        process::Agent,
    },
};

/// Where a hub has its metrics, outside of the node.
const HUB_METRICS: &str = "192.0.2.1:9253";

/// Whether an alert fires at 0 of this metric.
fn alerts_at_zero(alert: &str, metric: &str) -> bool {
    let rules = alert_rules();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    let rule = rules.iter().find(|rule| rule["alert"] == alert).unwrap();
    let expression = rule["expr"].as_str().unwrap();
    expression.contains(metric) && expression.contains("== 0")
}

/// Installs agents beside a CoreDNS that answers, while their hub gives no records for a reason that `status` and the log say. After `mended`
/// the install ends.
fn installed(world: &World, reason: &str, looked: impl FnOnce(&Node), mended: impl FnOnce()) {
    let node = &world.node;
    let mut kubelet = Kubelet::new(node);
    let (strategy, template) = world.agents(&both_addresses());
    let load = Load::start(node, VIP, "10");
    load::asked(node);
    let rollout = kubelet.apply_until(AGENTS, strategy, template, |node, _| {
        node.answer("pod2", LINK_LOCAL).as_deref() == Some(BY_COREDNS)
    });
    assert_eq!(rollout, Rollout::Waits);
    let pod = kubelet.newcomer(AGENTS);
    let mut told = String::new();
    node.until(&format!("{reason:?} in status"), |node| {
        told = pod.exec(node, &["status", "--admin", "/run/holdfast/agent.sock"]).1;
        println!("{told}");
        told.contains(reason)
    });
    pod.agent().wait_for(reason);
    let ready = node.http("169.254.20.10:8080", "/ready");
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("first records"), "{ready}");
    looked(node);
    for server in [VIP, LINK_LOCAL] {
        assert_eq!(node.answer("pod2", server).as_deref(), Some(BY_COREDNS), "{server}");
    }
    load::asked(node);
    mended();
    assert_eq!(kubelet.wait_until_ready(AGENTS), Rollout::Ended);
    for server in [VIP, LINK_LOCAL] {
        assert_eq!(node.answer("pod2", server).as_deref(), Some(OWN), "{server}");
    }
    load::asked(node);
    let tally = load.end();
    assert_eq!((tally.lost, tally.bad), (0, 0), "pods notice nothing: {tally:?}");
}

/// A hub outside of the node, up to this line of its log.
fn hub(world: &World, source: [&str; 2], tls: &str, until: &str) -> Agent {
    let (admin, listen) = (world.path("hub.sock"), format!("{HUB}:7443"));
    let words = ["hub", "--admin", &admin, "--tls", tls, "--listen", &listen, "--metrics", HUB_METRICS];
    let none = ["--store", "none", "--http", "none"];
    Agent::spawn_until(&mut world.node.holdfast("out", &[&words[..], &source, &none].concat()), until)
}

#[test]
fn without_rbac_pods_notice_nothing_and_every_tool_says_what_is_missing() {
    let Some(world) = World::new() else { return };
    let (space, home) = (world.node.space("out"), world.node.home.path().to_owned());
    let (healed, ended) = (CancellationToken::new(), CancellationToken::new());
    let (heal, end) = (healed.clone(), ended.clone());
    let (tell, told) = mpsc::channel();
    let apiserver = thread::spawn(move || {
        enter(&space);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Apiserver::start().await;
            server.put(service("default", "kubernetes", OWN));
            server.fail(Fault::on("services").with(Reply::status(403, "Forbidden")));
            tell.send(server.kubeconfig(&home)).unwrap();
            healed.cancelled().await;
            server.heal();
            ended.cancelled().await;
        });
    });
    let kubeconfig = told.recv().unwrap();
    let source = ["--kubeconfig", kubeconfig.to_str().unwrap()];
    let _hub = hub(&world, source, &world.path("certs/hub"), "403: may not");
    let looked = |node: &Node| {
        assert!(node.http(HUB_METRICS, "/metrics").contains("\nholdfast_source_up 0\n"));
        assert!(alerts_at_zero("HoldfastSourceLost", "holdfast_source_up"));
    };
    installed(&world, "may not", looked, || heal.cancel());
    end.cancel();
    apiserver.join().unwrap();
}

#[test]
fn with_another_trust_domain_pods_notice_nothing_and_every_tool_says_so() {
    let Some(world) = World::new() else { return };
    // Of the same CA: only the names differ.
    let wrong = world.path("wrong");
    fleet::copy(Path::new(&world.path("certs/ca")), Path::new(&world.path("wrong/ca")));
    let (code, told) = world.node.tool(&["certs", "--out", &wrong, "--trust-domain", "other.example", "--force"]);
    assert_eq!(code, 0, "{told}");
    let manifests = world.path("cluster.yaml");
    let source = ["--manifests", manifests.as_str()];
    let mut first = Some(hub(&world, source, &world.path("wrong/hub"), "records complete"));
    let looked = |node: &Node| {
        assert!(node.http("127.0.0.1:9253", "/metrics").contains("\nholdfast_hub_connected 0\n"));
        assert!(alerts_at_zero("HoldfastAgentsWithoutHub", "holdfast_hub_connected"));
    };
    let mut second = None;
    installed(&world, "other.example", looked, || {
        first.take().unwrap().kill();
        second = Some(hub(&world, source, &world.path("certs/hub"), "records complete"));
    });
}

#[test]
fn a_port_that_is_never_free_is_waited_for_in_silence() {
    let Some(world) = World::new() else { return };
    let node = &world.node;
    let mut kubelet = Kubelet::new(node);
    let (strategy, alone) = World::upstreams(Image::NodeCache(Ports::Alone));
    assert_eq!(kubelet.apply("another", strategy, alone), Rollout::Ended);
    let setup = |node: &Node| {
        // The kernel takes a while to find out that no other has the address it chose.
        let addresses = node.addresses().replace(" tentative", "");
        (others(node), addresses, node.answer("pod1", VIP), node.answer("pod1", LINK_LOCAL))
    };
    let before = setup(node);
    assert_eq!(before.2.as_deref(), Some(BY_NODE_CACHE));
    let load = Load::start(node, VIP, "10");
    load::asked(node);
    let (surge, overlay) = world.overlay();
    assert_eq!(kubelet.apply(DROP_IN, surge, overlay), Rollout::Waits);
    // Longer than a few tries take.
    (0..5).for_each(|_| load::asked(node));
    let tally = load.end();
    assert_eq!((tally.lost, tally.bad), (0, 0), "{tally:?}");
    assert_eq!(setup(node), before, "nothing is touched");
    let newcomer = kubelet.newcomer(DROP_IN);
    assert!(!newcomer.has_ended());
    let log = newcomer.log();
    assert_eq!(log.matches("waiting for another process to end").count(), 1, "one line, not one a try: {log}");
    // In the pod: which port, and how to find the process, which no container sees.
    let taken = format!("{LINK_LOCAL}:53: the port is taken by a process that is not seen from here");
    for words in [&["status"][..], &["node", "ready"]] {
        let (good, told) = newcomer.exec(node, words);
        assert!(!good && told.contains("waits beside another process, which goes on answering, for "), "{told}");
        assert!(told.contains(&taken), "{words:?}: {told}");
    }
    // On the node: the process.
    let socket = node.home.path().join("hostpath/run/agent.sock");
    let (code, told) = node.tool(&["status", "--admin", socket.to_str().unwrap()]);
    assert_eq!(code, 3, "{told}");
    assert!(told.contains(&format!("(pid {}), which goes on answering", std::process::id())), "{told}");
    // And when it has left after all.
    kubelet.delete("another");
    assert_eq!(kubelet.wait_until_ready(DROP_IN), Rollout::Ended);
    assert_eq!(node.answer("pod1", VIP).as_deref(), Some(BY_COREDNS), "{UPSTREAM} is asked");
}
