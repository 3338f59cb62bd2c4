//! Compares a list with the served records.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::Config;
use crate::record::{Class, Kind, Service, ServiceKey, Snapshot};

/// The records a list lacks.
pub(super) struct Comparison {
    /// Services served that the list lacks.
    pub missing: HashSet<ServiceKey>,
    /// Listed namespaces served that the list lacks.
    pub namespaces: Vec<Arc<str>>,
    /// Of each class: how many are served, and how many of these the list has.
    classes: [(Class, usize, usize); 4],
    /// Endpoints served, the services they are of, and endpoints in the list.
    endpoints: (usize, usize, usize),
}

impl Comparison {
    /// `skip` says which namespaces and services are not compared, because their deletion is no claim of this list.
    pub(super) fn of(
        served: &Snapshot,
        services: &HashMap<ServiceKey, Arc<Service>>,
        namespaces: &[Arc<str>],
        skip: impl Fn(Option<&ServiceKey>, &str) -> bool,
    ) -> Self {
        let mut classes =
            [Class::ClusterIp, Class::Headless, Class::ExternalName, Class::Namespaces].map(|class| (class, 0, 0));
        let mut missing = HashSet::new();
        let mut with_endpoints = 0;
        for service in served.services() {
            let listed = services.contains_key(service.key());
            if !listed && skip(Some(service.key()), service.namespace()) {
                continue;
            }
            let (_, held, present) = &mut classes[match service.kind() {
                Kind::ClusterIp(_) => 0,
                Kind::Headless => 1,
                Kind::ExternalName(_) => 2,
            }];
            *held += 1;
            with_endpoints += usize::from(!service.endpoints().is_empty());
            if listed {
                *present += 1;
            } else {
                missing.insert(service.key().clone());
            }
        }
        let listed: HashSet<&Arc<str>> = namespaces.iter().collect();
        let absent = served.listed_namespaces().filter(|name| !listed.contains(name) && !skip(None, name));
        let absent: Vec<Arc<str>> = absent.cloned().collect();
        classes[3].1 = absent.len() + served.listed_namespaces().filter(|name| listed.contains(name)).count();
        classes[3].2 = classes[3].1 - absent.len();
        let listed = services.values().map(|service| service.endpoints().len()).sum();
        let endpoints = (served.counts().endpoints, with_endpoints, listed);
        Self { missing, namespaces: absent, classes, endpoints }
    }

    /// The largest class of services or namespaces that the list has nothing of.
    pub(super) fn emptied(&self, config: &Config) -> Option<(Class, usize)> {
        let emptied = self.classes.iter().filter(|(_, held, listed)| *held >= config.class_min && *listed == 0);
        emptied.map(|(class, held, _)| (*class, *held)).max_by_key(|(_, held)| *held)
    }

    /// How many endpoints there were, if the list has none of many, of more than one service.
    pub(super) fn endpoints_emptied(&self, config: &Config) -> Option<usize> {
        let (held, services, listed) = self.endpoints;
        (held >= config.class_min && services > 1 && listed == 0).then_some(held)
    }
}
