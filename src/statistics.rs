//! Accuracy estimates and their intervals. Pure.
//!
//! The problem is the unit: samples of one problem are averaged first, and the bootstrap draws
//! problems, never samples, since two samples of a problem are not independent.

use serde::{Deserialize, Serialize};

use crate::entropy::Stream;

/// Bootstrap resamples.
pub const RESAMPLES: usize = 2_000;

/// Sign patterns of a randomization test: p-values go down to 0.0001.
pub const FLIPS: usize = 9_999;

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
    Some(interval(stratified_mean(strata)?, resampled(strata, name), problems(strata)))
}

fn problems(strata: &[Vec<f64>]) -> usize {
    strata.iter().map(Vec::len).sum()
}

fn stratified_mean(strata: &[Vec<f64>]) -> Option<f64> {
    if strata.is_empty() || strata.iter().any(Vec::is_empty) {
        return None;
    }
    Some(strata.iter().map(|values| mean(values)).sum::<f64>() / strata.len() as f64)
}

/// The mean of each resample.
fn resampled(strata: &[Vec<f64>], name: &str) -> Vec<f64> {
    let one = |index: usize| {
        let mut draws = Draws(Stream::new(0, name, index as u64).next_u64());
        let mut resample = |values: &Vec<f64>| {
            let sum: f64 = (0..values.len()).map(|_| values[draws.below(values.len())]).sum();
            sum / values.len() as f64
        };
        strata.iter().map(&mut resample).sum::<f64>() / strata.len() as f64
    };
    (0..RESAMPLES).map(one).collect()
}

fn interval(mean: f64, mut draws: Vec<f64>, n: usize) -> Estimate {
    draws.sort_by(f64::total_cmp);
    Estimate { mean, low: percentile(&draws, 0.025), high: percentile(&draws, 0.975), n }
}

/// SplitMix64 (Steele et al. 2014), begun at a number that names the draw: a report draws hundreds of
/// millions, which blake3 would take seconds for.
struct Draws(u64);

impl Draws {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }
}

/// The paired difference a - b over the same problems: the bootstrap of the problems' own
/// differences, which leaves out what both models find hard. Strata as in [`bootstrap_mean`];
/// each is a list of (a, b).
pub fn bootstrap_difference(strata: &[Vec<(f64, f64)>], name: &str) -> Option<Estimate> {
    let differences: Vec<Vec<f64>> =
        strata.iter().map(|pairs| pairs.iter().map(|(a, b)| a - b).collect()).collect();
    bootstrap_mean(&differences, name)
}

/// The difference a - b of models that were scored on different problems: both are resampled on
/// their own. Strata as in [`bootstrap_mean`].
pub fn bootstrap_unpaired(a: &[Vec<f64>], b: &[Vec<f64>], name: &str) -> Option<Estimate> {
    let mean = stratified_mean(a)? - stratified_mean(b)?;
    let of = |strata, side| resampled(strata, &format!("{name}/{side}"));
    let draws = of(a, "a").into_iter().zip(of(b, "b")).map(|(a, b)| a - b).collect();
    Some(interval(mean, draws, problems(a) + problems(b)))
}

/// Two-sided p-value of the paired randomization test (Fisher 1935): which of two equally good models
/// gave which of a problem's two results is chance, so each problem's difference may as well have the
/// other sign. The share of [`FLIPS`] random sign patterns, and of the one observed, whose mean is at
/// least as far from 0. Strata and `None` as in [`bootstrap_mean`]; each is a list of differences.
pub fn sign_flip(strata: &[Vec<f64>], name: &str) -> Option<f64> {
    let observed = stratified_mean(strata)?.abs();
    // A difference of 0 is 0 whatever its sign.
    let parts: Vec<f64> = strata
        .iter()
        .flat_map(|values| values.iter().map(|value| value / (values.len() * strata.len()) as f64))
        .filter(|part| *part != 0.0)
        .collect();
    let as_far = |index: &usize| {
        let mut draws = Draws(Stream::new(0, name, *index as u64).next_u64());
        let mut sum = 0.0;
        for parts in parts.chunks(64) {
            let signs = draws.next_u64();
            // The sign bit, without a branch that would be guessed wrong half of the time.
            let flipped =
                |(i, part): (usize, &f64)| f64::from_bits(part.to_bits() ^ (signs >> i << 63));
            sum += parts.iter().enumerate().map(flipped).sum::<f64>();
        }
        // Sums in another order differ by rounding.
        sum.abs() >= observed - 1e-12
    };
    let count = (0..FLIPS).filter(as_far).count();
    Some((count + 1) as f64 / (FLIPS + 1) as f64)
}

/// Holm's step-down correction (1979): each p-value as it counts among all of `values`, so that the
/// chance of even one wrong claim stays below the level at which they are read.
pub fn holm(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let (mut adjusted, mut before) = (vec![1.0; values.len()], 0.0);
    for (rank, &at) in order.iter().enumerate() {
        before = (values[at] * (values.len() - rank) as f64).min(1.0).max(before);
        adjusted[at] = before;
    }
    adjusted
}

