//! Who follows whom while all is well, and while hubs come and go.

use std::time::Duration;

use holdfast::{
    role::{agent::Agent, hub::Hub},
    simulate::{self, Options},
};

use crate::support::{
    apiserver::{Apiserver, endpoints, headless, namespace, service},
    fleet::{Asking, Home, address, beside, copy, in_time, until, until_equal, until_file},
    process::run,
};

fn populated(server: &Apiserver) {
    server.put(namespace("prod"));
    server.put_all((0..200).map(|n| service("prod", &format!("web-{n}"), &format!("10.96.1.{n}"))));
    server.put(headless("prod", "db"));
    server.put(endpoints("prod", "db-1", "db", true, &["10.128.0.1", "10.128.0.2"]));
}

fn stream(hub: &Hub) -> String {
    hub.addresses().stream[0].to_string()
}

async fn settled(agent: &Agent, hub: &Hub) {
    in_time("equal", until_equal(agent.reader(), hub.reader())).await;
}

#[tokio::test]
async fn agents_follow_a_hub_and_a_relay_and_the_apiserver_sees_four_watches() {
    let server = Apiserver::start().await;
    populated(&server);
    let homes: [Home; 5] = std::array::from_fn(|_| Home::new());
    let kubeconfig = server.kubeconfig(homes[0].path());
    let hub = homes[0].hub(None, &["--kubeconfig", kubeconfig.to_str().unwrap()]).await;
    let relay = homes[1].hub(None, &["--hub", &stream(&hub)]).await;
    let mut agents = Vec::new();
    for (home, hub) in [(&homes[2], stream(&hub)), (&homes[3], stream(&relay)), (&homes[4], stream(&relay))] {
        agents.push(home.agent(&[&hub]).await);
    }
    for agent in &agents {
        settled(agent, &hub).await;
    }
    server.put(service("prod", "late", "10.96.3.1"));
    for agent in &agents {
        until("the new service", agent.reader(), |reader| reader.load().service(b"prod", b"late").is_some()).await;
        assert_eq!(address(agent.addresses().dns[0], "late.prod.svc.cluster.local.").await, ["5 A 10.96.3.1"]);
        settled(agent, &hub).await;
    }
    assert!((1..=4).contains(&server.most_watches()), "{} watches", server.most_watches());

    let (status, _) = homes[3].tool(&["status"]).await;
    assert_eq!(status["follows"]["state"], "live", "{status:#}");
    let path = status["follows"]["path"].as_array().unwrap();
    assert_eq!(path.len(), 2, "the relay and the hub: {status:#}");
    let (status, _) = homes[1].tool(&["status"]).await;
    assert_eq!(
        (&status["process"]["role"], &status["serves"]["subscribers"]),
        (&"hub".into(), &2.into()),
        "{status:#}"
    );
    let shown = {
        let socket = homes[1].socket().to_str().unwrap().to_owned();
        beside(move || String::from_utf8(run(&["status", "--admin", &socket]).stdout).unwrap()).await
    };
    assert!(shown.contains("2 agents and hubs connected to ") && shown.contains(": in sync (verified)"), "{shown}");
    for agent in agents {
        agent.stop().await;
    }
    relay.stop().await;
    hub.stop().await;
}

