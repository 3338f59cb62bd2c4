//! Any bytes as what a hub sends: no panic, and what is held is what its digests say.

#![no_main]

use bytes::BytesMut;
use holdfast::{
    proto::{FRAME_BYTES_MAX, Frame, Mirror, split},
    record::Snapshot,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut mirror = Mirror::new("agent", Snapshot::default());
    let mut bytes = BytesMut::from(bytes);
    while let Ok(Some(frame)) = split::<Frame>(&mut bytes, FRAME_BYTES_MAX) {
        if mirror.take(frame).is_err() {
            // The follower greets again with what it holds.
            mirror.restart();
        }
        let _ = mirror.held().root();
    }
});
