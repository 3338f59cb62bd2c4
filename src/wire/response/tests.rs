use hickory_proto::rr::{
    RData,
    rdata::{CNAME, NS, PTR},
};

use super::*;
use crate::wire::{Cookie, EdeCode, Name, Parsed, Rtype, TCP_BYTES_MAX, parse};

/// A query for `name` (with `opt` as its OPT record if not empty).
fn message(name: &str, qtype: Rtype, opt: &[u8]) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 0x01, 0x10, 0, 1, 0, 0, 0, 0, 0, u8::from(!opt.is_empty())];
    for label in name.split_terminator('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(qtype.0.to_be_bytes());
    message.extend([0, 1]);
    message.extend(opt);
    message
}

const OPT_4096_DO: &[u8] = b"\0\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00";

fn query(message: &[u8]) -> Query<'_> {
    match parse(message) {
        Parsed::Query(query) => query,
        other => panic!("{other:?}"),
    }
}

fn ip(index: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + u32::try_from(index).unwrap())
}

fn addresses(writer: &mut ResponseWriter<'_, '_>, count: usize) -> Result<(), WriteError> {
    writer.rrset(Section::Answer, |set| {
        (0..count).try_for_each(|index| set.put(NameRef::QUESTION, 5, Rdata::A(ip(index))))
    })
}

/// Owners (and the names in CNAME, NS, PTR, SOA and SRV data) of what was written.
fn names(bytes: &[u8]) -> Vec<String> {
    let message = hickory_proto::op::Message::from_vec(bytes).unwrap();
    let mut names = Vec::new();
    for record in message.all_sections() {
        names.push(record.name.to_string().to_ascii_lowercase());
        names.extend(match &record.data {
            RData::CNAME(CNAME(name)) | RData::NS(NS(name)) | RData::PTR(PTR(name)) => Some(name.to_string()),
            RData::SOA(soa) => Some(soa.mname.to_string()),
            RData::SRV(srv) => Some(srv.target.to_string()),
            _ => None,
        });
    }
    // hickory-proto takes the OPT record out, whose owner is the root.
    names.extend(message.edns.map(|_| ".".to_owned()));
    names
}

#[test]
fn a_cluster_ip_is_answered_in_the_case_asked() {
    let message = message("Db.Prod", Rtype::A, OPT_4096_DO);
    let query = query(&message);
    let mut buf = [0xFF; 512];
    let mut writer = ResponseWriter::new(&mut buf, &query, 512);
    addresses(&mut writer, 1).unwrap();
    let len = writer.finish(Rcode::NOERROR, true, None);
    assert_eq!(
        &buf[..len],
        b"\x12\x34\x85\x90\x00\x01\x00\x01\x00\x00\x00\x01\x02Db\x04Prod\0\x00\x01\x00\x01\
        \xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x0a\x01\x00\x00\
        \0\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00"
    );
}

#[test]
fn a_query_without_edns_is_answered_without() {
    let message = message("db.prod", Rtype::A, b"");
    let query = Query { cookie: Some(*COOKIE), ..query(&message) };
    let mut buf = [0; 512];
    let writer = ResponseWriter::new(&mut buf, &query, query.udp_limit());
    let len = writer.finish(Rcode::BADCOOKIE, false, Some(EdeCode::OTHER.into()));
    assert_eq!(&buf[..len], b"\x12\x34\x81\x92\x00\x01\x00\x00\x00\x00\x00\x00\x02db\x04prod\0\x00\x01\x00\x01");
}

const COOKIE: &Cookie = b"123456781234567812345678";

#[test]
fn cookies_and_extended_errors_are_options() {
    let message = message("x", Rtype::A, OPT_4096_DO);
    let query = Query { cookie: Some(*COOKIE), ..query(&message) };
    let mut buf = [0; 512];
    let writer = ResponseWriter::new(&mut buf, &query, 512);
    let len = writer.finish(Rcode::BADCOOKIE, false, Some(Ede { code: EdeCode::STALE_ANSWER, text: "old" }));
    assert_eq!(buf[3] & 0x0F, 7, "the low bits of 23");
    assert_eq!(
        &buf[19..len],
        b"\0\x00\x29\x04\xd0\x01\x00\x80\x00\x00\x25\
        \x00\x0a\x00\x18123456781234567812345678\x00\x0f\x00\x05\x00\x03old"
    );
}

