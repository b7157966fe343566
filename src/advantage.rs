//! From rewards to advantages. Pure.

use serde::{Deserialize, Serialize};

/// How the rewards of a batch become advantages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// REINFORCE++ (arXiv 2501.03262): the reward whitened over all response tokens of the batch.
    ReinforcePp,
    /// REINFORCE++-baseline: reward minus its group's mean, then whitened over all tokens.
    ReinforcePpBaseline,
    /// GRPO (arXiv 2402.03300): (r - mean of the group) / (std of the group + 1e-6).
    Grpo,
    /// Dr. GRPO: GRPO without the division.
    DrGrpo,
    /// RLOO: r - mean of the others in the group.
    Rloo,
}

/// One advantage per response, the same for each of its tokens.
///
/// `rewards`, `groups` and `lengths` have one entry per response: its terminal reward, the number
/// of its group, and its count of tokens (> 0). With discount 1 and a terminal reward, every
/// token's return is the response's reward, so whitening over tokens weights each response by its
/// length.
pub fn advantages(
    algorithm: Algorithm,
    rewards: &[f64],
    groups: &[usize],
    lengths: &[usize],
) -> Vec<f64> {
    match algorithm {
        Algorithm::ReinforcePp => whiten(rewards, lengths),
        Algorithm::ReinforcePpBaseline => {
            let centred = by_group(rewards, groups, |r, group| r - group.mean());
            whiten(&centred, lengths)
        }
        Algorithm::Grpo => by_group(rewards, groups, |r, group| match group.count {
            1 => r,
            _ => (r - group.mean()) / (group.std() + 1e-6),
        }),
        Algorithm::DrGrpo => by_group(rewards, groups, |r, group| match group.count {
            1 => r,
            _ => r - group.mean(),
        }),
        Algorithm::Rloo => by_group(rewards, groups, |r, group| match group.count {
            1 => r,
            n => r - (group.sum - r) / (n - 1) as f64,
        }),
    }
}

/// (x - mu) * rsqrt(var + 1e-8), mu and the Bessel-corrected var over tokens.
fn whiten(values: &[f64], lengths: &[usize]) -> Vec<f64> {
    let tokens: f64 = lengths.iter().map(|&n| n as f64).sum();
    let pairs = || values.iter().zip(lengths.iter().map(|&n| n as f64));
    let mean = pairs().map(|(x, n)| x * n).sum::<f64>() / tokens;
    let var = pairs().map(|(x, n)| n * (x - mean).powi(2)).sum::<f64>() / (tokens - 1.0).max(1.0);
    values.iter().map(|x| (x - mean) / (var + 1e-8).sqrt()).collect()
}

#[derive(Default, Clone, Copy)]
struct Group {
    count: usize,
    sum: f64,
    squares: f64,
}

impl Group {
    fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }

    fn std(&self) -> f64 {
        let n = self.count as f64;
        ((self.squares - n * self.mean().powi(2)).max(0.0) / (n - 1.0)).sqrt()
    }
}

fn by_group(rewards: &[f64], groups: &[usize], f: impl Fn(f64, &Group) -> f64) -> Vec<f64> {
    let mut sums = vec![Group::default(); groups.iter().max().map_or(0, |g| g + 1)];
    for (&r, &g) in rewards.iter().zip(groups) {
        sums[g].count += 1;
        sums[g].sum += r;
        sums[g].squares += r * r;
    }
    rewards.iter().zip(groups).map(|(&r, &g)| f(r, &sums[g])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() < 1e-5, "got {got:?}, want {want:?}");
        }
    }

    const REWARDS: [f64; 4] = [3.0, -0.5, -0.5, -3.0];
    const GROUPS: [usize; 4] = [0, 0, 1, 1];

    #[test]
    fn reinforce_pp_whitens_over_tokens() {
        // tokens: 3, -0.5, -0.5, -0.5, -3 -> mean -0.3, Bessel variance 4.575
        let got = advantages(Algorithm::ReinforcePp, &REWARDS, &GROUPS, &[1, 2, 1, 1]);
        let std = 4.575f64.sqrt();
        close(&got, &[3.3 / std, -0.2 / std, -0.2 / std, -2.7 / std]);
    }

    #[test]
    fn reinforce_pp_baseline_centres_groups_first() {
        // centred: 1.75, -1.75, 1.25, -1.25; mean 0, Bessel variance 9.25 / 3
        let got = advantages(Algorithm::ReinforcePpBaseline, &REWARDS, &GROUPS, &[1; 4]);
        let std = (9.25f64 / 3.0).sqrt();
        close(&got, &[1.75 / std, -1.75 / std, 1.25 / std, -1.25 / std]);
    }

    #[test]
    fn group_forms() {
        let run = |algorithm| advantages(algorithm, &REWARDS, &GROUPS, &[1; 4]);
        let std0 = 2.0f64.sqrt() * 1.75;
        let std1 = 2.0f64.sqrt() * 1.25;
        close(&run(Algorithm::Grpo), &[1.75 / std0, -1.75 / std0, 1.25 / std1, -1.25 / std1]);
        close(&run(Algorithm::DrGrpo), &[1.75, -1.75, 1.25, -1.25]);
        close(&run(Algorithm::Rloo), &[3.5, -3.5, 2.5, -2.5]);
        close(&advantages(Algorithm::Grpo, &[1.0; 3], &[0; 3], &[1; 3]), &[0.0; 3]);
        close(&advantages(Algorithm::Grpo, &[2.0], &[0], &[5]), &[2.0]);
    }
}
