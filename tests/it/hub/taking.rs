//! The lease is taken without a wait, or a request, that is worth nothing.

use std::net::SocketAddr;

use super::pair::Pair;
use crate::support::{
    apiserver::{Apiserver, Fault, Reply},
    fleet::until,
};

/// Nothing listens here, for as long as the socket is kept.
fn dead() -> (SocketAddr, socket2::Socket) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    (socket.local_addr().unwrap().as_socket().unwrap(), socket)
}

/// Puts the lease in the hands of a hub that serves at `address`.
fn hold_elsewhere(pair: &Pair, address: SocketAddr) {
    let mut lease = pair.lease();
    lease["spec"]["holderIdentity"] = "gone".into();
    lease["metadata"]["annotations"] = serde_json::json!({ "holdfast.io/serves": address.to_string() });
    pair.server.put(lease);
}

fn looks(server: &Apiserver) -> usize {
    server.seen().iter().filter(|seen| (seen.verb, seen.resource.as_str()) == ("get", "leases")).count()
}

#[tokio::test]
async fn the_cluster_is_listed_once_while_the_lease_is_taken_and_not_stamped_before() {
    let pair = Pair::new().await;
    pair.server.fail(Fault::on("leases").verb("create").with(Reply::status(500, "InternalError")));
    let hub = pair.hub(0).await;
    pair.server.until("listed", |server| server.open_watches() == 4).await;
    let refused = pair.server.count("create", "leases");
    pair.server.until("asked again", |server| server.count("create", "leases") > refused + 1).await;
    assert!(hub.reader().as_of().is_none(), "stamped without the lease");
    pair.server.heal();
    until("stamped", hub.reader(), |reader| reader.load().counts().services == 100).await;
    assert_eq!(pair.server.count("watch", "services"), 1, "the list that waited is the one used");
    // Lets go of the lease with one request.
    let before = looks(&pair.server);
    hub.stop().await;
    assert_eq!((pair.holder().as_str(), looks(&pair.server)), ("", before));
}

/// A pair whose first hub has listed and ended. The Lease is that of a hub that takes no connection, for longer than a test takes.
async fn left_alone() -> (Pair, impl Sized) {
    let pair = Pair::with_lease("300s").await;
    let hub = pair.hub(0).await;
    until("listed", hub.reader(), |reader| reader.as_of().is_some()).await;
    hub.stop().await;
    let (address, kept) = dead();
    hold_elsewhere(&pair, address);
    (pair, kept)
}

#[tokio::test]
async fn a_hub_without_records_does_not_wait_for_the_lease_of_one_that_is_gone() {
    let (pair, _kept) = left_alone().await;
    let hub = pair.hub(1).await;
    until("listed", hub.reader(), |reader| reader.as_of().is_some()).await;
    assert_eq!(pair.state(1).await, "holder");
    hub.stop().await;
}

#[tokio::test]
async fn a_hub_with_records_waits_for_the_lease_of_one_that_is_gone() {
    let (pair, _kept) = left_alone().await;
    let hub = pair.hub(0).await;
    pair.until_state(0, "follower").await;
    assert_eq!(pair.holder(), "gone");
    hub.stop().await;
}
