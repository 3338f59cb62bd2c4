//! Any bytes as what a client of a hub says on a call: no panic, and the call is answered.

#![no_main]

use bytes::Bytes;
use holdfast::{
    proto::{FOLLOW_PATH, STATE_PATH},
    store,
    stream::{Beside, Config, Metrics, Parts, Server, Surroundings},
    sys::{Clock, ManualClock},
};
use holdfast_fuzz::{oracle::Choices, world::NOW};
use libfuzzer_sys::fuzz_target;
use tokio::{runtime::Builder, sync::watch};

async fn call(path: &str, body: Bytes) {
    let (_writer, reader) = store::open();
    let (_above, surroundings) = watch::channel(Surroundings::default());
    let metrics = Metrics::register(&prometheus::Registry::new()).expect("a fresh registry");
    let clock = Clock::Manual(ManualClock::new(NOW));
    let parts = Parts { reader, clock, metrics, tls: None, surroundings, beside: Beside::default() };
    let server = Server::new(Config::default(), parts);
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let pumping = tokio::spawn({
        let server = server.clone();
        async move { server.pump().await }
    });
    let serving = tokio::spawn(async move { server.connection(ours).await });
    let (mut send, connection) = h2::client::handshake(theirs).await.expect("it speaks HTTP/2");
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("http://hub{path}")).body(()).expect("a request");
    let (response, mut stream) = send.send_request(request, false).expect("it takes a call");
    let _ = stream.send_data(body, true);
    let mut response = response.await.expect("the call is answered");
    assert!(response.status().is_success());
    let _ = tokio::time::timeout(std::time::Duration::from_secs(6), response.body_mut().data()).await;
    for task in [pumping, serving] {
        task.abort();
    }
    connection.abort();
}

fuzz_target!(|bytes: &[u8]| {
    let choices = &mut Choices::new(bytes);
    let path = if choices.one_in(4) { STATE_PATH } else { FOLLOW_PATH };
    let framed = !choices.one_in(8);
    let length = choices.u16() % 8_192;
    let mut body = choices.bytes(length.into()).to_vec();
    if framed {
        // Not packed, and as long as it is.
        let length = u32::try_from(body.len()).expect("small").to_be_bytes();
        body.splice(..0, [0, length[0], length[1], length[2], length[3]]);
    }
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(call(path, body.into()));
});
