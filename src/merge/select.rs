//! Which numbers of a difference are among the largest: exactly, by counting bits instead of sorting.
//!
//! The bits of an f32 without its sign are in the order of its magnitude. A first pass counts their
//! upper 16 bits, a second the lower 15 among those that share the upper ones of a boundary; a
//! third counts the boundary's ties, unit by unit, since only the first few of them stay.

use std::ops::Range;

use super::lanes::vectorized;

/// Buckets of the first count.
pub const UPPER: usize = 1 << 16;
/// Buckets of the second.
pub const LOWER: usize = 1 << 15;

const SIGN: u32 = 1 << 31;

/// Which ranks stay, counted from the smallest magnitude; among equals the first comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranks {
    Nothing,
    /// These, in ascending order.
    Middle(Range<u64>),
    /// So many of the largest; among equals the first stay.
    Top(u64),
}

impl Ranks {
    /// TIES: the largest `density` of `count`.
    pub fn magnitude(count: usize, density: f64) -> Self {
        match (density * count as f64) as u64 {
            _ if density <= 0.0 || count == 0 => Self::Nothing,
            kept => Self::Top(kept.max(1)),
        }
    }

    /// Breadcrumbs: all but the largest `gamma` and the smallest, so that `density` stay.
    pub fn outliers(count: usize, density: f64, gamma: f64) -> Self {
        let kept = (density.max(0.0) * count as f64) as u64;
        let top = (gamma.max(0.0) * count as f64) as u64;
        if kept == 0 {
            return Self::Nothing;
        }
        let low = (count as u64).saturating_sub(kept + top);
        Self::Middle(low..low + kept)
    }

    /// The ranks whose values bound what stays.
    pub fn boundaries(&self, count: usize) -> Vec<u64> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Top(kept) => vec![count as u64 - kept],
            Self::Middle(ranks) => vec![ranks.start, ranks.end - 1],
        }
    }
}

/// A rank on its way to the value that has it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Boundary {
    /// The value's bits, the upper ones first.
    pub bits: u32,
    /// How many values are smaller.
    pub less: u64,
    /// How many values equal it.
    pub ties: u64,
}

impl Boundary {
    /// The bucket that holds `rank`, and how many numbers lie in those before.
    fn find(counts: &[u64], rank: u64, mut less: u64) -> (u32, u64, u64) {
        for (bucket, &count) in counts.iter().enumerate() {
            if rank < less + count {
                return (bucket as u32, less, count);
            }
            less += count;
        }
        (0, less, 0)
    }

    /// By the first count.
    pub fn upper(counts: &[u64], rank: u64) -> Self {
        let (bucket, less, ties) = Self::find(counts, rank, 0);
        Self { bits: bucket << 15, less, ties }
    }

    /// By the second.
    pub fn lower(self, counts: &[u64], rank: u64) -> Self {
        let (bucket, less, ties) = Self::find(counts, rank, self.less);
        Self { bits: self.bits | bucket, less, ties }
    }
}

/// The values that stay: those between two bounds, and some of those that equal one.
#[derive(Debug, Clone)]
pub struct Window {
    pub low: u32,
    /// Which of the low bound's ties stay.
    pub low_ties: Range<u64>,
    pub high: u32,
    pub high_ties: Range<u64>,
}

impl Window {
    pub fn new(ranks: &Ranks, count: usize, found: &[Boundary]) -> Option<Self> {
        match (ranks, found) {
            (Ranks::Top(kept), [low]) => {
                let larger = count as u64 - low.less - low.ties;
                let low_ties = 0..kept - larger;
                Some(Self { low: low.bits, low_ties, high: SIGN - 1, high_ties: 0..0 })
            }
            (Ranks::Middle(ranks), [low, high]) => {
                let end = ranks.end - high.less;
                let start = ranks.start - low.less;
                let low_ties = start..if low.bits == high.bits { end } else { low.ties };
                Some(Self { low: low.bits, low_ties, high: high.bits, high_ties: 0..end })
            }
            _ => None,
        }
    }

    /// The values whose ties are told apart by their order.
    pub fn tied(&self) -> [u32; 2] {
        [self.low, self.high]
    }

    /// `factor` for each number that stays, 0 for the others. `before` says how many ties of each
    /// bound came before, and is moved on.
    pub fn factors(&self, values: &[f32], before: &mut [u64; 2], factor: f32, out: &mut [f32]) {
        // Without a sign bit they compare as signed ones, too, which old vectors can.
        let (mut low, mut high) = (self.low as i32, self.high as i32);
        let mut cuts = [None; 2];
        for ((bound, before), cut) in self.tied().into_iter().zip(before).zip(&mut cuts) {
            let ties = if bound == self.low { &self.low_ties } else { &self.high_ties };
            let from = *before;
            *before += count_equal(values, bound);
            if from == *before || ties.end <= from || ties.start >= *before {
                continue;
            }
            if ties.start <= from && *before <= ties.end {
                // All of them stay.
                low = if bound == self.low { self.low as i32 - 1 } else { low };
                high = if bound == self.high { self.high as i32 + 1 } else { high };
            } else {
                *cut = Some((bound, from, ties));
            }
        }
        between(values, low, high, factor, out);
        for (bound, mut number, ties) in cuts.into_iter().flatten() {
            for (value, out) in values.iter().zip(out.iter_mut()) {
                if value.to_bits() & !SIGN == bound {
                    *out = if ties.contains(&number) { factor } else { 0.0 };
                    number += 1;
                }
            }
        }
    }
}

