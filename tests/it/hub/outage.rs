//! What hubs and agents make of an apiserver that is gone, empty or wrong.

use holdfast::role::hub::Hub;

use crate::support::{
    apiserver::{Apiserver, namespace, service},
    fleet::{Asking, Home, address, in_time, until, until_equal},
    unharmed::unharmed,
};

fn populated(server: &Apiserver) {
    server.put(namespace("prod"));
    server.put(namespace("stage"));
    server.put_all((0..200).map(|n| service("prod", &format!("web-{n}"), &format!("10.96.1.{n}"))));
    server.put_all((0..50).map(|n| service("stage", &format!("web-{n}"), &format!("10.96.2.{n}"))));
}

fn stream(hub: &Hub) -> String {
    hub.addresses().stream[0].to_string()
}

#[tokio::test]
async fn everything_down_costs_no_name_and_an_empty_list_deletes_nothing_until_an_operator_says_so() {
    let server = Apiserver::start().await;
    let empty = server.backup();
    populated(&server);
    let had = server.records();
    let homes: [Home; 3] = std::array::from_fn(|_| Home::new());
    let kubeconfig = server.kubeconfig(homes[0].path());
    let kubeconfig = ["--kubeconfig", kubeconfig.to_str().unwrap()];
    let hub = homes[0].hub(None, &kubeconfig).await;
    let listen = hub.addresses().stream[0];
    let relay = homes[1].hub(None, &["--hub", &stream(&hub)]).await;
    let (hubs, second) = ([stream(&hub), stream(&relay)], relay.addresses().stream[0]);
    let hubs = hubs.each_ref().map(String::as_str);
    let agent = homes[2].agent(&hubs).await;
    in_time("live", until_equal(agent.reader(), hub.reader())).await;

    server.stop();
    relay.stop().await;
    hub.stop().await;
    agent.stop().await;
    let agent = homes[2].agent(&hubs).await;
    let dns = agent.addresses().dns[0];
    for n in 0..200 {
        assert_eq!(
            address(dns, &format!("web-{n}.prod.svc.cluster.local.")).await,
            [format!("5 A 10.96.1.{n}")],
            "from disk, with nobody to ask"
        );
    }

    // Hubs are back before the apiserver: they serve what they had.
    let asking = Asking::begin(dns, "web-7.prod.svc.cluster.local.", "A 10.96.1.7");
    let hub = homes[0].hub(Some(listen), &kubeconfig).await;
    let relay = homes[1].hub(Some(second), &["--hub", hubs[0]]).await;
    in_time("live again", until_equal(agent.reader(), hub.reader())).await;

    // The apiserver is back, and empty.
    server.restore(&empty);
    server.compact();
    server.start_again().await;
    until("the hub holds", hub.reader(), |reader| reader.held().counts().services == 250).await;
    unharmed(&had, hub.reader(), &[agent.reader(), relay.reader()], [asking]).await;
    assert_eq!(agent.reader().load().counts().services, 250);
    let (shown, code) = homes[0].tool(&["guard"]).await;
    assert_eq!((&shown["held"]["counts"]["services"], code), (&250.into(), 1), "{shown:#}");

    let (_, code) = homes[0].tool(&["guard", "release", "-n", "stgae"]).await;
    assert_eq!(code, 1, "a typing error is told from what was meant");
    let (released, code) = homes[0].tool(&["guard", "release", "-n", "stage"]).await;
    assert_eq!((&released["after"]["services"], code), (&200.into(), 0), "{released:#}");
    in_time("stage is gone everywhere", until_equal(agent.reader(), hub.reader())).await;
    in_time("stage is gone everywhere", until_equal(relay.reader(), hub.reader())).await;
    assert_eq!(agent.reader().load().counts().services, 200);
    let (_, code) = homes[0].tool(&["guard", "release", "--yes"]).await;
    assert_eq!(code, 0);
    in_time("prod is gone everywhere", until_equal(agent.reader(), hub.reader())).await;
    in_time("prod is gone everywhere", until_equal(relay.reader(), hub.reader())).await;
    assert_eq!(agent.reader().load().counts().services, 0, "what the hub let go the agent does not hold again");
    let (shown, code) = homes[2].tool(&["guard"]).await;
    assert_eq!(code, 0, "{shown:#}");
    agent.stop().await;
    relay.stop().await;
    hub.stop().await;
}
