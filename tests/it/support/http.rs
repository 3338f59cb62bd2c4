//! One question to a port for probes or metrics.

use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs},
};

/// The answer to `GET path`, its head included.
pub fn get(address: impl ToSocketAddrs, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
