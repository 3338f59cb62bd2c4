//! Classes by the names that CoreDNS has for them.

use crate::wire::Class;

/// A class by its name; the inner `None` for `ANY`.
#[expect(clippy::option_option, reason = "no class, or all of them")]
pub fn class_named(word: &str) -> Option<Option<Class>> {
    match word.to_ascii_uppercase().as_str() {
        "ANY" => Some(None),
        "IN" => Some(Some(Class::IN)),
        "CS" => Some(Some(Class(2))),
        "CH" => Some(Some(Class::CH)),
        "HS" => Some(Some(Class::HS)),
        "NONE" => Some(Some(Class::NONE)),
        _ => None,
    }
}

pub fn class_name(class: Class) -> String {
    if class == Class(2) { "CS".into() } else { class.to_string() }
}
