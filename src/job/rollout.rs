//! `rollout`: responses sampled from a checkpoint.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cuts::Cuts;
use super::served::{self, ServerSpec};
use super::{Arity, Context, Job, Port, resolve_as};
use crate::Result;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    #[serde(default)]
    pub seed: u64,
    /// Responses to each task.
    pub samples: u32,
    /// 0 takes the likeliest token.
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

impl Spec {
    pub fn cuts(&self) -> Cuts {
        Cuts::new(self.temperature, self.top_k, self.top_p, self.min_p)
    }
}

fn one() -> f64 {
    1.0
}

fn block() -> usize {
    64
}

pub struct RolloutJob;

impl Job for RolloutJob {
    fn name(&self) -> &'static str {
        "rollout"
    }
    fn version(&self) -> u32 {
        2
    }
    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "checkpoint", accepts: &["checkpoint"], arity: Arity::One },
            Port { name: "tasks", accepts: &["tasks"], arity: Arity::One },
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
            return served::rollout::run(context);
        }
        super::engine::ENGINE.get()?.rollout(context)
    }
}
