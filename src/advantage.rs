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
    /// Equation 1 of the paper (arXiv 2505.10554): (r - mean of the group) / std of the group, 0
    /// where all rewards are the same.
    PaperGroup,
    /// Dr. GRPO: GRPO without the division.
    DrGrpo,
    /// RLOO: r - mean of the others in the group.
    Rloo,
}

/// An advantage for each token of each response.
///
/// `rewards` and `groups` have one entry per response: its terminal reward and the number of its
/// group. `penalties` has one per token, taken off the reward there (KL in the reward; zeros
/// without). The discount is 1: a token's return is the reward less the penalties from there on.
/// REINFORCE++ whitens returns over all tokens; the group forms take a response's whole return.
pub fn advantages(
    algorithm: Algorithm,
    rewards: &[f64],
    groups: &[usize],
    penalties: &[Vec<f64>],
) -> Vec<Vec<f64>> {
    match algorithm {
        Algorithm::ReinforcePp => whiten(returns(rewards, penalties)),
        Algorithm::ReinforcePpBaseline => {
            let centred = by_group(rewards, groups, |r, group| r - group.mean());
            whiten(returns(&centred, penalties))
        }
        Algorithm::Grpo => spread(rewards, groups, penalties, |r, group| match group.count {
            1 => r,
            _ => (r - group.mean()) / (group.std() + 1e-6),
        }),
        Algorithm::PaperGroup => spread(rewards, groups, penalties, |r, group| {
            let std = group.std();
            if group.count > 1 && std > 0.0 { (r - group.mean()) / std } else { 0.0 }
        }),
        Algorithm::DrGrpo => spread(rewards, groups, penalties, |r, group| match group.count {
            1 => r,
            _ => r - group.mean(),
        }),
        Algorithm::Rloo => spread(rewards, groups, penalties, |r, group| match group.count {
            1 => r,
            n => r - (group.sum - r) / (n - 1) as f64,
        }),
    }
}

/// The return of each token.
fn returns(rewards: &[f64], penalties: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let one = |(reward, penalties): (&f64, &Vec<f64>)| {
        let mut rest = *reward;
        let mut returns: Vec<f64> = penalties
            .iter()
            .rev()
            .map(|penalty| {
                rest -= penalty;
                rest
            })
            .collect();
        returns.reverse();
        returns
    };
    rewards.iter().zip(penalties).map(one).collect()
}

/// One number from each response's whole return and its group, for all of its tokens.
fn spread(
    rewards: &[f64],
    groups: &[usize],
    penalties: &[Vec<f64>],
    f: impl Fn(f64, &Group) -> f64,
) -> Vec<Vec<f64>> {
    let less = |(reward, penalties): (&f64, &Vec<f64>)| reward - penalties.iter().sum::<f64>();
    let totals: Vec<f64> = rewards.iter().zip(penalties).map(less).collect();
    let values = by_group(&totals, groups, f);
    values.into_iter().zip(penalties).map(|(value, own)| vec![value; own.len()]).collect()
}

/// (x - mu) * rsqrt(var + 1e-8), mu and the Bessel-corrected var over all tokens.
fn whiten(mut values: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let all = || values.iter().flatten();
    let tokens = all().count() as f64;
    let mean = all().sum::<f64>() / tokens;
    let var = all().map(|x| (x - mean).powi(2)).sum::<f64>() / (tokens - 1.0).max(1.0);
    let scale = (var + 1e-8).sqrt().recip();
    values.iter_mut().flatten().for_each(|x| *x = (*x - mean) * scale);
    values
}

/// The punishment of responses that come near the limit (DAPO, arXiv 2503.14476): 0 up to `limit` -
/// `buffer` tokens, from there linearly down to -`factor` at the limit.
pub fn overlong(length: usize, limit: usize, buffer: usize, factor: f64) -> f64 {
    let over = length as f64 - (limit as f64 - buffer as f64);
    (-over / buffer as f64 * factor).min(0.0)
}

