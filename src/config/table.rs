//! The one table of settings: what a row is, and how a section is read, shown and described by its rows.
//!
//! Owns the `settings!` form in which a setting is defined once: field, type, key, flag, default, bounds and
//! documentation. The rows are in `settings`.

use super::{
    error::Gather,
    node::{Data, Entry, Node, Place},
    value::{Bounds, Shown, Value},
};
use crate::sys::labels;

labels! {
    /// The roles that read a setting, as the command line names them.
    pub enum Role {
        Agent = "agent",
        Hub = "hub",
    }
}

/// A flag of the command line.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// With its dashes.
    pub name: &'static str,
    /// Name of its value in `--help`.
    pub value: &'static str,
}

/// One setting, without its type.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its place in the file, with dots between the levels.
    pub key: &'static str,
    /// Its default, as it would be written in the file.
    pub default: &'static str,
    pub flag: Option<Flag>,
    /// The limits of its value.
    pub bounds: Option<Bounds>,
    /// The roles that read it; other roles refuse it.
    pub role: Option<Role>,
    /// Whether SIGHUP is enough to change it.
    pub reload: bool,
    /// Whether it must be given.
    pub required: bool,
}

impl Setting {
    /// A setting of both roles, without flag or bounds, that takes a restart to change.
    pub const fn new(key: &'static str, default: &'static str) -> Self {
        Self { key, default, flag: None, bounds: None, role: None, reload: false, required: false }
    }

    #[must_use]
    pub const fn flag(mut self, name: &'static str, value: &'static str) -> Self {
        self.flag = Some(Flag { name, value });
        self
    }

    /// With limits, both allowed, and where they come from.
    #[must_use]
    pub const fn within(mut self, min: &'static str, max: &'static str, why: &'static str) -> Self {
        self.bounds = Some(Bounds { min, max, why });
        self
    }

    /// Of the agent alone.
    #[must_use]
    pub const fn agent(mut self) -> Self {
        self.role = Some(Role::Agent);
        self
    }

    /// Of the hub alone.
    #[must_use]
    pub const fn hub(mut self) -> Self {
        self.role = Some(Role::Hub);
        self
    }

    /// Changed by SIGHUP.
    #[must_use]
    pub const fn reload(mut self) -> Self {
        self.reload = true;
        self
    }

    /// Without a default that would do.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Whether this role reads it.
    pub fn is_for(&self, role: Role) -> bool {
        self.role.is_none_or(|only| only == role)
    }
}

/// A setting with its type and its field in the section `S`.
pub struct Row<S> {
    /// Key, flag, default and bounds.
    pub setting: Setting,
    /// Its documentation.
    pub doc: &'static str,
    /// Its type, as the documentation calls it.
    pub kind: fn() -> String,
    /// Whether its flag may be given more than once.
    pub many: bool,
    /// The settings inside it.
    pub inner: fn() -> Vec<Described>,
    /// Reads it into its field.
    pub read: fn(&mut S, &Node, &str, Option<Bounds>, &mut Gather),
    /// Shows its field.
    pub show: fn(&S) -> Shown,
}

/// A setting as the documentation and `--help` need it.
#[derive(Clone, Debug)]
pub struct Described {
    /// Key, flag, default and bounds.
    pub setting: Setting,
    /// Its documentation, one line or more.
    pub doc: &'static str,
    /// Its type.
    pub kind: String,
    /// Whether its flag may be given more than once.
    pub many: bool,
    /// The settings inside it.
    pub inner: Vec<Described>,
}

/// A struct of settings.
pub trait Section: Sized + 'static {
    /// Its settings, in the order of the documentation.
    fn rows() -> &'static [Row<Self>];

    /// Every setting described.
    fn described() -> Vec<Described> {
        let describe = |row: &Row<Self>| Described {
            setting: row.setting,
            doc: row.doc,
            kind: (row.kind)(),
            many: row.many,
            inner: (row.inner)(),
        };
        Self::rows().iter().map(describe).collect()
    }

    /// The effective values of this role as a tree.
    fn shown(&self, role: Role) -> Shown {
        let mut tree = Vec::new();
        for row in Self::rows().iter().filter(|row| row.setting.is_for(role)) {
            insert(&mut tree, row.setting.key, (row.show)(self));
        }
        Shown::Map(tree)
    }
}

fn insert(tree: &mut Vec<(String, Shown)>, key: &str, value: Shown) {
    let Some((head, rest)) = key.split_once('.') else {
        tree.push((key.to_owned(), value));
        return;
    };
    if let Some((_, Shown::Map(inner))) = tree.iter_mut().find(|(name, _)| name == head) {
        insert(inner, rest, value);
    } else {
        let mut inner = Vec::new();
        insert(&mut inner, rest, value);
        tree.push((head.to_owned(), Shown::Map(inner)));
    }
}

/// The value a default stands for.
///
/// # Panics
/// If the default is not a value of its type; every default is read by the tests.
pub fn default_of<T: Value>(setting: &Setting) -> T {
    let node = super::node::parse(setting.default).expect("a default is YAML");
    let mut errors = Gather::new(None);
    let value = T::read(&Node { place: Place::Default, ..node }, setting.key, setting.bounds, &mut errors);
    value.unwrap_or_else(|| panic!("the default of {}: {}", setting.key, errors.finish()))
}

