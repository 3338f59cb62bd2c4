//! Turns the records of a written answer, so that clients which take the first one share them.

use std::{net::IpAddr, ops::Range};

use ipnet::IpNet;

use crate::wire::{Message, Name, Record, Rtype, Section};

/// Lets the last set of addresses or mail servers of the answer section begin at the record that `turn` chooses.
///
/// A set of which the first owner is written whole stays as it is: pointers may lead there. Names in the data of such a set
/// must not be compressed.
pub fn rotate(message: &mut [u8], turn: u16) {
    let Some(set) = last_set(message) else { return };
    let first = records(message, &set).nth(usize::from(turn % set.count)).map(|record| record.start);
    if let Some(first) = first {
        let by = first - set.bytes.start;
        message[set.bytes].rotate_left(by);
    }
}

/// Moves the addresses of the first network to the front of the last set, those of the second behind them, and so on.
pub fn prefer(message: &mut [u8], networks: &[IpNet]) {
    let Some((set, each)) = addresses(message) else { return };
    let mut placed = set.start;
    for network in networks {
        let mut at = placed;
        while at < set.end {
            if address(&message[at..at + each]).is_some_and(|address| network.contains(&address)) {
                message[placed..at + each].rotate_right(each);
                placed += each;
            }
            at += each;
        }
    }
}

/// Swaps one address of the last set with the first: the one at which the weights, summed up in order, pass `random` modulo
/// their sum.
pub fn lead(message: &mut [u8], weight: impl Fn(&Name, IpAddr) -> u8, random: u32) {
    let Some((set, each)) = addresses(message) else { return };
    let owner = Message::new(message).ok().and_then(|read| {
        let mut all = read.records().ok()?.map_while(Result::ok);
        all.find(|record| record.start == set.start)?.name.to_name().ok()
    });
    let Some(owner) = owner else { return };
    let weight_at = |message: &[u8], at: usize| {
        address(&message[at..at + each]).map_or(0, |address| u32::from(weight(&owner, address)))
    };
    let sum: u32 = set.clone().step_by(each).map(|at| weight_at(message, at)).sum();
    let mut left = random % sum.max(1);
    let chosen = set.clone().step_by(each).find(|at| {
        let weight = weight_at(message, *at);
        let found = left < weight;
        left = left.saturating_sub(weight);
        found
    });
    if let Some(at) = chosen.filter(|at| *at > set.start) {
        let (front, back) = message.split_at_mut(at);
        front[set.start..set.start + each].swap_with_slice(&mut back[..each]);
    }
}

/// Records of one owner and type side by side, of which the owners are pointers.
struct Set {
    bytes: Range<usize>,
    count: u16,
    rtype: Rtype,
}

/// The bytes of the last set if it has addresses, and of each of its records.
fn addresses(message: &[u8]) -> Option<(Range<usize>, usize)> {
    let set = last_set(message).filter(|set| set.rtype != Rtype::MX)?;
    let each = set.bytes.len() / usize::from(set.count);
    // Other data than an address would make them differ.
    (each * usize::from(set.count) == set.bytes.len()).then_some((set.bytes, each))
}

/// The address at the end of a record.
fn address(record: &[u8]) -> Option<IpAddr> {
    // Two bytes of a pointer and ten of type, class, TTL and length.
    match record.get(12..)? {
        data if data.len() == 4 => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
        data => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
    }
}

fn answers(message: &[u8]) -> Option<impl Iterator<Item = Record<'_>>> {
    let records = Message::new(message).ok()?.records().ok()?;
    Some(records.map_while(Result::ok).take_while(|record| record.section == Section::Answer))
}

fn records<'m>(message: &'m [u8], set: &Set) -> impl Iterator<Item = Record<'m>> {
    let start = set.bytes.start;
    answers(message).into_iter().flatten().filter(move |record| record.start >= start)
}

fn last_set(message: &[u8]) -> Option<Set> {
    // Owner, type and class: those of one set are the same bytes.
    let key = |record: &Record<'_>| message.get(record.start..record.ttl_start());
    let (mut set, mut of) = (Set { bytes: 0..0, count: 0, rtype: Rtype::A }, None);
    for record in answers(message)?.filter(turns) {
        if set.bytes.end != record.start || of != key(&record) {
            (set, of) = (Set { bytes: record.start..0, count: 0, rtype: record.rtype }, key(&record));
        }
        set.bytes.end = record.rdata_start + record.rdata.len();
        set.count += 1;
    }
    let is_pointer = message.get(set.bytes.start).is_some_and(|byte| byte & 0xC0 == 0xC0);
    (set.count >= 2 && is_pointer).then_some(set)
}

