//! The battery against `answer()` itself.

use holdfast::{
    dns::{Context, Forward, Outcome, Rotation, Transport, answer},
    sys::Clock,
    wire::TCP_BYTES_MAX,
};

use super::{Section, check, check_messages, check_sizes, clock, sections, upstream};

/// Asks `answer()`, with a scripted upstream behind it.
pub fn asker(section: &Section) -> impl FnMut(Transport, &[u8]) -> Option<Vec<u8>> + use<> {
    let (context, clock, rotation) = (section.context(), clock(), Rotation::default());
    move |transport, query| ask(&context, &clock, &rotation, transport, query)
}

fn ask(context: &Context, clock: &Clock, rotation: &Rotation, transport: Transport, query: &[u8]) -> Option<Vec<u8>> {
    let batch = context.load();
    let view = context.view(&batch, clock.now(), rotation);
    let mut out = vec![0xA5; TCP_BYTES_MAX];
    match answer(context, &view, query, transport, None, &mut out) {
        Outcome::Reply(reply) => Some(out[..reply.len].to_vec()),
        Outcome::Drop(_) => None,
        Outcome::Forward(forward) => {
            let len = match forward {
                Forward::Whole | Forward::Fallback => 0,
                Forward::Chase { len } | Forward::Complete { len, .. } => len,
            };
            Some(upstream(query, forward, &out[..len]))
        }
    }
}

#[test]
fn answer_holds_every_case() {
    for section in sections() {
        check(&section, &mut asker(&section));
    }
}

#[test]
fn answer_holds_every_message() {
    check_messages(&mut asker(&Section::plain()));
}

#[test]
fn answer_holds_every_size() {
    let section = Section::large();
    check_sizes(&mut asker(&section));
}

#[test]
fn there_are_hundreds_of_cases() {
    let cases: usize = sections().iter().map(|section| section.cases.len()).sum();
    assert!(cases > 500, "{cases}: a file of cases was lost");
}

#[test]
#[should_panic(expected = "answers:")]
fn a_wrong_address_is_found() {
    let section = Section::read("== wrong\nweb.prod.svc.$ A => A 10.96.1.2");
    check(&section, &mut asker(&section));
}

#[test]
#[should_panic(expected = "rcode:")]
fn a_wrong_rcode_is_found() {
    let section = Section::read("== wrong\nweb.prod.svc.$ AAAA => NXDOMAIN");
    check(&section, &mut asker(&section));
}

#[test]
#[should_panic(expected = "authorities:")]
fn a_wrong_soa_is_found() {
    let section = Section::read("== wrong\nweb.prod.svc.$ AAAA => NODATA prod.svc.$");
    check(&section, &mut asker(&section));
}