/// Reads a mapping into a section and returns the keys that were given, with their places.
pub fn read<S: Section>(
    section: &mut S,
    node: &Node,
    role: Option<Role>,
    prefix: &str,
    errors: &mut Gather,
) -> Vec<(&'static str, Place)> {
    let mut reading = Reading { section, role, prefix, errors, given: Vec::new() };
    reading.level(node, "");
    let Reading { given, .. } = reading;
    for row in S::rows().iter().filter(|row| row.setting.required) {
        if !given.iter().any(|(key, _)| *key == row.setting.key) {
            errors.add(node.place, prefix, format!("{:?} is missing", row.setting.key));
        }
    }
    given
}

struct Reading<'a, S> {
    section: &'a mut S,
    role: Option<Role>,
    prefix: &'a str,
    errors: &'a mut Gather,
    given: Vec<(&'static str, Place)>,
}

impl<S: Section> Reading<'_, S> {
    /// Reads the mapping that stands at `path` within the section.
    fn level(&mut self, node: &Node, path: &str) {
        let entries = match &node.data {
            Data::Null => return,
            Data::Map(entries) => entries,
            Data::Text(_) | Data::List(_) => {
                let key = join(self.prefix, path);
                let names = children::<S>(path).join(", ");
                self.errors.add(node.place, &key, format!("expected a mapping of {names}, found {}", node.kind()));
                return;
            }
        };
        for entry in entries {
            self.entry(entry, &join(path, &entry.key));
        }
    }

    fn entry(&mut self, entry: &Entry, path: &str) {
        let rows = || S::rows().iter().filter(|row| row.setting.key == path);
        let mine = rows().find(|row| self.role.is_none_or(|role| row.setting.is_for(role)));
        let key = join(self.prefix, path);
        if let Some(row) = mine {
            if matches!(entry.value.data, Data::Null) && !row.many {
                self.errors.add(entry.value.place, &key, format!("expected {}, found nothing", (row.kind)()));
                return;
            }
            (row.read)(self.section, &entry.value, &key, row.setting.bounds, self.errors);
            self.given.push((row.setting.key, entry.value.place));
        } else if let Some(Role::Agent | Role::Hub) = rows().find_map(|row| row.setting.role) {
            let other = rows().find_map(|row| row.setting.role).map_or("", Role::as_str);
            self.errors.add(entry.place, &key, format!("this is a setting of the {other}"));
        } else if !children::<S>(path).is_empty() {
            self.level(&entry.value, path);
        } else {
            let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
            self.errors.add(entry.place, &key, unknown::<S>(parent, name));
        }
    }
}

fn join(path: &str, name: &str) -> String {
    match (path.is_empty(), name.is_empty()) {
        (true, _) => name.to_owned(),
        (_, true) => path.to_owned(),
        (false, false) => format!("{path}.{name}"),
    }
}

/// The names allowed below `path`, each once, in the order of the table.
fn children<S: Section>(path: &str) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    for row in S::rows() {
        let rest = if path.is_empty() {
            Some(row.setting.key)
        } else {
            row.setting.key.strip_prefix(path).and_then(|rest| rest.strip_prefix('.'))
        };
        let name = rest.map(|rest| rest.split_once('.').map_or(rest, |(head, _)| head));
        names.extend(name.filter(|name| !names.contains(name)));
    }
    names
}

/// Says that a key is unknown, and which one was probably meant.
fn unknown<S: Section>(parent: &str, name: &str) -> String {
    let siblings = children::<S>(parent);
    let near = siblings.iter().map(|known| (strsim::osa_distance(name, known), *known)).min();
    if let Some((_, known)) = near.filter(|(distance, known)| *distance <= 1 + known.len() / 4) {
        return format!("unknown key, did you mean {known:?}?");
    }
    let elsewhere: Vec<&str> =
        S::rows().iter().map(|row| row.setting.key).filter(|key| key.rsplit('.').next() == Some(name)).collect();
    if elsewhere.is_empty() {
        format!("unknown key, known here are {}", siblings.join(", "))
    } else {
        format!("unknown key here, did you mean {}?", elsewhere.join(" or "))
    }
}

/// Defines a section: a struct of settings, with their rows in the table.
macro_rules! settings {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $setting:expr;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[doc = $doc])+ pub $field: $type,)+ }

        impl Default for $name {
            /// Every setting at its default.
            fn default() -> Self {
                Self { $($field: $crate::config::table::default_of(&$setting),)+ }
            }
        }

        impl $crate::config::table::Section for $name {
            fn rows() -> &'static [$crate::config::table::Row<Self>] {
                use $crate::config::{table::Row, value::Value};
                const ROWS: &[Row<$name>] = &[$(Row {
                    setting: $setting,
                    doc: concat!($($doc, "\n"),+),
                    kind: <$type as Value>::kind,
                    many: <$type as Value>::MANY,
                    inner: <$type as Value>::inner,
                    read: |section, node, key, bounds, errors| {
                        if let Some(value) = Value::read(node, key, bounds, errors) {
                            section.$field = value;
                        }
                    },
                    show: |section| Value::show(&section.$field),
                },)+];
                ROWS
            }
        }
    };
}
pub(super) use settings;
