//! TCP clients that want nothing: a thousand that are connected and silent, and some that send a query byte by byte.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

pub const IDLE: usize = 1_000;
/// Of one address; holdfast lets in 100.
const PER_SOURCE: usize = 50;
/// Between the bytes of one that is slow.
const PACE: Duration = Duration::from_millis(50);

/// A crowd, which leaves when it is dropped.
pub struct Crowd {
    _idle: Vec<TcpStream>,
    leave: Arc<AtomicBool>,
    slow: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// [`IDLE`] clients less `slow` ones that are silent, and those.
    pub fn gather(server: SocketAddr, slow: usize) -> Self {
        let idle = (0..IDLE - slow).map(|nth| connect(server, nth / PER_SOURCE)).collect();
        let leave = Arc::new(AtomicBool::new(false));
        let drip = |nth: usize| {
            let leave = Arc::clone(&leave);
            thread::spawn(move || {
                while !leave.load(Ordering::Relaxed) {
                    let mut stream = connect(server, 200 + nth);
                    // A query of 300 bytes is announced, and never comes. The server closes, and it begins anew.
                    let query = [&[1, 44][..], &[0; 300]].concat();
                    for byte in query {
                        if leave.load(Ordering::Relaxed) || stream.write_all(&[byte]).is_err() {
                            break;
                        }
                        thread::sleep(PACE);
                    }
                }
            })
        };
        let slow = (0..slow).map(drip).collect();
        Self { _idle: idle, leave, slow }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.leave.store(true, Ordering::Relaxed);
        for slow in self.slow.drain(..) {
            slow.join().unwrap();
        }
    }
}

/// A connection from the `host`th address of 127.0.1.0/24.
fn connect(server: SocketAddr, host: usize) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 1, u8::try_from(host + 1).unwrap()], 0)).into()).unwrap();
    socket.connect(&server.into()).unwrap();
    socket.into()
}
