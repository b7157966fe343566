//! Durations as people write them.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

/// A number and one of `s`, `m`, `h`, `d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}`: give a number and s, m, h or d, such as 90m");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

/// Of a file.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    duration(&String::deserialize(from)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86400)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in ["7", "d", "", "-1d", "1w", "7ü"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
