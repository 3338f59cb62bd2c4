//! Objects as a cluster has them, with the fields nobody needs.

use serde_json::{Value, json};

fn metadata(namespace: &str, name: &str) -> Value {
    json!({
        "name": name,
        "namespace": namespace,
        "creationTimestamp": "2024-12-11T18:30:00Z",
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{\"apiVersion\":\"v1\"}\n"},
        "managedFields": [{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:ports": {}}}}],
    })
}

/// A namespace; the UID of `kube-system` is `uid-of-kube-system`.
pub fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "uid": format!("uid-of-{name}"), "labels": {"kubernetes.io/metadata.name": name}},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
    })
}

/// A ClusterIP service with the port `http` 80.
pub fn service(namespace: &str, name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(namespace, name),
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
        "status": {"loadBalancer": {}},
    })
}

/// A headless service with the port `pg` 5432.
pub fn headless(namespace: &str, name: &str) -> Value {
    let mut object = service(namespace, name, "None");
    object["spec"]["ports"] = json!([{"name": "pg", "port": 5432, "protocol": "TCP", "targetPort": 5432}]);
    object
}

/// A service of type `ExternalName`.
pub fn external_name(namespace: &str, name: &str, target: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(namespace, name),
        "spec": {"type": "ExternalName", "externalName": target, "sessionAffinity": "None"},
    })
}

/// A slice of a service, as the endpointslice controller writes it, of headless services or others.
pub fn endpoints(namespace: &str, name: &str, of: &str, headless: bool, ips: &[&str]) -> Value {
    let mut object = slice(namespace, name, of, ips);
    object["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] = "endpointslice-controller.k8s.io".into();
    if headless {
        object["metadata"]["labels"]["service.kubernetes.io/headless"] = "".into();
    }
    object
}

/// A slice made by hand.
pub fn slice(namespace: &str, name: &str, of: &str, ips: &[&str]) -> Value {
    let mut metadata = metadata(namespace, name);
    metadata["labels"] = json!({"kubernetes.io/service-name": of});
    let endpoint = |ip: &&str| json!({"addresses": [ip], "conditions": {"ready": true, "serving": true, "terminating": false}, "nodeName": "n1"});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4",
        "endpoints": ips.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "pg", "port": 5432, "protocol": "TCP"}],
    })
}
