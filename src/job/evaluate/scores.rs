//! Responses as scores.

use serde_json::Value;

use super::{Block, Mode, Spec};
use crate::dataset::{Rollout, Score, Task, Verdict};
use crate::job::Context;
use crate::job::verify::judge;
use crate::reward::Rule;
use crate::statistics::majority;
use crate::task::Family;
use crate::task::math::{self, Equality};
use crate::{Error, Result};

/// How responses were drawn: what every row of scores repeats.
#[derive(Debug, Clone, Default)]
pub struct Sampler {
    top_k: Option<u64>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    max_new_tokens: Option<u64>,
    seed: Option<u64>,
    server: Option<String>,
}

impl Sampler {
    /// From the parameters of the `evaluate` or `rollout` that drew them.
    pub fn of(params: &Value) -> Self {
        Self {
            top_k: params["top_k"].as_u64(),
            top_p: params["top_p"].as_f64(),
            min_p: params["min_p"].as_f64(),
            max_new_tokens: params["max_new_tokens"].as_u64(),
            seed: params["seed"].as_u64(),
            server: params["server"]["model"].as_str().map(Into::into),
        }
    }
}

/// The score of all responses to a task in one mode, of which `judged` are the verdicts.
///
/// # Errors
/// A defect when there is no response.
pub fn score(
    set: &str,
    task: &Task,
    group: &[Rollout],
    judged: &[Verdict],
    sampler: &Sampler,
) -> Result<Score> {
    let first = group.first().ok_or_else(|| Error::defect("a score of no response"))?;
    let length: usize = group.iter().map(|row| row.tokens.len()).sum();
    let greedy = first.temperature == 0.0;
    let Sampler { top_k, top_p, min_p, max_new_tokens, seed, server } = sampler.clone();
    let answers = judged.iter().map(|v| (v.extracted.as_str(), v.correct));
    let is_math = task.family == Family::Math.as_str();
    let same = |a: &str, b: &str| is_math && math::grade(a, b) == Equality::Equal;
    let count = |test: fn(&Verdict) -> bool| judged.iter().filter(|v| test(v)).count() as u32;
    Ok(Score {
        set: set.into(),
        task_id: task.task_id.clone(),
        family: task.family.clone(),
        level: task.level,
        model: first.policy.clone(),
        mode: Mode::name(first.temperature).into(),
        temperature: first.temperature,
        samples: group.len() as u32,
        correct: count(|v| v.correct),
        format_ok: count(|v| v.format_ok),
        length: length as f32 / group.len() as f32,
        majority: Some(majority(answers, same)),
        cut_off: Some(group.iter().filter(|row| row.stop == "length").count() as u32),
        // The likeliest token is taken whatever the cuts.
        top_k: if greedy { Some(0) } else { top_k },
        top_p: if greedy { Some(1.0) } else { top_p },
        min_p: if greedy { Some(0.0) } else { min_p },
        max_new_tokens,
        seed,
        server,
    })
}

/// Scores of an evaluation, part by part.
pub struct Scores {
    sampler: Sampler,
    keep: usize,
    tokens: usize,
    /// Of the current part.
    scores: Vec<Score>,
    kept: Vec<Rollout>,
    verdicts: Vec<Verdict>,
}

impl Scores {
    pub fn new(context: &Context, spec: &Spec) -> Self {
        let (scores, kept, verdicts) = Default::default();
        let sampler = Sampler::of(&context.params);
        let keep = spec.keep.unwrap_or(usize::MAX);
        Self { sampler, keep, tokens: 0, scores, kept, verdicts }
    }

    /// Scores the responses of a block, `mode.samples` to each task in turn, and writes its part
    /// after the last mode.
    pub fn add(
        &mut self,
        context: &mut Context,
        block: &Block,
        mut rows: Vec<Rollout>,
    ) -> Result<()> {
        let samples = block.mode.samples as usize;
        let tasks = block.tasks.iter().map(|(_, task)| *task);
        let mut verdicts = judge(tasks.zip(rows.chunks(samples)), Rule::Correct)?.into_iter();
        for (&(item, task), group) in block.tasks.iter().zip(rows.chunks_mut(samples)) {
            self.tokens += group.iter().map(|row| row.tokens.len()).sum::<usize>();
            let mut judged: Vec<_> = verdicts.by_ref().take(samples).collect();
            let score = score(block.set, task, group, &judged, &self.sampler)?;
            count(context, &score);
            self.scores.push(score);
            if (item as usize) < self.keep {
                group.iter_mut().for_each(|row| row.sample += block.mode.first);
                judged.iter_mut().for_each(|verdict| verdict.sample += block.mode.first);
                self.kept.extend_from_slice(group);
                self.verdicts.extend(judged);
            }
        }
        if block.last {
            context.write(block.part, &std::mem::take(&mut self.scores))?;
            if self.keep > 0 {
                context.write(block.part, &std::mem::take(&mut self.kept))?;
                context.write(block.part, &std::mem::take(&mut self.verdicts))?;
            }
        }
        Ok(())
    }

    /// The number of tokens drawn.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

/// The summary's counts behind a set's average.
fn counts(set: &str) -> [String; 2] {
    [format!("{set} correct"), format!("{set} sampled")]
}

/// Adds a sampled score to the summary's counts, which shards add up.
pub fn count(context: &mut Context, score: &Score) {
    if score.mode == "sampled" {
        for (name, more) in counts(&score.set).into_iter().zip([score.correct, score.samples]) {
            let before = context.summary.get(&name).and_then(Value::as_u64).unwrap_or(0);
            context.summarize(&name, before + u64::from(more));
        }
    }
}

/// Puts each set's average in the place of its counts.
pub fn averages(context: &mut Context) {
    let sets: Vec<String> = context.inputs("tasks").iter().map(|i| i.name.clone()).collect();
    for set in sets {
        let taken = counts(&set).map(|name| context.summary.remove(&name)?.as_f64());
        if let [Some(correct), Some(drawn)] = taken {
            context.summarize(&format!("{set} avg"), correct / drawn);
        }
    }
}
