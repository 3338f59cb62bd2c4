//! The files of a manifests path: which there are, whether they changed, and what each last said.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{
    CLUSTER, Error, Reading,
    document::{self, Head},
};
use crate::{
    record::PARTIAL,
    source::{
        EndpointsMode, Objects,
        assemble::{self, Assembler, Object, Part},
    },
    store::{Records, Rejection, Rejections},
    sys::{UnixMillis, read_file},
};

/// Most files read from one directory.
const FILES_MAX: usize = 10_000;
/// Largest file read, in bytes. 10,000 services and their slices are about 30 MB.
const FILE_BYTES_MAX: u64 = 512 << 20;
/// A file last written longer ago than this is not being written, in milliseconds.
const WRITTEN_LONG_AGO_MS: u64 = 2_000;

/// The attributes of a file that change when it is replaced or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

pub(super) type Marks = BTreeMap<PathBuf, Mark>;

/// The result of a scan of the files.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// As when they were last read.
    Same,
    /// They are changing; look again soon.
    Settling,
    /// They changed and were read.
    Changed,
}

/// The last content of one file.
#[derive(Debug, Default)]
struct File {
    mark: Option<Mark>,
    objects: Vec<(Part, Object)>,
    /// The header of a dump; of several dumps, the oldest.
    head: Option<Head>,
    rejected: Vec<Rejection>,
    rejected_total: u64,
    /// Objects of kinds that are not used.
    others: usize,
    /// Why its content does not count, if it does not.
    problem: Option<Rejection>,
    /// It read well at least once.
    read_well: bool,
}

/// The files of one path.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    endpoints: EndpointsMode,
    held: BTreeMap<PathBuf, File>,
    read: Option<Marks>,
    seen: Option<Marks>,
    newly_rejected: Vec<Option<Objects>>,
}

impl Files {
    pub(super) fn new(path: PathBuf, endpoints: EndpointsMode) -> Self {
        Self { path, endpoints, held: BTreeMap::new(), read: None, seen: None, newly_rejected: Vec::new() }
    }

    /// A file that another reader has read.
    pub(super) fn of_text(name: &Path, text: Vec<u8>, endpoints: EndpointsMode) -> Self {
        let mut files = Self::new(name.to_owned(), endpoints);
        let mut file = File::default();
        file.update(name, Ok(text), &mut files.newly_rejected);
        files.held.insert(name.to_owned(), file);
        files
    }

    /// Looks, and reads what changed once it stands still.
    pub(super) fn look(&mut self, now: UnixMillis) -> Result<Look, Error> {
        let marks = scan(&self.path)?;
        if self.read.as_ref() == Some(&marks) {
            self.seen = None;
            return Ok(Look::Same);
        }
        let still = self.seen.as_ref() == Some(&marks) || marks.values().all(|mark| mark.written_long_before(now));
        if !still {
            self.seen = Some(marks);
            return Ok(Look::Settling);
        }
        self.read_marked(marks)
    }

    pub(super) fn read(&mut self) -> Result<Look, Error> {
        let marks = scan(&self.path)?;
        self.read_marked(marks)
    }

    fn read_marked(&mut self, marks: Marks) -> Result<Look, Error> {
        let changed: Vec<&PathBuf> = marks
            .iter()
            .filter(|(path, mark)| self.held.get(*path).and_then(|file| file.mark.as_ref()) != Some(mark))
            .map(|(path, _)| path)
            .collect();
        let texts: Vec<(PathBuf, io::Result<Vec<u8>>)> =
            changed.into_iter().map(|path| (path.clone(), read_file(path, FILE_BYTES_MAX))).collect();
        let after = scan(&self.path)?;
        if after != marks {
            self.seen = Some(after);
            return Ok(Look::Settling);
        }
        self.held.retain(|path, _| marks.contains_key(path));
        for (path, text) in texts {
            let mark = marks[&path].clone();
            let file = self.held.entry(path.clone()).or_default();
            file.mark = Some(mark);
            file.update(&path, text, &mut self.newly_rejected);
        }
        self.read = Some(marks);
        self.seen = None;
        Ok(Look::Changed)
    }

    /// Everything the files say, or last said.
    pub(super) fn reading(&self) -> Reading {
        let mut assembler = Assembler::new(self.endpoints);
        let mut changes = Vec::new();
        for (part, object) in self.held.values().flat_map(|file| &file.objects) {
            assembler.put(*part, object.clone(), &mut changes);
            changes.clear();
        }
        let mut rejections = Rejections::default();
        for file in self.held.values() {
            rejections.total += file.rejected_total + u64::from(file.problem.is_some());
            let room = Rejections::NAMED_MAX.saturating_sub(rejections.objects.len());
            rejections.objects.extend(file.problem.iter().chain(&file.rejected).take(room).cloned());
        }
        let mut heads = self.held.values().filter_map(|file| file.head.as_ref());
        let named = || heads.find_map(|head| head.cluster.clone()).unwrap_or_else(|| CLUSTER.into());
        let cluster = assembler.cluster().map_or_else(named, Into::into);
        let mut records = Records { from_files: true, ..assembler.records() };
        if self.is_partial() {
            records.namespaces.push(PARTIAL.into());
        }
        Reading { records, cluster, rejections, incomplete: self.problem(), as_of: self.as_of() }
    }

    /// Whether the files are dumps of some namespaces, so that others are not known. A dump of everything beside them tells of all.
    fn is_partial(&self) -> bool {
        let mut heads = self.held.values().filter_map(|file| file.head.as_ref()).peekable();
        heads.peek().is_some() && heads.all(|head| head.is_partial)
    }

