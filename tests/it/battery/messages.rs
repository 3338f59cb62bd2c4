//! Messages that are no plain question: what RFC 1035, 6891 and 8906 ask of a server that gets them.

use hickory_proto::op::Message;
use holdfast::{dns::Transport, wire::Rtype};

use super::{
    Asker, TRANSPORTS,
    check::{ede, rcode},
};
use crate::support::ask::query;

const WEB: &[u8] = b"\x03web\x04prod\x03svc\x07cluster\x05local\0";
const OPT: &[u8] = b"\0\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";

/// What must come back of a message.
struct Want {
    rcode: &'static str,
    answers: usize,
    /// Whether the question comes back.
    question: bool,
    edns: bool,
}

const ANSWER: Want = Want { rcode: "NOERROR", answers: 1, question: true, edns: false };
const FORMERR: Want = Want { rcode: "FORMERR", answers: 0, question: true, edns: false };

/// A header with these flags and counts, and a body.
fn message(flags: u16, counts: [u16; 4], body: &[&[u8]]) -> Vec<u8> {
    let mut message = vec![0xAB, 0xCD];
    message.extend(flags.to_be_bytes());
    message.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    message.extend(body.concat());
    message
}

fn question(qtype: u16, class: u16) -> Vec<u8> {
    [WEB, &qtype.to_be_bytes(), &class.to_be_bytes()].concat()
}

/// An OPT record with these size, version, flags and options.
fn opt(size: u16, version: u8, flags: u16, options: &[u8]) -> Vec<u8> {
    let len = u16::try_from(options.len()).unwrap();
    let parts: [&[u8]; 7] =
        [&[0, 0, 41], &size.to_be_bytes(), &[0], &[version], &flags.to_be_bytes(), &len.to_be_bytes(), options];
    parts.concat()
}

/// Asks every such message. The cluster is that of the cases.
pub fn check_messages(ask: Asker<'_>) {
    for transport in TRANSPORTS {
        dropped(transport, ask);
        refused(transport, ask);
        flags(transport, ask);
        malformed(transport, ask);
        edns(transport, ask);
    }
}

fn expect(case: &str, transport: Transport, ask: Asker<'_>, sent: &[u8], want: &Want) -> Message {
    let reply = ask(transport, sent).unwrap_or_else(|| panic!("{case}: there is no answer"));
    assert_eq!(reply[..2], sent[..2], "{case}: id");
    assert_eq!(reply[2] & 0xF8, sent[2] & 0x78 | 0x80, "{case}: QR and opcode");
    let message = Message::from_vec(&reply).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(rcode(&message), want.rcode, "{case}");
    assert_eq!(message.answers.len(), want.answers, "{case}: {message}");
    assert_eq!(message.queries.len(), usize::from(want.question), "{case}: question");
    assert_eq!(message.edns.is_some(), want.edns, "{case}: EDNS");
    message
}

fn dropped(transport: Transport, ask: Asker<'_>) {
    let question = question(1, 1);
    let whole = message(0x0100, [1, 0, 0, 0], &[&question]);
    for len in 0..12 {
        assert_eq!(ask(transport, &whole[..len]), None, "{len} bytes");
    }
    for flags in [0x8000, 0x8180, 0x8583, 0xF800] {
        assert_eq!(ask(transport, &message(flags, [1, 0, 0, 0], &[&question])), None, "a response");
    }
}

fn refused(transport: Transport, ask: Asker<'_>) {
    for class in [0, 2, 3, 4, 254, 255, 65535] {
        let sent = message(0x0100, [1, 0, 0, 0], &[&question(1, class)]);
        let reply = expect("class", transport, ask, &sent, &Want { rcode: "REFUSED", answers: 0, ..ANSWER });
        assert!(!reply.metadata.authoritative);
    }
    for opcode in 1..16_u16 {
        let sent = message(opcode << 11, [1, 0, 0, 0], &[&question(6, 1)]);
        let reply = ask(transport, &sent).expect("NOTIMP is an answer");
        assert_eq!((reply[3] & 0x0F, reply[2] >> 3 & 0x0F), (4, u8::try_from(opcode).unwrap()), "opcode {opcode}");
        assert_eq!(reply[..2], sent[..2]);
    }
}

fn flags(transport: Transport, ask: Asker<'_>) {
    let question = question(1, 1);
    // AA, TC, RA, Z, AD, and an rcode in a query mean nothing.
    for flags in [0x0400, 0x0200, 0x0080, 0x0040, 0x0020, 0x000F, 0x06EF] {
        let reply = expect("flags", transport, ask, &message(flags, [1, 0, 0, 0], &[&question]), &ANSWER);
        let meta = reply.metadata;
        assert!(meta.authoritative && meta.recursion_available && !meta.truncation && !meta.authentic_data);
        assert!(!meta.recursion_desired && !meta.checking_disabled, "{flags:04x}");
    }
    for flags in [0x0000, 0x0100, 0x0010, 0x0110] {
        let meta = expect("RD, CD", transport, ask, &message(flags, [1, 0, 0, 0], &[&question]), &ANSWER).metadata;
        assert_eq!((meta.recursion_desired, meta.checking_disabled), (flags & 0x100 != 0, flags & 0x10 != 0));
    }
}

