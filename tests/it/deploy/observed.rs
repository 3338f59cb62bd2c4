//! Rules and dashboard name metrics that exist and places that are in the runbook.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    alerts, deploy, repository,
    yaml::{self, text},
};

/// The names of our metrics in an expression.
fn metrics_in(expression: &str) -> Vec<&str> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("holdfast_"))
        .collect()
}

#[test]
fn every_metric_of_rules_and_dashboard_exists() {
    let page = yaml::read(&repository().join("docs/metrics.md"));
    let rows = page.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("| `")?.split_once('`')?;
        Some((name.split('{').next().unwrap(), rest.contains("| histogram |")))
    });
    let documented: BTreeMap<&str, bool> = rows.collect();
    let exists = |name: &str| {
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        documented.get(name) == Some(&false) || histogram.is_some_and(|name| documented.get(name) == Some(&true))
    };
    assert!(!exists("holdfast_nothing") && !exists("holdfast_dns_request_duration_seconds"), "the check can fail");
    let dashboard: Value =
        serde_json::from_str(&yaml::read(&deploy("kustomize/components/monitoring/dashboard.json"))).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut expressions: Vec<String> = panels.map(|target| text(target, "/expr").to_owned()).collect();
    expressions.extend(alerts().iter().map(|alert| text(alert, "/expr").to_owned()));
    assert!(expressions.len() > 25);
    for expression in &expressions {
        let named = metrics_in(expression);
        assert!(!named.is_empty() || expression.contains("up{"), "{expression}");
        for name in named {
            assert!(exists(name), "{name} in {expression} is not in docs/metrics.md, or is a histogram");
        }
    }
}

#[test]
fn every_alert_leads_to_a_place_in_the_runbook() {
    let runbook = yaml::read(&repository().join("docs/runbook.md"));
    let anchor = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
    };
    let anchors: BTreeSet<String> = runbook.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
    for alert in alerts() {
        let (page, place) = text(&alert, "/annotations/runbook_url").split_once('#').unwrap();
        assert!(
            page.starts_with("https://") && page.ends_with("/docs/runbook.md"),
            "{page}: a link that opens from anywhere"
        );
        assert!(anchors.contains(place), "{}: there is no {place} in {anchors:?}", text(&alert, "/alert"));
    }
}
