//! The one RL loop: sample, verify, select, update.

use std::time::{Duration, Instant};

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::UInt32Type;

use super::curriculum::Curriculum;
use super::drawn::Drawn;
use super::rate;
use super::responses::Sampler;
use super::state::{self, LoopState};
use super::update::{Batch, Update};
use crate::advantage::adapted;
use crate::checkpoint::Checkpoint;
use crate::dataset::{Metric, Rollout, Row, Task, Verdict};
use crate::job::Context;
use crate::job::rl::Spec;
use crate::model::{self, AdamW, AdamWSettings, Sampling, Transformer};
use crate::{Error, Result, query};

pub fn run(context: &mut Context) -> Result<()> {
    let spec: Spec = context.spec()?;
    let base = context.checkpoint(context.input("base")?)?;
    let reference = match context.inputs("reference").first() {
        _ if spec.kl.coefficient == 0.0 => None,
        Some(input) => Some(context.checkpoint(&input.artifact)?.weights),
        None => Some(base.weights.clone()),
    };
    let stops = base.stop_ids()?;
    let Checkpoint { config, tokenizer, weights, files } = base;
    let tasks: Vec<Task> = context.read(context.input("tasks")?)?;
    let curriculum = Curriculum::new(spec.seed, spec.prompts, &spec.curriculum, &tasks)?;
    let device = model::device(&context.device)?;
    let precision = spec.precision.of();

    let saved = state::resume(context)?;
    let start = saved.as_ref().map_or(0, |saved| saved.step);
    let mut metrics: Vec<Metric> = Vec::new();
    let mut loop_state = LoopState { kl_coefficient: spec.kl.coefficient, rejected: 0 };
    let mut policy = Transformer::load(&config, &weights, device, precision, true)?;
    drop(weights); // the model holds its own copy
    if let Some(lora) = &spec.lora {
        policy.adapt(lora.rank, lora.alpha.unwrap_or(2.0 * lora.rank as f64), spec.seed)?;
    }
    let reference = reference
        .map(|weights| Transformer::load(&config, &weights, device, precision, false))
        .transpose()?;
    let settings = AdamWSettings { weight_decay: spec.weight_decay, ..AdamWSettings::default() };
    let mut optimizer = AdamW::new(policy.trainable(), settings)?;
    if let Some(saved) = saved {
        optimizer.restore(&saved.optimizer)?;
        metrics = saved.metrics;
        loop_state = saved.loop_state;
    }

    let run_id = context.id.to_string();
    let (mut sampling, mut training) = (Rate::default(), Rate::default());
    let mut index = start;
    while let Some(iteration) = curriculum.iteration(index) {
        let step = index as u32 + 1;
        if iteration.fresh && index > 0 {
            optimizer = AdamW::new(policy.trainable(), settings)?;
        }
        let clock = Instant::now();
        let other = spec.sampler_precision.filter(|&precision| precision != spec.precision);
        let copy = other.map(|precision| policy.copy(precision.of())).transpose()?;
        let sampler = Sampler {
            model: copy.as_ref().unwrap_or(&policy),
            tokenizer: &tokenizer,
            stops: &stops,
            stop: &[],
            sampling: Sampling {
                temperature: spec.temperature,
                max_new_tokens: spec.max_new_tokens,
                seed: spec.seed,
                cache_bytes: spec.cache_bytes,
                ..Sampling::default()
            },
            samples: spec.samples as u32,
            policy: &run_id,
            step,
        };
        let drawn = Drawn::new(&spec, &curriculum, index, &iteration.tasks, &tasks, &sampler)?;
        drop(copy); // its memory is the update's
        sampling.add(drawn.tokens(), clock.elapsed());

        let clock = Instant::now();
        let mut selected = select(&spec, &drawn.rollouts, &drawn.verdicts, context)?;
        if spec.refills > 0 {
            selected.retain(|&i| drawn.kept.contains(&(i / spec.samples)));
        }
        let batch = Batch::new(&spec, &drawn.prompts, &drawn.rollouts, &drawn.verdicts, &selected);
        let share = rate::share(iteration.nth, iteration.steps, spec.warmup, spec.final_rate);
        let update = Update {
            spec: &spec,
            step,
            policy: &policy,
            reference: reference.as_ref(),
            kl_coefficient: loop_state.kl_coefficient,
            learning_rate: spec.learning_rate * share,
            device,
        };
        let measured = update.run(&mut optimizer, &batch)?;
        training.add(batch.tokens(), clock.elapsed());

        let mut values = drawn.metrics(&spec);
        values.push((0, "selected".into(), selected.len() as f64 / drawn.rollouts.len() as f64));
        values.push((0, "learning_rate".into(), spec.learning_rate * share));
        values.push((0, "kl_coefficient".into(), loop_state.kl_coefficient));
        let accuracy = drawn.accuracy();
        match &measured {
            Some(sums) => {
                loop_state.rejected = 0;
                if let (Some(rule), Some(kl)) = (&spec.kl.adaptive, sums.kl.all()) {
                    loop_state.kl_coefficient = adapted(
                        loop_state.kl_coefficient,
                        kl,
                        rule.target,
                        rule.horizon,
                        batch.len(),
                    );
                }
                let measured = sums.metrics().into_iter();
                values.extend(measured.map(|(level, name, value)| (level, name.into(), value)));
            }
            None => {
                loop_state.rejected += 1;
                tracing::warn!(step, "a loss or gradient is not finite: the update is rejected");
            }
        }
        values.push((0, "rejected".into(), f64::from(u8::from(measured.is_none()))));
        let metric = |(level, name, value)| Metric { step, level, name, value };
        metrics.extend(values.into_iter().map(metric));
        context.write(index, &drawn.rollouts)?;
        context.write(index, &drawn.verdicts)?;
        index += 1;
        context.progress.update(
            "iterations",
            index as u64,
            curriculum.len() as u64,
            &format!("level {} accuracy {:.1}%", iteration.level, 100.0 * accuracy),
        );
        let failed = loop_state.rejected > spec.max_rejected;
        let due = index.is_multiple_of(spec.checkpoint_every);
        if index < curriculum.len() && (due || failed || context.stop.requested()) {
            state::save(context, index, &optimizer, &metrics, loop_state)?;
            context.check_stop()?;
        }
        if failed {
            return Err(state::diverged(index, loop_state.rejected, spec.learning_rate));
        }
    }
    let mut whole = metrics.iter().rev().filter(|metric| metric.level == 0);
    if let Some(last) = whole.find(|metric| metric.name == "accuracy") {
        context.summarize("accuracy", last.value);
    }
    sampling.report("sample", context);
    training.report("train", context);
    context.write(0, &metrics)?;
    context.write_checkpoint(&Checkpoint {
        config,
        tokenizer,
        weights: policy.by_checkpoint_name(policy.merged(optimizer.masters()?)?, spec.dtype)?,
        files,
    })
}

