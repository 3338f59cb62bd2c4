//! Responses drawn from bytes, written by `wire` and read by hickory-proto.

use hickory_proto::{
    op::{Message as Hickory, MessageType, OpCode},
    rr::{DNSClass, rdata::opt::EdnsCode},
};
use holdfast::wire::{
    self, Ede, EdeCode, Parsed, Query, Rcode, ResponseWriter, Section, TCP_BYTES_MAX, UDP_BYTES_MIN, WriteError,
};

use super::{
    choices::{Choices, is_name, query, split},
    messages::check_reader,
    option,
    planned::Planned,
};

/// A response drawn from bytes: what was taken in is what hickory reads, within the limit, and what was not, did not fit.
pub fn check_response(choices: &mut Choices<'_>) {
    let message = query(choices);
    let Parsed::Query(query) = wire::parse(&message) else { return };
    let theirs = Hickory::from_vec(&message).ok();
    let question: Vec<Vec<u8>> = split(query.question);
    let limit = match choices.below(4) {
        0 => query.udp_limit(),
        1 => TCP_BYTES_MAX,
        2 => UDP_BYTES_MIN,
        _ => UDP_BYTES_MIN + usize::from(choices.u16() % 2_000),
    };
    let cookie = choices.one_in(4).then(|| {
        let mut cookie = [0; 24];
        cookie.fill_with(|| choices.u16().to_be_bytes()[1]);
        cookie
    });
    let query = Query { cookie, ..query };
    let mut buf = vec![0xFF; TCP_BYTES_MAX];
    let mut writer = ResponseWriter::new(&mut buf, &query, limit);
    // Without compression this much would be written.
    let mut bytes = wire::HEADER_BYTES + query.question.len() + if query.edns.is_some() { 11 + 6 } else { 0 };
    if let Some(cookie) = &cookie {
        bytes += 4 + cookie.len();
    }
    let mut expected = [const { Vec::new() }; 3];
    let mut truncated = false;
    for section in [Section::Answer, Section::Authority, Section::Additional] {
        for _ in 0..choices.below(4) {
            let set: Vec<Planned> = (0..=choices.below(12)).map(|_| Planned::draw(choices)).collect();
            let nameable = set.iter().flat_map(Planned::names).all(|name| is_name(&name.labels(&question)));
            match writer.rrset(section, |rrset| set.iter().try_for_each(|record| record.put(rrset))) {
                Ok(()) => {
                    assert!(nameable && !truncated, "{set:?}");
                    bytes += set.iter().map(|record| record.bytes(&question)).sum::<usize>();
                    expected[section as usize].extend(set.iter().map(|record| record.expected(&question)));
                }
                Err(WriteError::Full) => {
                    let set_bytes: usize =
                        if nameable { set.iter().map(|record| record.bytes(&question)).sum() } else { usize::MAX / 2 };
                    assert!(truncated || bytes + set_bytes > limit, "{set:?} of {set_bytes} in {limit} at {bytes}");
                    // An answer that does not fit is cut after its last whole record.
                    if !truncated && section == Section::Answer {
                        let whole = usize::from(writer.count(section)) - expected[section as usize].len();
                        bytes += set[..whole].iter().map(|record| record.bytes(&question)).sum::<usize>();
                        expected[section as usize].extend(set[..whole].iter().map(|record| record.expected(&question)));
                    }
                    truncated |= section != Section::Additional;
                }
                Err(WriteError::Name(_)) => assert!(!nameable, "{set:?}"),
                Err(WriteError::TooLong) => panic!("{set:?}"),
            }
            assert_eq!(writer.truncated(), truncated);
        }
    }
    let rcode = [Rcode::NOERROR, Rcode::NXDOMAIN, Rcode::SERVFAIL, Rcode::BADCOOKIE][choices.below(4)];
    let authoritative = choices.one_in(2);
    let text = ["", "stale", &"x".repeat(700)][choices.below(3)].to_owned();
    let ede = choices.one_in(2).then_some(Ede { code: EdeCode::STALE_ANSWER, text: &text });
    let len = writer.finish(rcode, authoritative, ede);
    assert!(len <= limit && len <= bytes + if ede.is_some() { text.len() } else { 0 });

    let reply = Hickory::from_vec(&buf[..len]).unwrap_or_else(|error| panic!("{error}: {:02x?}", &buf[..len]));
    let metadata = &reply.metadata;
    assert_eq!(
        (metadata.id, metadata.message_type, metadata.op_code),
        (query.id, MessageType::Response, OpCode::Query)
    );
    assert_eq!((metadata.authoritative, metadata.truncation), (authoritative, truncated));
    assert_eq!((metadata.recursion_desired, metadata.recursion_available), (query.rd, true));
    assert_eq!((metadata.authentic_data, metadata.checking_disabled), (false, query.cd));
    let expected_rcode = if rcode.0 > 15 && query.edns.is_none() { Rcode::SERVFAIL } else { rcode };
    assert_eq!(u16::from(metadata.response_code), expected_rcode.0);
    assert_eq!(buf[wire::HEADER_BYTES..][..query.question.len()], *query.question);
    if let Some(theirs) = theirs {
        assert_eq!(reply.queries, theirs.queries);
    }
    let [answers, authorities, additionals] = expected;
    assert_eq!((&reply.answers, &reply.authorities), (&answers, &authorities));
    assert_eq!(reply.additionals, additionals);
    assert!(reply.all_sections().all(|record| record.dns_class == DNSClass::IN));
    assert_eq!(reply.edns.is_some(), query.edns.is_some());
    if let (Some(ours), Some(edns)) = (&query.edns, &reply.edns) {
        assert_eq!((edns.version(), edns.max_payload(), edns.flags().dnssec_ok), (0, 1232, ours.dnssec_ok));
        assert_eq!(edns.flags().z, 0);
        assert_eq!(option(edns, EdnsCode::Cookie), cookie.as_ref().map(|cookie| &cookie[..]));
        let told = option(edns, EdnsCode::Unknown(15)).map(|option| option.split_at(2));
        assert_eq!(told.map(|(code, _)| code), ede.map(|_| &[0, 3][..]), "there is always room for the code");
        assert!(told.is_none_or(|(_, told)| told.is_empty() || told == text.as_bytes()));
    }
    check_reader(&buf[..len]);
}
