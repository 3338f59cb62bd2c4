//! Settings of the cache.

use std::time::Duration;

use super::entry::Kind;

/// The cache as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Hard limit of its memory, overhead included. Default 64 MiB; 0 turns the cache off, and with it stale answers.
    pub max_bytes: u64,
    /// How often it is written to disk. Default 60 s.
    pub save_interval: Duration,
    /// Workers that may keep what they are asked for most at hand, within the limit. Default those of one listener.
    pub worker_caches: usize,
}

impl Default for Config {
    fn default() -> Self {
        let worker_caches = crate::dns::Config::default().workers;
        Self { max_bytes: 64 << 20, save_interval: Duration::from_secs(60), worker_caches }
    }
}

/// How long a hold lasts unless the configuration says otherwise.
pub const HOLD: Duration = Duration::from_secs(3_600);

/// When a denial (NXDOMAIN or NODATA) of a name that was good is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Denials {
    /// After [`HOLD`] for a name that was good for 10 min and asked in the last day; else as [`Confirm`](Self::Confirm).
    #[default]
    Auto,
    /// At once.
    Believe,
    /// When a second upstream, or the same one 2 s later, says so too.
    Confirm,
    /// After so long, for every name.
    Hold(Duration),
}

/// How long answers of one zone are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, named as in the configuration")]
pub struct Lifetimes {
    /// TTLs above are lowered to this. Default 1 h.
    pub max_ttl: Duration,
    /// TTLs below are raised to this. Default 0.
    pub min_ttl: Duration,
    /// TTLs of negative answers above are lowered to this. Default 30 s.
    pub negative_ttl: Duration,
    /// TTLs of negative answers below are raised to this. Default 0.
    pub min_negative_ttl: Duration,
    /// Keep answers at all. Without it TTLs pass as upstreams give them. Default on.
    pub keep: bool,
    /// Keep answers with records. Default on.
    pub keep_positive: bool,
    /// Keep answers without. Default on.
    pub keep_negative: bool,
    /// TTLs of fresh answers read as they came, and are not counted down. Default off.
    pub keep_ttl: bool,
    /// How long a failure is remembered; 0 for not at all. Default 1 s, and up to 5 s while it goes on.
    pub failure_ttl: Option<Duration>,
    /// Give answers past their TTL when upstreams fail (RFC 8767). Default on.
    pub serve_stale: bool,
    /// How old an answer may get while its upstreams work but do not renew it. While all of them fail there is no end.
    /// Default 24 h.
    pub stale_max: Duration,
    /// How long a client waits for a refresh before it gets the stale answer; 0 gives the stale answer at once and
    /// refreshes behind it. Default 1.8 s (RFC 8767, 5).
    pub client_timeout: Duration,
    /// TTL of stale answers. Default 30 s (RFC 8767, 4).
    pub stale_ttl: Duration,
    /// The effect of a denial of a name that was good. Default `auto`.
    pub denials: Denials,
    /// Answer NXDOMAIN for every name below one that does not exist (RFC 8020). Default off.
    pub nxdomain_cut: bool,
    /// Refresh names asked often in the last tenth of their TTL. Default on.
    pub prefetch: bool,
}

impl Lifetimes {
    /// Whether answers of this kind are stored, and given without asking again.
    pub fn stores(&self, kind: Kind) -> bool {
        self.keep
            && match kind {
                Kind::Data => self.keep_positive,
                Kind::NoData | Kind::NxDomain => self.keep_negative,
            }
    }

    /// `ttl` of an answer of this kind, in seconds, within the bounds for kept ones.
    pub fn capped(&self, kind: Kind, ttl: u32) -> u32 {
        let (low, high) = match kind {
            Kind::Data => (seconds(self.min_ttl), seconds(self.max_ttl)),
            Kind::NoData | Kind::NxDomain => (seconds(self.min_negative_ttl), seconds(self.negative_ttl)),
        };
        ttl.max(low).min(high.max(low))
    }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            max_ttl: Duration::from_secs(3_600),
            min_ttl: Duration::ZERO,
            negative_ttl: Duration::from_secs(30),
            min_negative_ttl: Duration::ZERO,
            keep: true,
            keep_positive: true,
            keep_negative: true,
            keep_ttl: false,
            failure_ttl: None,
            serve_stale: true,
            stale_max: Duration::from_secs(24 * 3_600),
            client_timeout: Duration::from_millis(1_800),
            stale_ttl: Duration::from_secs(30),
            denials: Denials::Auto,
            nxdomain_cut: false,
            prefetch: true,
        }
    }
}
