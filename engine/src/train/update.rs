//! The policy update of one RL iteration.

use tch::{Device, Kind, Tensor};

use super::curriculum::Place;
use super::drawn::Drawn;
use super::learner::Learner;
use super::measure::Sums;
use super::rejected::{self, Rejection, Training};
use super::{rate, specs};
use crate::Result;
use crate::model::{AdamW, Gradients, MicroBatch, Sequence, Transformer, loss, micro_batches};
use triad::advantage::{adapted, advantages, overlong};
use triad::dataset::Rejected;
use triad::entropy::Stream;
use triad::job::Context;
use triad::job::rl::{KlPlace, Spec};

/// Learns from one iteration's responses, of which `selected` are the indices, and notes the
/// iteration's metrics. Without a `reference` there is no KL term. Gives the tokens that went through
/// the model, prompts included.
pub fn learn(
    context: &Context,
    spec: &Spec,
    learner: &mut Learner,
    reference: Option<&Transformer>,
    place: &Place,
    drawn: &Drawn,
    selected: &[usize],
) -> Result<usize> {
    if place.fresh() {
        learner.optimizer.reset()?;
    }
    let batch = Batch::new(spec, drawn, selected);
    let share = rate::share(place.nth, place.steps, spec.warmup, spec.final_rate);
    let learning_rate = spec.learning_rate * share;
    let kl_coefficient = learner.state.kl_coefficient;
    let loss = Loss { spec, kl_coefficient, policy: &learner.policy, device: learner.device };
    let (responses, tokens) = (batch.len(), batch.tokens());
    let targets = loss.targets(batch, reference)?;
    let outcome = loss.update(&mut learner.optimizer, targets, place.step(), learning_rate)?;

    let mut note = |level, name: &str, value| learner.note(place.step(), level, name, value);
    drawn.metrics(spec).into_iter().for_each(|(level, name, value)| note(level, &name, value));
    note(0, "selected", selected.len() as f64 / drawn.rollouts.len() as f64);
    note(0, "learning_rate", learning_rate);
    note(0, "kl_coefficient", kl_coefficient);
    let rejected = matches!(outcome, Outcome::Rejected(_));
    match outcome {
        Outcome::Learnt(sums) => {
            sums.metrics().into_iter().for_each(|(level, name, value)| note(level, name, value));
            learner.accept();
            if let (Some(rule), Some(kl)) = (&spec.kl.adaptive, sums.kl.all()) {
                learner.state.kl_coefficient =
                    adapted(kl_coefficient, kl, rule.target, rule.horizon, responses);
            }
        }
        Outcome::Rejected(rejection) => {
            let training = Training::Rl(Box::new(spec.clone()));
            learner.reject(context, place.step(), training, rejection)?;
        }
    }
    learner.note(place.step(), 0, "rejected", f64::from(u8::from(rejected)));
    Ok(tokens)
}

/// The responses to learn from.
struct Batch {
    sequences: Vec<Sequence>,
    rewards: Vec<f64>,
    groups: Vec<usize>,
    levels: Vec<u32>,
    /// Sampler's log-probability of each response token.
    sampler: Vec<Vec<f32>>,
}

impl Batch {
    fn new(spec: &Spec, drawn: &Drawn, selected: &[usize]) -> Self {
        let Drawn { prompts, rollouts, verdicts, .. } = drawn;
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

    fn tokens(&self) -> usize {
        self.sequences.iter().map(|s| s.prompt.len() + s.response.len()).sum()
    }

    fn len(&self) -> usize {
        self.sequences.len()
    }
}

/// What the loss of each sequence is made of: of each a number, or one for each token of its
/// response.
#[derive(Default)]
pub struct Targets {
    pub sequences: Vec<Sequence>,
    /// Of the tasks, 0 where that is not known.
    levels: Vec<u32>,
    /// The aggregation's.
    pub weights: Vec<f64>,
    advantages: Vec<Vec<f32>>,
    /// The policy before the update: the trainer's with a correction, else the sampler's.
    old: Vec<Vec<f32>>,
    sampler: Vec<Vec<f32>>,
    reference: Option<Vec<Vec<f32>>>,
    /// Truncated ratios of trainer to sampler.
    ratios: Option<Vec<Vec<f32>>>,
}

impl Targets {
    /// What supervised learning needs.
    pub fn weighted(sequences: Vec<Sequence>, weights: Vec<f64>) -> Self {
        Self { sequences, weights, ..Self::default() }
    }

