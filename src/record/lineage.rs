//! The lineage of records: which epoch began from which version of another.

use super::Version;

/// The epochs of a history, each with the version it began from. From it a follower knows whether a judge had its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage(Vec<Beginning>);

/// The beginning of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The first version of the epoch.
    pub first: Version,
    /// The version of the records it began from; of no cluster if there were none.
    pub from: Version,
}

impl Lineage {
    /// Maximum epochs kept. A follower away for more is judged as one of another history.
    const EPOCHS_MAX: usize = 128;

    pub fn beginnings(&self) -> impl Iterator<Item = &Beginning> {
        self.0.iter()
    }

    /// Appends an epoch; the oldest is forgotten at the bound.
    pub fn begin(&mut self, first: Version, from: Version) {
        if from.cluster.is_empty() {
            self.0.clear();
        }
        self.0.retain(|beginning| beginning.first != first);
        self.0.push(Beginning { first, from });
        if self.0.len() > Self::EPOCHS_MAX {
            self.0.remove(0);
        }
    }

    /// True if the judge of `now` had the records of `held`, or of a later version, when it judged.
    pub fn knew(&self, now: &Version, held: &Version) -> bool {
        if held.cluster.is_empty() {
            return true;
        }
        let mut at = now;
        for _ in 0..=self.0.len() {
            if at.cluster == held.cluster && at.epoch == held.epoch {
                return at.rev >= held.rev;
            }
            let of =
                |beginning: &&Beginning| beginning.first.cluster == at.cluster && beginning.first.epoch == at.epoch;
            match self.0.iter().rfind(of) {
                Some(beginning) => at = &beginning.from,
                None => return false,
            }
        }
        false
    }
}

impl FromIterator<Beginning> for Lineage {
    fn from_iter<I: IntoIterator<Item = Beginning>>(beginnings: I) -> Self {
        Self(beginnings.into_iter().take(Self::EPOCHS_MAX).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(epoch: u64, rev: u64) -> Version {
        Version { cluster: "uid".into(), epoch, rev }
    }

    #[test]
    fn a_judge_knew_the_versions_its_epochs_lead_past() {
        let mut lineage = Lineage::default();
        lineage.begin(version(1, 1), Version::default());
        lineage.begin(version(5, 1), version(1, 50));
        lineage.begin(version(9, 1), version(5, 7));
        let now = version(9, 3);
        let cases = [
            (Version::default(), true),
            (version(9, 3), true),
            (version(9, 4), false),
            (version(5, 7), true),
            (version(5, 8), false),
            (version(1, 50), true),
            (version(1, 51), false),
            (version(3, 1), false),
            (Version { cluster: "other".into(), ..version(1, 1) }, false),
        ];
        for (held, expected) in cases {
            assert_eq!(lineage.knew(&now, &held), expected, "{held} of {:?}", held.cluster);
        }
        lineage.begin(version(20, 1), Version::default());
        assert!(!lineage.knew(&version(20, 4), &version(9, 3)), "an epoch that began with nothing knows nothing");
    }

    #[test]
    fn the_lineage_is_bounded() {
        let mut lineage = Lineage::default();
        for epoch in 1..1_000 {
            lineage.begin(version(epoch + 1, 1), version(epoch, 9));
        }
        assert_eq!(lineage.beginnings().count(), Lineage::EPOCHS_MAX);
        assert!(
            lineage.knew(&version(1_000, 1), &version(990, 9)) && !lineage.knew(&version(1_000, 1), &version(3, 9))
        );
    }
}