fn malformed(transport: Transport, ask: Asker<'_>) {
    let question = question(1, 1);
    let long_label = [&[64], &[b'a'; 64][..], b"\0\x00\x01\x00\x01"].concat();
    let long_name =
        [&b"\x3faaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".repeat(4)[..], b"\0\0\x01\0\x01"];
    for (case, counts, body, whole) in [
        ("no question", [0; 4], vec![], false),
        ("no question and EDNS", [0, 0, 0, 1], vec![OPT], false),
        ("two questions", [2, 0, 0, 0], vec![&question[..], &question], false),
        ("many questions", [65535, 0, 0, 0], vec![&question[..]], false),
        ("a question that is missing", [1, 0, 0, 0], vec![], false),
        ("a question cut", [1, 0, 0, 0], vec![&question[..question.len() - 1]], false),
        ("a name cut", [1, 0, 0, 0], vec![&WEB[..8]], false),
        ("a name without end", [1, 0, 0, 0], vec![b"\x03web"], false),
        ("a name that points to itself", [1, 0, 0, 0], vec![b"\xc0\x0c\x00\x01\x00\x01"], false),
        ("a label of 64", [1, 0, 0, 0], vec![&long_label], false),
        ("a name of 256", [1, 0, 0, 0], long_name.to_vec(), false),
        ("a record that is missing", [1, 0, 0, 1], vec![&question[..]], true),
        ("an answer that is cut", [1, 1, 0, 0], vec![&question[..], b"\xc0\x0c\x00\x01"], true),
    ] {
        let sent = message(0x0100, counts, &body);
        let reply = ask(transport, &sent).unwrap_or_else(|| panic!("{case}: there is no answer"));
        assert_eq!((reply[..2].to_vec(), reply[3] & 0x0F), (sent[..2].to_vec(), 1), "{case}");
        let reply = Message::from_vec(&reply).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!((reply.queries.len(), reply.answers.len()), (usize::from(whole), 0), "{case}");
    }
    // What follows the last record is nobody's business, nor are records where none are expected.
    let sent = message(0x0100, [1, 0, 0, 0], &[&question, b"trailing bytes"]);
    expect("trailing bytes", transport, ask, &sent, &ANSWER);
    let record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x7f\x00\x00\x01";
    let sent = message(0x0100, [1, 1, 1, 1], &[&question, record, record, record]);
    expect("records in a query", transport, ask, &sent, &ANSWER);
}

fn edns(transport: Transport, ask: Asker<'_>) {
    let question = question(1, 1);
    let mut send = |case: &str, opts: &[&[u8]], want: &Want| {
        let count = u16::try_from(opts.len()).unwrap();
        let sent = message(0x0100, [1, 0, 0, count], &[&question, &opts.concat()]);
        expect(case, transport, ask, &sent, want)
    };
    let want = Want { edns: true, ..ANSWER };
    let reply = send("plain EDNS", &[&opt(1232, 0, 0, &[])], &want).edns.unwrap();
    assert_eq!((reply.version(), reply.max_payload(), reply.flags().dnssec_ok), (0, 1232, false));
    let reply = send("DO", &[&opt(1232, 0, 0x8000, &[])], &want).edns.unwrap();
    assert!(reply.flags().dnssec_ok);
    let reply = send("Z bits of EDNS", &[&opt(1232, 0, 0x7FFF, &[])], &want).edns.unwrap();
    assert_eq!((reply.flags().dnssec_ok, reply.flags().z), (false, 0));
    for size in [0, 1, 511, 512, 4096, 65535] {
        send("a size", &[&opt(size, 0, 0, &[])], &want);
    }
    let options =
        b"\xfd\xe9\x00\x03abc\x00\x0a\x00\x0812345678\x00\x08\x00\x07\x00\x01\x18\x00\x0a\x00\x01\xff\xff\x00\x00";
    let reply = send("options", &[&opt(1232, 0, 0, options)], &want);
    assert_eq!(reply.edns.unwrap().options().as_ref().len(), 0, "options we do not know are not repeated");
    for version in [1, 100, 255] {
        let want = Want { rcode: "BADVERS", answers: 0, edns: true, ..ANSWER };
        let reply = send("another version", &[&opt(1232, version, 0, b"?")], &want);
        assert_eq!(reply.edns.as_ref().unwrap().version(), 0);
        assert_eq!(ede(&reply), None);
    }
    send("two OPTs", &[OPT, OPT], &Want { edns: true, ..FORMERR });
    send("an OPT with an owner", &[b"\x01x\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"], &FORMERR);
    send("an option that is cut", &[&opt(1232, 0, 0, b"\x00\x0a\x00\x08cut")], &Want { edns: true, ..FORMERR });
    let plain = query(WEB, Rtype::A, None);
    expect("no EDNS", transport, ask, &plain, &ANSWER);
}
