//! The OPT record of responses.

use super::{EdeCode, Rcode, UDP_BYTES_MAX};

/// The option code of cookies (RFC 7873, 4).
pub(super) const OPTION_COOKIE: u16 = 10;

/// The option code of extended errors (RFC 8914, 2).
const OPTION_EDE: u16 = 15;

/// Bytes of an OPT record without options.
pub(super) const OPT_BYTES: usize = 11;

/// Bytes of a COOKIE option in a response.
pub(super) const COOKIE_BYTES: usize = 4 + size_of::<Cookie>();

/// Data of a COOKIE option in a response: the client's cookie, and a server cookie of 16 bytes (RFC 9018, 4).
pub type Cookie = [u8; 24];

/// Bytes of an EDE option without text.
pub(super) const EDE_BYTES: usize = 6;

/// An extended error (RFC 8914): why a response is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ede<'a> {
    pub code: EdeCode,
    /// Text for people; short, left out where it does not fit.
    pub text: &'a str,
}

impl From<EdeCode> for Ede<'_> {
    fn from(code: EdeCode) -> Self {
        Self { code, text: "" }
    }
}

/// The OPT record of a response (RFC 6891, 6.1.2).
pub(super) struct Opt<'a> {
    pub rcode: Rcode,
    pub dnssec_ok: bool,
    pub cookie: Option<&'a Cookie>,
    pub ede: Option<Ede<'a>>,
}

impl Opt<'_> {
    /// Writes the record to the start of `buf`, which has room for all but the text of the EDE. Returns its length.
    #[inline]
    pub(super) fn write(&self, buf: &mut [u8]) -> usize {
        let [size_high, size_low] = u16::try_from(UDP_BYTES_MAX).unwrap_or_default().to_be_bytes();
        let extended = (self.rcode.0 >> 4).to_be_bytes()[1];
        let dnssec_ok = u8::from(self.dnssec_ok) << 7;
        let fixed = [0, 0, 41, size_high, size_low, extended, 0, dnssec_ok, 0, 0, 0];
        buf[..OPT_BYTES].copy_from_slice(&fixed);
        if self.cookie.is_none() && self.ede.is_none() {
            return OPT_BYTES;
        }
        self.write_options(buf)
    }

    fn write_options(&self, buf: &mut [u8]) -> usize {
        let mut len = OPT_BYTES;
        let mut option = |code: u16, parts: [&[u8]; 2]| {
            let value = parts[0].len() + parts[1].len();
            let Some(room) = buf.get_mut(len..len + 4 + value) else { return false };
            room[..2].copy_from_slice(&code.to_be_bytes());
            room[2..4].copy_from_slice(&u16::try_from(value).unwrap_or_default().to_be_bytes());
            room[4..4 + parts[0].len()].copy_from_slice(parts[0]);
            room[4 + parts[0].len()..].copy_from_slice(parts[1]);
            len += 4 + value;
            true
        };
        if let Some(cookie) = self.cookie {
            option(OPTION_COOKIE, [cookie, &[]]);
        }
        if let Some(Ede { code, text }) = self.ede {
            let code = code.0.to_be_bytes();
            let _fits = option(OPTION_EDE, [&code, text.as_bytes()]) || option(OPTION_EDE, [&code, &[]]);
        }
        let options = u16::try_from(len - OPT_BYTES).unwrap_or_default();
        buf[OPT_BYTES - 2..OPT_BYTES].copy_from_slice(&options.to_be_bytes());
        len
    }
}
