//! The effective configuration as YAML that reads back as the same settings.

use std::fmt::Write as _;

use super::value::Shown;

/// The YAML text of a tree.
pub fn yaml(tree: &Shown) -> String {
    let mut text = String::new();
    block(tree, 0, &mut text);
    text
}

fn block(tree: &Shown, indent: usize, text: &mut String) {
    let Shown::Map(entries) = tree else { return };
    for (key, value) in entries {
        let _ = write!(text, "{:indent$}{key}:", "");
        after_key(value, indent, text);
    }
}

fn after_key(value: &Shown, indent: usize, text: &mut String) {
    match value {
        Shown::Text(word) => {
            let _ = writeln!(text, " {}", scalar(word));
        }
        Shown::Map(_) => {
            text.push('\n');
            block(value, indent + 2, text);
        }
        Shown::List(items) if items.iter().all(|item| matches!(item, Shown::Text(_))) => {
            let words: Vec<String> = items.iter().filter_map(word).map(scalar).collect();
            let _ = writeln!(text, " [{}]", words.join(", "));
        }
        Shown::List(items) => {
            text.push('\n');
            for item in items {
                let mut lines = String::new();
                block(item, indent + 4, &mut lines);
                // The first line of an item carries its dash.
                let _ = write!(text, "{:indent$}  - {}", "", lines.trim_start());
            }
        }
    }
}

fn word(item: &Shown) -> Option<&str> {
    match item {
        Shown::Text(word) => Some(word),
        Shown::List(_) | Shown::Map(_) => None,
    }
}

/// A word as it is where that is plain YAML in block and flow alike, else in double quotes.
fn scalar(word: &str) -> String {
    let first = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_');
    let rest = |c: char| first(c) || matches!(c, '-' | ':' | '=');
    let plain = word.starts_with(first) && word.chars().all(rest) && !word.ends_with(':') && word != "null";
    if plain { word.to_owned() } else { serde_json::Value::from(word).to_string() }
}

#[cfg(test)]
mod tests {
    use super::{super::node, *};

    #[test]
    fn odd_words_read_back_as_they_were() {
        for odd in
            ["[::1]:53", "a b", "a#b", "", "null", "~", "- x", "ä\"\\\n", "{x}", "x:", "tls://10.0.0.1:853#a", "a, b"]
        {
            for tree in [
                Shown::Map(vec![("k".into(), Shown::Text(odd.into()))]),
                Shown::Map(vec![("k".into(), Shown::List(vec![Shown::Text(odd.into()), Shown::Text("b".into())]))]),
            ] {
                let text = yaml(&tree);
                let node::Data::Map(entries) = node::parse(&text).unwrap().data else { panic!("{text}") };
                let value = match &entries[0].value.data {
                    node::Data::List(items) => &items[0].data,
                    other => other,
                };
                assert_eq!(*value, node::Data::Text(odd.into()), "{text}");
            }
        }
    }
}
