//! The same against a real kube-apiserver and etcd, where `KUBEBUILDER_ASSETS` names a folder that has them.

use std::time::Duration;

use holdfast::source::apiserver::Config;
use serde_json::json;

use super::{Feed, timing};
use crate::support::real::Cluster;

async fn put_objects(cluster: &Cluster) {
    let service = |name: &str, spec| {
        let metadata = json!({"namespace": "default", "name": name});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    };
    cluster.put(&service("web", json!({"clusterIP": "10.96.1.1", "ports": [{"name": "http", "port": 80}]}))).await;
    cluster.put(&service("db", json!({"clusterIP": "None", "ports": [{"name": "pg", "port": 5432}]}))).await;
    let metadata =
        json!({"namespace": "default", "name": "db-by-hand", "labels": {"kubernetes.io/service-name": "db"}});
    cluster
        .put(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.244.0.7"]}], "ports": [{"name": "pg", "port": 5432}],
        }))
        .await;
}

#[tokio::test]
async fn a_real_apiserver_is_followed_through_its_restart() {
    let Some(mut cluster) = Cluster::start().await else { return };
    let mut timing = timing();
    timing.answer = Duration::from_secs(15);
    timing.idle_initial = Duration::from_secs(5);
    let kubeconfig = Some(cluster.kubeconfig());
    let mut feed = Feed::start(Config { kubeconfig, timing, ..Config::default() });
    feed.until("the first list, with the service of the apiserver itself", |reader| {
        reader.load().service(b"default", b"kubernetes").is_some()
    })
    .await;
    put_objects(&cluster).await;
    feed.until_names(&["db=10.244.0.7", "kubernetes", "web"]).await;
    cluster.delete("Service", "default", "web").await;
    feed.until_names(&["db=10.244.0.7", "kubernetes"]).await;

    cluster.kill_apiserver();
    feed.until_lost("connect: ").await;
    cluster.start_apiserver();
    feed.until_up().await;
    put_objects(&cluster).await;
    feed.until_names(&["db=10.244.0.7", "kubernetes", "web"]).await;
    assert!(!feed.reader.load().version().cluster.is_empty());
}