#[test]
fn forty_endpoints_fit_1232_bytes_and_three_hundred_one_tcp_message() {
    let message = message("endpoints.of-a-service.svc.cluster.local", Rtype::A, OPT_4096_DO);
    let query = query(&message);
    let mut buf = vec![0; TCP_BYTES_MAX];
    for (count, limit) in [(40, query.udp_limit()), (300, TCP_BYTES_MAX)] {
        let mut writer = ResponseWriter::new(&mut buf, &query, limit);
        addresses(&mut writer, count).unwrap();
        assert!(!writer.truncated());
        let len = writer.finish(Rcode::NOERROR, true, None);
        assert_eq!(len, message.len() + 16 * count);
        assert_eq!(names(&buf[..len]).len(), count + 1);
    }
}

#[test]
fn an_answer_that_does_not_fit_is_cut_after_a_whole_record_and_ends_the_response() {
    let message = message("db.prod", Rtype::A, OPT_4096_DO);
    let query = query(&message);
    let mut buf = vec![0; 2000];
    let mut writer = ResponseWriter::new(&mut buf, &query, 512);
    let cname = |set: &mut Rrset<'_, '_, '_>| set.put(NameRef::QUESTION, 5, Rdata::Cname(NameRef::dotted("a.b")));
    writer.rrset(Section::Answer, cname).unwrap();
    assert_eq!(addresses(&mut writer, 40), Err(WriteError::Full));
    assert!(writer.truncated());
    assert_eq!(writer.rrset(Section::Additional, cname), Err(WriteError::Full), "even what would fit");
    let counts = [Section::Answer, Section::Authority, Section::Additional].map(|section| writer.count(section));
    // 512 bytes less 25 of header and question, 17 of the CNAME, and 17 kept for the OPT record and an extended error.
    assert_eq!(counts, [1 + 28, 0, 0]);
    let len = writer.finish(Rcode::NOERROR, true, None);
    assert!(buf[2] & 0x02 != 0 && len <= 512);
    assert_eq!(names(&buf[..len])[..2], ["db.prod.", "a.b."]);
}

#[test]
fn every_limit_is_met_to_the_byte() {
    for opt in [&b""[..], OPT_4096_DO] {
        let message = message("db.prod", Rtype::A, opt);
        let query = query(&message);
        let mut buf = vec![0; 4096];
        for limit in 512..600 {
            for count in 25..40 {
                let mut writer = ResponseWriter::new(&mut buf, &query, limit);
                let whole = addresses(&mut writer, count).is_ok();
                let len = writer.finish(Rcode::NOERROR, true, Some(EdeCode::STALE_ANSWER.into()));
                let room = if opt.is_empty() { 0 } else { EDE_BYTES };
                assert_eq!(whole, message.len() + room + 16 * count <= limit, "{count} in {limit}");
                let fit = (limit - message.len() - room) / 16;
                assert_eq!(len, message.len() + room + 16 * count.min(fit), "{count} in {limit}");
            }
        }
    }
}

#[test]
fn additional_records_that_do_not_fit_are_left_out_and_others_are_not() {
    let message = message("db.prod", Rtype::A, b"");
    let query = query(&message);
    let mut buf = [0; 512];
    let mut writer = ResponseWriter::new(&mut buf, &query, 512);
    addresses(&mut writer, 20).unwrap();
    let host = NameRef::dotted("host.elsewhere");
    let many = writer.rrset(Section::Additional, |set| (0..20).try_for_each(|i| set.put(host, 5, Rdata::A(ip(i)))));
    assert_eq!(many, Err(WriteError::Full));
    writer.rrset(Section::Additional, |set| set.put(host, 5, Rdata::A(ip(0)))).unwrap();
    assert!(!writer.truncated());
    let len = writer.finish(Rcode::NOERROR, true, None);
    assert_eq!(names(&buf[..len])[20..], ["host.elsewhere."], "what was rolled back is not pointed to");
}

