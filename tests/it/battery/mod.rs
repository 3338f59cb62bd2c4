//! One battery of cases for everything that answers: `answer()`, sockets, and `holdfast lookup`.
//!
//! Cases are text, a row each, in `cases/`: what is asked, and what must come back.
//!
//! ```text
//! == a title; options begin with @ and hold until the next title
//! @reverse 10.96.0.0/16
//! web.prod.svc.$ A       => A 10.96.1.1
//! nope.prod.svc.$ A      => NXDOMAIN
//! db.prod.svc.$ SRV
//!     SRV 0 100 5432 db-0.db.prod.svc.$
//!     + db-0.db.prod.svc.$ A 10.1.0.1
//! ```
//!
//! `$` is the zone. A record may leave out its owner (the name asked for), its TTL (that of the zone) and its class.
//! Records of the additional section begin with `+`. The other words are `NODATA [zone]` and `NXDOMAIN [zone]` (with the
//! SOA of that zone, the cluster's if none is named), an rcode, `EDE n`, and what becomes of a query that upstream has to
//! answer: `FORWARD`, `FALLBACK`, `CHASE target`.
//!
//! Every row is asked over each transport, with EDNS and without, and in mixed case.

mod case;
mod check;
mod direct;
mod lookup;
mod messages;
mod properties;
mod size;
mod sockets;

pub use case::{Section, clock, sections};
pub use check::{Asker, check};
pub use lookup::{look, said, told};
pub use messages::check_messages;
pub use size::check_sizes;

use holdfast::dns::{Forward, Transport};

/// What stands in for an upstream: an answer that says how it was asked, as [`check`] expects it.
///
/// For an alias, upstream's record is put behind what `answer()` wrote.
pub fn upstream(query: &[u8], forward: Forward, written: &[u8]) -> Vec<u8> {
    use hickory_proto::{
        op::{Message, MessageType, OpCode},
        rr::{Name, RData, Record, rdata::TXT},
    };
    let asked = if forward == Forward::Fallback { "fallback" } else { "forward" };
    let record = |owner: Name| Record::from_rdata(owner, 0, RData::TXT(TXT::new(vec![asked.to_owned()])));
    match forward {
        Forward::Whole | Forward::Fallback => {}
        Forward::Complete { .. } => return written.to_vec(),
        Forward::Chase { .. } => {
            let mut message = Message::from_vec(written).expect("what answer() wrote is a message");
            let target = message.answers.iter().rev().find_map(|record| match &record.data {
                RData::CNAME(target) => Some(target.0.clone()),
                _ => None,
            });
            message.add_answer(record(target.expect("there is an alias")));
            return message.to_vec().expect("a message of few records is written");
        }
    }
    let asked_for = Message::from_vec(query).expect("a query that is forwarded is a message");
    let mut message = Message::new(asked_for.metadata.id, MessageType::Response, OpCode::Query);
    message.metadata.recursion_desired = asked_for.metadata.recursion_desired;
    message.metadata.checking_disabled = asked_for.metadata.checking_disabled;
    message.metadata.recursion_available = true;
    let name = asked_for.queries[0].name().clone();
    message.add_queries(asked_for.queries);
    message.edns = asked_for.edns;
    message.add_answer(record(name));
    message.to_vec().expect("a message of few records is written")
}

const TRANSPORTS: [Transport; Transport::ALL.len()] = Transport::ALL;