/// The next KL coefficient (Ziegler et al., arXiv 1909.08593): with a KL above `target` it grows by
/// at most a fifth for each `horizon` responses, below it shrinks.
pub fn adapted(coefficient: f64, kl: f64, target: f64, horizon: f64, responses: usize) -> f64 {
    let error = (kl / target - 1.0).clamp(-0.2, 0.2);
    coefficient * (1.0 + error * responses as f64 / horizon)
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

    fn zeros(lengths: &[usize]) -> Vec<Vec<f64>> {
        lengths.iter().map(|&n| vec![0.0; n]).collect()
    }

    #[test]
    fn reinforce_pp_whitens_over_tokens() {
        // tokens: 3, -0.5, -0.5, -0.5, -3 -> mean -0.3, Bessel variance 4.575
        let got = advantages(Algorithm::ReinforcePp, &REWARDS, &GROUPS, &zeros(&[1, 2, 1, 1]));
        let std = 4.575f64.sqrt();
        let want = [3.3, -0.2, -0.2, -0.2, -2.7].map(|x| x / std);
        close(&got.concat(), &want);
        assert_eq!(got[1].len(), 2);
    }

    #[test]
    fn reinforce_pp_baseline_centres_groups_first() {
        // centred: 1.75, -1.75, 1.25, -1.25; mean 0, Bessel variance 9.25 / 3
        let got = advantages(Algorithm::ReinforcePpBaseline, &REWARDS, &GROUPS, &zeros(&[1; 4]));
        let std = (9.25f64 / 3.0).sqrt();
        close(&got.concat(), &[1.75 / std, -1.75 / std, 1.25 / std, -1.25 / std]);
    }

    #[test]
    fn penalties_come_off_what_follows_them() {
        let penalties = [vec![0.5, 0.0, 0.25], vec![0.0]];
        // returns: 2.25, 2.75, 2.75 and -1; mean 1.6875
        let got = advantages(Algorithm::ReinforcePp, &[3.0, -1.0], &[0, 0], &penalties).concat();
        let returns = [2.25, 2.75, 2.75, -1.0];
        let var = returns.iter().map(|x| (x - 1.6875f64).powi(2)).sum::<f64>() / 3.0;
        close(&got, &returns.map(|x| (x - 1.6875) / var.sqrt()));
        // The group forms take the sum: 2.25 and -1.
        let got = advantages(Algorithm::DrGrpo, &[3.0, -1.0], &[0, 0], &penalties);
        close(&got.concat(), &[1.625, 1.625, 1.625, -1.625]);
    }

    #[test]
    fn group_forms() {
        let run = |algorithm, rewards: &[f64], groups: &[usize]| {
            advantages(algorithm, rewards, groups, &zeros(&vec![1; rewards.len()])).concat()
        };
        let std0 = 2.0f64.sqrt() * 1.75;
        let std1 = 2.0f64.sqrt() * 1.25;
        let scaled = [1.75 / std0, -1.75 / std0, 1.25 / std1, -1.25 / std1];
        close(&run(Algorithm::Grpo, &REWARDS, &GROUPS), &scaled);
        close(&run(Algorithm::PaperGroup, &REWARDS, &GROUPS), &scaled);
        close(&run(Algorithm::DrGrpo, &REWARDS, &GROUPS), &[1.75, -1.75, 1.25, -1.25]);
        close(&run(Algorithm::Rloo, &REWARDS, &GROUPS), &[3.5, -3.5, 2.5, -2.5]);
        for algorithm in [Algorithm::Grpo, Algorithm::PaperGroup] {
            close(&run(algorithm, &[1.0; 3], &[0; 3]), &[0.0; 3]);
        }
        close(&run(Algorithm::Grpo, &[2.0], &[0]), &[2.0]);
    }

    #[test]
    fn long_responses_are_punished_near_the_limit() {
        let punished = [60, 80, 90, 100].map(|length| overlong(length, 100, 20, 1.0));
        close(&punished, &[0.0, 0.0, -0.5, -1.0]);
    }

    #[test]
    fn the_kl_coefficient_follows_its_target() {
        // Half the target: -0.5, clipped to -0.2; 64 responses of a horizon of 10,000.
        close(&[adapted(0.01, 0.05, 0.1, 1e4, 64)], &[0.01 * (1.0 - 0.2 * 0.0064)]);
        close(&[adapted(0.01, 0.11, 0.1, 1e4, 64)], &[0.01 * (1.0 + 0.1 * 0.0064)]);
    }
}
