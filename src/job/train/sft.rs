//! The supervised training loop.

use std::time::Instant;

use tch::Kind;

use super::rate;
use super::state::{self, LoopState};
use crate::checkpoint::Checkpoint;
use crate::dataset::{Example, Metric};
use crate::entropy::Stream;
use crate::job::Context;
use crate::job::sft::Spec;
use crate::model::{self, AdamW, AdamWSettings, Sequence, Transformer, loss, micro_batches};
use crate::{Error, Result};

pub fn run(context: &mut Context) -> Result<()> {
    let spec: Spec = context.spec()?;
    let Checkpoint { config, tokenizer, weights, files } =
        context.checkpoint(context.input("base")?)?;
    let mut sources: Vec<Source> = Vec::new();
    for input in context.inputs("examples") {
        let examples: Vec<Example> = context.read(&input.artifact)?;
        if examples.is_empty() {
            return Err(Error::data(format!("port `examples`: `{}` holds no rows", input.name)));
        }
        let order = Order::new(spec.seed, &input.name, examples.len());
        sources.push(Source { examples, order });
    }
    let device = model::device(&context.device)?;
    let mut metrics: Vec<Metric> = Vec::new();
    let saved = state::resume(context)?;
    let start = saved.as_ref().map_or(0, |saved| saved.step);
    let mut policy = Transformer::load(&config, &weights, device, spec.precision.of(), true)?;
    drop(weights); // the model holds its own copy
    if let Some(lora) = &spec.lora {
        policy.adapt(lora.rank, lora.alpha.unwrap_or(2.0 * lora.rank as f64), spec.seed)?;
    }
    let settings = AdamWSettings { weight_decay: spec.weight_decay, ..AdamWSettings::default() };
    let mut optimizer = AdamW::new(policy.trainable(), settings)?;
    let mut loop_state = LoopState::default();
    if let Some(saved) = saved {
        optimizer.restore(&saved.optimizer)?;
        metrics = saved.metrics;
        loop_state = saved.loop_state;
    }

    let aggregation = spec.aggregation.of(config.max_position_embeddings);
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
        let mut total = 0.0;
        let rows: Vec<usize> = (0..sequences.len()).collect();
        for micro in micro_batches(&sequences, &rows, spec.micro_batch_tokens, device)? {
            let weights = micro.per_token(&weights)?;
            micro.backward(&policy, optimizer.gradients(), spec.recompute, |rows, logits| {
                let (start, length) = (rows.start as i64, rows.len() as i64);
                let targets = micro.targets.f_narrow(0, start, length)?;
                let logp = loss::token_logprobs(logits, &targets, 1.0)?;
                let part = logp.f_mul(&weights.f_narrow(0, start, length)?)?.f_sum(Kind::Float)?;
                total -= part.f_double_value(&[])?;
                Ok(part.f_neg()?)
            })?;
        }
        let share = rate::share(step, spec.steps, spec.warmup, 0.1);
        let norm = match total.is_finite() {
            true => optimizer.step(spec.learning_rate * share, spec.clip)?,
            false => {
                optimizer.gradients().zero()?;
                total
            }
        };
        let done = step + 1;
        if norm.is_finite() {
            loop_state.rejected = 0;
        } else {
            loop_state.rejected += 1;
            tracing::warn!(step = done, loss = total, norm, "not finite: the update is rejected");
        }
        trained += sequences.iter().map(|s| s.prompt.len() + s.response.len()).sum::<usize>();
        for (name, value) in [("loss", total), ("grad_norm", norm)] {
            metrics.push(Metric { step: done as u32, level: 0, name: name.into(), value });
        }
        context.progress.update(
            "steps",
            done as u64,
            spec.steps as u64,
            &format!("loss {total:.3}"),
        );
        let stopping = context.stop.requested() || loop_state.rejected > spec.max_rejected;
        if done < spec.steps && (stopping || done.is_multiple_of(spec.checkpoint_every)) {
            state::save(context, done, &optimizer, &metrics, loop_state)?;
            context.check_stop()?;
        }
        if loop_state.rejected > spec.max_rejected {
            return Err(state::diverged(done, loop_state.rejected, spec.learning_rate));
        }
    }
    if let Some(last) = metrics.iter().rev().find(|metric| metric.name == "loss") {
        context.summarize("loss", last.value);
    }
    context
        .timings
        .insert("train_tokens_per_second".into(), trained as f64 / clock.elapsed().as_secs_f64());
    context.write(0, &metrics)?;
    context.write_checkpoint(&Checkpoint {
        config,
        tokenizer,
        weights: policy.by_checkpoint_name(policy.merged(optimizer.masters()?)?, spec.dtype)?,
        files,
    })
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
