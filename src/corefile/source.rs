//! The files of a Corefile: read whole, and found by a pattern.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::Imported;
use crate::sys::read_file;

/// Longest file. A `ConfigMap` has 1 MiB at most.
const BYTES_MAX: u64 = 1 << 20;
/// Files of one pattern, and names in one folder that are looked at.
const FILES_MAX: usize = 1_000;

/// Reads a text file; bytes that are no UTF-8 become replacement characters, which only comments have.
///
/// # Errors
/// The file cannot be read or is longer than 1 MiB.
pub(super) fn read(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&read_file(path, BYTES_MAX)?).into_owned())
}

/// The files that imports named, as they were when they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imports {
    read: Vec<(PathBuf, String, Result<Vec<Imported>, String>)>,
}

impl Imports {
    /// Reads the files that fit `pattern` in `folder`, and keeps them.
    ///
    /// # Errors
    /// A named file, or one that fits, cannot be read.
    pub fn read(&mut self, folder: &Path, pattern: &str) -> Result<Vec<Imported>, String> {
        let known = self.read.iter().find(|(known, text, _)| known == folder && text == pattern);
        if let Some((.., files)) = known {
            return files.clone();
        }
        let files = find(folder, pattern);
        self.read.push((folder.to_owned(), pattern.to_owned(), files.clone()));
        files
    }

    /// The same imports, read again.
    #[must_use]
    pub fn again(&self) -> Self {
        let find =
            |(folder, pattern, _): &(PathBuf, String, _)| (folder.clone(), pattern.clone(), find(folder, pattern));
        Self { read: self.read.iter().map(find).collect() }
    }
}

fn find(folder: &Path, pattern: &str) -> Result<Vec<Imported>, String> {
    let path = folder.join(pattern);
    if !pattern.contains(['*', '?']) {
        return read(&path).map(|text| vec![(path, text)]).map_err(|error| error.to_string());
    }
    let mut found = vec![PathBuf::new()];
    for part in path.components() {
        let part = part.as_os_str();
        let Some(wild) = part.to_str().filter(|part| part.contains(['*', '?'])) else {
            for path in &mut found {
                path.push(part);
            }
            continue;
        };
        found = found.iter().flat_map(|folder| fitting(folder, wild)).take(FILES_MAX).collect();
    }
    let files = found.into_iter().filter(|path| path.is_file());
    let text = |path: PathBuf| match read(&path) {
        Ok(text) => Ok((path, text)),
        Err(error) => Err(format!("{}: {error}", path.display())),
    };
    files.map(text).collect()
}

/// The entries of a folder that fit, in the order of their names.
fn fitting(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.take(FILES_MAX).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut paths: Vec<PathBuf> = names.filter(|name| fits(pattern, name)).map(|name| folder.join(name)).collect();
    paths.sort();
    paths
}

/// Whether `name` fits a pattern of plain characters, `?` and `*`.
fn fits(pattern: &str, name: &str) -> bool {
    match (pattern.chars().next(), name.chars().next()) {
        (None, None) => true,
        (Some('*'), first) => {
            fits(&pattern[1..], name) || first.is_some_and(|first| fits(pattern, &name[first.len_utf8()..]))
        }
        (Some(wanted), Some(first)) => {
            (wanted == '?' || wanted == first) && fits(&pattern[wanted.len_utf8()..], &name[first.len_utf8()..])
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_one_star_and_one_question_mark() {
        for (pattern, name, expect) in [
            ("*.override", "log.override", true),
            ("*.override", ".override", true),
            ("*.override", "log.server", false),
            ("a?*", "ab", true),
            ("a?*", "a", false),
            ("custom-*.server", "custom-é.server", true),
        ] {
            assert_eq!(fits(pattern, name), expect, "{pattern} {name}");
        }
    }

    #[test]
    fn files_are_found_in_order_and_seen_to_change() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::create_dir_all(folder.join("custom/..data")).unwrap();
        let mut imports = Imports::default();
        assert_eq!(imports.read(folder, "custom/*.override"), Ok(Vec::new()));
        assert!(imports.read(folder, "gone").unwrap_err().contains("No such file"));
        assert_eq!(imports.again(), imports);
        fs::write(folder.join("custom/b.override"), b"log # caf\xE9").unwrap();
        fs::write(folder.join("custom/a.override"), "errors").unwrap();
        fs::write(folder.join("custom/c.server"), "x").unwrap();
        let again = imports.again();
        assert_ne!(again, imports);
        let found = find(folder, "custom/*.override").unwrap();
        let shown: Vec<_> =
            found.iter().map(|(path, text)| (path.file_name().unwrap().to_str().unwrap(), text.as_str())).collect();
        assert_eq!(shown, [("a.override", "errors"), ("b.override", "log # caf\u{fffd}")]);
        assert!(find(folder, "custom/*").is_ok_and(|files| files.len() == 3), "folders are left out");
    }
}
