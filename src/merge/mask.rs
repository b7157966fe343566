//! Random masks: a number for each element, named by seed, model, tensor and the element's place.
//!
//! The name is hashed by blake3, as all randomness is; the element's number is then only mixed with
//! that key, by the finaliser of SplitMix64 (Steele, Lea and Flood 2014), which is what a vector can
//! do: two models of 1.1 billion numbers take two billion draws, for which the hash would need half
//! a minute.

use super::lanes::vectorized;
use crate::entropy::Stream;

/// The random numbers of one tensor of one model. Any part of them can be drawn by itself.
#[derive(Debug, Clone, Copy)]
pub struct Mask {
    key: [u64; 2],
}

#[inline(always)]
fn draw(key: [u64; 2], element: u64) -> u64 {
    let mut z = key[0].wrapping_add(element.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ key[1];
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

vectorized! {
    fn draws(key: [u64; 2], first: u64, out: &mut [u64]) {
        for (number, out) in out.iter_mut().enumerate() {
            *out = draw(key, first + number as u64);
        }
    }
}

vectorized! {
    fn bits_below(key: [u64; 2], first: u64, limit: u64, out: &mut [u64]) {
        for (number, out) in out.iter_mut().enumerate() {
            let first = first + 64 * number as u64;
            let mut bits = 0;
            for bit in 0..64 {
                bits |= u64::from(draw(key, first + bit) < limit) << bit;
            }
            *out = bits;
        }
    }
}

vectorized! {
    fn spread_whole(bits: &[u64], factor: f32, out: &mut [f32]) {
        for (bits, out) in bits.iter().zip(out.chunks_mut(64)) {
            for (bit, out) in out.iter_mut().enumerate() {
                let set = (bits >> bit) as u32 & 1;
                *out = f32::from_bits(set.wrapping_neg() & factor.to_bits());
            }
        }
    }
}

/// `factor` for each bit from number `first` on that is set, 0 for the others.
pub fn spread(bits: &[u64], first: usize, factor: f32, out: &mut [f32]) {
    if first.is_multiple_of(64) {
        return spread_whole(&bits[first / 64..], factor, out);
    }
    for (number, out) in out.iter_mut().enumerate() {
        let at = first + number;
        *out = if bits[at / 64] >> (at % 64) & 1 == 1 { factor } else { 0.0 };
    }
}

impl Mask {
    /// `model` is the model's position in the recipe: a mask does not depend on where it lies.
    pub fn new(seed: u64, model: usize, tensor: &str) -> Self {
        let mut stream = Stream::new(seed, &format!("merge/{tensor}"), model as u64);
        Self { key: [stream.next_u64(), stream.next_u64()] }
    }

    /// 64 random bits for each of the elements from `first` on.
    pub fn draw(self, first: usize, out: &mut [u64]) {
        draws(self.key, first as u64, out);
    }

    /// A bit for each of the elements from `first` on, set with a probability; 64 in each number of
    /// `out`.
    pub fn bits(self, first: usize, limit: u64, out: &mut [u64]) {
        bits_below(self.key, first as u64, limit, out);
    }
}

/// What a draw must lie below to come true with `probability`.
pub fn threshold(probability: f64) -> u64 {
    // Saturates at both ends.
    (probability * 2f64.powi(64)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_drawn_alone_is_the_same() {
        let draw = |first: usize, count: usize, model, tensor: &str| {
            let mut out = vec![0; count];
            Mask::new(7, model, tensor).draw(first, &mut out);
            out
        };
        let all = draw(0, 1000, 1, "a");
        assert_eq!(draw(617, 100, 1, "a"), all[617..717]);
        assert_ne!(draw(0, 1000, 2, "a"), all);
        assert_ne!(draw(0, 1000, 1, "b"), all);
        let limit = threshold(0.3);
        let mut bits = vec![0; 3];
        Mask::new(7, 1, "a").bits(100, limit, &mut bits);
        for first in [0, 5] {
            let mut factors = vec![0.0; 150];
            spread(&bits, first, 2.0, &mut factors);
            for (number, factor) in factors.into_iter().enumerate() {
                let below = all[100 + first + number] < limit;
                assert_eq!(factor, if below { 2.0 } else { 0.0 });
            }
        }
    }

    /// Shares, and how often two neighbours, or two masks, agree.
    #[test]
    fn draws_are_as_good_as_independent() {
        let count = 1 << 20;
        let mask = |model| {
            let mut bits = vec![0u64; count / 64];
            Mask::new(1, model, "w").bits(0, threshold(0.5), &mut bits);
            bits
        };
        let (a, b) = (mask(0), mask(1));
        let deviation = 0.5 / (count as f64).sqrt();
        let near = |ones: u32| (f64::from(ones) / count as f64 - 0.5).abs() < 5.0 * deviation;
        assert!(near(a.iter().map(|bits| bits.count_ones()).sum()));
        assert!(near(a.iter().zip(&b).map(|(a, b)| (a ^ b).count_ones()).sum()));
        for distance in [1, 2, 8, 16] {
            let shifted = a.iter().map(|bits| (bits ^ bits.rotate_left(distance)).count_ones());
            assert!(near(shifted.sum()), "{distance}");
        }
    }
}
