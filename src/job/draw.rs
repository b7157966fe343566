//! `draw`: an RL iteration's responses, from the policy that the iteration before left.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rl::{Lesson, Lora, Precision};
use super::{Arity, Context, Job, Port, resolve_as};
use crate::{Error, Result};

/// How the responses of an iteration are drawn.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drawing {
    pub seed: u64,
    pub curriculum: Vec<Lesson>,
    pub prompts: usize,
    pub samples: usize,
    pub temperature: f64,
    pub max_new_tokens: usize,
    /// Prompts sampled together in one batch, and written as one part: what a shard consists of.
    pub block: Option<usize>,
    pub precision: Precision,
    /// What the policy samples in, if not that.
    pub sampler_precision: Option<Precision>,
    /// Most memory for keys and values.
    #[serde(deserialize_with = "super::cuts::bytes")]
    pub cache_bytes: usize,
    /// The policy has adapters: their numbers lie beside it, the weights of `base` below them.
    pub lora: Option<Lora>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// From 1.
    pub iteration: usize,
    /// Which refill of the iteration, from 0: draws as many prompts as have no variance so far. None:
    /// the iteration's own prompts.
    pub refill: Option<usize>,
    pub drawing: Drawing,
}

pub struct Draw;

impl Job for Draw {
    fn name(&self) -> &'static str {
        "draw"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "policy", accepts: &["checkpoint"], arity: Arity::One },
            Port { name: "base", accepts: &["checkpoint"], arity: Arity::Optional },
            Port { name: "tasks", accepts: &["tasks"], arity: Arity::One },
            // Those of the iteration so far.
            Port { name: "verdicts", accepts: &["verdicts"], arity: Arity::Any },
        ]
    }
    fn output(&self) -> &'static str {
        "rollouts"
    }
    fn shardable(&self) -> bool {
        true
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        let params = resolve_as::<Spec>(raw)?;
        let drawing = &params["drawing"];
        for (name, value) in [
            ("iteration", &params["iteration"]),
            ("prompts", &drawing["prompts"]),
            ("samples", &drawing["samples"]),
            ("block", &drawing["block"]),
        ] {
            if *value == 0 {
                return Err(Error::usage(format!("{name} 0: at least 1 is needed")));
            }
        }
        Ok(params)
    }
    fn computes(&self, _params: &Value) -> bool {
        true
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        super::engine::ENGINE.get()?.draw(context)
    }
}
