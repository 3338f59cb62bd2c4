//! The `PodMonitor` as Prometheus reads it: each pod of ours is scraped once, at its own port for metrics.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::Value;

use super::{object, objects, title, yaml::text};

type Labels = BTreeMap<String, String>;

/// The candidates that service discovery makes of a pod: a container with ports is one for each, another is one without a port.
fn candidates(template: &Value) -> Vec<Labels> {
    let mut found = Vec::new();
    for container in template["spec"]["containers"].as_array().unwrap() {
        let ports: Vec<Option<String>> = match container["ports"].as_array() {
            Some(ports) => ports.iter().map(|port| Some(port["containerPort"].to_string())).collect(),
            None => vec![None],
        };
        for port in ports {
            let mut labels = Labels::from([
                ("__meta_kubernetes_pod_container_name".into(), text(container, "/name").to_owned()),
                ("__meta_kubernetes_pod_ip".into(), "10.0.0.7".into()),
                ("__meta_kubernetes_pod_node_name".into(), "node-1".into()),
            ]);
            labels.extend(port.map(|port| ("__meta_kubernetes_pod_container_port_number".into(), port)));
            for (label, value) in template["metadata"]["labels"].as_object().unwrap() {
                let label = label.replace(['.', '/', '-'], "_");
                labels.insert(format!("__meta_kubernetes_pod_label_{label}"), value.as_str().unwrap().to_owned());
            }
            found.push(labels);
        }
    }
    found
}

/// The labels of a candidate after the rules, or none if a rule drops it. Rules are anchored and empty labels are absent.
fn relabelled(mut labels: Labels, rules: &[Value]) -> Option<Labels> {
    for rule in rules {
        let sources = rule["sourceLabels"].as_array().unwrap().iter().map(|label| label.as_str().unwrap());
        let value: Vec<&str> = sources.map(|label| labels.get(label).map_or("", String::as_str)).collect();
        let regex = format!("^(?:{})$", rule["regex"].as_str().unwrap_or("(.*)"));
        let value = value.join(";");
        let captures = Regex::new(&regex).unwrap().captures(&value);
        match (rule["action"].as_str().unwrap_or("replace"), captures) {
            ("keep", None) => return None,
            ("keep", Some(_)) | ("replace", None) => {}
            ("replace", Some(captures)) => {
                let mut replaced = String::new();
                captures.expand(rule["replacement"].as_str().unwrap_or("$1"), &mut replaced);
                labels.insert(text(rule, "/targetLabel").to_owned(), replaced);
            }
            (action, _) => panic!("{action}"),
        }
    }
    labels.retain(|label, _| !label.starts_with("__meta_"));
    Some(labels)
}

#[test]
fn every_pod_is_scraped_once_under_the_name_of_its_job() {
    let monitor = object(&objects("monitoring"), "PodMonitor/holdfast").clone();
    let selector = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap().clone();
    let endpoints = monitor["spec"]["podMetricsEndpoints"].as_array().unwrap();
    let mut jobs = BTreeSet::new();
    for place in ["base", "hub", "helm", "iptables"] {
        for object in objects(place).iter().filter(|object| object.pointer("/spec/template/spec").is_some()) {
            let template = &object["spec"]["template"];
            let selected =
                selector.iter().all(|(label, value)| template["metadata"]["labels"].get(label) == Some(value));
            assert!(selected, "{place}: {}", title(object));
            let targets: BTreeSet<Labels> = endpoints
                .iter()
                .flat_map(|endpoint| {
                    let rules = endpoint["relabelings"].as_array().unwrap();
                    candidates(template).into_iter().filter_map(|labels| relabelled(labels, rules))
                })
                .collect();
            let [target] = targets.iter().collect::<Vec<_>>()[..] else { panic!("{place}: {targets:?}") };
            assert_eq!((target["__address__"].as_str(), target["node"].as_str()), ("10.0.0.7:9253", "node-1"));
            jobs.insert(target["job"].clone());
        }
    }
    assert_eq!(jobs.into_iter().collect::<Vec<_>>(), ["holdfast-agent", "holdfast-hub"], "as the alerts name them");
}
