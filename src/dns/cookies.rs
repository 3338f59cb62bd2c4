//! DNS cookies (RFC 7873) that servers of other makes understand (RFC 9018), for clients that want to tell our answers from
//! forged ones.
//!
//! Owns the form of cookies and the secret behind them. Never refuses a question without a good cookie.

mod secret;
mod siphash;

use std::{fmt, net::IpAddr, path::Path};

use self::siphash::siphash24;
use crate::{
    sys::UnixMillis,
    wire::{Cookie, NoQuery, Query, Rcode},
};

/// Bytes of a client's part (RFC 7873, 4).
const CLIENT_BYTES: usize = 8;
/// Bytes of a server's part, ours or another's (RFC 7873, 4).
const SERVER_BYTES: std::ops::RangeInclusive<usize> = 8..=32;
/// The first byte of a server's part made as RFC 9018 says.
const VERSION: u8 = 1;
/// Seconds a server's part is good for, and that its time may be ahead of ours (RFC 9018, 4.3).
const GOOD_SECONDS: i32 = 3_600;
const AHEAD_SECONDS: i32 = 300;

/// Makes and checks cookies. Copies share the secret.
#[derive(Clone, Copy)]
pub struct Cookies {
    key: [u64; 2],
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cookies").finish_non_exhaustive()
    }
}

impl Cookies {
    pub fn new(secret: [u8; 16]) -> Self {
        let [low, high] = secret.as_chunks::<8>().0 else { unreachable!("16 bytes are twice 8") };
        Self { key: [u64::from_le_bytes(*low), u64::from_le_bytes(*high)] }
    }

    /// With the secret kept in `folder`, made if there is none, so that cookies stay good over a restart and while another
    /// process takes over. Without a folder, or with one that does not work, the secret ends with this process.
    pub fn open(folder: Option<&Path>) -> Self {
        Self::new(secret::open(folder))
    }

    /// The COOKIE option of the answer to a query whose option is `asked`: always with a new server cookie.
    /// `None` if `asked` has a length that no cookie has (RFC 7873, 5.2.2).
    pub fn answer(&self, asked: &[u8], client: IpAddr, now: UnixMillis) -> Option<Cookie> {
        let (theirs, server) = asked.split_first_chunk::<CLIENT_BYTES>()?;
        if !server.is_empty() && !SERVER_BYTES.contains(&server.len()) {
            return None;
        }
        let [t0, t1, t2, t3] = seconds(now).to_be_bytes();
        let [c0, c1, c2, c3, c4, c5, c6, c7] = *theirs;
        let head = [c0, c1, c2, c3, c4, c5, c6, c7, VERSION, 0, 0, 0, t0, t1, t2, t3];
        let mut cookie = [0; 24];
        cookie[..16].copy_from_slice(&head);
        cookie[16..].copy_from_slice(&self.hash(&head, client));
        Some(cookie)
    }

    /// Whether the server's part of `asked` is ours, made for this client and not too long ago.
    pub fn is_good(&self, asked: &[u8], client: IpAddr, now: UnixMillis) -> bool {
        let Some((head, hash)) = asked.split_first_chunk::<16>() else { return false };
        let [.., version, _, _, _, t0, t1, t2, t3] = *head;
        // Serial arithmetic (RFC 1982): the seconds of 32 bits begin anew in 2106.
        let age = seconds(now).wrapping_sub(u32::from_be_bytes([t0, t1, t2, t3])).cast_signed();
        version == VERSION && (-AHEAD_SECONDS..=GOOD_SECONDS).contains(&age) && hash == self.hash(head, client)
    }

    /// [`Query::read`], and what a query's cookie makes of it: an option for the answer, FORMERR, or for one that asks for
    /// nothing but a cookie, that (RFC 7873, 5.4).
    // Out of line: the code for queries without cookies stays as it is.
    #[inline(never)]
    pub(super) fn read<'m>(
        &self,
        message: &'m [u8],
        query: &mut Query<'m>,
        client: IpAddr,
        now: UnixMillis,
    ) -> Result<(), NoQuery<'m>> {
        let mut read = query.read(message);
        match &mut read {
            Ok(()) => {
                let Some(asked) = query.edns.and_then(|edns| edns.cookie) else { return Ok(()) };
                query.cookie = self.answer(asked, client, now);
                if query.cookie.is_none() {
                    return Err(NoQuery::Reject(query.reject(Rcode::FORMERR, None)));
                }
            }
            Err(NoQuery::Reject(reject)) => {
                let Some(asked) = reject.asked_cookie() else { return read };
                reject.cookie = self.answer(asked, client, now);
                if reject.cookie.is_some() && reject.is_for_cookie_alone() {
                    let good = asked.len() == CLIENT_BYTES || self.is_good(asked, client, now);
                    reject.rcode = if good { Rcode::NOERROR } else { Rcode::BADCOOKIE };
                }
            }
            Err(NoQuery::Drop(_)) => {}
        }
        read
    }

    /// The last eight bytes of a cookie that begins with `head` (RFC 9018, 4.4).
    fn hash(&self, head: &[u8; 16], client: IpAddr) -> [u8; 8] {
        let mut input = [0; 32];
        input[..16].copy_from_slice(head);
        // A socket for both families has IPv4 clients too.
        let len = match client.to_canonical() {
            IpAddr::V4(ip) => {
                input[16..20].copy_from_slice(&ip.octets());
                20
            }
            IpAddr::V6(ip) => {
                input[16..].copy_from_slice(&ip.octets());
                32
            }
        };
        siphash24(self.key, &input[..len]).to_le_bytes()
    }
}

