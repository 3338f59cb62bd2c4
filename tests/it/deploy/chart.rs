//! The chart makes what the kustomization makes, and each of its values makes a difference.

use std::{collections::BTreeMap, process::Command};

use serde_json::{Value, json};

use super::{
    agent_config, deploy, helm, kustomize, object, objects,
    yaml::{self, text, title},
};

/// Objects by kind and name; the text of configurations as what it says.
fn by_title(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let with_config_read = |mut object: Value| {
        for file in ["/data/agent.yaml", "/data/hub.yaml"] {
            if let Some(config) = object.pointer_mut(file) {
                *config = yaml::documents(config.as_str().unwrap()).remove(0);
            }
        }
        if let Some(dashboard) = object.pointer_mut("/data/dashboard.json") {
            *dashboard = serde_json::from_str(dashboard.as_str().unwrap()).unwrap();
        }
        // The chart leaves the namespace to helm.
        object["metadata"].as_object_mut().unwrap().remove("namespace");
        (title(&object), object)
    };
    objects.into_iter().map(with_config_read).collect()
}

#[test]
fn the_chart_makes_what_the_kustomization_makes() {
    let component = |name: &str| kustomize::build(&deploy("kustomize/components").join(name));
    let mut expected = objects("base");
    expected.extend(component("cert-manager"));
    let chart = deploy("helm/holdfast");
    assert_eq!(by_title(helm::template(&chart, &json!({}))), by_title(expected.clone()));
    expected.extend(component("monitoring"));
    assert_eq!(by_title(objects("helm")), by_title(expected));
    let own = json!({ "tls": { "certManager": false } });
    assert_eq!(by_title(helm::template(&chart, &own)), by_title(objects("base")));
    let no_agents = json!({ "tls": { "certManager": false }, "agent": { "enabled": false } });
    let mut hub_alone = by_title(objects("hub"));
    for (title, object) in by_title(helm::template(&chart, &no_agents)) {
        assert_eq!(hub_alone.remove(&title), Some(object), "{title}");
    }
    assert!(hub_alone.is_empty(), "{hub_alone:?}");
    let placed = json!({ "hub": { "config": { "endpoints": "all" }, "extraArgs": ["--pods"], "nodeSelector": { "a": "b" },
        "clusterIP": "10.96.0.11", "affinity": { "nodeAffinity": { "c": "d" } } } });
    let placed = helm::template(&chart, &placed);
    assert_eq!(object(&placed, "Service/holdfast-hub")["spec"]["clusterIP"], "10.96.0.11");
    let hub = &object(&placed, "Deployment/holdfast-hub")["spec"]["template"]["spec"];
    assert_eq!(hub["nodeSelector"], json!({ "a": "b" }));
    assert_eq!(hub["affinity"]["nodeAffinity"], json!({ "c": "d" }));
    assert!(hub["affinity"].get("podAntiAffinity").is_some(), "what is given is added");
    assert_eq!(hub["containers"][0]["args"].as_array().unwrap().last().unwrap(), "--pods");
    assert!(text(object(&placed, "ConfigMap/holdfast-hub"), "/data/hub.yaml").contains("endpoints: all"));
    let other =
        helm::template(&chart, &json!({ "agent": { "config": { "zone": "k8s.test" } }, "hub": { "replicas": 3 } }));
    assert_eq!(agent_config(&other)["zone"], "k8s.test");
    assert_eq!(object(&other, "Deployment/holdfast-hub")["spec"]["replicas"], 3);
}

/// Every value that is no map, by its path, and another one in its place.
fn leaves(path: &str, value: &Value, found: &mut Vec<(String, Value)>) {
    let other = match value {
        Value::Object(map) if map.is_empty() => json!({ "other": "other" }),
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| leaves(&format!("{path}/{key}"), value, found));
            return;
        }
        Value::Bool(value) => json!(!value),
        Value::Number(number) => json!(number.as_u64().unwrap() + 1),
        Value::String(text) if text.is_empty() => json!("other"),
        Value::String(text) => json!(format!("{text}0")),
        Value::Array(items) => json!([items.as_slice(), &[items.first().cloned().unwrap_or(json!("other"))]].concat()),
        Value::Null => json!("other"),
    };
    found.push((path.to_owned(), other));
}

#[test]
fn every_value_of_the_chart_makes_a_difference() {
    let chart = deploy("helm/holdfast");
    let values = yaml::file(&chart.join("values.yaml")).remove(0);
    let mut found = Vec::new();
    leaves("", &values, &mut found);
    assert!(found.len() > 15, "{found:?}");
    // Some values are rendered with monitoring alone.
    let with = |path: &str, value: Value| {
        let mut over = json!({ "monitoring": { "enabled": true } });
        let mut at = &mut over;
        for key in path.split('/').skip(1) {
            at = &mut at[key];
        }
        *at = value;
        helm::template(&chart, &over)
    };
    let usual = helm::template(&chart, &json!({ "monitoring": { "enabled": true } }));
    for (path, other) in found {
        let other = if path == "/monitoring/enabled" { json!(false) } else { other };
        assert_ne!(with(&path, other), usual, "{path} is not used");
    }
}

#[test]
fn helm_itself_makes_the_same() {
    let chart = deploy("helm/holdfast");
    let ran =
        Command::new("helm").args(["template", "holdfast"]).arg(&chart).args(["--namespace", "kube-system"]).output();
    match ran {
        Ok(ran) => {
            assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
            let made = yaml::documents(&String::from_utf8(ran.stdout).unwrap());
            assert_eq!(by_title(made), by_title(helm::template(&chart, &json!({}))));
        }
        Err(error) => println!("skipped: helm: {error}; the chart was rendered by the test's own renderer"),
    }
}
