//! The nameservers of a resolv.conf. Its other lines (search, options) concern stub resolvers, not us.

use std::{io, path::Path};

use super::config::{Server, parse_address};

/// Longer files are no resolv.conf.
const BYTES_MAX: u64 = 1 << 20;
/// What of it is used; more servers would not be asked in time.
const SERVERS_MAX: usize = 16;

/// Reads the nameservers in `path`, in order, each once.
///
/// # Errors
/// If the file cannot be read, is over 1 MiB, or names no usable server.
pub fn read(path: &Path) -> io::Result<Vec<Server>> {
    use io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than 1 MiB"));
    }
    let servers = parse(&text);
    if servers.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no nameserver line with an address"));
    }
    Ok(servers)
}

/// The servers of `nameserver` lines; anything else is skipped, as resolvers do.
fn parse(text: &str) -> Vec<Server> {
    let mut servers: Vec<Server> = Vec::new();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(address) = words.next().and_then(|word| parse_address(word, 53)) else { continue };
        let server = Server { address, tls: None };
        if !servers.contains(&server) && servers.len() < SERVERS_MAX {
            servers.push(server);
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nameserver_lines_with_an_address_count_and_each_once() {
        let text = "# a comment\nsearch example.org\nnameserver 10.0.0.1\n\tnameserver\t2001:db8::1 # second\n\
                    nameserver nonsense\nnameserver 10.0.0.1\noptions ndots:5\n; nameserver 10.0.0.9\n";
        let shown: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.1:53", "[2001:db8::1]:53"]);
    }

    #[test]
    fn a_file_without_servers_is_an_error_that_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "search example.org\n").unwrap();
        assert_eq!(read(file.path()).unwrap_err().to_string(), "no nameserver line with an address");
    }
}
