//! A row of a document that another version of holdfast may have written.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::Value;

/// A row, or the reason why this version cannot read it. A row that cannot be read is kept as it came, so that `-o json`
/// prints it whole.
#[derive(Clone, Debug, PartialEq)]
pub enum Row<T> {
    Read(T),
    Unreadable { reason: String, raw: Value },
}

impl<T> Row<T> {
    /// The row, unless it could not be read.
    pub fn read(&self) -> Option<&T> {
        match self {
            Self::Read(row) => Some(row),
            Self::Unreadable { .. } => None,
        }
    }
}

impl<T> From<T> for Row<T> {
    fn from(row: T) -> Self {
        Self::Read(row)
    }
}

impl<T: Serialize> Serialize for Row<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Read(row) => row.serialize(serializer),
            Self::Unreadable { raw, .. } => raw.serialize(serializer),
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Row<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Value::deserialize(deserializer)?;
        Ok(match T::deserialize(&raw) {
            Ok(row) => Self::Read(row),
            Err(error) => Self::Unreadable { reason: error.to_string(), raw },
        })
    }
}

#[cfg(test)]
impl<T: schemars::JsonSchema> schemars::JsonSchema for Row<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::StreamStatus;

    #[test]
    fn a_row_of_another_version_is_kept_and_says_why_it_cannot_be_read() {
        let raw = serde_json::json!({ "name": "hub-0", "subscribers": "many" });
        let row: Row<StreamStatus> = serde_json::from_value(raw.clone()).unwrap();
        let Row::Unreadable { reason, .. } = &row else { panic!("{row:?}") };
        assert!(reason.contains("many") || reason.contains("advertise"), "{reason}");
        assert_eq!(serde_json::to_value(&row).unwrap(), raw);
        let row: Row<StreamStatus> =
            serde_json::from_value(serde_json::to_value(StreamStatus::default()).unwrap()).unwrap();
        assert_eq!(row, Row::Read(StreamStatus::default()));
    }
}
