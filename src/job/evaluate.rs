//! `evaluate`: a checkpoint's accuracy on task sets, greedy and sampled.

use std::mem::take;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cuts::Cuts;
use super::served::{self, ServerSpec};
use super::verify::judge;
use super::{Arity, Context, Job, Port, resolve_as};
use crate::Result;
use crate::dataset::{Rollout, Score, Task, Verdict};
use crate::reward::Rule;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    #[serde(default)]
    pub seed: u64,
    /// Responses to each task at `temperature`, besides the greedy one.
    pub samples: u32,
    #[serde(default = "one")]
    pub temperature: f64,
    /// Draw from so many of the likeliest tokens; 0: from all.
    #[serde(default)]
    pub top_k: usize,
    /// Draw from the fewest tokens that hold this much probability.
    #[serde(default = "one")]
    pub top_p: f64,
    /// Draw from tokens with this share of the likeliest one's probability.
    #[serde(default)]
    pub min_p: f64,
    /// Texts that end a response, besides the checkpoint's own end tokens.
    #[serde(default)]
    pub stop: Vec<String>,
    pub max_new_tokens: usize,
    /// Tasks sampled together in one batch.
    #[serde(default = "block")]
    pub block: usize,
    /// Tasks of each set whose sampled responses are kept as datasets `rollouts` and `verdicts`.
    #[serde(default = "keep")]
    pub keep: usize,
    /// What the model computes in.
    #[serde(default)]
    pub precision: super::rl::Precision,
    /// Most memory for keys and values while sampling, in bytes or such as `512MiB`. Responses wait
    /// until theirs fit.
    #[serde(default = "super::cuts::cache_bytes", deserialize_with = "super::cuts::bytes")]
    pub cache_bytes: usize,
    /// Ask a server in place of loading the checkpoint's weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerSpec>,
}

/// How a task set is sampled.
pub struct Mode {
    pub name: &'static str,
    pub cuts: Cuts,
    pub samples: u32,
}

impl Spec {
    /// The modes that draw anything.
    pub fn modes(&self) -> Vec<Mode> {
        let cuts = Cuts::new(self.temperature, self.top_k, self.top_p, self.min_p);
        let modes = [
            Mode { name: "greedy", cuts: Cuts::GREEDY, samples: 1 },
            Mode { name: "sampled", cuts, samples: self.samples },
        ];
        modes.into_iter().filter(|mode| mode.samples > 0).collect()
    }
}

/// Responses as scores, block by block and set by set.
pub struct Scores {
    policy: String,
    keep: usize,
    tokens: usize,
    kept: Vec<Rollout>,
    verdicts: Vec<Verdict>,
    /// Of the current set.
    scores: Vec<Score>,
    correct: u32,
    drawn: u32,
}

impl Scores {
    /// `policy`: artifact id of the model. `keep`: see [`Spec::keep`].
    pub fn new(policy: String, keep: usize) -> Self {
        let (kept, verdicts, scores) = Default::default();
        Self { policy, keep, tokens: 0, kept, verdicts, scores, correct: 0, drawn: 0 }
    }

    /// Scores the responses of one block, `mode.samples` to each task in turn.
    pub fn add(
        &mut self,
        set: &str,
        mode: &Mode,
        block: &[(u64, &Task)],
        rows: &[Rollout],
    ) -> Result<()> {
        let verdicts = judge(block.iter().map(|(_, task)| *task), rows, Rule::Correct)?;
        let mut verdicts = verdicts.into_iter();
        for (&(item, task), group) in block.iter().zip(rows.chunks(mode.samples as usize)) {
            let judged: Vec<_> = verdicts.by_ref().take(group.len()).collect();
            let length: usize = group.iter().map(|row| row.tokens.len()).sum();
            self.tokens += length;
            let score = Score {
                set: set.into(),
                task_id: task.task_id.clone(),
                family: task.family.clone(),
                level: task.level,
                model: self.policy.clone(),
                mode: mode.name.into(),
                temperature: mode.cuts.temperature as f32,
                samples: mode.samples,
                correct: judged.iter().filter(|v| v.correct).count() as u32,
                format_ok: judged.iter().filter(|v| v.format_ok).count() as u32,
                length: length as f32 / group.len() as f32,
            };
            if mode.name == "sampled" {
                self.correct += score.correct;
                self.drawn += score.samples;
                if (item as usize) < self.keep {
                    self.kept.extend_from_slice(group);
                    self.verdicts.extend(judged);
                }
            }
            self.scores.push(score);
        }
        Ok(())
    }

    /// Writes the scores of a whole set as part `part`.
    pub fn finish_set(&mut self, context: &mut Context, part: usize, set: &str) -> Result<()> {
        context.write(part, &take(&mut self.scores))?;
        let (correct, drawn) = (take(&mut self.correct), take(&mut self.drawn));
        if drawn > 0 {
            context.summarize(&format!("{set} avg"), f64::from(correct) / f64::from(drawn));
        }
        Ok(())
    }

    /// Writes what is kept. The number of tokens drawn.
    pub fn finish(self, context: &mut Context) -> Result<usize> {
        context.write(0, &self.kept)?;
        context.write(0, &self.verdicts)?;
        Ok(self.tokens)
    }
}

fn one() -> f64 {
    1.0
}

fn block() -> usize {
    64
}

fn keep() -> usize {
    16
}

pub struct Evaluate;

impl Job for Evaluate {
    fn name(&self) -> &'static str {
        "evaluate"
    }
    fn version(&self) -> u32 {
        2
    }
    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "checkpoint", accepts: &["checkpoint"], arity: Arity::One },
            Port { name: "tasks", accepts: &["tasks"], arity: Arity::Many },
        ]
    }
    fn output(&self) -> &'static str {
        "scores"
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        let params = resolve_as::<Spec>(raw)?;
        if params["block"] == 0 {
            return Err(crate::Error::usage("block 0: at least 1 is needed"));
        }
        if params["stop"].as_array().is_some_and(|texts| texts.contains(&"".into())) {
            return Err(crate::Error::usage("stop: an empty text would end every response"));
        }
        Ok(params)
    }
    fn computes(&self, params: &Value) -> bool {
        params["server"].is_null()
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        if context.spec::<Spec>()?.server.is_some() {
            return served::evaluate::run(context);
        }
        super::engine::ENGINE.get()?.evaluate(context)
    }
}
