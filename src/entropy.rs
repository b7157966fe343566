//! The one clock and the one source of randomness.
//!
//! Randomness is counter-based: a [`Stream`] is named by (seed, stage, item index), so an item's
//! draws do not depend on which worker makes it, nor on how many there are.

use chrono::{DateTime, Utc};

/// The wall clock. Times stand in manifests and logs, never in a data object.
#[allow(clippy::disallowed_methods)]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// A name that no other attempt at the same artifact has: the operating system's randomness (which
/// seeds every hash map), time, process and a counter, hashed.
pub fn attempt_name() -> String {
    use std::hash::{BuildHasher, RandomState};
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let seed = format!(
        "{:x}/{}/{}/{}",
        RandomState::new().hash_one(0),
        now().timestamp_nanos_opt().unwrap_or_default(),
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed),
    );
    blake3::hash(seed.as_bytes()).to_hex()[..16].to_string()
}

/// Some number in [0, 1), another one each time: for pauses, never for data.
pub fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}

/// A stream of pseudo-random numbers: the output of blake3 as an extendable hash of its name.
pub struct Stream {
    reader: blake3::OutputReader,
    buffer: [u8; 64],
    used: usize,
}

impl Stream {
    pub fn new(seed: u64, stage: &str, index: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(&index.to_le_bytes());
        hasher.update(stage.as_bytes());
        Self { reader: hasher.finalize_xof(), buffer: [0; 64], used: 64 }
    }

    pub fn next_u64(&mut self) -> u64 {
        if self.used == 64 {
            self.reader.fill(&mut self.buffer);
            self.used = 0;
        }
        let mut word = [0; 8];
        word.copy_from_slice(&self.buffer[self.used..self.used + 8]);
        self.used += 8;
        u64::from_le_bytes(word)
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in 0..n, `n` > 0. The multiply-shift bias is below n / 2^64.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// Uniform in low..=high.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as usize) as i64
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// A standard normal draw (Box-Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Fisher-Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_named_by_seed_stage_and_index() {
        let draw = |seed, stage, index| Stream::new(seed, stage, index).next_u64();
        assert_eq!(draw(1, "a", 2), draw(1, "a", 2));
        assert_ne!(draw(1, "a", 2), draw(2, "a", 2));
        assert_ne!(draw(1, "a", 2), draw(1, "b", 2));
        assert_ne!(draw(1, "a", 2), draw(1, "a", 3));
    }

    #[test]
    fn draws_have_the_moments_they_promise() {
        let mut stream = Stream::new(7, "moments", 0);
        let n = 20_000;
        let normals: Vec<f64> = (0..n).map(|_| stream.normal()).collect();
        let mean = normals.iter().sum::<f64>() / n as f64;
        let var = normals.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.03 && (var - 1.0).abs() < 0.05, "mean {mean}, variance {var}");
        let mut seen = [0u32; 5];
        for _ in 0..n {
            seen[stream.between(3, 7) as usize - 3] += 1;
        }
        assert!(seen.iter().all(|&count| count.abs_diff(n / 5) < 300), "{seen:?}");
    }
}
