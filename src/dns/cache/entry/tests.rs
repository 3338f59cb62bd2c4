use hickory_proto::{
    op::{Edns, MessageType, OpCode},
    rr::{
        RData,
        rdata::{A, TXT},
    },
};

use super::*;
use crate::wire::{Parsed, UDP_BYTES_MAX, parse};

/// An answer of so many addresses and texts.
fn entry(rtype: Rtype, records: u8) -> Entry {
    let name = Name::from_ascii("large.example.").unwrap();
    let record = |nth: u8| match rtype {
        Rtype::A | Rtype::ANY => Record::from_rdata(name.clone(), 60, RData::A(A([192, 0, 2, nth].into()))),
        _ => {
            Record::from_rdata(name.clone(), 60, RData::TXT(TXT::new(vec![format!("text {nth}: {}", "x".repeat(90))])))
        }
    };
    let parts = Parts {
        name: name.clone(),
        rtype,
        class: Class::IN,
        kind: Kind::Data,
        answers: (0..records).map(record).collect(),
        authorities: Vec::new(),
        authentic: false,
        continues: false,
    };
    Entry::new(&parts, UnixMillis(0), 60).unwrap()
}

fn asked(rtype: Rtype, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii("large.example.").unwrap();
    message.add_query(hickory_proto::op::Query::query(name, RecordType::from(rtype.0)));
    message.edns = payload.map(|bytes| {
        let mut edns = Edns::new();
        edns.set_max_payload(bytes);
        edns
    });
    message.to_vec().unwrap()
}

/// Over UDP, where a source address may be forged, an answer is no larger than its type is worth (RFC 8482); TC sends the client to TCP.
#[test]
fn an_answer_over_udp_is_small_for_any_and_fits_one_packet_for_every_type() {
    use Transport::{Https, Quic, Tcp, Tls, Udp};
    let any = (Rtype::ANY, 200);
    let whole = usize::MAX;
    for (case, (rtype, records), transport, payload, most) in [
        ("ANY with a large buffer", any, Udp, Some(4_096), UDP_BYTES_MIN),
        ("ANY with the largest buffer", any, Udp, Some(u16::MAX), UDP_BYTES_MIN),
        ("ANY without EDNS", any, Udp, None, UDP_BYTES_MIN),
        ("ANY that fits", (Rtype::ANY, 20), Udp, Some(4_096), whole),
        ("ANY over TCP", any, Tcp, None, whole),
        ("ANY over TLS", any, Tls, None, whole),
        ("ANY over HTTPS", any, Https, None, whole),
        ("ANY over QUIC", any, Quic, None, whole),
        ("A", (Rtype::A, 200), Udp, Some(u16::MAX), UDP_BYTES_MAX),
        ("TXT", (Rtype::TXT, 40), Udp, Some(u16::MAX), UDP_BYTES_MAX),
        ("DNSKEY", (Rtype(48), 40), Udp, Some(u16::MAX), UDP_BYTES_MAX),
        ("RRSIG", (Rtype(46), 40), Udp, Some(u16::MAX), UDP_BYTES_MAX),
        ("a type without a name", (Rtype(65_280), 40), Udp, Some(u16::MAX), UDP_BYTES_MAX),
        ("TXT without EDNS", (Rtype::TXT, 40), Udp, None, UDP_BYTES_MIN),
    ] {
        let entry = entry(rtype, records);
        let bytes = asked(rtype, payload);
        let Parsed::Query(query) = parse(&bytes) else { panic!("{case}") };
        for age in [Age::Fresh, Age::OfStaleRecords, Age::Stale { ttl: 30 }] {
            let mut out = vec![0; usize::from(u16::MAX)];
            let length = entry.write(&query, transport, UnixMillis(1_000), age, &mut out);
            let answer = Message::from_vec(&out[..length]).unwrap();
            assert!(length <= most, "{case}, {age:?}: {length} bytes");
            assert_eq!(answer.truncation, most < whole, "{case}, {age:?}");
            assert_eq!(answer.answers.len() == usize::from(records), most == whole, "{case}, {age:?}");
        }
    }
}
