//! Records as Kubernetes objects again: what `dump` prints and `--manifests` reads back.
//!
//! Only what DNS needs survives the way through records, so the objects are minimal: no status, no selectors. Reading
//! them back gives the same records, to the digest.

use serde_json::{Value, json};

use super::{Endpoint, Kind, PARTIAL, Port, Service, Snapshot};

/// Every record, or those of one namespace, as API objects: the namespaces by name, then each service by
/// `namespace/name`, followed by its endpoint slices.
///
/// The Namespace `kube-system` carries the cluster's identity as its UID, as in the cluster itself.
pub fn objects(snapshot: &Snapshot, namespace: Option<&str>) -> Vec<Value> {
    let wanted = |name: &str| namespace.is_none_or(|wanted| wanted == name);
    let mut namespaces: Vec<&str> =
        snapshot.listed_namespaces().map(|name| &**name).filter(|name| *name != PARTIAL && wanted(name)).collect();
    namespaces.sort_unstable();
    let mut services: Vec<&Service> =
        snapshot.services().map(|service| &**service).filter(|service| wanted(service.namespace())).collect();
    services.sort_unstable_by_key(|service| service.key());

    let mut objects: Vec<Value> =
        namespaces.into_iter().map(|name| namespace_object(name, &snapshot.version().cluster)).collect();
    for service in services {
        objects.push(service_object(service));
        objects.extend(slice_objects(service));
    }
    objects
}

fn namespace_object(name: &str, cluster: &str) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    if name == "kube-system" && !cluster.is_empty() {
        object["metadata"]["uid"] = cluster.into();
    }
    object
}

fn service_object(service: &Service) -> Value {
    let mut spec = match service.kind() {
        Kind::ClusterIp(ips) => json!({"type": "ClusterIP", "clusterIP": ips.first(), "clusterIPs": ips}),
        Kind::Headless => json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]}),
        Kind::ExternalName(target) => json!({"type": "ExternalName", "externalName": target}),
    };
    if !service.ports().is_empty() {
        spec["ports"] = service.ports().iter().map(port_object).collect();
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": service.name(), "namespace": service.namespace()},
        "spec": spec,
    })
}

fn port_object(port: &Port) -> Value {
    let mut object = json!({"port": port.port, "protocol": port.protocol.as_str()});
    if !port.name.is_empty() {
        object["name"] = (*port.name).into();
    }
    object
}

/// A slice for each family and set of ports: a slice has exactly one of either.
fn slice_objects(service: &Service) -> Vec<Value> {
    let mut slices: Vec<(bool, &[Port], Vec<Value>)> = Vec::new();
    for endpoint in service.endpoints() {
        let ipv4 = endpoint.ip.is_ipv4();
        let object = endpoint_object(endpoint);
        match slices.iter_mut().find(|(family, ports, _)| *family == ipv4 && *ports == &*endpoint.ports) {
            Some((_, _, endpoints)) => endpoints.push(object),
            None => slices.push((ipv4, &endpoint.ports, vec![object])),
        }
    }
    let slices = slices.into_iter().enumerate();
    slices.map(|(index, (ipv4, ports, endpoints))| slice_object(service, index, ipv4, ports, &endpoints)).collect()
}

fn endpoint_object(endpoint: &Endpoint) -> Value {
    let mut object = json!({"addresses": [endpoint.ip], "conditions": {"ready": endpoint.ready}});
    if let Some(hostname) = &endpoint.hostname {
        object["hostname"] = (**hostname).into();
    }
    object
}

fn slice_object(service: &Service, index: usize, ipv4: bool, ports: &[Port], endpoints: &[Value]) -> Value {
    let mut labels = json!({"kubernetes.io/service-name": service.name()});
    if *service.kind() == Kind::Headless {
        labels["service.kubernetes.io/headless"] = "".into();
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            // A service's name has no dot, so no two services share a slice's name.
            "name": format!("{}.{index}", service.name()),
            "namespace": service.namespace(),
            "labels": labels,
        },
        "addressType": if ipv4 { "IPv4" } else { "IPv6" },
        "endpoints": endpoints,
        "ports": ports.iter().map(port_object).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Change, ServiceKey, Version};

    #[test]
    fn objects_are_in_order_and_of_one_namespace_where_asked() {
        let service = |namespace: &str, name: &str| {
            let kind = Kind::ClusterIp(["10.0.0.1".parse().unwrap()].into());
            Change::Put(Service::new(ServiceKey::new(namespace, name), kind, vec![], vec![]).into())
        };
        let version = Version { cluster: "uid".into(), epoch: 1, rev: 1 };
        let changes = [
            Change::PutNamespace("prod".into()),
            Change::PutNamespace("kube-system".into()),
            service("prod", "b"),
            service("prod", "a"),
            service("dev", "c"),
        ];
        let snapshot = Snapshot::default().apply(changes, version);
        let names = |namespace| -> Vec<String> {
            let name = |object: &Value| {
                format!("{}/{}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
            };
            objects(&snapshot, namespace).iter().map(name).collect()
        };
        assert_eq!(names(None), ["Namespace/kube-system", "Namespace/prod", "Service/c", "Service/a", "Service/b"]);
        assert_eq!(names(Some("prod")), ["Namespace/prod", "Service/a", "Service/b"]);
        assert_eq!(objects(&snapshot, Some("kube-system"))[0]["metadata"]["uid"], "uid");
    }
}
