//! The effective configuration of an agent beside its records: `settings.yaml` in the store's directory, for the tools that look at a
//! store when no process is left to ask.
//!
//! Never read by a daemon, which goes by its own file and flags.

use std::{fs, io, path::Path};

use super::{Config, ConfigErrors, Gather, Place, Role, Settings, node, read_file, table};
use crate::sys::put_file;

/// The file's name in the directory of the store.
const FILE: &str = "settings.yaml";

/// Puts the configuration of an agent beside the records, as `check-config` prints it. A hub answers no DNS, and keeps none.
///
/// # Errors
/// The system's error; the file is unchanged then.
pub fn keep(dir: &Path, config: &Config) -> io::Result<()> {
    if config.role != Role::Agent {
        return Ok(());
    }
    let text = format!("# What the agent on this store was last started with, for the tools.\n{}", config.to_yaml());
    put_file(&dir.join(FILE), text.as_bytes(), 0o640)
}

/// The settings of the agent that last had this store; none if it kept none.
///
/// # Errors
/// If the file cannot be read or is none of this version's.
pub fn read(dir: &Path) -> Result<Option<Settings>, ConfigErrors> {
    let file = dir.join(FILE);
    if !fs::exists(&file).unwrap_or(true) {
        return Ok(None);
    }
    let mut errors = Gather::new(Some(&file));
    let text = read_file(&file).map_err(|message| {
        errors.add(Place::Default, "", message);
        std::mem::take(&mut errors).finish()
    })?;
    let mut settings = Settings::default();
    match node::parse(&text) {
        Ok(root) => drop(table::read(&mut settings, &root, Some(Role::Agent), "", &mut errors)),
        Err(broken) => broken.into_iter().for_each(|broken| errors.add(broken.place, "", broken.message)),
    }
    if errors.len() == 0 { Ok(Some(settings)) } else { Err(errors.finish()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, load_str};

    fn loaded(role: Role, text: &str) -> Config {
        let config = load_str(role, (Path::new("f"), text), &Flags::default(), |_| None);
        config.unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn the_settings_of_an_agent_are_read_back_and_a_hub_leaves_none() {
        let dir = tempfile::tempdir().unwrap();
        let hub = "listen: ['[::1]:7443']\nsource: {manifests: {path: cluster.yaml}}\ntls: insecure";
        keep(dir.path(), &loaded(Role::Hub, hub)).unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        let agent = "zone: k8s.example\npods: disabled\nttl: 7s\nreverse: [10.0.0.0/8]\nsource: {none: true}\n\
                     views: [{listen: ['127.0.0.2:53'], forward: [{zone: ., answer: refused}]}]";
        let config = loaded(Role::Agent, agent);
        keep(dir.path(), &config).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(config.settings));
    }

    #[test]
    fn a_file_that_is_broken_or_newer_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for (text, told) in [("zone: [", "settings.yaml"), ("ttl: 5s\nsolar: true", "solar")] {
            fs::write(dir.path().join(FILE), text).unwrap();
            let error = read(dir.path()).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
