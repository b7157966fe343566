//! What is measured while a policy is updated, and of the responses it is updated on.

use tch::{Kind, Tensor};

use crate::Result;

/// Sums over the tokens of one iteration's updates.
#[derive(Default)]
pub struct Sums {
    pub loss: f64,
    pub kl: Mean,
    pub entropy: Mean,
    /// Tokens whose loss the clip holds.
    pub clipped: Mean,
    /// Distance between the sampler's and the trainer's log-probabilities.
    pub gap: Mean,
    norm: f64,
    updates: f64,
}

/// The mean over tokens, added up in parts.
#[derive(Default)]
pub struct Mean {
    sum: f64,
    count: f64,
}

impl Mean {
    /// Takes in some tokens' numbers, (n).
    pub fn add(&mut self, tokens: &Tensor) -> Result<()> {
        self.sum += tokens.f_detach()?.f_sum(Kind::Double)?.f_double_value(&[])?;
        self.count += tokens.numel() as f64;
        Ok(())
    }

    pub fn get(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
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

    /// By metric name.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let updates = (self.updates > 0.0).then_some(self.updates);
        [
            ("loss", updates.map(|n| self.loss / n)),
            ("grad_norm", updates.map(|n| self.norm / n)),
            ("kl", self.kl.get()),
            ("entropy", self.entropy.get()),
            ("clip_fraction", self.clipped.get()),
            ("sampler_gap", self.gap.get()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

/// The quantiles at 10%, 50% and 90% (nearest rank); nothing of nothing.
pub fn quantiles(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some([0.1, 0.5, 0.9].map(|share| values[(share * last as f64).round() as usize]))
}
