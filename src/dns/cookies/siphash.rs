//! SipHash-2-4, the keyed hash that RFC 9018 makes cookies with. Pure.

/// The hash of `bytes` under `key`.
pub(super) fn siphash24(key: [u64; 2], bytes: &[u8]) -> u64 {
    // The constants spell "somepseudorandomlygeneratedbytes".
    let mut state = State([
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ]);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state.absorb(u64::from_le_bytes(*word));
    }
    // The last word ends with the length, modulo 256.
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = bytes.len().to_le_bytes()[0];
    state.absorb(u64::from_le_bytes(last));
    state.0[2] ^= 0xFF;
    for _ in 0..4 {
        state.round();
    }
    let State([a, b, c, d]) = state;
    a ^ b ^ c ^ d
}

struct State([u64; 4]);

impl State {
    fn absorb(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.round();
        self.0[0] ^= word;
    }

    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.0;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.0 = [a, b, c, d];
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use super::*;

    /// The standard library's is the oracle. It is deprecated as a hasher of maps, and a reading of the same paper.
    #[test]
    #[expect(deprecated, reason = "std has no other SipHash-2-4 with a key")]
    fn it_is_siphash_2_4() {
        let bytes: Vec<u8> = (0..=255).cycle().take(300).collect();
        for key in [[0, 0], [0x0706_0504_0302_0100, 0x0F0E_0D0C_0B0A_0908]] {
            for len in 0..bytes.len() {
                let mut oracle = std::hash::SipHasher::new_with_keys(key[0], key[1]);
                oracle.write(&bytes[..len]);
                assert_eq!(siphash24(key, &bytes[..len]), oracle.finish(), "{len} bytes");
            }
        }
    }
}
