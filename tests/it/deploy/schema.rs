//! Objects held to the schemas of the Kubernetes API: what is lost on the way through its types is no field of theirs.

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Pod, Secret, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::yaml::{text, title};

/// Fields of kinds that are not Kubernetes' own, as their projects document them; `*` for any key.
const OTHERS: [(&str, &[&str]); 5] = [
    (
        "monitoring.coreos.com/v1 PodMonitor",
        &[
            "selector.matchLabels.*",
            "podTargetLabels",
            "podMetricsEndpoints.path",
            "podMetricsEndpoints.relabelings.sourceLabels",
            "podMetricsEndpoints.relabelings.regex",
            "podMetricsEndpoints.relabelings.action",
            "podMetricsEndpoints.relabelings.targetLabel",
            "podMetricsEndpoints.relabelings.replacement",
        ],
    ),
    (
        "monitoring.coreos.com/v1 PrometheusRule",
        &[
            "groups.name",
            "groups.interval",
            "groups.rules.alert",
            "groups.rules.expr",
            "groups.rules.for",
            "groups.rules.labels.*",
            "groups.rules.annotations.*",
        ],
    ),
    ("cert-manager.io/v1 Issuer", &["selfSigned", "ca.secretName"]),
    (
        "cert-manager.io/v1 Certificate",
        &[
            "isCA",
            "commonName",
            "secretName",
            "duration",
            "renewBefore",
            "privateKey.algorithm",
            "privateKey.size",
            "privateKey.rotationPolicy",
            "usages",
            "uris",
            "issuerRef.kind",
            "issuerRef.name",
        ],
    ),
    (
        "cilium.io/v2 CiliumLocalRedirectPolicy",
        &[
            "redirectFrontend.serviceMatcher.serviceName",
            "redirectFrontend.serviceMatcher.namespace",
            "redirectBackend.localEndpointSelector.matchLabels.*",
            "redirectBackend.toPorts.port",
            "redirectBackend.toPorts.name",
            "redirectBackend.toPorts.protocol",
        ],
    ),
];

/// What of an object no schema knows, or why it fits none.
pub fn problems(object: &Value) -> Vec<String> {
    let kind = format!("{} {}", text(object, "/apiVersion"), text(object, "/kind"));
    match kind.as_str() {
        "v1 ConfigMap" => through::<ConfigMap>(object),
        "v1 Namespace" => through::<Namespace>(object),
        "v1 Pod" => through::<Pod>(object),
        "v1 Secret" => through::<Secret>(object),
        "v1 Service" => through::<Service>(object),
        "v1 ServiceAccount" => through::<ServiceAccount>(object),
        "apps/v1 DaemonSet" => through::<DaemonSet>(object),
        "apps/v1 Deployment" => through::<Deployment>(object),
        "coordination.k8s.io/v1 Lease" => through::<Lease>(object),
        "discovery.k8s.io/v1 EndpointSlice" => through::<EndpointSlice>(object),
        "networking.k8s.io/v1 NetworkPolicy" => through::<NetworkPolicy>(object),
        "policy/v1 PodDisruptionBudget" => through::<PodDisruptionBudget>(object),
        "rbac.authorization.k8s.io/v1 ClusterRole" => through::<ClusterRole>(object),
        "rbac.authorization.k8s.io/v1 ClusterRoleBinding" => through::<ClusterRoleBinding>(object),
        "rbac.authorization.k8s.io/v1 Role" => through::<Role>(object),
        "rbac.authorization.k8s.io/v1 RoleBinding" => through::<RoleBinding>(object),
        _ => match OTHERS.iter().find(|(other, _)| *other == kind) {
            Some((_, fields)) => others(object, fields),
            None => vec![format!("{}: no schema for {kind}", title(object))],
        },
    }
}

fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Vec<String> {
    let back = match serde_json::from_value::<T>(object.clone()) {
        Ok(typed) => serde_json::to_value(typed).expect("what was read can be written"),
        Err(error) => return vec![format!("{}: {error}", title(object))],
    };
    let mut problems = Vec::new();
    lost(&title(object), object, &back, &mut problems);
    problems
}

/// Whatever stands in `given` and not in `back`.
fn lost(place: &str, given: &Value, back: &Value, problems: &mut Vec<String>) {
    match (given, back) {
        (Value::Object(given), Value::Object(back)) => {
            for (key, value) in given {
                match back.get(key) {
                    Some(back) => lost(&format!("{place}.{key}"), value, back, problems),
                    None => problems.push(format!("{place}: there is no field {key}")),
                }
            }
        }
        (Value::Array(given), Value::Array(back)) if given.len() == back.len() => {
            given.iter().zip(back).enumerate().for_each(|(index, (given, back))| {
                lost(&format!("{place}[{index}]"), given, back, problems);
            });
        }
        _ if given == back => {}
        _ => problems.push(format!("{place}: {given} was read as {back}")),
    }
}

fn others(object: &Value, fields: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    for key in object.as_object().expect("a map").keys() {
        if !["apiVersion", "kind", "metadata", "spec"].contains(&key.as_str()) {
            problems.push(format!("{}: there is no field {key}", title(object)));
        }
    }
    unknown(&title(object), "", &object["spec"], fields, &mut problems);
    problems
}

fn unknown(title: &str, path: &str, value: &Value, fields: &[&str], problems: &mut Vec<String>) {
    let ends_here = |field: &&str| {
        *field == path
            || field.strip_suffix('*').is_some_and(|map| path.strip_prefix(map).is_some_and(|key| !key.is_empty()))
    };
    match value {
        _ if fields.iter().any(ends_here) => {}
        Value::Object(map) if fields.iter().any(|field| path.is_empty() || field.starts_with(&format!("{path}."))) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                unknown(title, &path, value, fields, problems);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| unknown(title, path, item, fields, problems)),
        _ => problems.push(format!("{title}: there is no field spec.{path}")),
    }
}
