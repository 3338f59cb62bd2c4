//! Turns the records of a written answer, so that clients which take the first one share them.

use std::ops::Range;

use crate::wire::{Message, Record, Rtype, Section};

/// Lets the last set of addresses or mail servers of the answer section begin at the record that `turn` chooses.
///
/// A set of which the first owner is written whole stays as it is: pointers may lead there. Names in the data of such a set
/// must not be compressed.
pub fn rotate(message: &mut [u8], turn: u16) {
    if let Some((set, first)) = turned(message, turn) {
        let by = first - set.start;
        message[set].rotate_left(by);
    }
}

/// The bytes of the set, and where its record begins that comes first now.
fn turned(message: &[u8], turn: u16) -> Option<(Range<usize>, usize)> {
    let answers = || {
        let records = Message::new(message).ok()?.records().ok()?;
        Some(records.map_while(Result::ok).take_while(|record| record.section == Section::Answer))
    };
    // Owner, type and class: those of one set are the same bytes.
    let key = |record: &Record<'_>| message.get(record.start..record.ttl_start());
    let (mut set, mut of, mut count) = (0..0, None, 0);
    for record in answers()?.filter(turns) {
        if set.end != record.start || of != key(&record) {
            (set, of, count) = (record.start..0, key(&record), 0);
        }
        set.end = record.rdata_start + record.rdata.len();
        count += 1;
    }
    let is_pointer = message.get(set.start).is_some_and(|byte| byte & 0xC0 == 0xC0);
    if count < 2 || !is_pointer {
        return None;
    }
    let first = answers()?.filter(|record| record.start >= set.start).nth(usize::from(turn % count))?;
    Some((set, first.start))
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

    use super::rotate;
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
        rotate(&mut [0xFF; 40], 1);
    }
}
