//! The supervised training loop.

use std::time::Instant;

use tch::Kind;

use super::batch::{Sequence, micro_batches};
use super::state;
use crate::checkpoint::Checkpoint;
use crate::dataset::{Example, Metric};
use crate::entropy::Stream;
use crate::job::Context;
use crate::job::sft::Spec;
use crate::model::{self, AdamW, AdamWSettings, Precision, Transformer};
use crate::{Error, Result};

/// Steps whose losses are averaged into one metric.
const LOG_EVERY: usize = 20;

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
    let policy = Transformer::load(
        &config,
        saved.as_ref().map_or(&weights, |saved| &saved.weights),
        device,
        Precision::F32,
        true,
    )?;
    drop(weights); // the model holds its own copy
    let settings = AdamWSettings { weight_decay: spec.weight_decay, ..AdamWSettings::default() };
    let mut optimizer = AdamW::new(policy.parameters(), settings)?;
    if let Some(saved) = saved {
        optimizer.restore(&saved.optimizer)?;
        metrics = saved.metrics;
    }

    let aggregation = spec.aggregation.of(config.max_position_embeddings);
    let clock = Instant::now();
    let mut trained = 0;
    let mut window = Vec::new();
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
        for batch in micro_batches(&sequences, &rows, device) {
            let loss =
                -(batch.logprobs(&policy, 1.0)? * batch.per_token(&weights)).sum(Kind::Float);
            loss.f_backward()?;
            total += loss.double_value(&[]);
        }
        if !total.is_finite() {
            return Err(Error::data(format!(
                "step {}: the loss is {total}; lower learning_rate {}",
                step + 1,
                spec.learning_rate
            )));
        }
        optimizer.step(rate(&spec, step), spec.clip)?;
        optimizer.zero_grad();
        trained += sequences.iter().map(|s| s.prompt.len() + s.response.len()).sum::<usize>();
        window.push(total);
        let done = step + 1;
        if done.is_multiple_of(LOG_EVERY) || done == spec.steps {
            let value = window.iter().sum::<f64>() / window.len() as f64;
            metrics.push(Metric { step: done as u32, level: 0, name: "loss".into(), value });
            window.clear();
        }
        context.progress.update(
            "steps",
            done as u64,
            spec.steps as u64,
            &format!("loss {total:.3}"),
        );
        // A window of losses must not straddle a checkpoint, or a resumed run would log another.
        if done.is_multiple_of(spec.checkpoint_every.next_multiple_of(LOG_EVERY))
            && done < spec.steps
        {
            state::save(context, done, &policy, &optimizer, &metrics)?;
            context.check_stop()?;
        }
    }
    if let Some(last) = metrics.last() {
        context.summarize("loss", last.value);
    }
    context
        .timings
        .insert("train_tokens_per_second".into(), trained as f64 / clock.elapsed().as_secs_f64());
    context.write(0, &metrics)?;
    context.write_checkpoint(&Checkpoint {
        config,
        tokenizer,
        weights: policy.weights(spec.dtype)?,
        files,
    })
}

/// Linear warm-up, then a cosine from `learning_rate` down to a tenth of it.
fn rate(spec: &Spec, step: usize) -> f64 {
    if step < spec.warmup {
        return spec.learning_rate * (step + 1) as f64 / spec.warmup as f64;
    }
    let share = (step - spec.warmup) as f64 / (spec.steps - spec.warmup).max(1) as f64;
    spec.learning_rate * (0.1 + 0.45 * (1.0 + (std::f64::consts::PI * share).cos()))
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
