//! Times as RFC 3339 and ages in words.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::sys::UnixMillis;

/// A time, written as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub UnixMillis);

impl Time {
    /// The time of day, with the date if it is not that of `now`.
    pub fn short(self, now: Time) -> String {
        let [text, today] = [self, now].map(|time| UnixMillis(time.0.0 / 1000 * 1000).to_string());
        match (text.split_once('T'), today.split_once('T')) {
            (Some((day, time)), Some((today, _))) => {
                let time = time.get(..8).unwrap_or(time);
                if day == today { format!("{time} UTC") } else { format!("{day} {time} UTC") }
            }
            _ => text,
        }
    }

    /// A state that lasts since then: `2m3s (since 18:23:15 UTC)`.
    pub fn lasting(self, now: Time) -> String {
        format!("{} (since {})", words(self.0.age(now.0)), self.short(now))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Older versions wrote some times in milliseconds.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Millis(u64),
        }
        let text = match Form::deserialize(deserializer)? {
            Form::Text(text) => text,
            Form::Millis(millis) => return Ok(Self(UnixMillis(millis))),
        };
        let time: jiff::Timestamp = text.parse().map_err(D::Error::custom)?;
        Ok(Self(UnixMillis(u64::try_from(time.as_millisecond()).unwrap_or(0))))
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// A length of time in its two largest units, as in `3d4h`, `5m12s` or `0s`.
pub fn words(age: Duration) -> String {
    let seconds = age.as_secs();
    let units = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    match units.iter().position(|(count, _)| *count > 0) {
        None => "0s".into(),
        Some(first) => units[first..]
            .iter()
            .take(2)
            .filter(|(count, _)| *count > 0)
            .fold(String::new(), |text, (count, unit)| text + &count.to_string() + unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_said_in_two_units() {
        for (seconds, expect) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (312, "5m12s"),
            (3600, "1h"),
            (3661, "1h1m"),
            (273_900, "3d4h"),
            (86_459, "1d"),
        ] {
            assert_eq!(words(Duration::from_secs(seconds)), expect, "{seconds}");
        }
    }

    #[test]
    fn a_time_of_another_day_has_its_date() {
        let now = Time(UnixMillis(1_733_941_800_250));
        let before = |seconds: u64| Time(UnixMillis(now.0.0 - seconds * 1_000));
        assert_eq!(before(123).lasting(now), "2m3s (since 18:27:57 UTC)");
        assert_eq!(before(86_400).lasting(now), "1d (since 2024-12-10 18:30:00 UTC)");
    }

    #[test]
    fn times_read_back_as_they_were() {
        let time = Time(UnixMillis(1_733_941_800_250));
        let text = serde_json::to_string(&time).unwrap();
        assert_eq!(text, "\"2024-12-11T18:30:00.250Z\"");
        assert_eq!(serde_json::from_str::<Time>(&text).unwrap(), time);
    }
}