#[tokio::test]
async fn a_hub_that_leaves_sends_its_agents_to_one_they_learnt_of_and_no_question_goes_without_its_answer() {
    let server = Apiserver::start().await;
    populated(&server);
    let homes: [Home; 3] = std::array::from_fn(|_| Home::new());
    let kubeconfig = server.kubeconfig(homes[0].path());
    let hub = homes[0].hub(None, &["--kubeconfig", kubeconfig.to_str().unwrap()]).await;
    let other = homes[1].hub(None, &["--hub", &stream(&hub)]).await;
    in_time("relay", until_equal(other.reader(), hub.reader())).await;
    let agent = homes[2].agent(&[&stream(&hub)]).await;
    settled(&agent, &hub).await;
    let kept = homes[2].path().join("store/hubs.json");
    let learnt = stream(&other);
    until_file(&kept, |text| text.contains(&learnt)).await;
    let asking = Asking::begin(agent.addresses().dns[0], "web-7.prod.svc.cluster.local.", "A 10.96.1.7");
    hub.stop().await;
    in_time("the agent follows the other hub", async {
        loop {
            let (status, _) = homes[2].tool(&["status"]).await;
            if status["follows"]["state"] == "live" && status["follows"]["address"] == *learnt {
                break;
            }
        }
    })
    .await;
    asking.all_answered().await;

    // A restart with the first hub gone: the address learnt is all that is left.
    agent.stop().await;
    let agent = homes[2].agent(&["127.0.0.1:9"]).await;
    in_time("the agent finds the other hub again", async {
        loop {
            let (status, _) = homes[2].tool(&["status"]).await;
            if status["follows"]["state"] == "live" {
                assert_eq!(status["follows"]["address"], *learnt, "{status:#}");
                break;
            }
        }
    })
    .await;
    agent.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_hub_restarted_from_an_older_disk_is_followed_all_the_same() {
    let server = Apiserver::start().await;
    populated(&server);
    let homes: [Home; 2] = std::array::from_fn(|_| Home::new());
    let kubeconfig = server.kubeconfig(homes[0].path());
    let kubeconfig = ["--kubeconfig", kubeconfig.to_str().unwrap()];
    let hub = homes[0].hub(None, &kubeconfig).await;
    let listen = hub.addresses().stream[0];
    let agent = homes[1].agent(&[&listen.to_string()]).await;
    settled(&agent, &hub).await;
    let before = hub.reader().snapshot();
    hub.stop().await;
    let old = Home::new();
    copy(&homes[0].path().join("store"), &old.path().join("store"));

    // The hub goes on, the agent with it; then the hub's disk is what it was.
    let hub = homes[0].hub(Some(listen), &kubeconfig).await;
    server.put(service("prod", "late", "10.96.3.1"));
    until("the new service", agent.reader(), |reader| reader.load().service(b"prod", b"late").is_some()).await;
    hub.stop().await;
    server.delete("services", "prod", "late");
    let hub = old.hub(Some(listen), &kubeconfig).await;
    settled(&agent, &hub).await;
    assert_eq!(agent.reader().snapshot().root(), before.root());
    assert!(agent.reader().load().version().epoch > before.version().epoch, "each start begins an epoch");
    agent.stop().await;
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_apiserver_sees_the_same_whether_nobody_follows_or_many_and_while_all_of_them_reconnect() {
    let server = Apiserver::start().await;
    populated(&server);
    let home = Home::new();
    let kubeconfig = server.kubeconfig(home.path());
    let hub = home.hub(None, &["--kubeconfig", kubeconfig.to_str().unwrap()]).await;
    until("it lists", hub.reader(), |reader| reader.as_of().is_some()).await;
    let asked = || {
        let count = |verb| ["services", "endpointslices", "namespaces"].map(|of| server.count(verb, of));
        (count("list"), count("watch"), server.most_watches())
    };
    server.put(service("prod", "mark", "10.96.9.0"));
    until("the watch", hub.reader(), |reader| reader.load().service(b"prod", b"mark").is_some()).await;
    let before = asked();
    assert!(before.2 <= 4, "{before:?}");
    let patience = Duration::from_secs(60);
    let options = Options {
        hubs: vec![stream(&hub)],
        tls: None,
        count: 100,
        ramp: Duration::ZERO,
        watch: Duration::ZERO,
        patience,
    };
    for round in 1..=2 {
        let agents = simulate::start(&options).unwrap();
        agents.all_live(patience).await.expect("all live");
        let address = format!("10.96.9.{round}");
        server.put(service("prod", "mark", &address));
        let address = address.parse().unwrap();
        until("a change", hub.reader(), |reader| !reader.load().holders(address).is_empty()).await;
        agents.all_at(hub.reader().snapshot().root(), patience).await.expect("all see it");
        agents.stop().await;
    }
    assert_eq!(asked(), before);
    hub.stop().await;
}
