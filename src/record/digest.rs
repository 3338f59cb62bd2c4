//! Digests that prove two sets of records equal.
//!
//! Not a signature: digests detect bugs, lost messages and torn files, not forged records (the
//! stream's peers are authenticated by TLS instead). Sums of 128-bit hashes can be kept up to date by one addition and
//! one subtraction a change, whatever the size of the set.

use std::fmt;

use xxhash_rust::xxh3::xxh3_128;

/// Digest of one record, or the sum of the digests of a set of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub u128);

impl Digest {
    /// The digest of one record's canonical bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxh3_128(bytes))
    }

    /// The set with this record added.
    #[must_use]
    pub fn plus(self, record: Self) -> Self {
        Self(self.0.wrapping_add(record.0))
    }

    /// The set with this record taken out.
    #[must_use]
    pub fn minus(self, record: Self) -> Self {
        Self(self.0.wrapping_sub(record.0))
    }

    /// Its bytes, most significant first.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The digest these bytes were made from.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The digest over the digests of all buckets: equal roots mean equal records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RootDigest(pub u128);

impl RootDigest {
    /// The root over the buckets' digests, in the order of the buckets.
    pub fn over(buckets: impl IntoIterator<Item = Digest>) -> Self {
        let bytes: Vec<u8> = buckets.into_iter().flat_map(Digest::to_bytes).collect();
        Self(xxh3_128(&bytes))
    }
}

impl fmt::Display for RootDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