#[test]
fn names_are_compressed_against_all_that_was_written() {
    let message = message("_x._tcp.Db.prod.svc.cluster.local", Rtype::SRV, b"");
    let query = query(&message);
    let zone: Name = "cluster.local".parse().unwrap();
    let mut buf = [0; 512];
    let mut writer = ResponseWriter::new(&mut buf, &query, 512);
    let hosts = [[&b"a"[..], b"db", b"prod", b"svc"], [b"b", b"db", b"prod", b"svc"]];
    let target = |index: usize| NameRef::under(&hosts[index], &zone);
    let srv = |target| Rdata::Srv { priority: 0, weight: 50, port: 80, target };
    writer
        .rrset(Section::Answer, |set| (0..2).try_for_each(|i| set.put(NameRef::QUESTION, 5, srv(target(i)))))
        .unwrap();
    let before = writer.len;
    for index in 0..2 {
        writer.rrset(Section::Additional, |set| set.put(target(index), 5, Rdata::A(ip(index)))).unwrap();
    }
    assert_eq!(writer.len, before + 2 * 16, "owners are two bytes each");
    let len = writer.finish(Rcode::NOERROR, true, None);
    let question = "_x._tcp.db.prod.svc.cluster.local.";
    let [a, b] = ["a.db.prod.svc.cluster.local.", "b.db.prod.svc.cluster.local."];
    assert_eq!(names(&buf[..len]), [question, a, question, b, a, b]);
    assert_eq!(before - message.len(), 2 * (2 + 10 + 6 + a.len() + 1), "targets are written whole");
}

#[test]
fn targets_are_compressed_where_the_set_would_not_fit_otherwise() {
    let message = message("db.prod.svc.cluster.local", Rtype::SRV, OPT_4096_DO);
    let query = query(&message);
    let mut buf = [0; 1232];
    let hosts: Vec<String> = (0..30).map(|index| format!("10-1-0-{index}")).collect();
    for (count, squeezed) in [(10, false), (30, true)] {
        let mut writer = ResponseWriter::new(&mut buf, &query, query.udp_limit());
        let put = |set: &mut Rrset<'_, '_, '_>| {
            hosts[..count].iter().try_for_each(|host| {
                let target = [host.as_bytes()];
                let target = NameRef { head: &target, tail: Tail::Question(0) };
                set.put(NameRef::QUESTION, 5, Rdata::Srv { priority: 0, weight: 3, port: 80, target })
            })
        };
        writer.rrset(Section::Answer, put).unwrap();
        let len = writer.finish(Rcode::NOERROR, true, None);
        let targets: usize = hosts[..count].iter().map(String::len).sum();
        let tail = if squeezed { 2 } else { query.name.wire().len() };
        assert_eq!(len, message.len() + targets + count * (2 + 10 + 6 + 1 + tail));
        assert_eq!(names(&buf[..len])[2 * count - 1], format!("{}.db.prod.svc.cluster.local.", hosts[count - 1]));
    }
}

#[test]
fn a_negative_answer_points_into_the_question() {
    let message = message("a.search.path.Cluster.local", Rtype::AAAA, b"");
    let query = query(&message);
    let zone: Name = "cluster.local".parse().unwrap();
    let mut buf = [0; 512];
    let mut writer = ResponseWriter::new(&mut buf, &query, 512);
    let soa = Rdata::Soa {
        mname: NameRef::under(&[b"ns", b"dns"], &zone),
        rname: NameRef::under(&[b"hostmaster"], &zone),
        serial: 1,
        refresh: 7200,
        retry: 1800,
        expire: 86400,
        minimum: 5,
    };
    writer.rrset(Section::Authority, |set| set.put(NameRef::name(&zone), 5, soa)).unwrap();
    let len = writer.finish(Rcode::NXDOMAIN, true, None);
    assert_eq!(
        &buf[message.len()..len],
        b"\xc0\x1a\x00\x06\x00\x01\x00\x00\x00\x05\x00\x2a\x02ns\x03dns\xc0\x1a\x0ahostmaster\xc0\x1a\
        \x00\x00\x00\x01\x00\x00\x1c\x20\x00\x00\x07\x08\x00\x01\x51\x80\x00\x00\x00\x05"
    );
}

