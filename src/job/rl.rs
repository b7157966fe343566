//! `rl`: on-policy reinforcement learning with verified rewards, all in one process or in rounds.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::draw::Drawing;
use super::{Arity, Context, Job, Made, Part, Port, parse, rounds, select};
use crate::advantage::Algorithm;
use crate::reward::Rule;
use crate::{Error, Result};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    #[serde(default)]
    pub seed: u64,
    pub algorithm: Algorithm,
    pub reward: Rule,
    /// Levels in order, each for a number of iterations, each with a fresh optimizer.
    pub curriculum: Vec<Lesson>,
    /// Prompts in an iteration.
    pub prompts: usize,
    /// Prompts sampled together in one batch; all when absent. What shards of rounds consist of.
    #[serde(default)]
    pub block: Option<usize>,
    /// Responses to each prompt.
    pub samples: usize,
    #[serde(default = "one")]
    pub temperature: f64,
    pub max_new_tokens: usize,
    pub learning_rate: f64,
    #[serde(default)]
    pub kl: Kl,
    #[serde(default)]
    pub clip: Clip,
    /// How token losses become one number.
    #[serde(default)]
    pub aggregation: Aggregation,
    /// Most memory for keys and values while sampling, in bytes or such as `512MiB`. Responses wait
    /// until theirs fit.
    #[serde(default = "super::cuts::cache_bytes", deserialize_with = "super::cuts::bytes")]
    pub cache_bytes: usize,
    /// Optimizer steps on each iteration's responses.
    #[serde(default = "one_update")]
    pub updates: usize,
    /// Linear warm-up of the learning rate in each lesson, in iterations.
    #[serde(default)]
    pub warmup: usize,
    /// What is left of the learning rate at a lesson's end, on a cosine.
    #[serde(default = "one")]
    pub final_rate: f64,
    /// Truncated importance correction between sampler and trainer: the most that a token's loss is
    /// multiplied with (2 is usual). The ratio is then that of the trainer's own log-probabilities.
    #[serde(default)]
    pub correction: Option<f64>,
    /// Punishes responses that come near `max_new_tokens`.
    #[serde(default)]
    pub overlong: Option<Overlong>,
    /// Dynamic sampling (DAPO): groups whose rewards are all the same are left out, and up to so
    /// many times as many prompts as are missing then are drawn anew.
    #[serde(default)]
    pub refills: usize,
    /// Coefficient of the entropy bonus.
    #[serde(default)]
    pub entropy: f64,
    #[serde(default)]
    pub weight_decay: f64,
    /// Gradient norm above which gradients are scaled down.
    #[serde(default = "one")]
    pub max_gradient_norm: f64,
    /// SQL over `rollouts` and `verdicts` (one iteration's) that names the responses to learn
    /// from, as columns task_id and sample. All of them when absent.
    #[serde(default)]
    pub select: Option<String>,
    /// Tokens of one forward and backward pass: bounds its memory, changes no result.
    #[serde(default = "micro_batch_tokens")]
    pub micro_batch_tokens: usize,
    /// Activations are computed again on the way back instead of kept.
    #[serde(default)]
    pub recompute: bool,
    /// What weights and activations are in; with bf16 the optimizer keeps f32 masters.
    #[serde(default)]
    pub precision: Precision,
    /// What the policy samples in; `precision` when absent. A copy of the policy samples where it is
    /// another one.
    #[serde(default)]
    pub sampler_precision: Option<Precision>,
    /// Learn low-rank adapters beside the blocks' matrices, and merge them into the weights at the
    /// end; all other weights stay as they are.
    #[serde(default)]
    pub lora: Option<Lora>,
    /// Updates in a row that may be rejected because a loss or gradient is not finite.
    #[serde(default = "three")]
    pub max_rejected: usize,
    /// Iterations between checkpoints.
    #[serde(default = "ten")]
    pub checkpoint_every: usize,
    /// Data type of the saved weights.
    #[serde(default)]
    pub dtype: crate::checkpoint::Dtype,
    /// Commit the optimizer's state beside the checkpoint, in the folder `training`.
    #[serde(default = "yes")]
    pub optimizer_state: bool,
    /// Begin with the moments that lie beside `base` instead of fresh ones.
    #[serde(default)]
    pub continue_optimizer: bool,
}

impl Spec {
    /// How an iteration's responses are drawn.
    pub fn drawing(&self) -> Drawing {
        Drawing {
            seed: self.seed,
            curriculum: self.curriculum.clone(),
            prompts: self.prompts,
            samples: self.samples,
            temperature: self.temperature,
            max_new_tokens: self.max_new_tokens,
            block: self.block,
            precision: self.precision,
            sampler_precision: self.sampler_precision,
            cache_bytes: self.cache_bytes,
            lora: self.lora.clone(),
        }
    }

    /// Which of them are learnt from.
    pub fn selection(&self) -> select::Spec {
        select::Spec { samples: self.samples, sql: self.select.clone(), varied: self.refills > 0 }
    }
}

/// A level of the curriculum.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lesson {
    pub level: u32,
    /// RL iterations at this level.
    pub steps: usize,
    /// Share of an iteration's prompts that come from the levels before, lest they be forgotten.
    #[serde(default)]
    pub review: f64,
}

/// The KL term to the frozen reference.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kl {
    pub kind: KlKind,
    pub coefficient: f64,
    pub place: KlPlace,
    /// Moves the coefficient from iteration to iteration.
    pub adaptive: Option<Adaptive>,
}

