//! The least that any server on these sockets can cost: receive a batch, send it back.

use std::{net::SocketAddr, thread};

use holdfast::sys::{Batch, DatagramSocket};

/// Echoes for ever, with the bit set that makes a query a response.
pub fn run(address: SocketAddr, workers: usize) {
    let echo = move || {
        let socket = DatagramSocket::bind(address, true).unwrap();
        let mut batch = Batch::new();
        loop {
            let received = batch.receive(&socket, true).unwrap();
            for place in 0..received {
                let (query, reply) = batch.exchange(place);
                let length = query.len();
                reply[..length].copy_from_slice(query);
                reply[2] |= 0x80;
                batch.reply(place, length);
            }
            while batch.unsent() > 0 {
                batch.send(&socket).unwrap();
            }
        }
    };
    for _ in 1..workers {
        thread::spawn(echo);
    }
    echo();
}
