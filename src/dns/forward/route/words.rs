//! Words of a setting that holds several: parted by blanks, in double quotes where they have blanks themselves.

/// Cuts `text` into words. In quotes, `\"` is a quote and `\\` a backslash; any other backslash stands for itself.
///
/// # Errors
/// A quote that is not closed.
pub fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&first) = chars.peek() {
        if first.is_whitespace() {
            chars.next();
            continue;
        }
        let mut word = String::new();
        if first == '"' {
            chars.next();
            loop {
                match chars.next() {
                    None => return Err(format!("{text:?} has a quote that is not closed")),
                    Some('"') => break,
                    Some('\\') => match chars.next_if(|char| matches!(char, '"' | '\\')) {
                        Some(char) => word.push(char),
                        None => word.push('\\'),
                    },
                    Some(char) => word.push(char),
                }
            }
        } else {
            while let Some(char) = chars.next_if(|char| !char.is_whitespace()) {
                word.push(char);
            }
        }
        words.push(word);
    }
    Ok(words)
}

/// The text that [`split`] cuts into these words.
#[must_use]
pub fn join<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let mut text = String::new();
    for word in words {
        if !text.is_empty() {
            text.push(' ');
        }
        if word.is_empty() || word.starts_with('"') || word.contains(char::is_whitespace) {
            text.push('"');
            text.push_str(&word.replace('\\', r"\\").replace('"', "\\\""));
            text.push('"');
        } else {
            text.push_str(word);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_joined_and_cut_alike() {
        for words in [&["a", r"^b\.c\\d$", "e f", "\"g\" h", "", r"i \d", "j\"k"][..], &[]] {
            let text = join(words.iter().copied());
            assert_eq!(split(&text).unwrap(), words, "{text}");
        }
        assert_eq!(split(" a \"b \\\" c\" \n d").unwrap(), ["a", "b \" c", "d"]);
        assert!(split("a \"b").is_err());
    }
}
