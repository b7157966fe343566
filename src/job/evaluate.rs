//! `evaluate`: a checkpoint's accuracy on task sets, greedy and sampled.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Arity, Context, Job, Port, resolve_as};
use crate::Result;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    #[serde(default)]
    pub seed: u64,
    /// Responses to each task at `temperature`, besides the greedy one.
    pub samples: u32,
    #[serde(default = "one")]
    pub temperature: f64,
    #[serde(default = "one")]
    pub top_p: f64,
    pub max_new_tokens: usize,
    /// Tasks sampled together in one batch.
    #[serde(default = "block")]
    pub block: usize,
    /// Tasks of each set whose sampled responses are kept as datasets `rollouts` and `verdicts`.
    #[serde(default = "keep")]
    pub keep: usize,
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
        1
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
        Ok(params)
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        super::with_torch!(context, super::train::evaluate::run(context))
    }
}