fn turns(record: &Record<'_>) -> bool {
    matches!(record.rtype, Rtype::A | Rtype::AAAA | Rtype::MX)
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, MessageType, OpCode, Query},
        rr::{Name, RData, Record, RecordType},
    };

    use super::{lead, prefer, rotate};
    use crate::{
        dns::{
            Transport,
            cache::{Age, Entry, Kind, Parts},
        },
        sys::UnixMillis,
        wire::{Class, Parsed, Rtype, parse},
    };

    /// An answer as the cache writes it, with these records in front of an authority section.
    fn answer(records: &[&str]) -> Vec<u8> {
        let name = Name::from_ascii("www.example.").unwrap();
        let record = |text: &&str| {
            let words: Vec<&str> = text.splitn(3, ' ').collect();
            let rtype: RecordType = words[1].parse().unwrap();
            let data = RData::try_from_str(rtype, words[2]).unwrap();
            Record::from_rdata(Name::from_ascii(words[0]).unwrap(), 60, data)
        };
        let parts = Parts {
            name: name.clone(),
            rtype: Rtype::A,
            class: Class::IN,
            kind: Kind::Data,
            answers: records.iter().map(record).collect(),
            authorities: vec![record(&"example. NS ns.example.")],
            authentic: false,
            continues: false,
        };
        let mut asked = Message::new(7, MessageType::Query, OpCode::Query);
        asked.add_query(Query::query(name, RecordType::A));
        let asked = asked.to_vec().unwrap();
        let Parsed::Query(query) = parse(&asked) else { panic!("a query") };
        let mut out = vec![0; 1_232];
        let entry = Entry::new(&parts, UnixMillis(0), 60).unwrap();
        let length = entry.write(&query, Transport::Udp, UnixMillis(0), Age::Fresh, &mut out);
        out.truncate(length);
        out
    }

    fn shown(message: &[u8]) -> Vec<String> {
        let message = Message::from_vec(message).unwrap();
        assert_eq!(message.authorities.len(), 1);
        message
            .answers
            .iter()
            .map(|record| format!("{} {} {}", record.name, record.record_type(), record.data))
            .collect()
    }

    #[test]
    fn the_last_set_of_addresses_or_mail_servers_begins_at_another_record() {
        let cases: [(&[&str], u16, &[usize]); 7] = [
            (&["www.example. A 10.0.0.1", "www.example. A 10.0.0.2", "www.example. A 10.0.0.3"], 1, &[1, 2, 0]),
            (&["www.example. A 10.0.0.1", "www.example. A 10.0.0.2", "www.example. A 10.0.0.3"], 6, &[0, 1, 2]),
            (&["www.example. CNAME cdn.example.", "cdn.example. A 10.0.0.1", "cdn.example. A 10.0.0.2"], 1, &[0, 2, 1]),
            (&["www.example. MX 10 a.example.", "www.example. MX 10 long-name.example."], 1, &[1, 0]),
            (&["www.example. TXT \"a\"", "www.example. TXT \"b\""], 1, &[0, 1]),
            (&["www.example. A 10.0.0.1"], 5, &[0]),
            (&["elsewhere.example. A 10.0.0.1", "elsewhere.example. A 10.0.0.2"], 1, &[0, 1]),
        ];
        for (records, turn, order) in cases {
            let mut message = answer(records);
            let before = shown(&message);
            rotate(&mut message, turn);
            let expect: Vec<&String> = order.iter().map(|at| &before[*at]).collect();
            assert_eq!(shown(&message).iter().collect::<Vec<_>>(), expect, "{records:?} {turn}");
        }
        rotate(&mut [], 1);
        for garbage in [&mut [][..], &mut [0xFF; 40]] {
            prefer(garbage, &["10.0.0.0/8".parse().unwrap()]);
            lead(garbage, |_, _| 1, 7);
        }
        rotate(&mut [0xFF; 40], 1);
    }

    /// The last bytes of the addresses, in their order.
    fn hosts(message: &[u8]) -> String {
        shown(message).iter().map(|record| record.rsplit(['.', ':']).next().unwrap().to_owned() + " ").collect()
    }

    #[test]
    fn addresses_of_networks_come_first_in_the_order_of_the_networks() {
        let four = ["10.0.0.1", "192.0.2.2", "172.16.0.3", "192.0.2.4"].map(|ip| format!("www.example. A {ip}"));
        let six = ["2001:db8::1", "fd00::2", "2001:db8::3"].map(|ip| format!("www.example. AAAA {ip}"));
        let four: Vec<&str> = four.iter().map(String::as_str).collect();
        let six: Vec<&str> = six.iter().map(String::as_str).collect();
        for (records, networks, expect) in [
            (&four, &["192.0.2.0/24"][..], "2 4 1 3 "),
            (&four, &["172.16.0.0/12", "192.0.2.0/24"], "3 2 4 1 "),
            (&four, &["192.0.2.4/32", "0.0.0.0/0"], "4 1 2 3 "),
            (&four, &["198.51.100.0/24", "fd00::/8"], "1 2 3 4 "),
            (&six, &["fd00::/8"], "2 1 3 "),
        ] {
            let networks: Vec<_> = networks.iter().map(|network| network.parse().unwrap()).collect();
            let mut message = answer(records);
            prefer(&mut message, &networks);
            assert_eq!(hosts(&message), expect, "{networks:?}");
        }
        let mail = ["www.example. MX 10 a.example.", "www.example. MX 10 b.example."];
        let mut message = answer(&mail);
        let before = message.clone();
        prefer(&mut message, &["0.0.0.0/0".parse().unwrap()]);
        lead(&mut message, |_, _| 1, 1);
        assert_eq!(message, before);
    }

    #[test]
    fn an_address_comes_first_as_often_as_its_weight_says() {
        let records = ["www.example. A 10.0.0.1", "www.example. A 10.0.0.2", "www.example. A 10.0.0.3"];
        let weight = |owner: &crate::wire::Name, ip: std::net::IpAddr| {
            assert_eq!(owner.to_string(), "www.example.");
            if ip.to_string() == "10.0.0.2" { 3 } else { 1 }
        };
        let mut first = [0; 3];
        for random in 0..50 {
            let mut message = answer(&records);
            lead(&mut message, weight, random);
            let order = hosts(&message);
            assert!(["1 2 3 ", "2 1 3 ", "3 2 1 "].contains(&order.as_str()), "{order}");
            first[usize::from(order.as_bytes()[0] - b'1')] += 1;
        }
        assert_eq!(first, [10, 30, 10]);
    }
}