/// The score of a majority vote (maj@k; self-consistency, arXiv 2203.11171) among the answers that
/// one problem got, each with whether it is right. Answers are the same when their words are, or
/// when `same` says so of two that are both right or both wrong; empty ones have no vote. Of equally
/// frequent answers chance picks one: the expected score.
pub fn majority<'a>(
    answers: impl Iterator<Item = (&'a str, bool)>,
    same: impl Fn(&str, &str) -> bool,
) -> f64 {
    let mut votes: Vec<(String, u32, bool)> = Vec::new();
    for (answer, right) in answers {
        let words = answer.split_whitespace().collect::<Vec<_>>().join(" ");
        if words.is_empty() {
            continue;
        }
        let equal = |vote: &&mut (String, u32, bool)| {
            vote.0 == words || (vote.2 == right && same(&vote.0, &words))
        };
        match votes.iter_mut().find(equal) {
            Some(vote) => (vote.1, vote.2) = (vote.1 + 1, vote.2 || right),
            None => votes.push((words, 1, right)),
        }
    }
    let most = votes.iter().map(|vote| vote.1).max();
    let first = votes.iter().filter(|vote| Some(vote.1) == most);
    mean(&first.map(|vote| f64::from(vote.2)).collect::<Vec<_>>())
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
pub fn mean(values: &[f64]) -> f64 {
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
    fn unpaired_differences_are_wider_than_paired_ones() {
        let a: Vec<f64> = (0..200).map(|i| f64::from(i % 10 < 6)).collect();
        let b: Vec<f64> = (0..200).map(|i| f64::from(i % 10 < 5)).collect();
        let both = [a.iter().copied().zip(b.iter().copied()).collect()];
        let paired = bootstrap_difference(&both, "x").unwrap();
        let apart = bootstrap_unpaired(&[a], &[b], "x").unwrap();
        assert!((apart.mean - 0.1).abs() < 1e-12 && apart.n == 400);
        // sqrt((0.24 + 0.25) / 200) = 0.0495.
        assert!((apart.high - 0.1 - 1.96 * 0.0495).abs() < 0.012, "{apart:?}");
        assert!(apart.high - apart.low > 2.0 * (paired.high - paired.low));
    }

    #[test]
    fn p_values_are_those_of_the_sign_test_where_all_differences_are_alike() {
        // 8 better, 2 worse: both tails of the binomial, 2 * (1 + 10 + 45) / 1024 = 0.109.
        let values = [vec![1.0; 8], vec![-1.0; 2], vec![0.0; 30]].concat();
        let p = sign_flip(&[values], "p").unwrap();
        assert!((p - 0.109).abs() < 0.01, "{p}");
        assert_eq!(sign_flip(&[vec![0.0; 5]], "p"), Some(1.0));
        assert_eq!(sign_flip(&[vec![1.0; 100]], "p"), Some(1e-4));
        assert_eq!(sign_flip(&[vec![]], "p"), None);
    }

    #[test]
    fn p_values_of_nothing_are_uniform() {
        let p = |run: u64| {
            let mut stream = Stream::new(run, "null", 0);
            sign_flip(&[(0..40).map(|_| stream.normal()).collect()], "uniform").unwrap()
        };
        let low = (0..200).filter(|run| p(*run) < 0.05).count();
        assert!((3..=20).contains(&low), "{low} of 200 below 0.05");
    }

    #[test]
    fn holm_multiplies_the_smallest_most() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.5]);
        let expected = [0.04, 0.09, 0.09, 0.5];
        assert!(adjusted.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{adjusted:?}");
        assert_eq!(holm(&[0.6, 0.7]), [1.0, 1.0]);
    }

    #[test]
    fn the_majority_decides_and_ties_are_shared() {
        let vote = |answers: &[(&str, bool)]| majority(answers.iter().copied(), |_, _| false);
        assert_eq!(vote(&[("1  2", true), ("3", false), (" 1 2 ", true)]), 1.0);
        assert_eq!(vote(&[("3", false), ("1", true)]), 0.5);
        assert_eq!(vote(&[("", false), ("", false), ("1", true)]), 1.0);
        assert_eq!(vote(&[("", false)]), 0.0);
        // Three votes of two wordings, but not across right and wrong.
        let answers = [("1/2", true), ("3", false), ("3", false), ("0.5", true), (".5", true)];
        let same = |a: &str, b: &str| a != "3" && b != "3";
        assert_eq!(majority(answers.into_iter(), same), 1.0);
        assert_eq!(majority(answers.into_iter(), |_, _| false), 0.0);
        assert_eq!(majority(answers.into_iter(), |_, _| true), 1.0);
    }

    #[test]
    fn percentiles_lie_between_neighbours() {
        assert_eq!(percentile(&[0.0, 1.0, 2.0, 3.0, 4.0], 0.5), 2.0);
        assert!((percentile(&[0.0, 1.0], 0.25) - 0.25).abs() < 1e-12);
    }
}
