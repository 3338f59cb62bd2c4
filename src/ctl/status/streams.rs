//! The rows of `status` about hubs: the one followed, the leader among them, and those connected.

use std::{fmt::Write as _, time::Duration};

use super::count;
use crate::{
    admin::view::{Status, Time, words},
    report::{ApiserverStatus, ElectionStatus, FollowState, FollowStatus, Reach, Standing, StreamStatus, THEN},
};

/// The first row of `status` names the row of the apiserver after a restore as recent as this.
const RECENT: Duration = Duration::from_secs(3600);
/// Clocks that differ by less are not worth a word.
const CLOCK_SHOWN_MS: u64 = 2_000;

/// The hubs on the way to the loss, and what is lost there.
fn way(reason: &str) -> (&str, &str) {
    reason.rsplit_once(THEN).unwrap_or(("", reason))
}

/// Whether the hub followed answers, and the apiserver behind it does not.
pub(super) fn is_behind_a_hub(reason: &str) -> bool {
    reason.contains(THEN)
}

/// Where the way to the apiserver is broken: `hub2 → hub1 → apiserver: TLS handshake timed out`.
pub(super) fn chain(reason: &str) -> String {
    match way(reason) {
        ("", reason) => reason.to_owned(),
        // A hub names the server itself; the chain does that here.
        (hubs, rest) => format!("{hubs}{THEN}apiserver: {}", rest.strip_prefix("apiserver ").unwrap_or(rest)),
    }
}

/// The part that is lost, by which a person decides where to look.
pub(super) fn lost_part(status: &Status) -> &'static str {
    let name = status.source.name.as_deref().unwrap_or_default();
    let far = status.source.reason.as_deref().is_some_and(is_behind_a_hub);
    match name.split(' ').next().unwrap_or_default() {
        "hub" if far => "apiserver (behind the hub)",
        "hub" => "every hub",
        "apiserver" => "apiserver",
        "manifests" => "manifests",
        _ => "source",
    }
}

/// The hub that is followed.
pub(super) fn hub(status: &FollowStatus, now: Time) -> String {
    let mut text = match status.state {
        FollowState::Live => format!("{}: in sync (verified)", status.address),
        FollowState::Disk => "no hub tried yet".into(),
        FollowState::Stale => format!("NO HUB REACHED, last tried {}", status.address),
        FollowState::Connecting => format!("{}: connecting", status.address),
        FollowState::Delta | FollowState::Repair | FollowState::Snapshot => format!("{}: catching up", status.address),
    };
    if status.path.len() > 1 {
        let _ = write!(text, "; path {}", status.path.join(" → "));
    }
    if let Some(ahead) = status.clock_ahead_ms.filter(|ahead| ahead.unsigned_abs() >= CLOCK_SHOWN_MS) {
        let by = words(Duration::from_millis(ahead.unsigned_abs()));
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        let _ = write!(text, "; its clock is {by} {side} this machine's (ages are corrected)");
    }
    if let Some(at) = status.repaired_at {
        let _ = write!(text, "; last resync {} ago", words(at.0.age(now.0)));
    }
    if status.mismatches > 0 {
        let _ = write!(text, "; digest mismatches: {}", status.mismatches);
    }
    let others = status.hubs.iter().filter(|hub| **hub != status.address).count();
    let _ = write!(text, "; {} known", count(others, "other hub"));
    text
}

/// Whether a person must look at the apiserver that is reached.
pub(super) fn is_suspect(status: &ApiserverStatus, now: Time) -> bool {
    status.state == Reach::Slow || status.went_back_at.is_some_and(|at| at.0.age(now.0) < RECENT)
}

/// The load and the answers of the apiserver, as the process that watches it meets them.
pub(super) fn apiserver(status: &ApiserverStatus, now: Time) -> String {
    let ApiserverStatus { server, state, went_back_at, measures, lists, endpoints, .. } = status;
    let mut text = match state {
        Reach::Fresh => format!("{server}: answers"),
        Reach::Slow => format!("{server}: SLOW, it may be about to fail"),
        Reach::Unreachable => format!("{server}: NOT REACHABLE"),
    };
    let _ = write!(
        text,
        "; in the last minute: {} requests, slowest {:.1} s, {} answered 429, {} answered 401, 403 or 5xx",
        measures.requests_per_minute, measures.latency_seconds, measures.busy_per_minute, measures.refused_per_minute
    );
    for list in lists {
        let _ = write!(text, "; listing {} ({} so far)", list.resource, list.objects);
    }
    if let Some(at) = went_back_at {
        let _ = write!(text, "; WENT BACK to an older state {} ago, as after an etcd restore", words(at.0.age(now.0)));
    }
    if !endpoints.is_empty() {
        let _ = write!(text, "; also at {}", endpoints.join(", "));
    }
    text
}

