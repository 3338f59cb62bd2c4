//! A cluster with two hubs that stand for election.

use std::net::SocketAddr;

use holdfast::{role::hub::Hub, sys::Clock};

use crate::support::{
    apiserver::{Apiserver, namespace, service},
    fleet::{Home, in_time, until, until_equal},
};

const LEASE: &str = "holdfast-hub";

/// An apiserver, and homes for two hubs and those who follow them.
pub struct Pair {
    pub server: Apiserver,
    pub homes: [Home; 4],
    config: String,
}

impl Pair {
    pub async fn new() -> Self {
        Self::with_lease("3s").await
    }

    /// The same, with a lease that lasts so long without a renewal.
    pub async fn with_lease(duration: &str) -> Self {
        let server = Apiserver::start().await;
        server.put(namespace("prod"));
        server.put_all((0..100).map(|n| service("prod", &format!("web-{n}"), &format!("10.96.1.{n}"))));
        let homes: [Home; 4] = std::array::from_fn(|_| Home::new());
        let config = homes[0].path().join("hub.yaml");
        std::fs::write(&config, format!("lease: {{ duration: {duration} }}")).unwrap();
        Self { server, homes, config: config.to_str().unwrap().to_owned() }
    }

    /// What a hub is given to stand for election, at an apiserver it reaches at `apiserver`.
    pub fn arguments(&self, index: usize, apiserver: SocketAddr) -> [String; 4] {
        let kubeconfig = self.server.kubeconfig_by(self.homes[index].path(), apiserver);
        ["--kubeconfig".into(), kubeconfig.to_str().unwrap().into(), "--config".into(), self.config.clone()]
    }

    pub async fn hub(&self, index: usize) -> Hub {
        self.hub_at(&self.homes[index], index, None, self.server.address(), Clock::System).await
    }

    /// A hub in this home that listens there and reaches the apiserver so, by this clock.
    pub async fn hub_at(
        &self,
        home: &Home,
        index: usize,
        listen: Option<SocketAddr>,
        apiserver: SocketAddr,
        clock: Clock,
    ) -> Hub {
        let arguments = self.arguments(index, apiserver);
        home.hub_by(listen, &arguments.each_ref().map(String::as_str), clock).await
    }

    pub async fn both(&self) -> (Hub, Hub) {
        let first = self.hub(0).await;
        until("the first lists", first.reader(), |reader| reader.as_of().is_some()).await;
        let second = self.hub(1).await;
        in_time("the second follows", until_equal(second.reader(), first.reader())).await;
        (first, second)
    }

    pub fn lease(&self) -> serde_json::Value {
        self.server.lease("default", LEASE).expect("a lease")
    }

    pub fn holder(&self) -> String {
        self.lease()["spec"]["holderIdentity"].as_str().unwrap().to_owned()
    }

    pub async fn state(&self, index: usize) -> String {
        let (status, _) = self.homes[index].tool(&["status"]).await;
        status["lease"]["state"].as_str().unwrap().to_owned()
    }

    pub async fn until_state(&self, index: usize, state: &str) {
        in_time(state, async { while self.state(index).await != state {} }).await;
    }

    /// Waits for so long that whoever wanted to take the lease has had the time.
    pub async fn longer_than_a_lease(&self) {
        let renewed = || self.server.seen().iter().filter(|seen| seen.verb == "update").count();
        let renewals = renewed();
        // The holder of a lease of 3 s renews it every 0.8 s.
        let long = |_: &Apiserver| renewed() > renewals + 6;
        self.server.until("renewals go on", long).await;
    }
}

/// Where a hub serves its stream.
pub fn stream(hub: &Hub) -> String {
    hub.addresses().stream[0].to_string()
}

/// The epoch a hub is in.
pub fn epoch(hub: &Hub) -> u64 {
    hub.reader().load().version().epoch
}