    /// The sequences `rows` as they are stored.
    pub fn rows(&self, rows: &[usize]) -> Vec<Rejected> {
        let part = |lists: &[Vec<f32>], row: usize| lists.get(row).cloned().unwrap_or_default();
        let some = |lists: &Option<Vec<Vec<f32>>>, row: usize| {
            lists.as_ref().map_or(Vec::new(), |lists| part(lists, row))
        };
        let row = |&row: &usize| Rejected {
            prompt: self.sequences[row].prompt.clone(),
            response: self.sequences[row].response.clone(),
            weight: self.weights[row],
            advantages: part(&self.advantages, row),
            old_logprobs: part(&self.old, row),
            sampler_logprobs: part(&self.sampler, row),
            reference_logprobs: some(&self.reference, row),
            ratios: some(&self.ratios, row),
        };
        rows.iter().map(row).collect()
    }

    pub fn from_rows(rows: Vec<Rejected>) -> Self {
        let some = |list: fn(&Rejected) -> &Vec<f32>| {
            let whole = rows.iter().all(|row| list(row).len() == row.response.len());
            whole.then(|| rows.iter().map(|row| list(row).clone()).collect())
        };
        let (reference, ratios) = (some(|row| &row.reference_logprobs), some(|row| &row.ratios));
        let levels = vec![0; rows.len()];
        let mut all = Self { levels, reference, ratios, ..Self::default() };
        for row in rows {
            all.sequences.push(Sequence { prompt: row.prompt, response: row.response });
            all.weights.push(row.weight);
            all.advantages.push(row.advantages);
            all.old.push(row.old_logprobs);
            all.sampler.push(row.sampler_logprobs);
        }
        all
    }
}

/// How an iteration's updates went.
enum Outcome {
    Learnt(Sums),
    /// This update and those that were to follow on the batch are left out.
    Rejected(Rejection),
}

/// The loss of a policy: aggregate(policy loss + coefficient * KL - entropy * H), the KL only where
/// its place is the loss.
pub struct Loss<'a> {
    pub spec: &'a Spec,
    pub kl_coefficient: f64,
    pub policy: &'a Transformer,
    pub device: Device,
}

