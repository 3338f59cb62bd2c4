//! `holdfast check-config` away from the machine that the configuration is for, and on it.

use std::path::PathBuf;

use crate::config::{self, Config, Source};

/// Stands for the hub that a pod finds in its environment.
const HUB: &str = "holdfast-hub.invalid";

/// Variables that every pod has, where this process does not have them.
pub fn environment(name: &'static str) -> Option<String> {
    config::environment(name).or_else(|| match name {
        "HOLDFAST_HUB_SERVICE_HOST" => Some(HUB.into()),
        "KUBERNETES_SERVICE_HOST" => Some("kubernetes.invalid".into()),
        _ => None,
    })
}

/// The part of the result that stands for a pod's environment.
pub fn assumed(config: &Config) -> Option<String> {
    match &config.source {
        Source::Hub(hubs) if hubs.iter().any(|hub| hub.host == HUB) => Some(format!(
            "no source is given; a pod finds its hub in HOLDFAST_HUB_SERVICE_HOST, for which {HUB} stands here"
        )),
        Source::Kubernetes(None) => Some("the apiserver is that of the pod's environment and service account".into()),
        _ => None,
    }
}

/// Files that the configuration names and this machine does not have, each in a line with its key.
pub fn missing(config: &Config) -> Vec<String> {
    let cannot = |(key, path): (String, PathBuf)| {
        let error = std::fs::File::open(&path).err()?;
        Some(format!("{key}: {}: {error}", path.display()))
    };
    config.files().into_iter().filter_map(cannot).collect()
}