    /// When the source behind the oldest dump among the files last confirmed its records; `None` without dumps.
    pub(super) fn as_of(&self) -> Option<UnixMillis> {
        self.held.values().filter_map(|file| file.head.as_ref()?.as_of).min()
    }

    /// The first file whose content does not count, and why.
    pub(super) fn problem(&self) -> Option<String> {
        self.held
            .values()
            .find_map(|file| file.problem.as_ref())
            .map(|problem| format!("{}: {}", problem.name, problem.reason))
    }

    /// How many files read well, now or before.
    pub(super) fn read_well(&self) -> usize {
        self.held.values().filter(|file| file.read_well || !file.objects.is_empty()).count()
    }

    /// Objects of kinds that are not used.
    pub(super) fn others(&self) -> usize {
        self.held.values().map(|file| file.others).sum()
    }

    /// Whether each file there is read well at least once.
    pub(super) fn all_read_well_once(&self) -> bool {
        self.held.values().all(|file| file.read_well)
    }

    /// Rejections since the last call, for the counters: the kind of an object, or `None` for a file.
    pub(super) fn take_newly_rejected(&mut self) -> Vec<Option<Objects>> {
        std::mem::take(&mut self.newly_rejected)
    }
}

impl File {
    fn update(&mut self, path: &Path, text: io::Result<Vec<u8>>, newly_rejected: &mut Vec<Option<Objects>>) {
        let at = |line: Option<u64>, reason: String| {
            let line = line.map(|line| format!(":{line}")).unwrap_or_default();
            Rejection { kind: "file".to_owned(), name: format!("{}{line}", path.display()), reason }
        };
        let text = match text.map(String::from_utf8) {
            Ok(Ok(text)) if text.trim().is_empty() => Err("is empty: taken for half-written".to_owned()),
            Ok(Ok(text)) => Ok(text),
            Ok(Err(error)) => Err(format!("is not UTF-8 at byte {}", error.utf8_error().valid_up_to())),
            Err(error) => Err(error.to_string()),
        };
        let text = text.map(|text| document::parse(&text)).and_then(|text| {
            let what = "is not a Kubernetes manifest or a dump (-o json/yaml)";
            let empty = "is a dump of a process that had no records";
            match text.heads.as_slice() {
                _ if text.is_something_else() => Err(what.to_owned()),
                heads if heads.iter().any(|head| head.as_of.is_none()) && text.objects.is_empty() => {
                    Err(empty.to_owned())
                }
                _ => Ok(text),
            }
        });
        let text = match text {
            Ok(text) => text,
            Err(reason) => {
                newly_rejected.push(None);
                self.problem = Some(at(None, reason));
                return;
            }
        };
        let more = text.unreadable.len().saturating_sub(1);
        self.problem = text.unreadable.into_iter().next().map(|(line, reason)| {
            let more = if more == 0 { String::new() } else { format!(" (and {more} more documents of this file)") };
            at(Some(line), reason + &more)
        });
        if self.problem.is_some() {
            newly_rejected.push(None);
            if self.read_well {
                return;
            }
        }
        self.read_well |= self.problem.is_none();
        newly_rejected.extend(text.broken.iter().map(|(of, _)| Some(*of)));
        self.head = text.heads.into_iter().reduce(|a, b| Head {
            as_of: a.as_of.min(b.as_of),
            is_partial: a.is_partial && b.is_partial,
            ..a
        });
        self.rejected_total = text.broken.len() as u64;
        self.others = text.others;
        self.rejected = text
            .broken
            .iter()
            .take(Rejections::NAMED_MAX)
            .map(|(of, broken)| {
                let rejection = assemble::rejection(*of, broken.key.as_ref(), &broken.reason);
                // A document without a name is shown by its file.
                let nameless = || format!("? in {}", path.display());
                Rejection { name: broken.key.as_ref().map_or_else(nameless, |_| rejection.name), ..rejection }
            })
            .collect();
        self.objects = text
            .objects
            .into_iter()
            .map(|object| {
                let part = match &object {
                    Object::Service(_) => Part::Services,
                    Object::Slice(_) => Part::Slices,
                    Object::Namespace(_) => Part::Namespaces,
                };
                (part, object)
            })
            .collect();
    }
}

impl Mark {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    fn written_long_before(&self, now: UnixMillis) -> bool {
        let seconds = u64::try_from(self.modified.0).unwrap_or(0);
        now.0 > seconds.saturating_mul(1000).saturating_add(WRITTEN_LONG_AGO_MS + 1000)
    }
}

pub(super) fn scan(path: &Path) -> Result<Marks, Error> {
    let open = |path: &Path| {
        let path = path.to_owned();
        move |error| Error::Open { path, error }
    };
    let metadata = fs::metadata(path).map_err(open(path))?;
    if !metadata.is_dir() {
        return Ok(Marks::from([(path.to_owned(), Mark::of(&metadata))]));
    }
    let mut marks = Marks::new();
    for entry in fs::read_dir(path).map_err(open(path))? {
        let file = entry.map_err(open(path))?.path();
        if !is_manifest(&file) {
            continue;
        }
        // A link that leads nowhere is a file that is being replaced.
        let metadata = fs::metadata(&file).map_err(open(&file))?;
        // A pipe may have no writer: opening it would block.
        if !metadata.is_file() {
            continue;
        }
        if marks.len() == FILES_MAX {
            return Err(Error::TooManyFiles { path: path.to_owned(), max: FILES_MAX });
        }
        marks.insert(file, Mark::of(&metadata));
    }
    if marks.is_empty() {
        return Err(Error::NoFiles { path: path.to_owned() });
    }
    Ok(marks)
}

fn is_manifest(file: &Path) -> bool {
    let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = file.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}
