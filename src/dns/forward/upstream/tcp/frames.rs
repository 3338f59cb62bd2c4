//! Questions and answers on a TCP or TLS connection, each behind its length (RFC 7766).

use std::{collections::HashMap, io, net::SocketAddr, time::Duration};

use bytes::BytesMut;
use rand::RngExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, oneshot},
};

use super::{Answer, HANDSHAKE_MAX, PIPELINE_MAX};
use crate::dns::forward::{
    observe::{Metrics, Mismatch},
    upstream::message::{Query, Reply},
};

/// Messages that answer nothing before a connection is closed.
const NEAR_MISSES_MAX: u32 = 16;

/// The way of questions onto a connection.
#[derive(Debug)]
pub struct Requests(mpsc::Sender<Request>);

#[derive(Debug)]
struct Request {
    query: Query,
    reply: oneshot::Sender<Answer>,
}

/// Begins to send questions over `stream`, until it ends or has been idle for `idle_max`.
pub fn begin<S>(stream: S, upstream: SocketAddr, idle_max: Duration, metrics: Metrics) -> Requests
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (requests, inbox) = mpsc::channel(PIPELINE_MAX);
    tokio::spawn(drive(stream, upstream, inbox, idle_max, metrics));
    Requests(requests)
}

impl Requests {
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Asks, and waits without end.
    ///
    /// # Errors
    /// If the connection is closed before the answer.
    pub async fn ask(&self, query: &Query) -> io::Result<Answer> {
        let (reply, answer) = oneshot::channel();
        let sent = self.0.send(Request { query: query.clone(), reply }).await;
        let answer = if sent.is_ok() { answer.await.ok() } else { None };
        answer.ok_or_else(|| io::Error::new(io::ErrorKind::ConnectionAborted, "connection closed before the answer"))
    }
}

/// Sends what arrives in `inbox` and hands answers to their askers, until the connection ends, has been idle for
/// `idle_max`, or nobody can ask any more and nobody waits.
async fn drive<S>(
    stream: S,
    upstream: SocketAddr,
    mut inbox: mpsc::Receiver<Request>,
    idle_max: Duration,
    metrics: Metrics,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut pending: HashMap<u16, Request> = HashMap::new();
    let mut buffer = BytesMut::new();
    let mut near_misses = 0;
    let mut open = true;
    loop {
        pending.retain(|_, request| !request.reply.is_closed());
        if !open && pending.is_empty() {
            break;
        }
        let idle = tokio::time::sleep(idle_max);
        tokio::select! {
            request = inbox.recv(), if open => match request {
                None => open = false,
                Some(mut request) => {
                    let id = free_id(&pending);
                    request.query.set_id(id);
                    let frame = frame(request.query.as_bytes());
                    pending.insert(id, request);
                    match tokio::time::timeout(HANDSHAKE_MAX, writer.write_all(&frame)).await {
                        Ok(Ok(())) if writer.flush().await.is_ok() => {}
                        _ => break,
                    }
                }
            },
            read = reader.read_buf(&mut buffer) => {
                if !matches!(read, Ok(1..)) {
                    break;
                }
                while let Some(message) = take_frame(&mut buffer) {
                    match deliver(&mut pending, &message) {
                        Ok(()) => near_misses = 0,
                        Err(mismatch) => {
                            metrics.mismatch(mismatch, &upstream);
                            near_misses += 1;
                        }
                    }
                }
                if near_misses >= NEAR_MISSES_MAX {
                    break;
                }
            }
            () = idle => break,
        }
    }
    // No query may queue behind a dead connection: closing first makes `is_closed` true for the pool.
    inbox.close();
}

/// Gives `message` to the question that it answers.
fn deliver(pending: &mut HashMap<u16, Request>, message: &[u8]) -> Result<(), Mismatch> {
    let id = message.first_chunk::<2>().map(|id| u16::from_be_bytes(*id)).ok_or(Mismatch::Short)?;
    let request = pending.get(&id).ok_or(Mismatch::Id)?;
    // A stream is not guessed at from outside, so case is no evidence here.
    let reply = match request.query.check(message, false)? {
        // TC over a stream is a server's mistake; there is nothing larger to go to.
        Reply::Truncated(_) => return Err(Mismatch::Garbage),
        reply @ Reply::Whole(_) => reply,
    };
    if let Some(request) = pending.remove(&id) {
        let same_case = request.query.same_case(message);
        // The asker may have given up this very moment.
        let _ = request.reply.send(Answer { reply, same_case });
    }
    Ok(())
}

fn free_id(pending: &HashMap<u16, Request>) -> u16 {
    let mut random = rand::rng();
    loop {
        // At most PIPELINE_MAX of 65,536 are taken.
        let id = random.random();
        if !pending.contains_key(&id) {
            return id;
        }
    }
}

/// `message` behind its length, in one write (RFC 7766, 8).
fn frame(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(message.len() + 2);
    // A query is at most 384 bytes, padding included.
    frame.extend_from_slice(&u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// The next whole message in `buffer`, which never grows beyond one message and one read.
fn take_frame(buffer: &mut BytesMut) -> Option<BytesMut> {
    let length = usize::from(u16::from_be_bytes(*buffer.first_chunk::<2>()?));
    if buffer.len() < 2 + length {
        return None;
    }
    let mut message = buffer.split_to(2 + length);
    Some(message.split_off(2))
}
