//! A file of weights, in the form of CoreDNS's loadbalance plugin: how often an address of a name comes first in its answers.

use std::{collections::HashMap, io, net::IpAddr, path::Path};

use crate::{sys::read_file, wire::Name};

/// Longer files are no files of weights.
const BYTES_MAX: u64 = 4 << 20;

/// Weights of addresses by the name of their records; others weigh 1.
#[derive(Debug, Default, PartialEq)]
pub struct Weights(HashMap<Name, Vec<(IpAddr, u8)>>);

impl Weights {
    /// # Errors
    /// If it cannot be read, is over 4 MiB, or a line of it is wrong.
    pub fn read(path: &Path) -> io::Result<Self> {
        let bytes = read_file(path, BYTES_MAX)?;
        Self::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// A name alone on its line, and below it lines with an address and its weight.
    fn parse(text: &str) -> Result<Self, String> {
        let mut weights = Self::default();
        let mut name = None;
        let lines = text.lines().zip(1..).map(|(line, number)| (line.trim(), number));
        for (line, number) in lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#')) {
            let wrong = |said: &str| format!("line {number}: {line:?} {said}");
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [word] if word.parse::<IpAddr>().is_ok() => return Err(wrong("has no weight")),
                [word] => {
                    let read: Name = word.parse().map_err(|_| wrong("is no name"))?;
                    weights.0.entry(read.clone()).or_default();
                    name = Some(read);
                }
                [ip, weight] => {
                    let ip = ip.parse().map_err(|_| wrong("does not begin with an address"))?;
                    let weight = weight.parse().ok().filter(|weight| *weight > 0);
                    let weight = weight.ok_or_else(|| wrong("has no weight from 1 to 255"))?;
                    let name = name.as_ref().ok_or_else(|| wrong("stands before any name"))?;
                    weights.0.entry(name.clone()).or_default().push((ip, weight));
                }
                _ => return Err(wrong("is neither a name nor an address with its weight")),
            }
        }
        Ok(weights)
    }

    pub fn of(&self, name: &Name, address: IpAddr) -> u8 {
        let found = self.0.get(name).and_then(|known| known.iter().find(|(ip, _)| *ip == address));
        found.map_or(1, |(_, weight)| *weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_by_name() {
        let weights =
            Weights::parse("# weights\nWWW.example\n 10.0.0.1 3 \n2001:db8::1\t200\n\nb.example.\n10.0.0.1 7\n")
                .unwrap();
        for (name, ip, expect) in [
            ("www.example.", "10.0.0.1", 3),
            ("www.example.", "2001:db8::1", 200),
            ("www.example.", "10.0.0.2", 1),
            ("b.example.", "10.0.0.1", 7),
            ("c.example.", "10.0.0.1", 1),
        ] {
            assert_eq!(weights.of(&name.parse().unwrap(), ip.parse().unwrap()), expect, "{name} {ip}");
        }
        assert_eq!(Weights::parse("").unwrap(), Weights::default());
        for text in [
            "10.0.0.1 3",
            "a\n10.0.0.1",
            "a\n10.0.0.1 0",
            "a\n10.0.0.1 256",
            "a\nx 3",
            "a b c",
            "a\n10.0.0.1 -1",
            "a..b",
        ] {
            assert!(Weights::parse(text).is_err(), "{text:?}");
        }
    }
}
