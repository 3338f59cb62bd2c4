//! Every road of docs/migration.md, walked by a kubelet while a pod asks: what a rollout does, and what is lost.

mod daemonset;
mod install;
mod load;
mod node_cache;
mod pod;
mod roads;
mod walk;
mod world;

use std::{thread, time::Duration};

use self::{
    daemonset::{Rollout, Strategy},
    node_cache::{BY_NODE_CACHE, Ports, TABLE},
    pod::{Image, Template, kill},
    roads::{KILLS, ROADS},
    walk::{Row, Walk},
    world::{World, both_addresses},
};
use super::rig::{BY_COREDNS, LINK_LOCAL, OWN, VIP};

/// The set of upstream's manifest and of the drop-in, and the one of the agents.
const DROP_IN: &str = "node-local-dns";
const AGENTS: &str = "holdfast-agent";

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
    // The store has the hub's records still.
    let asked = ["lookup", "kubernetes.default.svc.cluster.local", "--admin", "/run/holdfast/agent.sock"];
    let (found, told) = walk.kubelet.pod(DROP_IN).exec(&world.node, &asked);
    walk.check(&format!("the tools tell what DNS answers: {told}"), found && told.contains(BY_COREDNS));
    let (_, told) = walk.kubelet.pod(DROP_IN).exec(&world.node, &["status", "--admin", "/run/holdfast/agent.sock"]);
    walk.check(&format!("nor do they count what is not used: {told}"), told.contains("NOT USED without a source"));
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
        |kubelet| {
            let rollout = kubelet.undo(DROP_IN, template.clone());
            // The strategy has stayed: node-cache's own next rollout would find no place.
            assert_eq!(kubelet.undo(DROP_IN, template.clone()), Rollout::Pending);
            // The template that is there already: no rollout.
            kubelet.set_strategy(DROP_IN, Strategy::EndFirst);
            rollout
        },
        (BY_NODE_CACHE, Some(BY_NODE_CACHE)),
    );
    walk.nothing_of_ours();
    walk.check("node-cache's rules are there", walk.has_table(TABLE));
    assert_eq!(walk.kubelet.undo(DROP_IN, template), Rollout::Ended);

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
        (BY_COREDNS, Some(BY_COREDNS)),
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
