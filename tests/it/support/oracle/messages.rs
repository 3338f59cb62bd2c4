//! Messages of others, read by `wire` and by hickory-proto.

use hickory_proto::{
    op::{Message as Hickory, MessageType},
    rr::{Name as HickoryName, rdata::opt::EdnsCode},
};
use holdfast::wire::{
    self, DropReason, EdeCode, Message, Name, Parsed, Query, Rcode, Reject, Rtype, Section, UDP_BYTES_MIN,
};

use super::{choices::wire_name, option};

/// Any bytes as a message from a client: read by both, and what we would refuse, refused readably.
pub fn check_query(bytes: &[u8]) {
    let hickory = Hickory::from_vec(bytes);
    match wire::parse(bytes) {
        Parsed::Drop(DropReason::Short) => assert!(bytes.len() < wire::HEADER_BYTES),
        Parsed::Drop(DropReason::Response) => assert!(bytes[2] & 0x80 != 0),
        Parsed::Reject(reject) => {
            check_reject(bytes, &reject);
            match reject.rcode {
                Rcode::NOTIMP => assert_ne!(reject.opcode().0, 0),
                Rcode::FORMERR => {
                    assert!(hickory.is_err() || we_are_stricter(bytes), "FORMERR for {bytes:02x?}: {hickory:?}");
                }
                // What options look like in another version is not ours to judge; hickory does.
                Rcode::BADVERS => assert!(hickory.is_err() || hickory.unwrap().version() > 0, "{bytes:02x?}"),
                other => panic!("{other} for {bytes:02x?}"),
            }
        }
        Parsed::Query(query) => {
            match hickory {
                Ok(message) => same_query(&query, &message),
                Err(error) => assert!(hickory_is_stricter(bytes), "{query:?}: {error} in {bytes:02x?}"),
            }
            check_reject(bytes, &query.reject(Rcode::REFUSED, Some(EdeCode::PROHIBITED)));
        }
    }
    check_reader(bytes);
}

fn same_query(query: &Query<'_>, message: &Hickory) {
    let metadata = &message.metadata;
    assert_eq!((query.id, query.rd), (metadata.id, metadata.recursion_desired));
    assert_eq!((query.ad, query.cd), (metadata.authentic_data, metadata.checking_disabled));
    let [question] = &message.queries[..] else { panic!("{:?}", message.queries) };
    same_name(&query.name, question.name());
    assert_eq!((query.qtype.0, query.qclass.0), (question.query_type().into(), question.query_class().into()));
    assert_eq!(query.edns.is_some(), message.edns.is_some());
    if let (Some(ours), Some(theirs)) = (query.edns, &message.edns) {
        // hickory takes no size below 512 either.
        assert_eq!((ours.version, ours.payload_size), (theirs.version(), theirs.max_payload()));
        assert_eq!(ours.dnssec_ok, theirs.flags().dnssec_ok);
        assert_eq!(ours.cookie, option(theirs, EdnsCode::Cookie));
    }
}

fn same_name(ours: &Name, theirs: &HickoryName) {
    let theirs: Vec<Vec<u8>> = theirs.iter().map(<[u8]>::to_ascii_lowercase).collect();
    assert_eq!(ours.wire(), wire_name(&theirs));
    assert_eq!(ours.label_count(), theirs.len());
    assert!(ours.labels().eq(theirs.iter().map(Vec::as_slice)));
    for (index, label) in theirs.iter().enumerate() {
        assert_eq!(ours.label(index), Some(&label[..]));
        assert_eq!(ours.label_from_end(theirs.len() - 1 - index), Some(&label[..]));
    }
    assert_eq!(ours.to_string().parse().as_ref(), Ok(ours));
}

/// What we answer FORMERR although hickory reads it.
fn we_are_stricter(bytes: &[u8]) -> bool {
    // Not one question (RFC 9619).
    if bytes[4..6] != [0, 1] {
        return true;
    }
    // A pointer in the question: into the header is the only place it could lead to.
    let mut rest = &bytes[wire::HEADER_BYTES..];
    while let [len @ 1..=63, tail @ ..] = rest {
        rest = &tail[usize::from(*len)..];
    }
    if rest[0] != 0 {
        return true;
    }
    let message = Message::new(bytes).unwrap();
    message.records().unwrap().map(Result::unwrap).filter(|record| record.rtype == Rtype::OPT).any(|opt| {
        // The owner of an OPT record is one zero byte, not a pointer to one (RFC 6891, 6.1.2); and hickory takes a
        // list of options that does not fill its record for an empty one.
        bytes[opt.start] != 0 || !options(opt.rdata).1
    })
}