vectorized! {
    fn between(values: &[f32], low: i32, high: i32, factor: f32, out: &mut [f32]) {
        for (value, out) in values.iter().zip(out) {
            let bits = (value.to_bits() & !SIGN) as i32;
            let inside = (bits > low) & (bits < high);
            *out = if inside { factor } else { 0.0 };
        }
    }
}

vectorized! {
    pub fn count_equal(values: &[f32], bits: u32) -> u64 {
        let mut count = 0u32;
        for value in values {
            count += u32::from(value.to_bits() & !SIGN == bits);
        }
        u64::from(count)
    }
}

/// Counts the upper bits of the magnitudes.
pub fn count_upper(values: &[f32], counts: &mut [u32]) {
    let Ok(counts) = <&mut [u32; UPPER]>::try_from(counts) else { return };
    for value in values {
        counts[((value.to_bits() & !SIGN) >> 15) as usize] += 1;
    }
}

/// Counts the lower bits of the magnitudes whose upper bits are those of `bits`.
pub fn count_lower(values: &[f32], bits: u32, counts: &mut [u32]) {
    let Ok(counts) = <&mut [u32; LOWER]>::try_from(counts) else { return };
    for value in values {
        let found = value.to_bits() & !SIGN;
        if found >> 15 == bits >> 15 {
            counts[found as usize & (LOWER - 1)] += 1;
        }
    }
}

/// Sorts rows by magnitude: three passes over eleven bits each, which keep the order of equals.
#[derive(Default)]
pub struct Ranking {
    keys: Vec<u64>,
    spare: Vec<u64>,
}

/// Bits of a pass of [`Ranking`].
const DIGIT: u32 = 11;

impl Ranking {
    /// The positions of `values`, the smallest magnitude first; of equals the first comes first.
    pub fn order(&mut self, values: &[f32]) -> impl Iterator<Item = usize> {
        let mut counts = [[0u32; 1 << DIGIT]; 3];
        let digit = |key: u64, pass: usize| {
            (key >> (32 + pass as u32 * DIGIT)) as usize & ((1 << DIGIT) - 1)
        };
        self.keys.clear();
        self.keys.extend(values.iter().enumerate().map(|(at, value)| {
            let key = u64::from(value.to_bits() & !SIGN) << 32 | at as u64;
            counts.iter_mut().enumerate().for_each(|(pass, counts)| counts[digit(key, pass)] += 1);
            key
        }));
        self.spare.resize(values.len(), 0);
        for (pass, counts) in counts.iter_mut().enumerate() {
            let mut sum = 0;
            for count in counts.iter_mut() {
                sum += std::mem::replace(count, sum);
            }
            for &key in &self.keys {
                let place = &mut counts[digit(key, pass)];
                self.spare[*place as usize] = key;
                *place += 1;
            }
            std::mem::swap(&mut self.keys, &mut self.spare);
        }
        self.keys.iter().map(|key| *key as u32 as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Stream;

    /// By sorting, as mergekit does.
    fn sorted(values: &[f32], ranks: &Ranks) -> Vec<bool> {
        let mut order: Vec<usize> = (0..values.len()).collect();
        let mut kept = vec![false; values.len()];
        match ranks {
            Ranks::Nothing => {}
            Ranks::Top(count) => {
                order.sort_by(|&a, &b| values[b].abs().total_cmp(&values[a].abs()));
                order[..*count as usize].iter().for_each(|&i| kept[i] = true);
            }
            Ranks::Middle(range) => {
                order.sort_by(|&a, &b| values[a].abs().total_cmp(&values[b].abs()));
                let range = range.start as usize..range.end as usize;
                order[range].iter().for_each(|&i| kept[i] = true);
            }
        }
        kept
    }

    fn selected(values: &[f32], ranks: &Ranks) -> Vec<bool> {
        let mut upper = vec![0; UPPER];
        count_upper(values, &mut upper);
        let wide = |counts: &[u32]| -> Vec<u64> { counts.iter().map(|&c| c.into()).collect() };
        let found = ranks.boundaries(values.len()).into_iter().map(|rank| {
            let boundary = Boundary::upper(&wide(&upper), rank);
            let mut lower = vec![0; LOWER];
            count_lower(values, boundary.bits, &mut lower);
            boundary.lower(&wide(&lower), rank)
        });
        let found: Vec<Boundary> = found.collect();
        let mut out = vec![0.0; values.len()];
        if let Some(window) = Window::new(ranks, values.len(), &found) {
            let mut before = [0; 2];
            for (values, out) in values.chunks(7).zip(out.chunks_mut(7)) {
                window.factors(values, &mut before, 1.0, out);
            }
        }
        out.into_iter().map(|factor| factor == 1.0).collect()
    }

    #[test]
    fn counting_selects_what_sorting_selects() {
        let mut stream = Stream::new(3, "select", 0);
        for round in 0..200 {
            let count = 1 + stream.below(300);
            // Few values, so that many are equal.
            let few = 1 + stream.below(40);
            let values: Vec<f32> =
                (0..count).map(|_| (stream.below(few) as f32 - few as f32 / 2.0) * 0.3).collect();
            let (density, gamma) = (stream.uniform(), stream.uniform() * 0.3);
            for ranks in [
                Ranks::magnitude(count, density),
                Ranks::outliers(count, density.min(1.0 - gamma), gamma),
                Ranks::outliers(count, density, gamma),
            ] {
                let mut ranking = Ranking::default();
                let mut order: Vec<usize> = (0..values.len()).collect();
                order.sort_by(|&a, &b| values[a].abs().total_cmp(&values[b].abs()));
                assert!(ranking.order(&values).eq(order));
                let found = selected(&values, &ranks);
                assert_eq!(found, sorted(&values, &ranks), "round {round}: {ranks:?}");
            }
        }
    }
}
