//! Records: small JSON objects that end in their own digest, so that a changed byte is found.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::digest;
use crate::{Error, Result};

/// What stands before and after the digest, which is that of everything before.
const BEFORE: &str = ",\n  \"digest\": \"";
const AFTER: &str = "\"\n}\n";
const DIGEST: usize = 64;

/// Most bytes of a record; it is read whole and parsed, and JSON of hostile make becomes thirty times
/// as large. An object takes a quarter of a kilobyte in its manifest.
pub(super) const BYTES: u64 = 8 << 20;

/// The bytes of `record`, a struct with at least one field.
pub(super) fn seal(record: &impl Serialize) -> Result<Bytes> {
    let mut text = serde_json::to_string_pretty(record).map_err(Error::defect)?;
    text.truncate(text.len().saturating_sub("\n}".len()));
    if text.len() as u64 > BYTES - 128 {
        return Err(Error::usage(format!(
            "a record of {} bytes, where {BYTES} are allowed; write fewer and larger objects",
            text.len()
        )));
    }
    let digest = digest(text.as_bytes());
    Ok(format!("{text}{BEFORE}{digest}{AFTER}").into())
}

/// The JSON in a record's bytes without its digest, which is checked. A record without one is an
/// older triad's; one whose digest is hardly recognisable has a field too many for its struct.
pub(super) fn unseal(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let tail = BEFORE.len() + DIGEST + AFTER.len();
    let parts =
        bytes.len().checked_sub(tail).map(|at| bytes.split_at(at)).and_then(|(head, tail)| {
            let digest = tail.strip_prefix(BEFORE.as_bytes())?.strip_suffix(AFTER.as_bytes())?;
            Some((head, digest))
        });
    let Some((head, expected)) = parts else { return Ok(bytes.to_vec()) };
    if digest(head).as_bytes() != expected {
        return Err("changed since it was written: its digest is another".into());
    }
    Ok([head, b"\n}"].concat())
}

/// A record's struct.
pub(super) fn parse<R: DeserializeOwned>(json: &[u8]) -> Result<R, String> {
    serde_json::from_slice(json).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Point {
        x: u32,
        name: String,
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_found() {
        let point = Point { x: 7, name: "a \"name\"".into() };
        let bytes = seal(&point).unwrap();
        let read = |bytes: &[u8]| unseal(bytes).and_then(|json| parse::<Point>(&json));
        assert_eq!(read(&bytes).unwrap(), point);
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["digest"].as_str().unwrap().len(), DIGEST);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged).is_err(), "bit {bit}: {damaged:?}");
        }
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length} bytes");
        }
        let older = serde_json::to_vec(&point).unwrap();
        assert_eq!(read(&older).unwrap(), point);
    }
}
