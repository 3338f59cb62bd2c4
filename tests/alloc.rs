//! No answer allocates. A binary of its own: the counter is its global allocator.

#[path = "it/support/ask.rs"]
mod ask;
#[path = "it/support/cluster.rs"]
mod cluster;
#[path = "it/support/hot.rs"]
mod hot;

use holdfast::{
    dns::{Forward, Outcome, Rotation, answer},
    wire::TCP_BYTES_MAX,
};

#[test]
fn an_answer_allocates_nothing() {
    let context = hot::context();
    let rotation = Rotation::default();
    let mut out = vec![0; TCP_BYTES_MAX];
    for question in hot::questions() {
        let mut outcome = None;
        let counted = allocation_counter::measure(|| {
            let batch = context.load();
            let view = context.view(&batch, hot::NOW, &rotation);
            outcome = Some(answer(&context, &view, &question.message, question.transport, &mut out));
        });
        assert_eq!(counted.count_total, 0, "{}: {counted:?}", question.title);
        match outcome {
            Some(Outcome::Reply(_)) => {
                let answers = u16::from_be_bytes([out[6], out[7]]);
                assert_eq!(answers, question.answers, "{}", question.title);
            }
            Some(Outcome::Forward(Forward::Whole)) => assert_eq!(question.title, "outside"),
            other => panic!("{}: {other:?}", question.title),
        }
    }
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(1))));
    assert_eq!(counted.count_total, 1);
}