/// The time in a cookie.
fn seconds(now: UnixMillis) -> u32 {
    u32::try_from((now.0 / 1_000) & u64::from(u32::MAX)).expect("masked to 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    }

    fn cookies(secret: &str) -> Cookies {
        Cookies::new(bytes(secret).try_into().unwrap())
    }

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis(seconds * 1_000 + 999)
    }

    const ONE: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";
    const OLD: &str = "dd3bdf9344b678b185a6f5cb60fca715";
    const NEW: &str = "445536bcd2513298075a5d379663c962";
    const SIX: &str = "2001:db8:220:1:59de:d0f4:8769:82b8";

    /// RFC 9018, appendix A.
    #[test]
    fn the_examples_of_the_rfc_come_out() {
        for (secret, client, asked, now, answer) in [
            (ONE, "198.51.100.100", "2464c4abcf10c957", 1_559_731_985, "010000005cf79f111f8130c3eee29480"),
            (
                ONE,
                "198.51.100.100",
                "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
                1_559_734_385,
                "010000005cf7a871d4a564a1442aca77",
            ),
            (
                ONE,
                "203.0.113.203",
                "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5",
                1_559_734_700,
                "010000005cf7a9acf73a7810aca2381e",
            ),
            (
                NEW,
                SIX,
                "22681ab97d52c298010000005cf7c57926556bd0934c72f8",
                1_559_741_961,
                "010000005cf7c609a6bb79d16625507a",
            ),
        ] {
            let cookie = cookies(secret).answer(&bytes(asked), client.parse().unwrap(), at(now)).unwrap();
            assert_eq!(cookie[..8], bytes(asked)[..8], "{asked}");
            assert_eq!(cookie[8..], bytes(answer), "{asked}");
        }
    }

    #[test]
    fn a_cookie_is_good_for_its_client_its_secret_and_an_hour() {
        const FIRST: &str = "2464c4abcf10c957010000005cf79f111f8130c3eee29480";
        const RESERVED: &str = "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5";
        const SIXTH: &str = "22681ab97d52c298010000005cf7c57926556bd0934c72f8";
        for (good, secret, client, cookie, now) in [
            (true, ONE, "198.51.100.100", FIRST, 1_559_731_985),
            (true, ONE, "::ffff:198.51.100.100", FIRST, 1_559_731_985),
            (true, ONE, "198.51.100.100", FIRST, 1_559_731_985 + 3_600),
            (false, ONE, "198.51.100.100", FIRST, 1_559_731_985 + 3_601),
            (true, ONE, "198.51.100.100", FIRST, 1_559_731_985 - 300),
            (false, ONE, "198.51.100.100", FIRST, 1_559_731_985 - 301),
            (false, ONE, "198.51.100.101", FIRST, 1_559_731_985),
            (false, OLD, "198.51.100.100", FIRST, 1_559_731_985),
            // The reserved bytes are hashed as they came.
            (true, ONE, "203.0.113.203", RESERVED, 1_559_727_985),
            (true, OLD, SIX, SIXTH, 1_559_741_817),
            (false, NEW, SIX, SIXTH, 1_559_741_817),
            (false, ONE, "198.51.100.100", &FIRST[..16], 1_559_731_985),
            (false, ONE, "198.51.100.100", &FIRST[..46], 1_559_731_985),
        ] {
            let found = cookies(secret).is_good(&bytes(cookie), client.parse().unwrap(), at(now));
            assert_eq!(found, good, "{cookie} of {client} at {now}");
        }
        let mut other_version = bytes(FIRST);
        other_version[8] = 2;
        assert!(!cookies(ONE).is_good(&other_version, "198.51.100.100".parse().unwrap(), at(1_559_731_985)));
    }

    #[test]
    fn only_lengths_that_a_cookie_can_have_are_answered() {
        for len in 0..64 {
            let answer = cookies(ONE).answer(&vec![7; len], [192, 0, 2, 1].into(), at(1));
            assert_eq!(answer.is_some(), len == 8 || (16..=40).contains(&len), "{len}");
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{:?}", cookies(ONE)), "Cookies { .. }");
    }
}
