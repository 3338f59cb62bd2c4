//! Hubs and agents in a larger program, which drops them without a farewell.

use holdfast::{
    role::{agent::Agent, hub::Hub},
    sys::Clock,
};

use super::faults::write;
use crate::support::fleet::{Home, agent_config, hub_config, in_time, until};

#[tokio::test]
async fn a_dropped_process_releases_its_store_and_its_addresses() {
    let homes: [Home; 2] = std::array::from_fn(|_| Home::new());
    let manifests = write(homes[0].path(), 10);
    let hub = homes[0].hub(None, &["--manifests", &manifests]).await;
    let listen = hub.addresses().stream[0].to_string();
    let agent = homes[1].agent(&[&listen]).await;
    until("the records", agent.reader(), |reader| reader.load().counts().services == 10).await;
    let dns = agent.addresses().dns[0].to_string();
    drop((hub, agent));

    let again = ["--manifests", &manifests, "--listen", &listen, "--tls", "insecure"];
    let hub = in_time("a hub in its place", async {
        loop {
            if let Ok(hub) = Hub::start(hub_config(homes[0].path(), &again), Clock::System).await {
                return hub;
            }
            // It waits for the store on this thread.
            tokio::task::yield_now().await;
        }
    });
    let hub = hub.await;
    let again = ["--hub", &listen, "--tls", "insecure", "--listen", &dns];
    let agent = in_time("an agent in its place", async {
        loop {
            if let Ok(agent) = Agent::start(agent_config(homes[1].path(), &again), Clock::System).await {
                return agent;
            }
            // It waits for the store on this thread.
            tokio::task::yield_now().await;
        }
    });
    let agent = agent.await;
    assert_eq!(agent.reader().load().counts().services, 10, "from its disk");
    agent.stop().await;
    hub.stop().await;
}
