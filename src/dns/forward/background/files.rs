//! Files of zones that changed: resolv.conf files, certificates, hosts, weights.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use crate::dns::forward::{Inner, route::Route};

/// Size and time of files when they were last read.
#[derive(Default)]
pub struct Files {
    stamps: HashMap<PathBuf, Option<(SystemTime, u64)>>,
    /// Files that cannot be used, as counted in the metric.
    missing: i64,
}

impl Files {
    /// Whether `path` differs from the last time. The first look counts: it may have changed since it was read at start.
    fn changed(&mut self, path: &Path) -> bool {
        // A stat of a local file every two seconds is not worth a thread.
        let metadata = std::fs::metadata(path).ok();
        let stamp = metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
        match self.stamps.insert(path.to_owned(), stamp) {
            None => stamp.is_some(),
            Some(before) => before != stamp && stamp.is_some(),
        }
    }
}

/// Reads changed files again; a file that cannot be used changes nothing. Returns whether upstreams changed.
pub fn reread(inner: &Arc<Inner>, seen: &mut Files) -> bool {
    let (mut any, mut named, mut missing) = (false, Vec::new(), 0);
    let routes = inner.routes.load_full();
    for route in routes.all().flat_map(Route::with_resolver) {
        let mut changed = false;
        for path in route.resolv_conf_paths() {
            changed |= seen.changed(path);
        }
        for path in route.trust_paths() {
            changed |= seen.changed(path);
        }
        if changed {
            named.extend(route.resolv_conf_paths().map(Path::to_owned));
            match route.reread(&inner.environment) {
                Ok(false) => {}
                Ok(true) => {
                    any = true;
                    tracing::info!(zone = %route.config.zone, upstreams = route.upstreams().len(), "upstreams read again");
                }
                Err(error) => tracing::warn!(%error, "cannot read the upstreams again; keeping the old ones"),
            }
        }
        if let Some(path) = &route.config.hosts_file
            && seen.changed(path)
        {
            match route.names.reread_hosts() {
                Ok(()) => {
                    tracing::info!(zone = %route.config.zone, path = %path.display(), "hosts file read");
                    inner.generation.fetch_add(1, Ordering::Release);
                }
                Err(error) => tracing::warn!(%error, "cannot read the hosts again; keeping the old entries"),
            }
        }
        if let Some(path) = &route.config.weights_file
            && seen.changed(path)
        {
            let (zone, path) = (&route.config.zone, path.display());
            match route.names.reread_weights() {
                Ok(()) => tracing::info!(%zone, %path, "file of weights read"),
                Err(error) => {
                    tracing::warn!(%zone, %path, %error, "cannot read the file of weights again; keeping the old ones");
                }
            }
        }
        let problems =
            [route.missing().is_some(), route.names.hosts_problem().is_some(), route.names.weights_problem().is_some()];
        missing += problems.map(i64::from).iter().sum::<i64>();
    }
    // Views count on the same gauge.
    inner.metrics().files_missing.add(missing - seen.missing);
    seen.missing = missing;
    if !named.is_empty() {
        let resolv_conf_cache = inner.environment.resolv_conf_cache.clone();
        // Nothing here waits for the disk.
        drop(tokio::task::spawn_blocking(move || resolv_conf_cache.note(&named)));
    }
    any
}
