//! What is measured while a policy is updated, and of the responses it is updated on.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::Result;
use crate::model::to_host;

/// Sums over the tokens of one iteration's updates.
#[derive(Default)]
pub struct Sums {
    pub loss: f64,
    pub kl: Means,
    pub entropy: Means,
    /// Tokens whose loss the clip holds.
    pub clipped: Means,
    /// Distance between the sampler's and the trainer's log-probabilities.
    pub gap: Means,
    /// KL(sampler || trainer), estimated as k3.
    pub sampler_kl: Means,
    norm: f64,
    updates: f64,
}

/// Means over tokens by the level of their tasks, added up in parts.
#[derive(Default)]
pub struct Means(BTreeMap<u32, (f64, f64)>);

impl Means {
    /// Takes in some tokens' numbers, (n), and their levels.
    pub fn add(&mut self, tokens: &Tensor, levels: &[u32]) -> Result<()> {
        for (number, &level) in to_host(tokens)?.into_iter().zip(levels) {
            let (sum, count) = self.0.entry(level).or_default();
            *sum += f64::from(number);
            *count += 1.0;
        }
        Ok(())
    }

    /// Over the tokens of all levels.
    pub fn all(&self) -> Option<f64> {
        let (sum, count) =
            self.0.values().fold((0.0, 0.0), |(s, n), (sum, count)| (s + sum, n + count));
        (count > 0.0).then(|| sum / count)
    }
}

impl Sums {
    /// One update has been made; `norm` is its gradient's.
    pub fn updated(&mut self, norm: f64) {
        self.norm += norm;
        self.updates += 1.0;
    }

    /// Whether the weights are still those that sampled.
    pub fn before_updates(&self) -> bool {
        self.updates == 0.0
    }

    /// By level and metric name: the whole as level 0, then each level of which there were tokens.
    pub fn metrics(&self) -> Vec<(u32, &'static str, f64)> {
        let updates = (self.updates > 0.0).then_some(self.updates);
        let whole = [("loss", self.loss), ("grad_norm", self.norm)];
        let whole = whole.into_iter().filter_map(|(name, sum)| Some((0, name, sum / updates?)));
        let means = [
            ("kl", &self.kl),
            ("entropy", &self.entropy),
            ("clip_fraction", &self.clipped),
            ("sampler_gap", &self.gap),
            ("sampler_kl", &self.sampler_kl),
        ];
        let means = means.into_iter().flat_map(|(name, means)| {
            let levels = means.0.range(1..).map(|(&level, (sum, count))| (level, sum / count));
            let all = means.all().map(|mean| (0, mean));
            all.into_iter().chain(levels).map(move |(level, mean)| (level, name, mean))
        });
        whole.chain(means).collect()
    }
}

/// The quantiles at 10%, 50% and 90% (nearest rank); nothing of nothing.
pub fn quantiles(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return values };
    [0.1, 0.5, 0.9].map(|share| values[(share * last as f64).round() as usize]).into()
}
