//! The nameservers of a resolv.conf. Its other lines (search, options) concern stub resolvers, not us.

use std::{io, path::Path};

use super::upstream_source::parse_address;
use crate::{dns::forward::upstream::Server, sys::read_file};

/// Longer files are no resolv.conf.
const BYTES_MAX: u64 = 1 << 20;
/// Maximum servers used of a file; more would not be asked in time.
const SERVERS_MAX: usize = 16;

/// Why a file names no server.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is there, and names no usable server.
    #[error("no nameserver line with an address")]
    NoServer,
}

/// Reads the nameservers in `path`, in order, each once.
///
/// # Errors
/// If the file cannot be read, is over 1 MiB, or names no usable server.
pub fn read(path: &Path) -> Result<Vec<Server>, ReadError> {
    let bytes = read_file(path, BYTES_MAX)?;
    // Comments may be in any character set.
    let servers = parse(&String::from_utf8_lossy(&bytes));
    if servers.is_empty() { Err(ReadError::NoServer) } else { Ok(servers) }
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
        let server = Server { address, tls: None, https: None };
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
                    nameserver nonsense\nnameserver fe80::1%lo\nnameserver 10.0.0.1\noptions ndots:5\n; nameserver 10.0.0.9\n";
        let shown: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.1:53", "[2001:db8::1]:53", "[fe80::1%1]:53"]);
    }

    #[test]
    fn a_comment_in_latin_1_is_a_comment() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"# f\xFCr alle\nnameserver 10.0.0.1\n").unwrap();
        assert_eq!(read(file.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_file_without_servers_is_an_error_that_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "search example.org\n").unwrap();
        assert_eq!(read(file.path()).unwrap_err().to_string(), "no nameserver line with an address");
    }
}