/// Indices of the responses to learn from: those that the spec's query names, or all.
fn select(
    spec: &Spec,
    rollouts: &[Rollout],
    verdicts: &[Verdict],
    context: &Context,
) -> Result<Vec<usize>> {
    let Some(sql) = &spec.select else { return Ok((0..rollouts.len()).collect()) };
    let tables = vec![
        ("rollouts", vec![Rollout::encode(rollouts)?]),
        ("verdicts", vec![Verdict::encode(verdicts)?]),
    ];
    let mut chosen = std::collections::HashSet::new();
    for batch in query::select(sql, tables, &context.runtime)? {
        let (tasks, samples) = keys(&batch).ok_or_else(|| {
            Error::usage("`select` must give the columns task_id and sample of `rollouts`")
        })?;
        chosen.extend(tasks.into_iter().zip(samples));
    }
    Ok((0..rollouts.len())
        .filter(|&i| chosen.contains(&(rollouts[i].task_id.clone(), rollouts[i].sample)))
        .collect())
}

fn keys(batch: &RecordBatch) -> Option<(Vec<String>, Vec<u32>)> {
    use crate::dataset::Column;
    let tasks = String::values(batch.column_by_name("task_id")?.as_ref())?;
    let samples = batch.column_by_name("sample")?.as_primitive_opt::<UInt32Type>()?;
    Some((tasks, samples.values().to_vec()))
}

/// Tokens per second of one kind of work.
#[derive(Default)]
struct Rate {
    tokens: usize,
    time: Duration,
}

impl Rate {
    fn add(&mut self, tokens: usize, time: Duration) {
        self.tokens += tokens;
        self.time += time;
    }

    fn report(&self, name: &str, context: &mut Context) {
        let seconds = self.time.as_secs_f64();
        context.timings.insert(format!("{name}_seconds"), seconds);
        if seconds > 0.0 {
            let rate = self.tokens as f64 / seconds;
            context.timings.insert(format!("{name}_tokens_per_second"), rate);
        }
    }
}
