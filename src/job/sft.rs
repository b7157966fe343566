//! `sft`: supervised fine-tuning on examples, the loss on the response only.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rl::{Aggregation, continues};
use super::{Arity, Context, Job, Port, parse};
use crate::{Error, Result};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    #[serde(default)]
    pub seed: u64,
    /// Optimizer steps.
    pub steps: usize,
    /// Examples in a step.
    pub batch: usize,
    pub learning_rate: f64,
    /// Steps of linear warm-up; a cosine to a tenth follows.
    #[serde(default)]
    pub warmup: usize,
    #[serde(default)]
    pub weight_decay: f64,
    /// Gradient norm above which gradients are scaled down.
    #[serde(default = "one")]
    pub clip: f64,
    /// How token losses become one number: by default every token counts the same.
    #[serde(default)]
    pub aggregation: Aggregation,
    /// Tokens of one forward and backward pass: bounds its memory, changes no result.
    #[serde(default = "super::rl::micro_batch_tokens")]
    pub micro_batch_tokens: usize,
    /// Activations are computed again on the way back instead of kept.
    #[serde(default)]
    pub recompute: bool,
    /// What weights and activations are in; with bf16 the optimizer keeps f32 masters.
    #[serde(default)]
    pub precision: super::rl::Precision,
    /// Learn low-rank adapters beside the blocks' matrices, and merge them into the weights at the
    /// end; all other weights stay as they are.
    #[serde(default)]
    pub lora: Option<super::rl::Lora>,
    /// Updates in a row that may be rejected because a loss or gradient is not finite.
    #[serde(default = "three")]
    pub max_rejected: usize,
    /// Steps between checkpoints.
    #[serde(default = "hundred")]
    pub checkpoint_every: usize,
    /// Data type of the saved weights.
    #[serde(default)]
    pub dtype: crate::checkpoint::Dtype,
    /// Commit the optimizer's state beside the checkpoint, in the folder `training`.
    #[serde(default = "super::rl::yes")]
    pub optimizer_state: bool,
    /// Begin with the moments that lie beside `base` instead of fresh ones.
    #[serde(default)]
    pub continue_optimizer: bool,
}

fn one() -> f64 {
    1.0
}

fn hundred() -> usize {
    100
}

fn three() -> usize {
    3
}

pub struct Sft;

impl Job for Sft {
    fn name(&self) -> &'static str {
        "sft"
    }
    fn version(&self) -> u32 {
        3
    }
    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "base", accepts: &["checkpoint"], arity: Arity::One },
            Port { name: "examples", accepts: &["examples"], arity: Arity::Many },
        ]
    }
    fn output(&self) -> &'static str {
        "checkpoint"
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        let spec: Spec = parse(raw)?;
        if spec.lora.as_ref().is_some_and(|lora| lora.rank == 0) {
            return Err(Error::usage("lora.rank 0: at least 1 is needed"));
        }
        continues(spec.continue_optimizer, spec.lora.as_ref())?;
        serde_json::to_value(spec).map_err(Error::defect)
    }
    fn computes(&self, _params: &Value) -> bool {
        true
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        super::engine::ENGINE.get()?.sft(context)
    }
}
