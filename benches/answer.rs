//! `answer()` alone: time and allocations for each kind of question. `benches/README.md` says how to read it.

#![allow(missing_docs, reason = "criterion's macros make public items without any")]

#[path = "../tests/it/support/ask.rs"]
mod ask;
#[path = "../tests/it/support/cluster.rs"]
mod cluster;
#[path = "../tests/it/support/hot.rs"]
mod hot;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use holdfast::{
    dns::{Rotation, answer},
    wire::TCP_BYTES_MAX,
};

fn answers(criterion: &mut Criterion) {
    let context = hot::context();
    let rotation = Rotation::default();
    let mut out = vec![0; TCP_BYTES_MAX];
    let mut group = criterion.benchmark_group("answer");
    for question in hot::questions() {
        // As a worker does: what is loaded once a batch is not part of the cost of one.
        let batch = context.load();
        let view = context.view(&batch, hot::NOW, &rotation);
        let mut ask = || answer(&context, &view, black_box(&question.message), question.transport, None, &mut out);
        let counted = allocation_counter::measure(|| {
            let _ = black_box(ask());
        });
        println!("{}: {} allocations, {} records", question.title, counted.count_total, question.answers);
        group.bench_function(question.title, |bencher| bencher.iter(&mut ask));
    }
    group.finish();
}

criterion_group!(benches, answers);
criterion_main!(benches);
