//! A command line as Go's `flag` package reads it: one dash or two, `-name=value` or `-name value`, switches without one.
//!
//! Reads words and nothing else: what a flag means is for its user.

/// How a flag takes its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A switch: alone it is true, and a value only comes behind `=`.
    Switch,
    /// A value, behind `=` or as the next word.
    Value,
}

/// A flag as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoFlag {
    /// Its name, without dashes.
    pub name: String,
    /// Its value; `true` for a switch alone.
    pub value: String,
}

/// Reads `words`; `takes` knows the flags there are.
///
/// # Errors
/// The first word that is no flag, not known, or without the value it takes.
pub fn read(words: &[String], takes: impl Fn(&str) -> Option<Takes>) -> Result<Vec<GoFlag>, String> {
    let mut flags = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        let Some(body) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|body| !body.is_empty())
        else {
            return Err(format!("{word:?} is no flag, and nothing but flags is taken"));
        };
        if body.starts_with(['-', '=']) {
            return Err(format!("bad flag syntax: {word}"));
        }
        let (name, given) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let takes = takes(name).ok_or_else(|| format!("flag provided but not defined: -{name}"))?;
        let value = match (takes, given) {
            (_, Some(value)) => value,
            (Takes::Switch, None) => "true".to_owned(),
            (Takes::Value, None) => words.next().cloned().ok_or_else(|| format!("flag needs an argument: -{name}"))?,
        };
        flags.push(GoFlag { name: name.to_owned(), value });
    }
    if let Some(word) = words.next() {
        return Err(format!("{word:?} is no flag, and nothing but flags is taken"));
    }
    Ok(flags)
}

impl GoFlag {
    /// As a switch.
    ///
    /// # Errors
    /// If it is none of the words Go takes.
    pub fn switch(&self) -> Result<bool, String> {
        match self.value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            other => Err(format!("invalid boolean value {other:?} for -{}", self.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> Result<Vec<String>, String> {
        let takes = |name: &str| match name {
            "s" | "t" => Some(Takes::Switch),
            "v" | "w" => Some(Takes::Value),
            _ => None,
        };
        let words: Vec<String> = line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        Ok(read(&words, takes)?.into_iter().map(|flag| format!("{}:{}", flag.name, flag.value)).collect())
    }

    #[test]
    fn one_dash_or_two_and_both_ways_to_give_a_value() {
        assert_eq!(
            shown("-v 1 --v=2 -s -t=false --w -x -v=").unwrap(),
            ["v:1", "v:2", "s:true", "t:false", "w:-x", "v:"]
        );
        assert_eq!(shown("").unwrap(), [""; 0]);
        assert_eq!(shown("-s --").unwrap(), ["s:true"]);
    }

    #[test]
    fn flags_that_go_refuses_are_refused() {
        for (line, expect) in [
            ("-x", "flag provided but not defined: -x"),
            ("-v", "flag needs an argument: -v"),
            ("---v", "bad flag syntax: ---v"),
            ("-=v", "bad flag syntax: -=v"),
            ("-s false", "\"false\" is no flag, and nothing but flags is taken"),
            ("-", "\"-\" is no flag, and nothing but flags is taken"),
            ("-- x", "\"x\" is no flag, and nothing but flags is taken"),
        ] {
            assert_eq!(shown(line).unwrap_err(), expect, "{line}");
        }
        let flag = |value: &str| GoFlag { name: "s".into(), value: value.into() }.switch();
        assert_eq!((flag("T"), flag("0")), (Ok(true), Ok(false)));
        assert_eq!(flag("yes").unwrap_err(), "invalid boolean value \"yes\" for -s");
    }
}
