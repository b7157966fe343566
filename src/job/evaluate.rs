//! `evaluate`: a checkpoint's accuracy on task sets, greedy and sampled.

mod scores;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cuts::Cuts;
use super::served::{self, ServerSpec};
use super::{Arity, Context, Job, Port, Shard, resolve_as};
use crate::dataset::{Score, Task};
use crate::{Error, Result};

pub use scores::Scores;
pub(super) use scores::{Sampler, averages, count, score};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    #[serde(default)]
    pub seed: u64,
    /// Responses to each task at `temperature`, besides the greedy one: a number, or numbers by task
    /// set (none to sets that are not named).
    pub samples: Samples,
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
    /// Tasks sampled together in one batch, and written as one part: what a shard consists of.
    #[serde(default = "block")]
    pub block: usize,
    /// Tasks of each set whose responses are kept as datasets `rollouts` and `verdicts`; all unless
    /// given. `score` needs all.
    #[serde(default)]
    pub keep: Option<usize>,
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

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number, or a map from task sets to numbers")]
pub enum Samples {
    Each(u32),
    Sets(BTreeMap<String, u32>),
}

/// How a task set is sampled.
#[derive(Debug, Clone, Copy)]
pub struct Mode {
    pub name: &'static str,
    pub cuts: Cuts,
    pub samples: u32,
    /// The number of its first response to a task: the greedy one comes after those sampled, so that
    /// (task, number) names a response.
    pub first: u32,
}

impl Mode {
    /// The mode of responses drawn at `temperature`.
    pub fn name(temperature: f32) -> &'static str {
        if temperature == 0.0 { "greedy" } else { "sampled" }
    }
}

impl Spec {
    fn modes(&self, set: &str) -> impl Iterator<Item = Mode> {
        let cuts = Cuts::new(self.temperature, self.top_k, self.top_p, self.min_p);
        let samples = match &self.samples {
            Samples::Each(samples) => *samples,
            Samples::Sets(sets) => sets.get(set).copied().unwrap_or(0),
        };
        let modes = [
            Mode { name: "greedy", cuts: Cuts::GREEDY, samples: 1, first: samples },
            Mode { name: "sampled", cuts, samples, first: 0 },
        ];
        modes.into_iter().filter(|mode| mode.samples > 0)
    }
}

/// The task sets by name, in the order of the names.
pub struct Sets(Vec<(String, Vec<Task>)>);

/// Tasks that are sampled together in one mode.
pub struct Block<'a> {
    /// What they make is this part of each dataset, beside what the same tasks make in other modes.
    pub part: usize,
    pub set: &'a str,
    /// With their item numbers in the set, which name their randomness.
    pub tasks: Vec<(u64, &'a Task)>,
    pub mode: Mode,
    /// Whether it is the last of its part.
    pub last: bool,
}

impl Sets {
    /// # Errors
    /// `Usage` when `samples` names a set that port `tasks` does not have.
    pub fn read(context: &Context, spec: &Spec) -> Result<Self> {
        let inputs = context.inputs("tasks");
        if let Samples::Sets(sets) = &spec.samples
            && let Some(name) = sets.keys().find(|name| !inputs.iter().any(|i| i.name == **name))
        {
            let known: Vec<_> = inputs.iter().map(|input| input.name.as_str()).collect();
            let known = known.join(", ");
            return Err(Error::usage(format!(
                "samples: no task set `{name}`; port `tasks` has {known}"
            )));
        }
        let read = |input: &super::Input| Ok((input.name.clone(), context.read(&input.artifact)?));
        Ok(Self(inputs.iter().map(read).collect::<Result<_>>()?))
    }

    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.0.iter().flat_map(|(_, tasks)| tasks)
    }

    /// The blocks of a shard, the modes of each part in turn.
    pub fn blocks<'a>(&'a self, spec: &Spec, shard: Shard) -> Vec<Block<'a>> {
        let mut blocks = Vec::new();
        let mut part = 0;
        for (set, tasks) in &self.0 {
            let items: Vec<(u64, &Task)> = (0..).zip(tasks).collect();
            let modes: Vec<Mode> = spec.modes(set).collect();
            for tasks in items.chunks(spec.block) {
                for (at, &mode) in modes.iter().enumerate().filter(|_| shard.owns(part)) {
                    let (tasks, last) = (tasks.to_vec(), at + 1 == modes.len());
                    blocks.push(Block { part, set, tasks, mode, last });
                }
                part += 1;
            }
        }
        blocks
    }
}

fn one() -> f64 {
    1.0
}

fn block() -> usize {
    64
}

pub struct Evaluate;

impl Job for Evaluate {
    fn name(&self) -> &'static str {
        "evaluate"
    }
    fn version(&self) -> u32 {
        3
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
    fn shardable(&self) -> bool {
        true
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        let params = resolve_as::<Spec>(raw)?;
        if params["block"] == 0 {
            return Err(Error::usage("block 0: at least 1 is needed"));
        }
        if params["stop"].as_array().is_some_and(|texts| texts.contains(&"".into())) {
            return Err(Error::usage("stop: an empty text would end every response"));
        }
        Ok(params)
    }
    fn computes(&self, params: &Value) -> bool {
        params["server"].is_null()
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        context.declare::<Score>();
        match context.spec::<Spec>()?.server {
            Some(_) => served::evaluate::run(context)?,
            None => super::engine::ENGINE.get()?.evaluate(context)?,
        }
        if context.shard == Shard::WHOLE {
            averages(context);
        }
        Ok(())
    }
    fn complete(&self, context: &mut Context) -> Result<()> {
        averages(context);
        Ok(())
    }
}
