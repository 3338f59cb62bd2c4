//! EDNS padding (RFC 7830): answers get a length that tells less about what is in them.

use std::ops::Range;

use crate::wire::{Message, Rtype, TCP_BYTES_MAX};

/// Answers are padded to a multiple of this many bytes (RFC 8467, 4.1).
const BLOCK_BYTES: usize = 468;
/// The padding option (RFC 7830, 3).
const OPTION_PADDING: u16 = 12;
/// Code and length of an option.
const OPTION_HEAD_BYTES: usize = 4;
/// Between the start of a record's TTL and its data (RFC 1035, 4.1.3).
const TTL_AND_LENGTH_BYTES: usize = 6;

/// Whether the client asks for padded answers: its OPT record has a padding option (RFC 7830, 4).
pub(in crate::dns) fn is_asked_for(query: &[u8]) -> bool {
    let Some(opt) = opt(query) else { return false };
    let mut options = &query[opt];
    while let Some((&[code_high, code_low, len_high, len_low], rest)) = options.split_first_chunk::<OPTION_HEAD_BYTES>()
    {
        if u16::from_be_bytes([code_high, code_low]) == OPTION_PADDING {
            return true;
        }
        let Some(next) = rest.get(usize::from(u16::from_be_bytes([len_high, len_low]))..) else { return false };
        options = next;
    }
    false
}

/// Pads `answer` to the next multiple of [`BLOCK_BYTES`], or to the longest message there is.
///
/// An answer without an OPT record at its very end stays as it is.
pub(in crate::dns) fn pad(answer: &mut Vec<u8>) {
    let Some(opt) = opt(answer) else { return };
    let bare = answer.len() + OPTION_HEAD_BYTES;
    if opt.end != answer.len() || bare > TCP_BYTES_MAX {
        return;
    }
    let padded = bare.next_multiple_of(BLOCK_BYTES).min(TCP_BYTES_MAX);
    let zeros = padded - bare;
    let data_bytes = opt.len() + OPTION_HEAD_BYTES + zeros;
    let (Ok(zeros_u16), Ok(data_bytes)) = (u16::try_from(zeros), u16::try_from(data_bytes)) else { return };
    answer[opt.start - 2..opt.start].copy_from_slice(&data_bytes.to_be_bytes());
    answer.extend(OPTION_PADDING.to_be_bytes());
    answer.extend(zeros_u16.to_be_bytes());
    answer.resize(padded, 0);
}

/// Where the data of the first OPT record is, if the message can be read that far.
fn opt(message: &[u8]) -> Option<Range<usize>> {
    let record =
        Message::new(message).ok()?.records().ok()?.map_while(Result::ok).find(|record| record.rtype == Rtype::OPT)?;
    let start = record.ttl_start() + TTL_AND_LENGTH_BYTES;
    Some(start..start + record.rdata.len())
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Edns, Message, MessageType, OpCode, Query},
        rr::{
            Name, RecordType,
            rdata::opt::{EdnsCode, EdnsOption},
        },
    };

    use super::*;

    fn message(edns: Option<&[(u16, Vec<u8>)]>) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii("web.prod.svc.cluster.local.").unwrap(), RecordType::A));
        if let Some(options) = edns {
            let mut edns = Edns::new();
            for (code, data) in options {
                edns.options_mut().insert(EdnsOption::Unknown(*code, data.clone()));
            }
            message.edns = Some(edns);
        }
        message.to_vec().unwrap()
    }

    #[test]
    fn padding_is_asked_for_by_its_option_alone() {
        assert!(!is_asked_for(&message(None)));
        assert!(!is_asked_for(&message(Some(&[]))));
        assert!(!is_asked_for(&message(Some(&[(10, vec![1; 8])]))));
        assert!(is_asked_for(&message(Some(&[(12, vec![])]))));
        assert!(is_asked_for(&message(Some(&[(10, vec![1; 8]), (12, vec![0; 40])]))));
        assert!(!is_asked_for(b"short"));
    }

    #[test]
    fn a_padded_answer_reads_the_same_and_is_a_multiple_of_the_block() {
        for options in [vec![], vec![(15_u16, b"\0\x03stale".to_vec())], vec![(15, vec![0; 500])]] {
            let mut answer = message(Some(&options));
            let before = Message::from_vec(&answer).unwrap();
            pad(&mut answer);
            assert_eq!(answer.len() % BLOCK_BYTES, 0);
            let after = Message::from_vec(&answer).unwrap();
            assert_eq!((before.queries, before.answers), (after.queries, after.answers));
            let padding = EdnsCode::from(OPTION_PADDING);
            assert!(after.edns.unwrap().option(padding).is_some());
        }
    }

    #[test]
    fn an_answer_without_opt_or_room_stays_as_it_is() {
        let bare = message(None);
        let mut padded = bare.clone();
        pad(&mut padded);
        assert_eq!(padded, bare);

        // The longest message has no room for an option; one just below is filled to the end.
        let room = TCP_BYTES_MAX - message(Some(&[(9, vec![])])).len() - 10;
        let mut long = message(Some(&[(9, vec![0; room])]));
        pad(&mut long);
        assert_eq!(long.len(), TCP_BYTES_MAX);
        let full = long.clone();
        pad(&mut long);
        assert_eq!(long, full);
    }
}