impl Default for Kl {
    fn default() -> Self {
        Self { kind: KlKind::K3, coefficient: 0.001, place: KlPlace::Loss, adaptive: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlPlace {
    /// A part of the loss, with a gradient of its own.
    Loss,
    /// Taken off the reward, token by token (REINFORCE++'s own form, with k1).
    Reward,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adaptive {
    /// KL per token.
    pub target: f64,
    /// Responses.
    pub horizon: f64,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self { target: 0.1, horizon: 10_000.0 }
    }
}

/// See [`crate::advantage::overlong`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlong {
    /// Tokens before the limit.
    pub buffer: usize,
    #[serde(default = "one")]
    pub factor: f64,
}

/// Low-rank adaptation (arXiv 2106.09685).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    pub rank: usize,
    /// What the adapters add is multiplied with alpha / rank. Twice the rank when absent.
    #[serde(default)]
    pub alpha: Option<f64>,
}

/// What the model is computed in. The model layer has the same, but not without libtorch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    #[default]
    F32,
    Bf16,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlKind {
    K1,
    K2,
    K3,
}

/// The range of the probability ratio: [1 - low, 1 + high].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clip {
    pub low: f64,
    pub high: f64,
    /// Bound of the loss at negative advantages (dual clip), e.g. 3.
    pub dual: Option<f64>,
}

impl Default for Clip {
    fn default() -> Self {
        Self { low: 0.2, high: 0.2, dual: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Sum over all tokens of the batch / their number (DAPO).
    #[default]
    TokenMean,
    /// Mean over each response's tokens, then over responses (GRPO).
    SeqMeanTokenMean,
    /// Sum over tokens / (responses x max_new_tokens) (Dr. GRPO).
    SeqMeanTokenSumNorm,
}

fn one() -> f64 {
    1.0
}

fn one_update() -> usize {
    1
}

fn three() -> usize {
    3
}

pub fn micro_batch_tokens() -> usize {
    4096
}

pub fn yes() -> bool {
    true
}

fn ten() -> usize {
    10
}

/// Adapters are merged into what is committed, so their moments are of no use to others.
pub fn continues(optimizer: bool, lora: Option<&Lora>) -> Result<()> {
    match lora {
        Some(_) if optimizer => {
            Err(Error::usage("continue_optimizer: adapters (`lora`) begin with fresh moments"))
        }
        _ => Ok(()),
    }
}

pub struct Rl;

impl Job for Rl {
    fn name(&self) -> &'static str {
        "rl"
    }
    fn version(&self) -> u32 {
        3
    }
    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "base", accepts: &["checkpoint"], arity: Arity::One },
            Port { name: "tasks", accepts: &["tasks"], arity: Arity::One },
            Port { name: "reference", accepts: &["checkpoint"], arity: Arity::Optional },
        ]
    }
    fn output(&self) -> &'static str {
        "checkpoint"
    }

    fn resolve(&self, raw: &Value) -> Result<Value> {
        if let Some(cut) = ["top_k", "top_p", "min_p"].iter().find(|cut| raw.get(cut).is_some()) {
            return Err(Error::usage(format!(
                "`{cut}`: the policy gradient is that of the whole distribution, so rl cuts nothing \
                 off; rollout and evaluate can"
            )));
        }
        let spec: Spec = parse(raw)?;
        for (name, value) in [
            ("prompts", spec.prompts),
            ("samples", spec.samples),
            ("block", spec.block.unwrap_or(1)),
            ("updates", spec.updates),
            ("lora.rank", spec.lora.as_ref().map_or(1, |lora| lora.rank)),
        ] {
            if value == 0 {
                return Err(Error::usage(format!("{name} 0: at least 1 is needed")));
            }
        }
        for (name, value) in [
            ("final_rate", Some(spec.final_rate)),
            ("correction", spec.correction),
            ("kl.adaptive.target", spec.kl.adaptive.as_ref().map(|a| a.target)),
            ("kl.adaptive.horizon", spec.kl.adaptive.as_ref().map(|a| a.horizon)),
            ("overlong.buffer", spec.overlong.as_ref().map(|o| o.buffer as f64)),
        ] {
            if value.is_some_and(|value| value <= 0.0) {
                return Err(Error::usage(format!(
                    "{name} {}: it must be above 0",
                    value.unwrap_or_default()
                )));
            }
        }
        continues(spec.continue_optimizer, spec.lora.as_ref())?;
        if let Some(lesson) = spec.curriculum.iter().find(|l| !(0.0..1.0).contains(&l.review)) {
            return Err(Error::usage(format!(
                "review {}: it must be a share, at least 0 and below 1",
                lesson.review
            )));
        }
        if spec.temperature <= 0.0 {
            return Err(Error::usage(format!(
                "temperature {}: RL samples, so it must be above 0",
                spec.temperature
            )));
        }
        serde_json::to_value(spec).map_err(Error::defect)
    }

    /// The levels of tasks that are generated are known before anything runs.
    fn check(&self, params: &Value, inputs: &[Made]) -> Result<()> {
        let spec: Spec = parse(params)?;
        for made in inputs.iter().filter(|made| made.port == "tasks" && made.job == "generate") {
            let levels = made.params["levels"].as_array().into_iter().flatten();
            let levels: Vec<u64> = levels.filter_map(|level| level["level"].as_u64()).collect();
            if let Some(Lesson { level, .. }) =
                spec.curriculum.iter().find(|lesson| !levels.contains(&lesson.level.into()))
            {
                return Err(Error::usage(format!(
                    "curriculum: port `tasks` makes no tasks of level {level}, only of {levels:?}"
                )));
            }
        }
        Ok(())
    }

    fn rounds(&self, params: &Value, shards: u32, ports: &[&str]) -> Result<Vec<Part>> {
        rounds::parts(&parse(params)?, shards, ports.contains(&"reference"))
    }

    fn computes(&self, _params: &Value) -> bool {
        true
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        super::engine::ENGINE.get()?.rl(context)
    }
}
