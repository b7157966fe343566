//! The supervised training loop.

use std::mem::take;
use std::time::Instant;

use tch::{Device, Kind};

use super::learner::{Learner, Setup};
use super::rejected::{self, Rejection, Training};
use super::update::Targets;
use super::{rate, specs};
use crate::model::{AdamW, Gradients, MicroBatch, Sequence, Transformer, loss, micro_batches};
use crate::{Error, Result};
use triad::dataset::Example;
use triad::entropy::Stream;
use triad::job::Context;
use triad::job::sft::Spec;

pub fn run(context: &mut Context) -> Result<()> {
    let spec: Spec = context.spec()?;
    let base = context.input("base")?.clone();
    let mut checkpoint = context.checkpoint(&base)?;
    let mut sources: Vec<Source> = Vec::new();
    for input in context.inputs("examples") {
        let examples: Vec<Example> = context.read(&input.artifact)?;
        if examples.is_empty() {
            return Err(Error::data(format!("port `examples`: `{}` holds no rows", input.name)));
        }
        let order = Order::new(spec.seed, &input.name, examples.len());
        sources.push(Source { examples, order });
    }
    let weights = take(&mut checkpoint.weights);
    let mut learner =
        Learner::new(context, Setup::from(&spec), &checkpoint.config, &weights, &base)?;
    drop(weights); // the model holds its own copy
    let start = learner.resume(context)?;
    if start == 0 && spec.continue_optimizer {
        learner.continue_optimizer(context, &base)?;
    }

    let tokenizer = &checkpoint.tokenizer;
    let aggregation =
        specs::aggregation(spec.aggregation, checkpoint.config.max_position_embeddings);
    let clock = Instant::now();
    let mut trained = 0;
    for step in start..spec.steps {
        let sequences = (step * spec.batch..(step + 1) * spec.batch)
            .map(|i| {
                // The sources take turns, so that each has the same share whatever its size.
                let count = sources.len();
                let Source { examples, order } = &mut sources[i % count];
                let example = &examples[order.at(i / count)];
                let mut response = tokenizer.encode(&example.response)?;
                response.push(tokenizer.eos());
                Ok(Sequence { prompt: tokenizer.encode_prompt(&example.prompt)?, response })
            })
            .collect::<Result<Vec<_>>>()?;
        let lengths: Vec<usize> = sequences.iter().map(|s| s.response.len()).collect();
        let weights = aggregation.weights(&lengths);
        let targets = Targets::weighted(sequences, weights);
        let rows: Vec<usize> = (0..targets.sequences.len()).collect();
        let Learner { policy, optimizer, device, .. } = &mut learner;
        let loss = Loss { spec: &spec, policy, device: *device };
        let (mut total, mut bad) = (0.0, None);
        for micro in loss.batches(&targets, &rows)? {
            total += loss.backward(&micro, &targets, optimizer.gradients())?;
            if !f64::is_finite(total) {
                bad = Some(micro.rows().to_vec());
                break;
            }
        }
        let share = rate::share(step, spec.steps, spec.warmup, 0.1);
        let norm = match bad {
            None => optimizer.step(spec.learning_rate * share, spec.clip)?,
            Some(_) => total,
        };
        let done = step + 1;
        if norm.is_finite() {
            learner.accept();
        } else {
            let bad = bad.unwrap_or(rows);
            let (loss, norm) = loss.measure(optimizer, &targets, &bad)?;
            let rejection = Rejection { update: 0, rows: targets.rows(&bad), loss, norm };
            learner.reject(context, done, Training::Sft(spec.clone()), rejection)?;
        }
        let sequences = targets.sequences;
        trained += sequences.iter().map(|s| s.prompt.len() + s.response.len()).sum::<usize>();
        learner.note(done, 0, "loss", total);
        learner.note(done, 0, "grad_norm", norm);
        context.progress.update(
            "steps",
            done as u64,
            spec.steps as u64,
            &format!("loss {total:.3}"),
        );
        let failed = learner.check(done);
        let due = done.is_multiple_of(spec.checkpoint_every);
        if failed.is_err() || done < spec.steps && (due || context.stop.requested()) {
            learner.save(context, done)?;
            context.check_stop()?;
        }
        failed?;
    }
    if let Some(loss) = learner.last("loss") {
        context.summarize("loss", loss);
    }
    context
        .timings
        .insert("train_tokens_per_second".into(), trained as f64 / clock.elapsed().as_secs_f64());
    learner.commit(context, checkpoint, spec.dtype, spec.optimizer_state)
}

/// The sum of weight * -log p over the tokens of the responses.
pub struct Loss<'a> {
    pub spec: &'a Spec,
    pub policy: &'a Transformer,
    pub device: Device,
}

impl Loss<'_> {
    fn batches(&self, targets: &Targets, rows: &[usize]) -> Result<Vec<MicroBatch>> {
        micro_batches(&targets.sequences, rows, self.spec.micro_batch_tokens, self.device)
    }

    /// Adds one micro-batch's gradient and gives its share of the loss.
    fn backward(
        &self,
        micro: &MicroBatch,
        targets: &Targets,
        gradients: &Gradients,
    ) -> Result<f64> {
        let weights = micro.per_token(&targets.weights)?;
        let mut total = 0.0;
        micro.backward(self.policy, gradients, self.spec.recompute, |rows, logits| {
            let (start, length) = (rows.start as i64, rows.len() as i64);
            let targets = micro.targets.f_narrow(0, start, length)?;
            let logp = loss::token_logprobs(logits, &targets, 1.0)?;
            let part = logp.f_mul(&weights.f_narrow(0, start, length)?)?.f_sum(Kind::Float)?;
            total -= part.f_double_value(&[])?;
            Ok(part.f_neg()?)
        })?;
        Ok(total)
    }

    /// Loss and gradient norm of some sequences alone.
    pub fn measure(
        &self,
        optimizer: &AdamW,
        targets: &Targets,
        rows: &[usize],
    ) -> Result<(f64, f64)> {
        rejected::measure(optimizer, self.batches(targets, rows)?, |micro, gradients| {
            self.backward(micro, targets, gradients)
        })
    }
}

/// One input's examples.
struct Source {
    examples: Vec<Example>,
    order: Order,
}

/// A fresh permutation of a source's examples for every epoch.
struct Order {
    seed: u64,
    stage: String,
    epoch: usize,
    indices: Vec<usize>,
}

impl Order {
    fn new(seed: u64, name: &str, len: usize) -> Self {
        let stage = format!("sft/{name}");
        let mut order = Self { seed, stage, epoch: 0, indices: (0..len).collect() };
        order.shuffle();
        order
    }

    fn shuffle(&mut self) {
        self.indices.sort_unstable();
        Stream::new(self.seed, &self.stage, self.epoch as u64).shuffle(&mut self.indices);
    }

    /// The example at position `i` of the endless sequence of epochs.
    fn at(&mut self, i: usize) -> usize {
        let epoch = i / self.indices.len();
        if epoch != self.epoch {
            self.epoch = epoch;
            self.shuffle();
        }
        self.indices[i % self.indices.len()]
    }
}
