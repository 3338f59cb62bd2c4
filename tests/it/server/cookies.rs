//! Cookies over sockets: RFC 7873 with server cookies of RFC 9018.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _};
use hickory_proto::{
    op::Message,
    rr::rdata::opt::{EdnsCode, EdnsOption},
};
use holdfast::{
    dns::{
        Config, Cookies, ForwardRequest, Metrics, Resolve, Resolved, Running, ServedFrom, Transport, cache::WorkerCache,
    },
    sys::{Clock, ManualClock, UnixMillis},
    wire::{Cookie, Query},
};

use crate::support::dns::{ask_tcp, ask_udp, bind, context, external_name, headless, records};

const NOW: UnixMillis = UnixMillis(1_733_941_800_000);
const SECRET: [u8; 16] = *b"0123456789abcdef";
const CLIENT: &[u8] = b"\x24\x64\xc4\xab\xcf\x10\xc9\x57";
const WEB: &[u8] = b"\x03web\x04prod\x03svc\x07cluster\x05local\0";
const MANY: &[u8] = b"\x04many\x04prod\x03svc\x07cluster\x05local\0";
const EDGE: &[u8] = b"\x04edge\x04prod\x03svc\x07cluster\x05local\0";
const AWAY: &[u8] = b"\x04away\x04prod\x03svc\x07cluster\x05local\0";
const OUTSIDE: &[u8] = b"\x03www\x07example\0";
const CACHED: &[u8] = b"\x06cached\x07example\0";

/// Answers forwards as the forwarder does in what matters here: with the cookie it is handed.
struct Upstream;

fn reject(query: &Query<'_>, out: &mut [u8]) -> usize {
    holdfast::wire::write_reject(&query.reject(holdfast::wire::Rcode::NOERROR, None), out)
}

impl Resolve for Upstream {
    fn resolve(&self, request: ForwardRequest) -> BoxFuture<'static, Resolved> {
        let mut message = vec![0; 512];
        let holdfast::wire::Parsed::Query(query) = holdfast::wire::parse(&request.query) else { panic!("a query") };
        let length = reject(&Query { cookie: request.cookie, ..query }, &mut message);
        message.truncate(length);
        let message = if request.written.is_empty() { message } else { request.written };
        async { Resolved { message, from: ServedFrom::Upstream } }.boxed()
    }

    fn cached(
        &self,
        query: &Query<'_>,
        _: Transport,
        _: UnixMillis,
        _: &mut WorkerCache,
        out: &mut [u8],
    ) -> Option<(usize, ServedFrom)> {
        query.name.to_string().starts_with("cached").then(|| (reject(query, out), ServedFrom::Cache))
    }
}

/// A server whose `edge` fills a message of 1,232 bytes with an OPT record to the last record.
fn start(cookies: Option<Cookies>) -> (std::net::SocketAddr, Running) {
    let bound = bind(&["127.0.0.1:0"], Config { workers: 1, ..Config::default() });
    let address = bound.addresses()[0];
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    let records = [records(), vec![external_name("prod/away", "www.example"), headless("prod/edge", 72)]].concat();
    let context = Arc::unwrap_or_clone(context(records)).with_cookies(cookies);
    let clock = Clock::Manual(ManualClock::new(NOW));
    (address, bound.serve(Arc::new(context), Arc::new(Upstream), clock, metrics))
}

/// A query with this COOKIE option, if any, and no question if the name is empty.
fn query(name: &[u8], cookie: Option<&[u8]>) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, u8::from(!name.is_empty()), 0, 0, 0, 0, 0, 1];
    message.extend_from_slice(name);
    if !name.is_empty() {
        message.extend_from_slice(&[0, 1, 0, 1]);
    }
    let length = |bytes: usize| u16::try_from(bytes).unwrap().to_be_bytes();
    message.extend_from_slice(&[0, 0, 41, 4, 0xD0, 0, 0, 0, 0]);
    message.extend_from_slice(&length(cookie.map_or(0, |cookie| 4 + cookie.len())));
    if let Some(cookie) = cookie {
        message.extend_from_slice(&[0, 10]);
        message.extend_from_slice(&length(cookie.len()));
        message.extend_from_slice(cookie);
    }
    message
}

