//! Records of the additional section, put into an answer that is written already.

use hickory_proto::rr::Record;

use crate::{
    dns::cache::encode::put_record,
    wire::{Message, Rtype},
};

/// Bytes of a message where the count of the additional section stands (RFC 1035, 4.1.1).
const COUNT: std::ops::Range<usize> = 10..12;

/// Adds `records` in front of the OPT record, as many as leave `message` within `limit` bytes. One without room is no
/// truncation (RFC 2181, 9).
pub fn add_records(message: &mut Vec<u8>, limit: usize, records: &[Record]) {
    let opt = |message: &[u8]| {
        let records = Message::new(message).ok()?.records().ok()?;
        records.map_while(Result::ok).find(|record| record.rtype == Rtype::OPT).map(|record| record.start)
    };
    for record in records {
        let mut bytes = Vec::new();
        let Some(count) = message.get(COUNT).map(|count| u16::from_be_bytes([count[0], count[1]])) else { return };
        if put_record(&mut bytes, record).is_none() || message.len() + bytes.len() > limit {
            return;
        }
        let at = opt(message).unwrap_or(message.len());
        message.splice(at..at, bytes);
        message[COUNT].copy_from_slice(&count.saturating_add(1).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Edns, Message, MessageType, OpCode},
        rr::{Name, RData, RecordType},
    };

    use super::*;

    #[test]
    fn records_go_in_front_of_the_opt_record_as_far_as_there_is_room() {
        let record = |data| {
            let data = RData::try_from_str(RecordType::A, data).unwrap();
            Record::from_rdata(Name::from_ascii("mail.example.").unwrap(), 60, data)
        };
        let records = [record("192.0.2.1"), record("192.0.2.2")];
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        for with_edns in [false, true] {
            if with_edns {
                message.set_edns(Edns::new());
            }
            let plain = message.to_vec().unwrap();
            for (room, expect) in [(1_000, 2), (40, 1), (10, 0)] {
                let mut bytes = plain.clone();
                let limit = bytes.len() + room;
                add_records(&mut bytes, limit, &records);
                let read = Message::from_vec(&bytes).unwrap();
                assert_eq!(read.additionals, records[..expect], "{room} bytes");
                assert_eq!(read.edns.is_some(), with_edns);
            }
        }
    }
}