/// The leader among hubs, and how well that is known.
pub(super) fn leader(status: &ElectionStatus, now: Time) -> String {
    let ElectionStatus { standing, renewed, failing } = status;
    let ago = |at: Time| words(at.0.age(now.0));
    let mut text = match standing {
        Standing::Unknown => "NOT KNOWN: the apiserver was not reached since start".into(),
        Standing::Holder { .. } => "this hub".into(),
        Standing::Follower { leader, address } if address.is_empty() => format!("{leader}, at an unknown address"),
        Standing::Follower { leader, address } => format!("{leader} at {address}"),
        Standing::Namesake { name, address, renews } => namesake(name, address, *renews),
    };
    let _ = match (standing, failing, renewed) {
        (Standing::Holder { .. }, None, Some(at)) => write!(text, " (lease renewed {} ago)", ago(*at)),
        (Standing::Holder { .. }, Some(failing), Some(at)) => {
            write!(text, "; lease NOT RENEWED for {}: {}", at.lasting(now), failing.reason)
        }
        (_, Some(failing), _) => {
            write!(text, "; leader NOT VERIFIED for {}: {}", failing.since.lasting(now), failing.reason)
        }
        (_, None, _) => Ok(()),
    };
    text
}

fn namesake(name: &str, address: &str, renews: bool) -> String {
    let at = if address.is_empty() { "an unknown address" } else { address };
    if renews {
        format!("NONE HERE: another hub has the same name {name}, at {at}. Give each hub its own --name")
    } else {
        format!("this hub's own name {name}, at {at}: left from an earlier start or another hub; taken if not renewed")
    }
}

/// The agents and hubs that are connected.
pub(super) fn clients(status: &StreamStatus) -> String {
    let connected = match status.subscribers {
        1 => "1 agent or hub".to_owned(),
        many => format!("{many} agents and hubs"),
    };
    let mut text = format!("{connected} connected to {}", status.name);
    if !status.advertise.is_empty() {
        let _ = write!(text, "; advertised as {}", status.advertise.join(", "));
    }
    let word = |mode: &str| match mode {
        "snapshot" => "full".to_owned(),
        "wait" => "told to wait".to_owned(),
        mode => mode.to_owned(),
    };
    let modes: Vec<String> = status
        .resumed
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(mode, count)| format!("{count} {}", word(mode)))
        .collect();
    if !modes.is_empty() {
        let _ = write!(text, "; first sync: {}", modes.join(", "));
    }
    if status.refusing > 0 {
        let _ = write!(text, "; {} REFUSE its deletions (holdfast guard)", status.refusing);
    }
    if status.fallen > 0 {
        let times = count(usize::try_from(status.fallen).unwrap_or(usize::MAX), "time");
        let _ = write!(text, "; {times} a client was TOO SLOW for the stream and was resynced");
    }
    let refused: u64 = status.refused.values().sum();
    if refused > 0 {
        let reasons: Vec<String> = status
            .refused
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        let _ = write!(text, "; {refused} REFUSED ({})", reasons.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::UnixMillis;

    #[test]
    fn the_clock_of_a_hub_is_shown_where_it_differs() {
        let shown = |ahead: Option<i64>| {
            let status = FollowStatus { clock_ahead_ms: ahead, state: FollowState::Live, ..FollowStatus::default() };
            hub(&status, Time(UnixMillis(0)))
        };
        for (ahead, text) in [(3_600_000, "its clock is 1h ahead of"), (-90_000, "its clock is 1m30s behind")] {
            assert!(shown(Some(ahead)).contains(text), "{}", shown(Some(ahead)));
        }
        assert_eq!((shown(Some(1_999)), shown(Some(-50))), (shown(None), shown(None)));
    }
}