fn cookie(message: &Message) -> Option<Vec<u8>> {
    let options = message.edns.as_ref()?.options();
    match options.get(EdnsCode::Cookie)? {
        EdnsOption::Unknown(_, bytes) => Some(bytes.clone()),
        other => Some(Vec::<u8>::try_from(other).unwrap()),
    }
}

fn code(message: &Message) -> u16 {
    message.metadata.response_code.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_has_a_new_cookie_whatever_came() {
    let cookies = Cookies::new(SECRET);
    let (server, _running) = start(Some(cookies));
    let local = [127, 0, 0, 1].into();
    let good: Cookie = cookies.answer(CLIENT, local, NOW).unwrap();
    let elsewhere = cookies.answer(CLIENT, [192, 0, 2, 1].into(), NOW).unwrap();
    let long = [CLIENT, &[7; 32]].concat();
    let status = |name| {
        let mut query = query(name, Some(CLIENT));
        query[2] = 2 << 3;
        query
    };
    for ask in [ask_udp, ask_tcp] {
        for asked in [CLIENT, &good, &elsewhere, &long] {
            for (name, answers) in [(WEB, 1), (EDGE, 72), (MANY, 300), (OUTSIDE, 0), (CACHED, 0), (AWAY, 1)] {
                let reply = ask(server, &query(name, Some(asked)));
                assert_eq!((code(&reply), cookie(&reply).as_deref()), (0, Some(&good[..])), "{}", name.escape_ascii());
                // What would fit without the cookie is to be had over TCP.
                let given = reply.answers.len();
                let right = if reply.metadata.truncation { (1..answers).contains(&given) } else { given == answers };
                assert!(right, "{given} of {answers}");
            }
            // Without a question a cookie is all that is asked for, and then a bad one is told.
            let reply = ask(server, &query(b"", Some(asked)));
            let bad = asked == elsewhere || asked == long;
            assert_eq!((code(&reply), cookie(&reply).as_deref()), (if bad { 23 } else { 0 }, Some(&good[..])));
        }
        let reply = ask(server, &status(WEB));
        assert_eq!((code(&reply), cookie(&reply).as_deref()), (4, Some(&good[..])), "refusals have one too");
        for length in [0, 7, 9, 15, 41] {
            for (name, what) in [(WEB, "a question"), (&b""[..], "none")] {
                let reply = ask(server, &query(name, Some(&vec![1; length])));
                assert_eq!((code(&reply), cookie(&reply)), (1, None), "{length} bytes with {what}");
            }
        }
        let reply = ask(server, &query(WEB, None));
        assert_eq!((code(&reply), reply.answers.len(), cookie(&reply)), (0, 1, None), "who sends none gets none");
        assert_eq!(code(&ask(server, &query(b"", None))), 1, "no question and no cookie");
    }
    let edge = ask_udp(server, &query(EDGE, None));
    assert_eq!((edge.answers.len(), edge.metadata.truncation), (72, false), "it fits without a cookie");
    assert!(ask_udp(server, &query(EDGE, Some(CLIENT))).metadata.truncation, "and not with one");
    assert_eq!(ask_tcp(server, &query(MANY, Some(CLIENT))).answers.len(), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_cookies_are_off_they_are_ignored() {
    let (server, _running) = start(None);
    for ask in [ask_udp, ask_tcp] {
        for asked in [CLIENT, &[1; 7][..], &[]] {
            let reply = ask(server, &query(WEB, Some(asked)));
            assert_eq!((code(&reply), reply.answers.len(), cookie(&reply)), (0, 1, None), "{} bytes", asked.len());
        }
        assert_eq!(code(&ask(server, &query(b"", Some(CLIENT)))), 1);
    }
}
