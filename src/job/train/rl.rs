//! The one RL loop: sample, verify, select, update.

use std::time::{Duration, Instant};

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::UInt32Type;

use super::curriculum::Curriculum;
use super::responses::Sampler;
use super::state;
use super::update::{Batch, update};
use crate::checkpoint::Checkpoint;
use crate::dataset::{Metric, Rollout, Row, Task, Verdict};
use crate::job::Context;
use crate::job::rl::Spec;
use crate::job::verify::judge;
use crate::model::{self, AdamW, AdamWSettings, Sampling, Transformer};
use crate::{Error, Result, query};

pub fn run(context: &mut Context) -> Result<()> {
    let spec: Spec = context.spec()?;
    let base = context.checkpoint(context.input("base")?)?;
    let reference = match context.inputs("reference").first() {
        Some(input) => context.checkpoint(&input.artifact)?.weights,
        None => base.weights.clone(),
    };
    let Checkpoint { config, tokenizer, weights } = base;
    let tasks: Vec<Task> = context.read(context.input("tasks")?)?;
    let curriculum = Curriculum::new(spec.seed, spec.prompts, &spec.curriculum, &tasks)?;
    let device = model::device(&context.device)?;

    let saved = state::resume(context)?;
    let start = saved.as_ref().map_or(0, |saved| saved.step);
    let mut metrics: Vec<Metric> = Vec::new();
    let policy = Transformer::load(
        &config,
        saved.as_ref().map_or(&weights, |saved| &saved.weights),
        device,
        true,
    )?;
    let reference = Transformer::load(&config, &reference, device, false)?;
    let settings = AdamWSettings { weight_decay: spec.weight_decay, ..AdamWSettings::default() };
    let mut optimizer = AdamW::new(policy.parameters(), settings)?;
    if let Some(saved) = saved {
        optimizer.restore(&saved.optimizer)?;
        metrics = saved.metrics;
    }

    let run_id = context.id.to_string();
    let (mut sampling, mut training) = (Rate::default(), Rate::default());
    let mut index = start;
    while let Some(iteration) = curriculum.iteration(index) {
        let step = index as u32 + 1;
        if iteration.fresh && index > 0 {
            optimizer = AdamW::new(policy.parameters(), settings)?;
        }
        let clock = Instant::now();
        let chosen: Vec<(u64, &Task)> = iteration
            .tasks
            .iter()
            .enumerate()
            .map(|(i, &task)| ((u64::from(step) << 32) | i as u64, &tasks[task]))
            .collect();
        let sampler = Sampler {
            model: &policy,
            tokenizer: &tokenizer,
            sampling: Sampling {
                temperature: spec.temperature,
                max_new_tokens: spec.max_new_tokens,
                seed: spec.seed,
                ..Sampling::default()
            },
            samples: spec.samples as u32,
            policy: &run_id,
            step,
        };
        let rollouts = sampler.rollouts(&chosen)?;
        let drawn: usize = rollouts.iter().map(|rollout| rollout.tokens.len()).sum();
        sampling.add(drawn, clock.elapsed());
        let verdicts = judge(chosen.iter().map(|&(_, task)| task), &rollouts, spec.reward)?;

        let clock = Instant::now();
        let selected = select(&spec, &rollouts, &verdicts, context)?;
        let batch = Batch::new(&spec, &tokenizer, &rollouts, &verdicts, &selected)?;
        let measured = update(&spec, step, &policy, &reference, &mut optimizer, &batch, device)?;
        training.add(batch.tokens(), clock.elapsed());

        let n = rollouts.len() as f64;
        let mean = |f: &dyn Fn(&Verdict) -> f64| verdicts.iter().map(f).sum::<f64>() / n;
        let accuracy = mean(&|v| f64::from(u8::from(v.correct)));
        let mut values = vec![
            ("reward", mean(&|v| f64::from(v.reward))),
            ("accuracy", accuracy),
            ("format", mean(&|v| f64::from(u8::from(v.format_ok)))),
            ("length", drawn as f64 / n),
            ("groups_with_variance", varied(&verdicts, spec.samples)),
            ("selected", selected.len() as f64 / n),
        ];
        values.extend(measured);
        metrics.extend(values.into_iter().map(|(name, value)| Metric {
            step,
            level: iteration.level,
            name: name.into(),
            value,
        }));
        context.write(index, &rollouts)?;
        context.write(index, &verdicts)?;
        index += 1;
        context.progress.update(
            "iterations",
            index as u64,
            curriculum.len() as u64,
            &format!("level {} accuracy {:.1}%", iteration.level, 100.0 * accuracy),
        );
        if index.is_multiple_of(spec.checkpoint_every) && index < curriculum.len() {
            state::save(context, index, &policy, &optimizer, &metrics)?;
            context.check_stop()?;
        }
    }
    if let Some(last) = metrics.iter().rev().find(|metric| metric.name == "accuracy") {
        context.summarize("accuracy", last.value);
    }
    sampling.report("sample", context);
    training.report("train", context);
    context.write(0, &metrics)?;
    context.write_checkpoint(&Checkpoint {
        config,
        tokenizer,
        weights: policy.weights(spec.dtype)?,
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

/// Share of groups whose rewards are not all equal.
fn varied(verdicts: &[Verdict], samples: usize) -> f64 {
    let groups = verdicts.chunks(samples);
    let total = groups.len() as f64;
    groups.filter(|group| group.iter().any(|v| v.reward != group[0].reward)).count() as f64 / total
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
