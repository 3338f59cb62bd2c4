//! The identity of a hub: a number made once and kept with its records. It tells apart two hubs that have one name by mistake,
//! and recognises a hub after a restart. Only the candidates for one lease look at it.

use std::{fs, io, path::Path};

use tracing::warn;

use crate::sys::put_file;

/// Name of the file in the directory of the store.
const FILE: &str = "hub-id";
/// Its length: 128 bits in hexadecimal.
const DIGITS: usize = 32;

/// The identity of the hub whose records are in `store`. Without one, or where it can be neither read nor kept, that of
/// this process alone: after a restart it counts as another.
#[must_use]
pub fn identity(store: Option<&Path>) -> String {
    let made = format!("{:032x}", rand::random::<u128>());
    let Some(file) = store.map(|store| store.join(FILE)) else { return made };
    match fs::read_to_string(&file) {
        Ok(text) if is_identity(text.trim()) => return text.trim().to_owned(),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!(file = %file.display(), %error, "cannot read this hub's identity; it has another until the next start");
            return made;
        }
        Ok(_) | Err(_) => {}
    }
    if let Err(error) = put_file(&file, made.as_bytes(), 0o640) {
        warn!(file = %file.display(), %error, "cannot save this hub's identity; it gets another at the next start");
    }
    made
}

fn is_identity(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_is_the_same_as_long_as_its_store_is() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = identity(Some(one.path()));
        assert!(is_identity(&first), "{first}");
        assert_eq!(identity(Some(one.path())), first);
        assert_ne!(identity(Some(other.path())), first);
        assert_ne!(identity(None), identity(None), "a process alone is another with each start");
    }

    #[test]
    fn an_identity_that_cannot_be_read_or_saved_changes_at_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "half of w").unwrap();
        let anew = identity(Some(dir.path()));
        assert_eq!(identity(Some(dir.path())), anew, "what was none is replaced");
        assert!(is_identity(&identity(Some(&dir.path().join("missing")))));
        fs::remove_file(dir.path().join(FILE)).unwrap();
        fs::create_dir(dir.path().join(FILE)).unwrap();
        assert_ne!(identity(Some(dir.path())), identity(Some(dir.path())));
    }
}
