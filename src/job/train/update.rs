//! The policy update of one RL iteration.

use tch::{Device, Kind, Tensor};

use super::measure::Sums;
use super::prompt::Prompt;
use crate::Result;
use crate::advantage::{advantages, overlong};
use crate::dataset::{Rollout, Verdict};
use crate::entropy::Stream;
use crate::job::rl::{Aggregation, KlKind, KlPlace, Spec};
use crate::model::{AdamW, Gradients, MicroBatch, Sequence, Transformer, loss, micro_batches};

/// The responses to learn from.
pub struct Batch {
    sequences: Vec<Sequence>,
    rewards: Vec<f64>,
    groups: Vec<usize>,
    levels: Vec<u32>,
    /// Sampler's log-probability of each response token.
    sampler: Vec<Vec<f32>>,
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
        let reward = |&i: &usize| {
            let punished = spec.overlong.as_ref().map_or(0.0, |rule| {
                let length = rollouts[i].tokens.len();
                overlong(length, spec.max_new_tokens, rule.buffer, rule.factor)
            });
            f64::from(verdicts[i].reward) + punished
        };
        let sequence = |&i: &usize| Sequence {
            prompt: prompts[i / spec.samples].ids.clone(),
            response: rollouts[i].tokens.clone(),
        };
        Self {
            sequences: selected.iter().map(sequence).collect(),
            rewards: selected.iter().map(reward).collect(),
            groups: selected.iter().map(|&i| i / spec.samples).collect(),
            levels: selected.iter().map(|&i| rollouts[i].level).collect(),
            sampler: selected.iter().map(|&i| rollouts[i].logprobs.clone()).collect(),
        }
    }

    /// Tokens that go through the model, prompts included.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(|s| s.prompt.len() + s.response.len()).sum()
    }

    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Log-probabilities of all response tokens under `model`.
    fn logprobs(&self, spec: &Spec, model: &Transformer, device: Device) -> Result<Vec<Vec<f32>>> {
        let rows: Vec<usize> = (0..self.len()).collect();
        let mut all = vec![Vec::new(); self.len()];
        for micro in micro_batches(&self.sequences, &rows, spec.micro_batch_tokens, device)? {
            micro.scatter(&micro.logprobs(model, spec.temperature)?, &mut all)?;
        }
        Ok(all)
    }
}

/// One update's surroundings.
pub struct Update<'a> {
    pub spec: &'a Spec,
    pub step: u32,
    pub policy: &'a Transformer,
    /// None: no KL term.
    pub reference: Option<&'a Transformer>,
    pub kl_coefficient: f64,
    pub learning_rate: f64,
    pub device: Device,
}

/// What each token is judged by, one list per sequence of the batch.
struct Targets {
    advantages: Vec<Vec<f32>>,
    /// The policy before the update: the trainer's with a correction, else the sampler's.
    old: Vec<Vec<f32>>,
    /// Truncated ratios of trainer to sampler.
    weights: Option<Vec<Vec<f32>>>,
    reference: Option<Vec<Vec<f32>>>,
}

