//! Tests that are packed: as LiveCodeBench publishes its private ones, and as many are stored.
//!
//! LiveCodeBench's are JSON, pickled, deflated and in base64. A pickle is a program; this reads the
//! only one that they need (push a text, keep it, stop) and refuses others. Ours are the same
//! without the pickle.

use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::Case;

/// Of a problem's tests, unpacked: far more than any has, far less than a machine's memory.
const MOST: u64 = 1 << 30;

/// JSON that is longer than this is stored packed: a benchmark's tests are gigabytes of digits.
const PLAIN: usize = 1 << 16;

/// The JSON in LiveCodeBench's column. The error says what is wrong.
pub fn pickled(packed: &str) -> Result<String, String> {
    unpickle(&inflated(packed)?)
}

/// A list, or a text that holds it deflated and in base64.
pub fn serialize<S: Serializer>(cases: &[Case], serializer: S) -> Result<S::Ok, S::Error> {
    let json = serde_json::to_vec(cases).map_err(ser::Error::custom)?;
    if json.len() <= PLAIN {
        return cases.serialize(serializer);
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&json).map_err(ser::Error::custom)?;
    let deflated = encoder.finish().map_err(ser::Error::custom)?;
    STANDARD.encode(deflated).serialize(serializer)
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Case>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a list of tests, or a text that holds one packed")]
    enum Stored {
        Plain(Vec<Case>),
        Packed(String),
    }
    match Stored::deserialize(deserializer)? {
        Stored::Plain(cases) => Ok(cases),
        Stored::Packed(text) => {
            let json = inflated(&text).map_err(de::Error::custom)?;
            serde_json::from_slice(&json).map_err(de::Error::custom)
        }
    }
}

fn inflated(packed: &str) -> Result<Vec<u8>, String> {
    let deflated = STANDARD.decode(packed.trim()).map_err(|e| format!("base64: {e}"))?;
    let mut bytes = Vec::new();
    let read = ZlibDecoder::new(&deflated[..]).take(MOST + 1).read_to_end(&mut bytes);
    read.map_err(|e| format!("zlib: {e}"))?;
    if bytes.len() as u64 > MOST {
        return Err(format!("more than {} MiB of tests", MOST >> 20));
    }
    Ok(bytes)
}

fn unpickle(pickle: &[u8]) -> Result<String, String> {
    let mut rest = pickle;
    let mut found = None;
    loop {
        let (&opcode, tail) = rest.split_first().ok_or("pickle: it ends early")?;
        rest = tail;
        // The bytes that stand for a length, or are skipped.
        let width = match opcode {
            b'.' => return found.ok_or_else(|| "pickle: it holds nothing".to_string()),
            0x80 | b'q' | 0x8c => 1,
            0x94 => 0,
            b'X' | b'r' => 4,
            0x8d | 0x95 => 8,
            _ => {
                return Err(format!(
                    "pickle: opcode {opcode:#04x}; only one text is read, and no pickle is run"
                ));
            }
        };
        let argument = taken(&mut rest, width)?;
        if matches!(opcode, b'X' | 0x8c | 0x8d) {
            let mut size = [0; 8];
            size[..width].copy_from_slice(argument);
            let size = usize::try_from(u64::from_le_bytes(size)).unwrap_or(usize::MAX);
            let text = std::str::from_utf8(taken(&mut rest, size)?);
            let text = text.map_err(|e| format!("pickle: {e}"))?;
            if found.replace(text.to_string()).is_some() {
                return Err("pickle: more than one text".into());
            }
        }
    }
}

fn taken<'a>(bytes: &mut &'a [u8], size: usize) -> Result<&'a [u8], String> {
    let (head, tail) = bytes.split_at_checked(size).ok_or("pickle: it ends early")?;
    *bytes = tail;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pickle.dumps("ä", protocol=n)`.
    #[test]
    fn a_text_is_read_whatever_the_protocol() {
        let pickles: [&[u8]; 3] = [
            b"\x80\x02X\x02\0\0\0\xc3\xa4q\0.",
            b"\x80\x04\x95\x06\0\0\0\0\0\0\0\x8c\x02\xc3\xa4\x94.",
            b"\x80\x05\x8d\x02\0\0\0\0\0\0\0\xc3\xa4\x94.",
        ];
        for pickle in pickles {
            assert_eq!(unpickle(pickle).unwrap(), "ä");
        }
    }

    #[test]
    fn no_other_pickle_is_read() {
        // `pickle.dumps(os.system)`, a number, nothing, an end too early, a length beyond it.
        let pickles: [&[u8]; 5] = [
            b"\x80\x03cposix\nsystem\nq\0.",
            b"\x80\x04K\x01.",
            b"\x80\x04.",
            b"\x80\x04\x8c\x02a",
            b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffa",
        ];
        for pickle in pickles {
            let message = unpickle(pickle).unwrap_err();
            assert!(message.starts_with("pickle: "), "{message}");
        }
        assert!(pickled("*").unwrap_err().starts_with("base64: "));
        assert!(pickled("AAAA").unwrap_err().starts_with("zlib: "));
    }
    #[test]
    fn many_tests_are_stored_packed() {
        let case = |n: usize| Case { input: n.to_string().repeat(n), output: n.to_string() };
        for count in [3, 500] {
            let cases: Vec<Case> = (0..count).map(case).collect();
            let stored = serialize(&cases, serde_json::value::Serializer).unwrap();
            assert_eq!(stored.is_string(), count == 500);
            assert_eq!(deserialize(stored).unwrap(), cases);
        }
        let fault = |text: &str| deserialize(serde_json::json!(text)).unwrap_err().to_string();
        assert!(fault("x").starts_with("base64: "), "{}", fault("x"));
    }
}
