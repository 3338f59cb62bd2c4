//! The battery against `holdfast lookup`: the document says what `answer()` says.

use hickory_proto::op::Message;
use holdfast::{
    admin::view::{self, Answer, Outcome, RecordsView},
    dns::{self, Context, Forward, Records, Rotation, Rules, Transport, answer, forward::Names},
    wire::{Name, Rtype},
};

use super::{check::rcode, clock, sections};
use crate::support::ask::query;

/// The answer section, the authority section and the extended error of a document, as [`said`] has those of a message.
pub fn told(answer: &Answer) -> (String, Vec<String>, Vec<String>) {
    let text = |records: &[view::Record]| {
        let mut text: Vec<String> = records.iter().map(|record| plain(&record.to_string())).collect();
        text.sort();
        text
    };
    let ede = answer.extended_error.as_deref().and_then(|error| error.split(' ').next()).unwrap_or("none");
    let rcode = answer.rcode.as_deref().unwrap_or("none");
    (format!("{rcode}, EDE {ede}"), text(&answer.answer), text(&answer.authority))
}

/// The same of a message.
pub fn said(message: &Message) -> (String, Vec<String>, Vec<String>) {
    let text = |records: &[hickory_proto::rr::Record]| {
        let mut text: Vec<String> = records.iter().map(|record| plain(&record.to_string())).collect();
        text.sort();
        text
    };
    let ede = super::check::ede(message).map_or_else(|| "none".to_owned(), |code| code.to_string());
    (format!("{}, EDE {ede}", rcode(message)), text(&message.answers), text(&message.authorities))
}

/// Without what differs in the presentation forms of the two: quotes, case and escaped dashes.
fn plain(record: &str) -> String {
    record.replace(['"', '\\'], "").trim_end().to_ascii_lowercase()
}

/// What `holdfast lookup` says of one name and type.
pub fn look(
    context: &Context,
    pins: &dns::pins::Pins,
    clock: &holdfast::sys::Clock,
    (name, rtype): (&Name, Rtype),
    inspect: view::Inspect<'_>,
) -> Answer {
    let reader = context.reader();
    let (freshness, snapshot, held) = (reader.freshness(), reader.snapshot(), reader.held());
    let pins = pins.load();
    let moment = RecordsView {
        snapshot: &snapshot,
        freshness: &freshness,
        held: &held,
        pins: &pins,
        source: None,
        lost_since: None,
        stale_after: context.rules().config().stale_after,
        now: clock.now(),
    };
    let question = view::Question { name: name.to_string(), rtype: Some(rtype), namespace: None };
    view::lookup(context.rules(), &moment, &question, inspect).expect("a name").answers.remove(0)
}

#[test]
fn lookup_holds_every_case() {
    let (clock, rotation) = (clock(), Rotation::default());
    let inspect = |rules: &Rules, records: Records<'_>, question: &dns::Question| {
        Names::default().inspect(rules, records, question)
    };
    let mut wrong = Vec::new();
    for section in sections() {
        let context = section.context();
        // A name on the command line has no escapes: a dot within a label cannot be given.
        for case in section.cases.iter().filter(|case| !case.name.to_string().contains("\\.")) {
            let got = look(&context, &section.pins(), &clock, (&case.name, case.qtype), &inspect);
            let batch = context.load();
            let view = context.view(&batch, clock.now(), &rotation);
            let mut out = vec![0; 65_535];
            let asked = query(case.name.wire(), case.qtype, Some(1232));
            let right = match answer(&context, &view, &asked, Transport::Tcp, None, &mut out) {
                dns::Outcome::Reply(reply) => said(&Message::from_vec(&out[..reply.len]).unwrap()) == told(&got),
                dns::Outcome::Forward(Forward::Whole | Forward::Fallback | Forward::Complete { .. }) => {
                    got.outcome == Outcome::Forwarded && got.sent.is_some()
                }
                // The CNAMEs are known, and what they lead to is not.
                dns::Outcome::Forward(Forward::Chase { len }) => {
                    let alone = said(&Message::from_vec(&out[..len]).unwrap());
                    alone.1 == told(&got).1 && got.sent.is_some()
                }
                dns::Outcome::Drop(_) => false,
            };
            if !right {
                wrong.push(format!("{}: {} {}: {got:?}", case.place, case.name, case.qtype));
            }
        }
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
}