impl Update<'_> {
    /// Updates the policy on the batch and returns what was measured; `None` when a loss or the
    /// gradient is not finite: that update and those that were to follow on this batch are left out.
    ///
    /// Loss = aggregate(policy loss + coefficient * KL - entropy * H), the KL only where its place
    /// is the loss. `sampler_gap` is the mean distance of the sampler's log-probabilities from the
    /// trainer's before the first update, which shows the two drifting apart.
    pub fn run(&self, optimizer: &mut AdamW, batch: &Batch) -> Result<Option<Sums>> {
        let Self { spec, step, device, .. } = *self;
        let targets = self.targets(batch)?;
        let aggregation = spec.aggregation.of(spec.max_new_tokens);
        let mut sums = Sums::default();
        let mut order: Vec<usize> = (0..batch.len()).collect();
        if spec.updates > 1 {
            Stream::new(spec.seed, "rl/minibatch", u64::from(step)).shuffle(&mut order);
        }
        let size = order.len().div_ceil(spec.updates).max(1);
        for (number, rows) in order.chunks(size).enumerate() {
            let lengths: Vec<usize> =
                rows.iter().map(|&row| batch.sequences[row].response.len()).collect();
            let mut weights = vec![0.0; batch.len()];
            for (&row, weight) in rows.iter().zip(aggregation.weights(&lengths)) {
                weights[row] = weight;
            }
            let before = sums.loss;
            for micro in micro_batches(&batch.sequences, rows, spec.micro_batch_tokens, device)? {
                let learnt = optimizer.gradients();
                self.micro(&micro, &targets, batch, &weights, learnt, &mut sums)?;
                // The weights are as before: what is not finite has touched gradients only.
                if !sums.loss.is_finite() {
                    optimizer.gradients().zero()?;
                    return Ok(None);
                }
            }
            let norm = optimizer.step(self.learning_rate, spec.max_gradient_norm)?;
            if !norm.is_finite() {
                return Ok(None);
            }
            tracing::debug!(step, update = number, loss = sums.loss - before, norm, "updated");
            sums.updated(norm);
        }
        Ok(Some(sums))
    }

    fn targets(&self, batch: &Batch) -> Result<Targets> {
        let Self { spec, device, .. } = *self;
        let reference = match self.reference {
            Some(reference) => Some(batch.logprobs(spec, reference, device)?),
            None => None,
        };
        let (old, weights) = match spec.correction {
            None => (batch.sampler.clone(), None),
            Some(most) => {
                let old = batch.logprobs(spec, self.policy, device)?;
                let ratio = |(old, sampler): (&f32, &f32)| (old - sampler).exp().min(most as f32);
                let pairs = old.iter().zip(&batch.sampler);
                let ratios = pairs.map(|(a, b)| a.iter().zip(b).map(ratio).collect()).collect();
                (old, Some(ratios))
            }
        };
        let mut penalties: Vec<Vec<f64>> =
            old.iter().map(|tokens| vec![0.0; tokens.len()]).collect();
        if let (KlPlace::Reward, Some(reference)) = (spec.kl.place, &reference) {
            for ((penalties, old), reference) in penalties.iter_mut().zip(&old).zip(reference) {
                let (old, reference) = (Tensor::from_slice(old), Tensor::from_slice(reference));
                let kl = loss::kl(spec.kl.kind.of(), &old, &reference)?;
                let kl: Vec<f64> = Vec::try_from(kl.f_to_kind(Kind::Double)?)?;
                *penalties = kl.into_iter().map(|kl| self.kl_coefficient * kl).collect();
            }
        }
        let advantages = advantages(spec.algorithm, &batch.rewards, &batch.groups, &penalties);
        let narrow = |tokens: Vec<f64>| tokens.into_iter().map(|x| x as f32).collect();
        let advantages = advantages.into_iter().map(narrow).collect();
        Ok(Targets { advantages, old, weights, reference })
    }

    /// Adds one micro-batch's gradient. `weights` are the aggregation's, by sequence.
    fn micro(
        &self,
        micro: &MicroBatch,
        targets: &Targets,
        batch: &Batch,
        weights: &[f64],
        gradients: &Gradients,
        sums: &mut Sums,
    ) -> Result<()> {
        let Self { spec, .. } = *self;
        let clip = loss::Clip { low: spec.clip.low, high: spec.clip.high, dual: spec.clip.dual };
        let (old, sampler) = (micro.gather(&targets.old)?, micro.gather(&batch.sampler)?);
        let advantages = micro.gather(&targets.advantages)?;
        let ratios = targets.weights.as_ref().map(|ratios| micro.gather(ratios)).transpose()?;
        let reference = targets.reference.as_ref().map(|logp| micro.gather(logp)).transpose()?;
        let weights = micro.per_token(weights)?;
        let levels = micro.spread(&batch.levels);
        micro.backward(self.policy, gradients, spec.recompute, |rows, logits| {
            let cut = |tensor: &Tensor| tensor.f_narrow(0, rows.start as i64, rows.len() as i64);
            let levels = &levels[rows.clone()];
            let logp = loss::token_logprobs(logits, &cut(&micro.targets)?, spec.temperature)?;
            let (old, advantages) = (cut(&old)?, cut(&advantages)?);
            let ratios = ratios.as_ref().map(cut).transpose()?;
            let mut each = loss::policy_loss(&logp, &old, &advantages, ratios.as_ref(), clip)?;
            if let Some(reference) = &reference {
                let kl = loss::kl(spec.kl.kind.of(), &logp, &cut(reference)?)?;
                if spec.kl.place == KlPlace::Loss {
                    each = each.f_add(&kl.f_mul_scalar(self.kl_coefficient)?)?;
                }
                sums.kl.add(&kl, levels)?;
            }
            if spec.entropy == 0.0 {
                sums.entropy.add(&tch::no_grad(|| loss::entropy(logits))?, levels)?;
            } else {
                let entropy = loss::entropy(logits)?;
                each = each.f_sub(&entropy.f_mul_scalar(spec.entropy)?)?;
                sums.entropy.add(&entropy, levels)?;
            }
            sums.clipped.add(&loss::clipped(&logp, &old, &advantages, clip)?, levels)?;
            if sums.before_updates() {
                let sampler = cut(&sampler)?;
                sums.gap.add(&logp.f_sub(&sampler)?.f_abs()?, levels)?;
                sums.sampler_kl.add(&loss::kl(loss::Kl::K3, &sampler, &logp)?, levels)?;
            }
            let total = each.f_mul(&cut(&weights)?)?.f_sum(Kind::Float)?;
            sums.loss += total.f_double_value(&[])?;
            Ok(total)
        })
    }
}

impl KlKind {
    fn of(self) -> loss::Kl {
        match self {
            Self::K1 => loss::Kl::K1,
            Self::K2 => loss::Kl::K2,
            Self::K3 => loss::Kl::K3,
        }
    }
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