/// What we answer although hickory rejects it.
fn hickory_is_stricter(bytes: &[u8]) -> bool {
    let message = Message::new(bytes).unwrap();
    message.records().unwrap().any(|record| match record {
        // It reads the data of all records (and rejects what has none), and follows the pointers of their owners; to
        // us they are bytes to pass over.
        Ok(record) if record.rtype != Rtype::OPT => true,
        // It reads the client subnet option.
        Ok(opt) => options(opt.rdata).0.contains(&8),
        Err(error) => panic!("{error} in {bytes:02x?}"),
    })
}

/// The codes of the options in a list, and whether they fill it.
fn options(mut rest: &[u8]) -> (Vec<u16>, bool) {
    let mut codes = Vec::new();
    while let [c0, c1, l0, l1, data @ ..] = rest {
        codes.push(u16::from_be_bytes([*c0, *c1]));
        let Some(next) = data.get(usize::from(u16::from_be_bytes([*l0, *l1]))..) else { return (codes, false) };
        rest = next;
    }
    (codes, rest.is_empty())
}

fn check_reject(bytes: &[u8], reject: &Reject<'_>) {
    let mut buf = [0xFF; UDP_BYTES_MIN];
    let len = wire::write_reject(reject, &mut buf);
    let reply = Hickory::from_vec(&buf[..len]).unwrap_or_else(|error| panic!("{error}: {:02x?}", &buf[..len]));
    assert_eq!((&buf[..2], reply.metadata.message_type), (&bytes[..2], MessageType::Response));
    assert_eq!((buf[2] ^ bytes[2]) & 0x79, 0, "opcode and RD");
    assert_eq!(u16::from(reply.metadata.response_code), reject.rcode.0);
    assert_eq!(reply.edns.is_some(), bytes_have_opt(bytes, &reply));
    if let [question] = &reply.queries[..] {
        let echoed = &buf[wire::HEADER_BYTES..][..question.name().len().max(1) + 5];
        assert!(question.name().is_root() || bytes[wire::HEADER_BYTES..].starts_with(echoed));
    }
}

/// Whether a message has an OPT record as far as it can be read; its question could be if the reply repeats it.
fn bytes_have_opt(bytes: &[u8], reply: &Hickory) -> bool {
    if reply.queries.is_empty() && bytes[4..6] != [0, 0] {
        return false;
    }
    let records = Message::new(bytes).unwrap().records().unwrap();
    let opt = records.map_while(Result::ok).find(|record| record.rtype == Rtype::OPT);
    opt.is_some_and(|opt| bytes[opt.start] == 0 && opt.section == Section::Additional)
}

/// Any bytes as a message to be read: every record hickory reads, we find at the same place with the same name.
pub fn check_reader(bytes: &[u8]) {
    let Ok(message) = Message::new(bytes) else { return };
    let ours: Result<Vec<_>, _> = message.records().and_then(Iterator::collect);
    // Names are read on demand; whatever they hold, to read them ends.
    ours.iter().flatten().for_each(|record| drop(record.name.to_name()));
    let Ok(theirs) = Hickory::from_vec(bytes) else { return };
    let ours = ours.unwrap_or_else(|error| panic!("{error} in {bytes:02x?}"));
    let mut ours = ours.iter().filter(|record| record.rtype != Rtype::OPT);
    for theirs in theirs.all_sections() {
        let ours = ours.next().unwrap();
        same_name(&ours.name.to_name().unwrap(), &theirs.name);
        assert_eq!((ours.rtype.0, ours.ttl), (theirs.record_type().into(), theirs.ttl));
        assert_eq!(ours.ttl.to_be_bytes(), bytes[ours.ttl_start()..ours.ttl_start() + 4]);
    }
    assert!(ours.next().is_none());
    assert_eq!(message.question().is_ok(), theirs.queries.len() == 1);
}
