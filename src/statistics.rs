//! Accuracy estimates and their intervals. Pure.
//!
//! The problem is the unit: samples of one problem are averaged first, and the bootstrap draws
//! problems, never samples, since two samples of a problem are not independent.

use serde::{Deserialize, Serialize};

use crate::entropy::Stream;

/// Bootstrap resamples.
pub const RESAMPLES: usize = 2_000;

/// A mean over problems with its 95% interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
    /// Problems.
    pub n: usize,
}

impl Estimate {
    /// Whether the interval excludes 0: above it (`Some(true)`), below it, or neither.
    pub fn sign(&self) -> Option<bool> {
        match self {
            _ if self.low > 0.0 => Some(true),
            _ if self.high < 0.0 => Some(false),
            _ => None,
        }
    }
}

/// Mean of each stratum's mean over its problems, with the percentile bootstrap's 95% interval
/// (Efron 1979): problems are drawn with replacement within each stratum. Strata are task sets;
/// with one stratum it is the plain mean. The draws are named by `name`, so the same data give
/// the same interval. `None` when there is no stratum or an empty one.
pub fn bootstrap_mean(strata: &[Vec<f64>], name: &str) -> Option<Estimate> {
    if strata.is_empty() || strata.iter().any(Vec::is_empty) {
        return None;
    }
    let sets = strata.len() as f64;
    let mean = strata.iter().map(|values| mean(values)).sum::<f64>() / sets;
    let mut draws: Vec<f64> = (0..RESAMPLES)
        .map(|index| {
            let mut stream = Stream::new(0, name, index as u64);
            let resample = |values: &Vec<f64>| {
                let sum: f64 = (0..values.len()).map(|_| values[stream.below(values.len())]).sum();
                sum / values.len() as f64
            };
            strata.iter().map(resample).sum::<f64>() / sets
        })
        .collect();
    draws.sort_by(f64::total_cmp);
    let n = strata.iter().map(Vec::len).sum();
    Some(Estimate { mean, low: percentile(&draws, 0.025), high: percentile(&draws, 0.975), n })
}

/// The paired difference a - b over the same problems: the bootstrap of the problems' own
/// differences, which leaves out what both models find hard. Strata as in [`bootstrap_mean`];
/// each is a list of (a, b).
pub fn bootstrap_difference(strata: &[Vec<(f64, f64)>], name: &str) -> Option<Estimate> {
    let differences: Vec<Vec<f64>> =
        strata.iter().map(|pairs| pairs.iter().map(|(a, b)| a - b).collect()).collect();
    bootstrap_mean(&differences, name)
}

/// Probability that at least one of `k` samples, drawn without replacement from `n` of which
/// `correct` are right, is right: 1 - C(n-c, k)/C(n, k), the unbiased estimator of pass@k
/// (Chen et al. 2021, arXiv 2107.03374). `k` is capped at `n`; 0 for n = 0.
pub fn pass_at_k(n: u32, correct: u32, k: u32) -> f64 {
    let k = k.min(n);
    if n == 0 || k == 0 {
        return 0.0;
    }
    if n - correct < k {
        return 1.0;
    }
    1.0 - (n - correct + 1..=n).map(|i| 1.0 - f64::from(k) / f64::from(i)).product::<f64>()
}

/// The oracle ensemble's score on one problem, from each specialist's share of right samples:
/// the probability that at least one of them is right when each answers once, independently,
/// 1 - prod(1 - p). At temperature 0 the shares are 0 or 1 and it is "any of them solves it", as
/// in the paper.
pub fn oracle(shares: &[f64]) -> f64 {
    1.0 - shares.iter().map(|share| 1.0 - share).product::<f64>()
}

/// Arithmetic mean; 0 for none.
pub(crate) fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// The `share` quantile of sorted values, linear between neighbours.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let low = sorted[place.floor() as usize];
    let high = sorted[place.ceil() as usize];
    low + (high - low) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_at_k_is_the_share_of_winning_draws() {
        // 1 - C(6, 2)/C(8, 2) = 1 - 15/28.
        assert!((pass_at_k(8, 2, 2) - 13.0 / 28.0).abs() < 1e-12);
        assert!((pass_at_k(8, 3, 1) - 3.0 / 8.0).abs() < 1e-12);
        assert_eq!(pass_at_k(8, 0, 8), 0.0);
        assert_eq!(pass_at_k(8, 1, 8), 1.0);
        assert_eq!(pass_at_k(4, 2, 3), 1.0);
        assert_eq!(pass_at_k(0, 0, 1), 0.0);
    }

    #[test]
    fn the_oracle_needs_one_specialist() {
        assert_eq!(oracle(&[0.0, 1.0, 0.0]), 1.0);
        assert_eq!(oracle(&[0.0, 0.0]), 0.0);
        assert!((oracle(&[0.5, 0.5, 0.0]) - 0.75).abs() < 1e-12);
    }

    #[test]
    fn the_interval_has_the_width_of_the_normal_one() {
        // 400 problems, 30% solved: standard error sqrt(0.3 * 0.7 / 400) = 0.0229.
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 10 < 3)).collect();
        let estimate = bootstrap_mean(std::slice::from_ref(&values), "width").unwrap();
        assert!((estimate.mean - 0.3).abs() < 1e-12);
        assert!((estimate.high - 0.3 - 1.96 * 0.0229).abs() < 0.006, "{estimate:?}");
        assert!((0.3 - estimate.low - 1.96 * 0.0229).abs() < 0.006, "{estimate:?}");
        assert_eq!(bootstrap_mean(&[values], "width").unwrap(), estimate);
    }

    #[test]
    fn strata_weigh_the_same_whatever_their_size() {
        let estimate = bootstrap_mean(&[vec![1.0; 10], vec![0.0; 90]], "strata").unwrap();
        assert_eq!((estimate.mean, estimate.low, estimate.high), (0.5, 0.5, 0.5));
        assert_eq!(estimate.n, 100);
        assert_eq!(bootstrap_mean(&[vec![1.0], vec![]], "strata"), None);
    }

    #[test]
    fn pairing_shows_a_difference_that_the_problems_spread_hides() {
        // Problems differ widely; on each, a is better by 0.05.
        let pairs: Vec<(f64, f64)> =
            (0..100).map(|i| (f64::from(i % 10) / 10.0 + 0.05, f64::from(i % 10) / 10.0)).collect();
        let paired = bootstrap_difference(std::slice::from_ref(&pairs), "pair").unwrap();
        assert_eq!(paired.sign(), Some(true));
        assert!(paired.high - paired.low < 1e-9);
        let even = pairs
            .iter()
            .enumerate()
            .map(|(i, (a, b))| if i % 2 == 0 { (*a, *b) } else { (*b, *a) });
        assert_eq!(bootstrap_difference(&[even.collect()], "pair").unwrap().sign(), None);
    }

    #[test]
    fn percentiles_lie_between_neighbours() {
        assert_eq!(percentile(&[0.0, 1.0, 2.0, 3.0, 4.0], 0.5), 2.0);
        assert!((percentile(&[0.0, 1.0], 0.25) - 0.25).abs() < 1e-12);
    }
}
