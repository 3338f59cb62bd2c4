//! A whole exchange: a client's question, an upstream that says what the bytes say over UDP and TCP, and the answer.

#![no_main]

use holdfast::dns::Transport;
use holdfast_fuzz::{
    oracle::Choices,
    support::upstream::{Say, Upstream},
    world::World,
};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Builder;

/// Of answers to one query: more than are looked at before TCP decides.
const SAID_MAX: u8 = 20;

/// The upstream's reply to one query. Mostly in the form of an answer, or the reader would stop at its header.
fn said(choices: &mut Choices<'_>, query: &[u8]) -> Vec<Say> {
    let number = choices.below(SAID_MAX);
    let one = |choices: &mut Choices<'_>| {
        if choices.one_in(16) {
            return Say::Close;
        }
        let mut bytes = query.to_vec();
        if choices.one_in(8) {
            let at = choices.below(12);
            bytes[at] = choices.byte();
        }
        bytes[2] |= 0x80;
        bytes[3] = choices.byte();
        for count in [7, 9, 11] {
            bytes[count] = u8::try_from(choices.below(4)).expect("below 4");
        }
        let length = choices.u16() % 512;
        bytes.extend(choices.bytes(length.into()));
        Say::Bytes(bytes)
    };
    (0..number).map(|_| one(choices)).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    let script = bytes.to_vec();
    runtime.block_on(async {
        let upstream = Upstream::start(move |asked| {
            let skipped = script.get(asked.nth * 64..).unwrap_or_default();
            said(&mut Choices::new(skipped), &asked.message.to_vec().expect("it was a message"))
        })
        .await;
        let world = World::new(&[&upstream]);
        for (payload, transport) in
            [(None, Transport::Udp), (Some(1_232), Transport::Udp), (Some(1_232), Transport::Tcp)]
        {
            let query = holdfast_fuzz::world::query("www.example", hickory_proto::rr::RecordType::A, payload);
            let resolved = world.resolve(query.clone(), transport).await;
            let answer = hickory_proto::op::Message::from_vec(&resolved.message).expect("clients can read it");
            assert_eq!((answer.id, &resolved.message[12..29]), (0x4242, &query[12..29]), "an answer to the question");
            let most = if transport == Transport::Tcp { 65_535 } else { payload.unwrap_or(512) };
            assert!(resolved.message.len() <= usize::from(most));
        }
    });
});
