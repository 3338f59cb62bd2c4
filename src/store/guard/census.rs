//! Counts what a list lacks of what is served.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Class, Config, Reason};
use crate::record::{Kind, Service, ServiceKey, Snapshot};

/// What a list lacks of what is served.
pub(super) struct Census {
    /// Services served that the list lacks.
    pub missing: HashSet<ServiceKey>,
    /// Of each class: how many are served, and how many of these the list has.
    classes: [(Class, usize, usize); 4],
    /// Endpoints served, the services they are of, and endpoints in the list.
    endpoints: (usize, usize, usize),
}

impl Census {
    pub(super) fn take(
        served: &Snapshot,
        services: &HashMap<ServiceKey, Arc<Service>>,
        namespaces: &[Arc<str>],
    ) -> Self {
        let mut classes =
            [Class::ClusterIp, Class::Headless, Class::ExternalName, Class::Namespaces].map(|class| (class, 0, 0));
        let mut missing = HashSet::new();
        let mut with_endpoints = 0;
        for service in served.services() {
            let (_, held, listed) = &mut classes[match service.kind() {
                Kind::ClusterIp(_) => 0,
                Kind::Headless => 1,
                Kind::ExternalName(_) => 2,
            }];
            *held += 1;
            with_endpoints += usize::from(!service.endpoints().is_empty());
            if services.contains_key(service.key()) {
                *listed += 1;
            } else {
                missing.insert(service.key().clone());
            }
        }
        classes[3].1 = served.listed_namespaces().count();
        classes[3].2 = namespaces.len();
        let listed = services.values().map(|service| service.endpoints().len()).sum();
        Self { missing, classes, endpoints: (served.counts().endpoints, with_endpoints, listed) }
    }

    /// The largest class of services or namespaces that the list has nothing of.
    pub(super) fn emptied(&self, config: &Config) -> Option<(Class, usize)> {
        let emptied = self.classes.iter().filter(|(_, held, listed)| *held >= config.class_min && *listed == 0);
        emptied.map(|(class, held, _)| (*class, *held)).max_by_key(|(_, held)| *held)
    }

    /// Whether the list has no endpoints where there were many, of more than one service.
    pub(super) fn endpoints_emptied(&self, config: &Config) -> Option<Reason> {
        let (held, services, listed) = self.endpoints;
        let emptied = held >= config.class_min && services > 1 && listed == 0;
        emptied.then_some(Reason::Class { class: Class::Endpoints, of: held })
    }
}
