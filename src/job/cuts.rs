//! How tokens are drawn, for a model of ours and for a server, and within how much memory.

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, de};

/// Temperature first, then the cuts in this order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cuts {
    /// 0 takes the likeliest token.
    pub temperature: f64,
    /// 0: no cut.
    pub top_k: usize,
    /// 1: no cut.
    pub top_p: f64,
    /// 0: no cut.
    pub min_p: f64,
}

impl Cuts {
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0 };

    /// Where the likeliest token is taken, nothing is left to cut.
    pub fn new(temperature: f64, top_k: usize, top_p: f64, min_p: f64) -> Self {
        match temperature {
            0.0 => Self::GREEDY,
            _ => Self { temperature, top_k, top_p, min_p },
        }
    }
}

/// What `cache_bytes` is when it is absent: 2 GiB.
pub fn cache_bytes() -> usize {
    2 << 30
}

/// A number of bytes, or a text with a unit.
pub fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let size = ByteSize::deserialize(from).ok().map(|size| size.as_u64());
    size.and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| de::Error::custom("give a number of bytes, or a text such as 512MiB or 2GB"))
}
