//! The rows of `status` about streams: the hub followed, and those who follow.

use std::fmt::Write as _;

use super::{count, count_u64};
use crate::{
    admin::view::{Time, words},
    report::{ElectionStatus, FollowState, FollowStatus, Standing, StreamStatus},
    sys::UnixMillis,
};

/// Whom a process follows, and how that goes.
pub(super) fn follows(status: &FollowStatus, now: Time) -> String {
    let mut text = match status.state {
        FollowState::Live => format!("{}: live", status.address),
        FollowState::Disk => "no hub was tried yet".into(),
        FollowState::Stale => format!("NO HUB, the last one tried was {}", status.address),
        FollowState::Connecting => format!("{}: connecting", status.address),
        FollowState::Delta | FollowState::Repair | FollowState::Snapshot => format!("{}: catching up", status.address),
    };
    if let Some(mode) = &status.resumed {
        let _ = write!(text, ", by {mode}");
    }
    if !status.path.is_empty() {
        let _ = write!(text, "; path {}", status.path.join(" < "));
    }
    if let Some(at) = status.repaired_at {
        let _ = write!(text, "; repaired {} ago", words(at.age(now.0)));
    }
    if status.mismatches > 0 {
        let _ = write!(text, "; {}", count_u64(status.mismatches, "digest mismatch"));
    }
    let others = status.hubs.iter().filter(|hub| **hub != status.address).count();
    let _ = write!(text, "; knows {} more", count(others, "hub"));
    text
}

/// How the election among hubs stands, and how well that is known.
pub(super) fn lease(status: &ElectionStatus, now: Time) -> String {
    let ElectionStatus { standing, renewed, failing, .. } = status;
    let ago = |at: UnixMillis| words(at.age(now.0));
    let mut text = match standing {
        Standing::Unknown => "NOT KNOWN: the apiserver was not reached since the start".into(),
        Standing::Holder { epoch } => format!("held: this hub watches the apiserver, in epoch {epoch} or later"),
        Standing::Follower { leader, address } if address.is_empty() => {
            format!("held by {leader}, which does not say where it is reached")
        }
        Standing::Follower { leader, address } => format!("held by {leader}, reached at {address}"),
        Standing::Namesake { name, address, renews } => namesake(name, address, *renews),
    };
    let _ = match (standing, failing, renewed) {
        (Standing::Holder { .. }, None, Some(at)) => write!(text, "; renewed {} ago", ago(*at)),
        (Standing::Holder { .. }, Some(failing), Some(at)) => {
            write!(text, "; NOT RENEWED for {} ({})", ago(*at), failing.reason)
        }
        (_, Some(failing), _) => write!(text, "; NOT LOOKED AT for {} ({})", ago(failing.since), failing.reason),
        (_, None, _) => Ok(()),
    };
    text
}

fn namesake(name: &str, address: &str, renews: bool) -> String {
    let at = if address.is_empty() { "it does not say where".to_owned() } else { format!("at {address}") };
    if renews {
        format!("NOT WATCHING: another hub is called {name} too, {at}: give each its own --name")
    } else {
        format!(
            "held by this hub's own name, {name}, {at}: in an earlier life, or by another hub; taken if nobody renews it"
        )
    }
}

pub(super) fn serves(status: &StreamStatus) -> String {
    let mut text = format!("{}, {}", status.name, count_u64(status.subscribers, "follower"));
    if !status.advertise.is_empty() {
        let _ = write!(text, "; reached at {}", status.advertise.join(", "));
    }
    let modes: Vec<String> =
        status.resumed.iter().filter(|(_, count)| **count > 0).map(|(mode, count)| format!("{count} {mode}")).collect();
    if !modes.is_empty() {
        let _ = write!(text, "; brought up to date: {}", modes.join(", "));
    }
    let refused: u64 = status.refused.values().sum();
    if refused > 0 {
        let _ = write!(text, "; {refused} REFUSED");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_that_cannot_renew_says_since_when_and_why() {
        let status = |json: serde_json::Value| serde_json::from_value::<ElectionStatus>(json).unwrap();
        let now = Time(UnixMillis(200_000));
        let mut holder = status(serde_json::json!({ "state": "holder", "epoch": 7, "renewed": 197_000 }));
        let held = "held: this hub watches the apiserver, in epoch 7 or later";
        assert_eq!(lease(&holder, now), format!("{held}; renewed 3s ago"));
        holder.renewed = Some(UnixMillis(20_000));
        holder.failing = Some(crate::report::Failing { since: UnixMillis(24_000), reason: "connect: refused".into() });
        assert_eq!(lease(&holder, now), format!("{held}; NOT RENEWED for 3m (connect: refused)"));
        holder.renewed = None;
        assert_eq!(lease(&holder, now), format!("{held}; NOT LOOKED AT for 2m56s (connect: refused)"));
        let follower =
            status(serde_json::json!({ "state": "follower", "leader": "hub-1", "address": "10.0.0.1:7443" }));
        assert_eq!(lease(&follower, now), "held by hub-1, reached at 10.0.0.1:7443");
    }

    #[test]
    fn a_hub_that_shares_its_name_says_with_whom_and_what_to_do() {
        let shown = |address: &str, renews: bool| {
            let json = serde_json::json!({ "state": "namesake", "name": "hub", "address": address, "renews": renews });
            lease(&serde_json::from_value(json).unwrap(), Time(UnixMillis(200_000)))
        };
        let told = "NOT WATCHING: another hub is called hub too, at 10.0.0.1:7443: give each its own --name";
        assert_eq!(shown("10.0.0.1:7443", true), told);
        assert!(shown("", true).contains("too, it does not say where: give each"), "{}", shown("", true));
        assert!(shown("10.0.0.1:7443", false).starts_with("held by this hub's own name, hub, at 10.0.0.1:7443"));
    }

    #[test]
    fn a_live_follower_and_one_without_a_hub() {
        let mut status = FollowStatus {
            state: FollowState::Live,
            address: "10.0.0.1:7443".into(),
            path: vec!["hub-0:7443".into(), "hub-1:7443".into()],
            hubs: vec!["10.0.0.1:7443".into(), "10.0.0.2:7443".into()],
            resumed: Some("repair".into()),
            repaired_at: Some(UnixMillis(1_000)),
            mismatches: 1,
        };
        let now = Time(UnixMillis(61_000));
        assert_eq!(
            follows(&status, now),
            "10.0.0.1:7443: live, by repair; path hub-0:7443 < hub-1:7443; repaired 1m ago; 1 digest mismatch; \
             knows 1 hub more"
        );
        status.state = FollowState::Stale;
        assert!(follows(&status, now).starts_with("NO HUB, the last one tried was 10.0.0.1:7443"));
    }

    #[test]
    fn a_hub_says_who_follows_and_how_many_it_refused() {
        let status = StreamStatus {
            name: "hub-0:7443".into(),
            advertise: vec!["10.0.0.1:7443".into()],
            subscribers: 75,
            resumed: [("delta".to_owned(), 3), ("repair".to_owned(), 0)].into(),
            refused: [("handshake".to_owned(), 2)].into(),
            ..StreamStatus::default()
        };
        assert_eq!(
            serves(&status),
            "hub-0:7443, 75 followers; reached at 10.0.0.1:7443; brought up to date: 3 delta; 2 REFUSED"
        );
    }
}
