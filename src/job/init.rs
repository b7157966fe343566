//! `init`: a tokenizer trained on texts and a model with random weights.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Arity, Context, Job, Port, parse};
use crate::checkpoint::{Checkpoint, ModelConfig, Tokenizer, init_weights};
use crate::dataset::Example;
use crate::{Error, Result};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    #[serde(default)]
    seed: u64,
    /// Tokens of the tokenizer, its 256 bytes and 7 special ones included.
    vocab_size: usize,
    hidden_size: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    intermediate_size: usize,
    /// Longest sequence, tokens.
    context: usize,
    /// Standard deviation of the weights; narrow models learn sooner from more than the default.
    #[serde(default = "deviation")]
    deviation: f64,
}

fn deviation() -> f64 {
    0.02
}

pub struct Init;

impl Job for Init {
    fn name(&self) -> &'static str {
        "init"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[Port { name: "texts", accepts: &["examples"], arity: Arity::Many }]
    }
    fn output(&self) -> &'static str {
        "checkpoint"
    }

    fn resolve(&self, raw: &Value) -> Result<Value> {
        let spec: Spec = parse(raw)?;
        if spec.heads == 0 || !spec.hidden_size.is_multiple_of(2 * spec.heads) {
            return Err(Error::usage(format!(
                "hidden_size {} must be an even multiple of heads {}",
                spec.hidden_size, spec.heads
            )));
        }
        if spec.kv_heads == 0 || !spec.heads.is_multiple_of(spec.kv_heads) {
            return Err(Error::usage(format!(
                "heads {} must be a multiple of kv_heads {}",
                spec.heads, spec.kv_heads
            )));
        }
        if !(spec.deviation > 0.0 && spec.deviation.is_finite()) {
            return Err(Error::usage(format!("deviation {}: it must be above 0", spec.deviation)));
        }
        serde_json::to_value(spec).map_err(Error::defect)
    }

    fn run(&self, context: &mut Context) -> Result<()> {
        let spec: Spec = context.spec()?;
        let mut texts = Vec::new();
        for input in context.inputs("texts") {
            texts.extend(
                context
                    .read::<Example>(&input.artifact)?
                    .into_iter()
                    .map(|example| example.prompt + &example.response),
            );
        }
        let tokenizer = Tokenizer::train(texts.into_iter(), spec.vocab_size)?;
        // Rows beyond the tokenizer's ids, as in published models: a multiple of 8 is faster.
        let config = json!({
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "vocab_size": tokenizer.size().next_multiple_of(8),
            "hidden_size": spec.hidden_size,
            "num_hidden_layers": spec.layers,
            "num_attention_heads": spec.heads,
            "num_key_value_heads": spec.kv_heads,
            "intermediate_size": spec.intermediate_size,
            "max_position_embeddings": spec.context,
            "tie_word_embeddings": true,
            "attention_dropout": 0.0,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "rope_theta": 10_000.0,
            "use_sliding_window": false,
        });
        let config = ModelConfig::from_json(config.to_string().as_bytes())?;
        let weights = init_weights(&config, spec.seed, spec.deviation)?;
        context.write_checkpoint(&Checkpoint::fresh(config, tokenizer, weights)?)
    }
}
