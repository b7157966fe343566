//! The policy update of one RL iteration.

use tch::{Device, Kind, no_grad};

use super::batch::{Sequence, micro_batches};
use super::prompt::Prompt;
use crate::advantage::advantages;
use crate::dataset::{Rollout, Verdict};
use crate::entropy::Stream;
use crate::job::rl::{Aggregation, KlKind, Spec};
use crate::model::{AdamW, Transformer, loss};
use crate::{Error, Result};

/// The responses to learn from, with their advantages.
pub struct Batch {
    sequences: Vec<Sequence>,
    advantages: Vec<f64>,
    /// Sampler's log-probability of each response token.
    logprobs: Vec<Vec<f32>>,
}

impl Batch {
    /// `selected` are indices into `rollouts` and `verdicts`, which run in parallel, group by
    /// group; `prompts` are the groups' prompts.
    pub fn new(
        spec: &Spec,
        prompts: &[Prompt],
        rollouts: &[Rollout],
        verdicts: &[Verdict],
        selected: &[usize],
    ) -> Self {
        let rewards: Vec<f64> = selected.iter().map(|&i| f64::from(verdicts[i].reward)).collect();
        let groups: Vec<usize> = selected.iter().map(|&i| i / spec.samples).collect();
        let lengths: Vec<usize> = selected.iter().map(|&i| rollouts[i].tokens.len()).collect();
        Self {
            sequences: selected
                .iter()
                .map(|&i| Sequence {
                    prompt: prompts[i / spec.samples].ids.clone(),
                    response: rollouts[i].tokens.clone(),
                })
                .collect(),
            advantages: advantages(spec.algorithm, &rewards, &groups, &lengths),
            logprobs: selected.iter().map(|&i| rollouts[i].logprobs.clone()).collect(),
        }
    }

    /// Tokens that go through the model, prompts included.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(|s| s.prompt.len() + s.response.len()).sum()
    }
}

/// Updates `policy` on the batch and returns what was measured, by metric name.
///
/// Loss = aggregate(policy loss + kl.coefficient * KL - entropy * H). The old log-probabilities
/// are the sampler's; `sampler_gap` is their mean distance from the trainer's before the first
/// update, which shows the two drifting apart.
pub fn update(
    spec: &Spec,
    step: u32,
    policy: &Transformer,
    reference: &Transformer,
    optimizer: &mut AdamW,
    batch: &Batch,
    device: Device,
) -> Result<Vec<(&'static str, f64)>> {
    let aggregation = spec.aggregation.of(spec.max_new_tokens);
    let mut sums = Sums::default();
    let mut order: Vec<usize> = (0..batch.sequences.len()).collect();
    if spec.updates > 1 {
        Stream::new(spec.seed, "rl/minibatch", u64::from(step)).shuffle(&mut order);
    }
    let size = order.len().div_ceil(spec.updates).max(1);
    for (number, rows) in order.chunks(size).enumerate() {
        let lengths: Vec<usize> =
            rows.iter().map(|&row| batch.sequences[row].response.len()).collect();
        let mut weights = vec![0.0; batch.sequences.len()];
        for (&row, weight) in rows.iter().zip(aggregation.weights(&lengths)) {
            weights[row] = weight;
        }
        for micro in micro_batches(&batch.sequences, rows, device) {
            let logits = micro.logits(policy)?; // (N, V)
            let logp = loss::token_logprobs(&logits, &micro.targets, spec.temperature)?; // (N)
            let old = micro.gather(&batch.logprobs);
            let advantage = micro.per_token(&batch.advantages);
            let clip =
                loss::Clip { low: spec.clip.low, high: spec.clip.high, dual: spec.clip.dual };
            let mut token_loss = loss::policy_loss(&logp, &old, &advantage, None, clip)?;
            let kind = match spec.kl.kind {
                KlKind::K1 => loss::Kl::K1,
                KlKind::K2 => loss::Kl::K2,
                KlKind::K3 => loss::Kl::K3,
            };
            let logp_reference = no_grad(|| micro.logprobs(reference, spec.temperature))?;
            let kl = loss::kl(kind, &logp, &logp_reference)?;
            if spec.kl.coefficient != 0.0 {
                token_loss = token_loss.f_add(&(&kl * spec.kl.coefficient))?;
            }
            let entropy = if spec.entropy == 0.0 {
                no_grad(|| loss::entropy(&logits))?
            } else {
                let entropy = loss::entropy(&logits)?;
                token_loss = token_loss.f_sub(&(&entropy * spec.entropy))?;
                entropy
            };
            let total = (&token_loss * micro.per_token(&weights)).sum(Kind::Float);
            total.f_backward()?;
            sums.loss += total.double_value(&[]);
            sums.kl += kl.sum(Kind::Double).double_value(&[]);
            sums.entropy += entropy.sum(Kind::Double).double_value(&[]);
            sums.tokens += micro.tokens() as f64;
            if number == 0 {
                let gap = (logp.detach() - &old).abs();
                sums.gap += gap.sum(Kind::Double).double_value(&[]);
                sums.gap_tokens += micro.tokens() as f64;
            }
        }
        if !sums.loss.is_finite() {
            return Err(Error::data(format!(
                "iteration {step}: the loss is {}; lower learning_rate {}",
                sums.loss, spec.learning_rate
            )));
        }
        sums.grad_norm += optimizer.step(spec.learning_rate, spec.max_gradient_norm)?;
        optimizer.zero_grad();
        sums.updates += 1.0;
    }
    Ok(sums.metrics())
}

impl Aggregation {
    /// The model layer's form of it. `constant` is what Dr. GRPO divides by, tokens.
    pub(super) fn of(self, constant: usize) -> loss::Aggregation {
        match self {
            Self::TokenMean => loss::Aggregation::TokenMean,
            Self::SeqMeanTokenMean => loss::Aggregation::SeqMeanTokenMean,
            Self::SeqMeanTokenSumNorm => loss::Aggregation::SeqMeanTokenSumNorm(constant as f64),
        }
    }
}

#[derive(Default)]
struct Sums {
    loss: f64,
    kl: f64,
    entropy: f64,
    tokens: f64,
    gap: f64,
    gap_tokens: f64,
    grad_norm: f64,
    updates: f64,
}

impl Sums {
    fn metrics(&self) -> Vec<(&'static str, f64)> {
        if self.tokens == 0.0 {
            return Vec::new();
        }
        vec![
            ("loss", self.loss / self.updates),
            ("kl", self.kl / self.tokens),
            ("entropy", self.entropy / self.tokens),
            ("sampler_gap", self.gap / self.gap_tokens),
            ("grad_norm", self.grad_norm / self.updates),
        ]
    }
}
