//! A query with a stream of its own: an HTTP request, a QUIC stream.

use std::{
    cell::RefCell,
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
};

use tokio::time::Instant;

use crate::{
    dns::{
        Rotation, Transport,
        cache::WorkerCache,
        metrics::{DropCause, Tally},
        padding,
        server::{self, Core, Handled, InFlight},
    },
    wire,
};

thread_local! {
    /// Room for the longest answer, one for each thread.
    static ROOM: RefCell<Box<[u8]>> = RefCell::new(vec![0; wire::TCP_BYTES_MAX].into());
    static ROTATION: Rotation = Rotation::default();
}

/// The immediate result for a query.
enum First {
    Answer(Vec<u8>),
    Forward(server::Asked, InFlight, Vec<u8>),
}

/// Answers `message`, and counts it and its answer. `None` if it gets no answer: it is a response itself, or shorter than a
/// header.
///
/// Dropping the future gives up the client.
pub(super) async fn answer(
    core: &Arc<Core>,
    message: &[u8],
    transport: Transport,
    client: SocketAddr,
) -> Option<Vec<u8>> {
    let shard = &core.metrics.shared;
    let received = Instant::now();
    let first = ROOM.with_borrow_mut(|room| {
        ROTATION.with(|rotation| {
            let records = core.context.load();
            let view = core.context.view(&records, core.clock.now(), rotation).at(core.clock.steady());
            match core.handle(shard, &view, message, (transport, Some(client.ip())), &mut WorkerCache::none(), room) {
                Handled::Reply(length, tally) => {
                    shard.responses(tally, 1);
                    shard.durations(tally.from, received.elapsed(), 1);
                    Some(First::Answer(room[..length].to_vec()))
                }
                Handled::Forward(asked) => {
                    let Some(in_flight) = core.begin(transport, client.ip()) else {
                        let reply = core.refuse_forward(transport, message, asked, room);
                        shard.responses(reply.tally(), 1);
                        return Some(First::Answer(room[..reply.len].to_vec()));
                    };
                    Some(First::Forward(asked, in_flight, room[..asked.kept()].to_vec()))
                }
                Handled::Drop(reason) => {
                    shard.dropped(reason.into());
                    None
                }
            }
        })
    })?;
    let mut answer = match first {
        First::Answer(answer) => answer,
        First::Forward(asked, _in_flight, kept) => {
            let gone = CountGone(Some(core));
            let listener = (Ipv6Addr::UNSPECIFIED, 0).into();
            let request = server::request(asked, message, &kept, transport, [client, listener], received);
            let resolved = core.resolve(request).await;
            gone.stayed();
            if resolved.message.is_empty() {
                shard.dropped(DropCause::Acl);
                return None;
            }
            shard.responses(Tally { rcode: server::rcode_of(&resolved.message), from: resolved.from }, 1);
            shard.durations(resolved.from, received.elapsed(), 1);
            resolved.message
        }
    };
    if padding::is_asked_for(message) {
        padding::pad(&mut answer);
    }
    Some(answer)
}

/// Counts a query whose client went away while it waited.
struct CountGone<'a>(Option<&'a Core>);

impl CountGone<'_> {
    fn stayed(mut self) {
        self.0 = None;
    }
}

impl Drop for CountGone<'_> {
    fn drop(&mut self) {
        if let Some(core) = self.0 {
            core.metrics.shared.dropped(DropCause::Gone);
        }
    }
}
