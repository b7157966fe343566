//! Typed ids and digests: blake3, in lower-case hex.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

use crate::{Error, Result};

/// Identity of an artifact: blake3 over the canonical JSON of job, version, parameters and input
/// ids, shortened to 128 bits (32 hex digits).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArtifactId(String);

impl ArtifactId {
    pub const LEN: usize = 32;

    /// The id of whatever `identity` describes.
    pub fn of(identity: &Value) -> Self {
        let mut hex = blake3::hash(canonical_json(identity).as_bytes()).to_hex().to_string();
        hex.truncate(Self::LEN);
        Self(hex)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl TryFrom<String> for ArtifactId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        if text.len() == Self::LEN && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text))
        } else {
            Err(Error::data(format!("`{text}` is no artifact id: 32 lower-case hex digits")))
        }
    }
}

impl From<ArtifactId> for String {
    fn from(id: ArtifactId) -> Self {
        id.0
    }
}

impl fmt::Display for ArtifactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// blake3 of some bytes, 64 hex digits.
pub fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// JSON with sorted keys and no spaces: equal values give equal text.
pub fn canonical_json(value: &Value) -> String {
    fn write(value: &Value, out: &mut String) {
        match value {
            Value::Object(map) => {
                let mut keys: Vec<_> = map.keys().collect();
                keys.sort();
                out.push('{');
                for (i, key) in keys.into_iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    out.push_str(&Value::String(key.clone()).to_string());
                    out.push(':');
                    write(&map[key], out);
                }
                out.push('}');
            }
            Value::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write(item, out);
                }
                out.push(']');
            }
            other => out.push_str(&other.to_string()),
        }
    }
    let mut out = String::new();
    write(value, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn identity_ignores_key_order_and_sees_values() {
        let a = ArtifactId::of(&json!({"b": [1, 2], "a": {"y": 1, "x": "q\"r"}}));
        let b = ArtifactId::of(&json!({"a": {"x": "q\"r", "y": 1}, "b": [1, 2]}));
        assert_eq!(a, b);
        assert_ne!(a, ArtifactId::of(&json!({"a": {"x": "q\"r", "y": 1}, "b": [2, 1]})));
        assert_eq!(canonical_json(&json!({"b": 1, "a": null})), r#"{"a":null,"b":1}"#);
    }

    #[test]
    fn ids_are_checked_when_read() {
        assert!(ArtifactId::try_from("A".repeat(32)).is_err());
        assert!(ArtifactId::try_from("a".repeat(31)).is_err());
        assert!(ArtifactId::try_from("a".repeat(32)).is_ok());
    }
}