impl Loss<'_> {
    /// Updates the policy on the batch, unless a loss or the gradient is not finite.
    ///
    /// `sampler_gap` is the mean distance of the sampler's log-probabilities from the trainer's
    /// before the first update, which shows the two drifting apart.
    fn update(
        &self,
        optimizer: &mut AdamW,
        mut targets: Targets,
        step: usize,
        learning_rate: f64,
    ) -> Result<Outcome> {
        let Self { spec, .. } = *self;
        let aggregation = specs::aggregation(spec.aggregation, spec.max_new_tokens);
        let mut sums = Sums::default();
        let mut order: Vec<usize> = (0..targets.sequences.len()).collect();
        if spec.updates > 1 {
            Stream::new(spec.seed, "rl/minibatch", step as u64).shuffle(&mut order);
        }
        let size = order.len().div_ceil(spec.updates).max(1);
        for (update, rows) in order.chunks(size).enumerate() {
            let lengths: Vec<usize> =
                rows.iter().map(|&row| targets.sequences[row].response.len()).collect();
            for (&row, weight) in rows.iter().zip(aggregation.weights(&lengths)) {
                targets.weights[row] = weight;
            }
            let before = sums.loss;
            let mut bad = None;
            for micro in self.batches(&targets, rows)? {
                self.backward(&micro, &targets, optimizer.gradients(), &mut sums)?;
                if !sums.loss.is_finite() {
                    bad = Some(micro.rows().to_vec());
                    break;
                }
            }
            // The weights are as before: what is not finite has touched gradients only.
            if bad.is_none() {
                let norm = optimizer.step(learning_rate, spec.max_gradient_norm)?;
                if norm.is_finite() {
                    let loss = sums.loss - before;
                    tracing::debug!(step, update, loss, norm, "updated");
                    sums.updated(norm);
                    continue;
                }
            }
            let bad = bad.unwrap_or_else(|| rows.to_vec());
            let (loss, norm) = self.measure(optimizer, &targets, &bad)?;
            let rows = targets.rows(&bad);
            return Ok(Outcome::Rejected(Rejection { update, rows, loss, norm }));
        }
        Ok(Outcome::Learnt(sums))
    }

    /// Loss and gradient norm of some sequences alone.
    pub fn measure(
        &self,
        optimizer: &AdamW,
        targets: &Targets,
        rows: &[usize],
    ) -> Result<(f64, f64)> {
        rejected::measure(optimizer, self.batches(targets, rows)?, |micro, gradients| {
            let mut sums = Sums::default();
            self.backward(micro, targets, gradients, &mut sums)?;
            Ok(sums.loss)
        })
    }

    fn batches(&self, targets: &Targets, rows: &[usize]) -> Result<Vec<MicroBatch>> {
        micro_batches(&targets.sequences, rows, self.spec.micro_batch_tokens, self.device)
    }

    /// Log-probabilities of all response tokens under `model`.
    fn logprobs(&self, sequences: &[Sequence], model: &Transformer) -> Result<Vec<Vec<f32>>> {
        let Self { spec, device, .. } = *self;
        let rows: Vec<usize> = (0..sequences.len()).collect();
        let mut all = vec![Vec::new(); sequences.len()];
        for micro in micro_batches(sequences, &rows, spec.micro_batch_tokens, device)? {
            micro.scatter(&micro.logprobs(model, spec.temperature)?, &mut all)?;
        }
        Ok(all)
    }

    /// Those of a batch, before its first update.
    fn targets(&self, batch: Batch, reference: Option<&Transformer>) -> Result<Targets> {
        let Self { spec, .. } = *self;
        let sequences = &batch.sequences;
        let reference = reference.map(|model| self.logprobs(sequences, model)).transpose()?;
        let (old, ratios) = match spec.correction {
            None => (batch.sampler.clone(), None),
            Some(most) => {
                let old = self.logprobs(sequences, self.policy)?;
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
                let kl = loss::kl(specs::kl(spec.kl.kind), &old, &reference)?;
                let kl: Vec<f64> = Vec::try_from(kl.f_to_kind(Kind::Double)?)?;
                *penalties = kl.into_iter().map(|kl| self.kl_coefficient * kl).collect();
            }
        }
        let advantages = advantages(spec.algorithm, &batch.rewards, &batch.groups, &penalties);
        let narrow = |tokens: Vec<f64>| tokens.into_iter().map(|x| x as f32).collect();
        let advantages = advantages.into_iter().map(narrow).collect();
        let Batch { sequences, levels, sampler, .. } = batch;
        let weights = vec![0.0; sequences.len()];
        Ok(Targets { sequences, levels, weights, advantages, old, sampler, reference, ratios })
    }

    /// Adds one micro-batch's gradient.
    fn backward(
        &self,
        micro: &MicroBatch,
        targets: &Targets,
        gradients: &Gradients,
        sums: &mut Sums,
    ) -> Result<()> {
        let Self { spec, .. } = *self;
        let clip = loss::Clip { low: spec.clip.low, high: spec.clip.high, dual: spec.clip.dual };
        let (old, sampler) = (micro.gather(&targets.old)?, micro.gather(&targets.sampler)?);
        let advantages = micro.gather(&targets.advantages)?;
        let ratios = targets.ratios.as_ref().map(|ratios| micro.gather(ratios)).transpose()?;
        let reference = targets.reference.as_ref().map(|logp| micro.gather(logp)).transpose()?;
        let weights = micro.per_token(&targets.weights)?;
        let levels = micro.spread(&targets.levels);
        micro.backward(self.policy, gradients, spec.recompute, |rows, logits| {
            let cut = |tensor: &Tensor| tensor.f_narrow(0, rows.start as i64, rows.len() as i64);
            let levels = &levels[rows.clone()];
            let logp = loss::token_logprobs(logits, &cut(&micro.targets)?, spec.temperature)?;
            let (old, advantages) = (cut(&old)?, cut(&advantages)?);
            let ratios = ratios.as_ref().map(cut).transpose()?;
            let mut each = loss::policy_loss(&logp, &old, &advantages, ratios.as_ref(), clip)?;
            if let Some(reference) = &reference {
                let kl = loss::kl(specs::kl(spec.kl.kind), &logp, &cut(reference)?)?;
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
