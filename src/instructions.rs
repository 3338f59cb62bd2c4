//! One kind of question, answered many times and nothing else: what callgrind counts. See tests/callgrind.rs.
//!
//! A crate root beside `lib.rs` with the modules that answer. The compiler then optimises what this program calls; a library would have all
//! of it optimised, for two minutes of processor time.

#![allow(dead_code, unused_imports, reason = "the rest of these modules is for lib.rs")]

extern crate self as holdfast;

pub mod dns;
pub mod limits;
pub mod record;
pub mod report;
pub mod store;
pub mod sys;
pub mod wire;
pub mod zone;

#[path = "../tests/it/support/ask.rs"]
mod ask;
#[path = "../tests/it/support/cluster.rs"]
mod cluster;
#[path = "../tests/it/support/hot.rs"]
mod hot;

use std::hint::black_box;

use holdfast::{
    dns::{Context, Outcome, Rotation, View, answer},
    wire::TCP_BYTES_MAX,
};

/// The function in which callgrind counts.
#[inline(never)]
fn counted_answer(context: &Context, view: &View<'_>, question: &hot::Question, out: &mut [u8]) -> Outcome {
    answer(context, view, &question.message, question.transport, None, out)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(title), Some(count)) = (arguments.next(), arguments.next()) else { return };
    let questions = hot::questions();
    let question =
        questions.iter().find(|question| question.title == title).expect("a title of tests/it/support/hot.rs");
    let (context, rotation) = (hot::context(), Rotation::default());
    let batch = context.load();
    let view = context.view(&batch, hot::NOW, &rotation);
    let mut out = vec![0; TCP_BYTES_MAX];
    let mut outcome = None;
    for _ in 0..count.parse().expect("a number") {
        outcome = Some(black_box(counted_answer(&context, &view, black_box(question), &mut out)));
    }
    if let Some(Outcome::Reply(_)) = outcome {
        assert_eq!(u16::from_be_bytes([out[6], out[7]]), question.answers, "what was counted is no answer");
    }
}