#[test]
fn the_other_kinds_of_data() {
    let message = message("4.3.2.1.in-addr.arpa", Rtype::ANY, b"");
    let query = query(&message);
    for (rdata, bytes) in [
        (Rdata::Txt(&[b"1.1.0", b""]), &b"\x00\x10\x00\x01\0\0\0\x05\x00\x07\x051.1.0\0"[..]),
        (Rdata::Hinfo { cpu: b"RFC8482", os: b"" }, b"\x00\x0d\x00\x01\0\0\0\x05\x00\x09\x07RFC8482\0"),
        (Rdata::Raw { rtype: Rtype(65280), rdata: b"xyz" }, b"\xff\x00\x00\x01\0\0\0\x05\x00\x03xyz"),
        (Rdata::Ptr(NameRef::dotted("db.arpa.")), b"\x00\x0c\x00\x01\0\0\0\x05\x00\x05\x02db\xc0\x1c"),
        (Rdata::Ns(NameRef::dotted("")), b"\x00\x02\x00\x01\0\0\0\x05\x00\x01\0"),
        (Rdata::Ns(NameRef::question_suffix(9)), b"\x00\x02\x00\x01\0\0\0\x05\x00\x01\0"),
        (Rdata::Aaaa(Ipv6Addr::LOCALHOST), b"\x00\x1c\x00\x01\0\0\0\x05\x00\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"),
    ] {
        let mut buf = [0; 512];
        let mut writer = ResponseWriter::new(&mut buf, &query, 512);
        writer.rrset(Section::Answer, |set| set.put(NameRef::QUESTION, 5, rdata)).unwrap();
        let len = writer.finish(Rcode::NOERROR, true, None);
        assert_eq!(&buf[message.len() + 2..len], bytes, "{rdata:?}");
    }
}

#[test]
fn a_record_that_cannot_be_written_leaves_no_trace_and_no_tc() {
    let message = message("db.prod", Rtype::A, b"");
    let query = query(&message);
    let long = [b'x'; 256];
    for (rdata, error) in [
        (Rdata::Cname(NameRef::dotted("a..b")), WriteError::Name(NameError::EmptyLabel)),
        (Rdata::Txt(&[&long]), WriteError::TooLong),
    ] {
        let mut buf = [0; 512];
        let mut writer = ResponseWriter::new(&mut buf, &query, 512);
        let result = writer.rrset(Section::Answer, |set| {
            set.put(NameRef::QUESTION, 5, Rdata::A(ip(1)))?;
            set.put(NameRef::QUESTION, 5, rdata)
        });
        assert_eq!(result, Err(error));
        let len = writer.finish(Rcode::SERVFAIL, true, None);
        assert_eq!((len, buf[2] & 0x02), (message.len(), 0));
    }
}

#[test]
fn the_root_can_be_asked_for() {
    let message = message("", Rtype::NS, b"");
    let query = query(&message);
    let mut buf = [0; 512];
    let mut writer = ResponseWriter::new(&mut buf, &query, 512);
    let ns = Rdata::Ns(NameRef { head: &[b"ns"], tail: Tail::Question(0) });
    writer.rrset(Section::Answer, |set| set.put(NameRef::QUESTION, 5, ns)).unwrap();
    let len = writer.finish(Rcode::NOERROR, true, None);
    assert_eq!(names(&buf[..len]), [".", "ns."]);
}
