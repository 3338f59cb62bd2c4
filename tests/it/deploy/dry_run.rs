//! Every manifest before a real kube-apiserver, which creates nothing of it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{everything, helm, yaml::text};
use crate::support::real::Cluster;

/// Kinds of other projects, whose definitions a bare cluster has not. Their fields are held to schemas elsewhere.
const OF_OTHERS: [&str; 3] = ["cert-manager.io/", "monitoring.coreos.com/", "cilium.io/"];

/// As `kubectl apply -n kube-system` and the page of the drop-in have it.
fn as_applied(object: &Value) -> Value {
    let filled = [("LOCAL__DNS", "169.254.20.10"), ("DNS__SERVER", "10.96.0.10"), ("DNS__DOMAIN", "cluster.local")]
        .iter()
        .fold(object.to_string(), |text, (name, value)| text.replace(&format!("__PILLAR__{name}__"), value));
    let mut object: Value = serde_json::from_str(&filled).unwrap();
    if !["ClusterRole", "ClusterRoleBinding"].contains(&text(&object, "/kind")) {
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.entry("namespace").or_insert(json!("kube-system"));
    }
    object
}

#[tokio::test]
async fn a_real_apiserver_takes_every_manifest_as_it_stands() {
    let Some(cluster) = Cluster::start().await else { return };
    let mut all = everything();
    // Every branch of the templates.
    let values = json!({ "agent": { "hostsFile": true, "extraArgs": ["--pods"], "nodeSelector": { "a": "b" },
        "affinity": { "nodeAffinity": {} } }, "hub": { "clusterIP": "10.96.0.11", "extraArgs": ["--pods"],
        "nodeSelector": { "a": "b" }, "tolerations": [{ "operator": "Exists" }] }, "tls": { "certManager": false } });
    all.push(("helm with every value".into(), helm::template(&super::deploy("helm/holdfast"), &values)));
    let of_ours = |object: &Value| !OF_OTHERS.iter().any(|group| text(object, "/apiVersion").starts_with(group));
    let (mut namespaces, mut taken, mut refused) = (BTreeSet::new(), 0, Vec::new());
    // The examples are a dump of a cluster, for `--manifests`.
    for (place, objects) in all.into_iter().filter(|(place, _)| place != "examples") {
        for object in objects.iter().filter(|object| of_ours(object)).map(as_applied) {
            let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
            if let Some(name) = namespace.filter(|name| namespaces.insert(name.clone())) {
                let made = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
                cluster.put(&made).await;
            }
            match cluster.would_create(&object).await {
                Ok(()) => taken += 1,
                Err(error) => refused.push(format!("{place} {}: {error}", super::title(&object))),
            }
        }
    }
    assert_eq!(refused, Vec::<String>::new());
    println!("{taken} objects");
    let unknown = json!({ "apiVersion": "v1", "kind": "ConfigMap", "dota": {},
        "metadata": { "name": "x", "namespace": "kube-system" } });
    let error = cluster.would_create(&unknown).await.unwrap_err();
    assert!(error.contains("unknown field \"dota\""), "the check can fail: {error}");
}
