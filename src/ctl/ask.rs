//! Questions to the DNS listener of a running agent, as the resolver of a pod sends them.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{self, RecordType, rdata::opt::EdnsOption},
};

use crate::{
    admin::view::{LiveAnswer, LiveDoc, Question, Record, Status, candidates, text_of_ede, types},
    wire::{EdeCode, Name, NameError, Rcode, Rtype},
};

/// Time for one answer (`timeout` of resolv.conf).
const PATIENCE: Duration = Duration::from_secs(5);
/// Queries sent for one question over UDP (`attempts` of resolv.conf).
const ATTEMPTS: usize = 2;
/// Largest answer over UDP that is offered to be taken (EDNS).
const PAYLOAD_BYTES: u16 = 1232;

/// Asks the agent with this status, name after name until there is an answer.
///
/// # Errors
/// If the process answers no DNS, or the name is no name.
pub fn ask(status: &Status, question: &Question) -> Result<LiveDoc, String> {
    let server = server(status).ok_or("this process answers no DNS; ask an agent: --admin SOCKET")?;
    let zone: Name = status.zone.parse().map_err(|error: NameError| format!("zone {:?}: {error}", status.zone))?;
    let mut answers = Vec::new();
    for name in candidates(&zone, question)? {
        let asked: Vec<LiveAnswer> =
            types(&zone, &name, question.rtype).into_iter().map(|rtype| one(server, &name, rtype)).collect();
        let ends = asked.iter().any(|answer| !answer.goes_on());
        answers.extend(asked);
        if ends {
            break;
        }
    }
    Ok(LiveDoc { server, answers })
}

/// The first DNS listener, at an address that can be asked from here.
fn server(status: &Status) -> Option<SocketAddr> {
    let listeners = &status.process.as_ref()?.listeners;
    let mut addresses = listeners.iter().filter(|listener| listener.name == "dns");
    let address: SocketAddr = addresses.find_map(|listener| listener.address.parse().ok())?;
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Some(SocketAddr::new(ip, address.port()))
}

fn one(server: SocketAddr, name: &Name, rtype: Rtype) -> LiveAnswer {
    let sent = Instant::now();
    let answer = exchange(server, name, rtype);
    let microseconds = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
    let unanswered = LiveAnswer {
        name: name.to_string(),
        rtype: rtype.to_string(),
        rcode: None,
        answer: Vec::new(),
        extended_errors: Vec::new(),
        microseconds,
        error: None,
    };
    match answer {
        Err(error) => LiveAnswer { error: Some(error.to_string()), ..unanswered },
        Ok(message) => LiveAnswer {
            rcode: Some(rcode(message.metadata.response_code)),
            answer: message.answers.iter().map(Record::from).collect(),
            extended_errors: extended_errors(&message),
            ..unanswered
        },
    }
}

fn rcode(code: ResponseCode) -> String {
    Rcode(code.into()).to_string()
}

/// Over UDP, and over TCP if the answer does not fit.
fn exchange(server: SocketAddr, name: &Name, rtype: Rtype) -> io::Result<Message> {
    let invalid = |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let labels = rr::Name::from_labels(name.labels()).map_err(|error| invalid(&error))?;
    let mut query = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(labels, RecordType::from(rtype.0)));
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD_BYTES);
    query.set_edns(edns);
    let text = query.to_vec().map_err(|error| invalid(&error))?;
    let answer = over_udp(server, &text)?;
    let message = Message::from_vec(&answer).map_err(|error| invalid(&error))?;
    if !message.metadata.truncation {
        return Ok(message);
    }
    Message::from_vec(&over_tcp(server, &text)?).map_err(|error| invalid(&error))
}

fn over_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    let mut buffer = [0; PAYLOAD_BYTES as usize];
    for _ in 0..ATTEMPTS {
        socket.send(query)?;
        let end = Instant::now() + PATIENCE;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut buffer) {
                Ok(len) if len >= 2 && buffer[..2] == query[..2] => return Ok(buffer[..len].to_vec()),
                // The answer to another query.
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
                Err(error) => return Err(error),
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", PATIENCE.as_secs())))
}

fn over_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = u16::try_from(query.len()).expect("a query has a name of 255 bytes at most");
    stream.write_all(&[&length.to_be_bytes(), query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// The extended errors (RFC 8914), each as in `3 (Stale Answer)`.
fn extended_errors(message: &Message) -> Vec<String> {
    let Some(edns) = &message.edns else { return Vec::new() };
    let code = |option: &EdnsOption| match option {
        EdnsOption::Unknown(15, data) if data.len() >= 2 => Some(EdeCode(u16::from_be_bytes([data[0], data[1]]))),
        _ => None,
    };
    edns.options().as_ref().iter().filter_map(|(_, option)| code(option)).map(text_of_ede).collect()
}
