//! The model's shape: a Hugging Face `config.json` of the Qwen2 family.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// A Qwen2 `config.json`. Keys that triad does not use are kept as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    #[serde(default = "architectures")]
    pub architectures: Vec<String>,
    #[serde(default = "model_type")]
    pub model_type: String,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub vocab_size: usize,
    #[serde(default = "max_position_embeddings")]
    pub max_position_embeddings: usize,
    #[serde(default = "rms_norm_eps")]
    pub rms_norm_eps: f64,
    #[serde(default = "rope_theta")]
    pub rope_theta: f64,
    #[serde(default)]
    pub tie_word_embeddings: bool,
    #[serde(default = "torch_dtype")]
    pub torch_dtype: String,
    /// One id, or a list of them in some published folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<u32>,
    #[serde(default = "hidden_act")]
    pub hidden_act: String,
    #[serde(default)]
    pub attention_dropout: f64,
    #[serde(default)]
    pub use_sliding_window: bool,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

// The defaults of transformers' Qwen2Config, except torch_dtype, which older files spell so and
// newer ones `dtype`.
fn architectures() -> Vec<String> {
    vec!["Qwen2ForCausalLM".into()]
}

fn model_type() -> String {
    "qwen2".into()
}

fn max_position_embeddings() -> usize {
    32_768
}

fn rms_norm_eps() -> f64 {
    1e-6
}

fn rope_theta() -> f64 {
    10_000.0
}

fn torch_dtype() -> String {
    "float32".into()
}

fn hidden_act() -> String {
    "silu".into()
}

impl ModelConfig {
    /// Reads a `config.json` and checks it.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let mut value: Value = serde_json::from_slice(bytes)
            .map_err(|e| Error::data(format!("config.json is no JSON: {e}")))?;
        let object =
            value.as_object_mut().ok_or_else(|| Error::data("config.json is no JSON object"))?;
        // An unsupported architecture lacks other keys, too: name the cause, not the first key.
        check_architecture(object)?;
        take_newer_spelling(object)?;
        let config: Self = serde_json::from_value(value).map_err(|e| {
            Error::data(format!("config.json does not describe a Qwen2 model: {e}"))
        })?;
        config.validate()?;
        Ok(config)
    }

    /// `config.json`: indented, with the keys in a fixed order.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let value = serde_json::to_value(self).map_err(Error::defect)?;
        let sorted: BTreeMap<String, Value> = match value {
            Value::Object(map) => map.into_iter().collect(),
            _ => return Err(Error::defect("config.json is no JSON object")),
        };
        let mut bytes = serde_json::to_vec_pretty(&sorted).map_err(Error::defect)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Checks what the transformer relies on.
    pub fn validate(&self) -> Result<()> {
        let fail = |what: String| Err(Error::data(format!("model config: {what}")));
        if self.architectures != architectures() || self.model_type != "qwen2" {
            return fail(format!(
                "unsupported architecture {:?} ({}); triad runs Qwen2ForCausalLM",
                self.architectures, self.model_type
            ));
        }
        for (name, size) in [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if size == 0 || size > 1 << 30 {
                return fail(format!("{name} is {size}"));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads)
            || !self.head_dim().is_multiple_of(2)
        {
            return fail(format!(
                "hidden_size {} does not split into {} heads of even width",
                self.hidden_size, self.num_attention_heads
            ));
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return fail(format!(
                "{} attention heads do not share {} key-value heads evenly",
                self.num_attention_heads, self.num_key_value_heads
            ));
        }
        if let Some(width) = self.other.get("head_dim").and_then(Value::as_u64)
            && width != self.head_dim() as u64
        {
            return fail(format!("head_dim {width} is not hidden_size / num_attention_heads"));
        }
        if self.hidden_act != "silu" {
            return fail(format!("hidden_act `{}` is not supported, only silu", self.hidden_act));
        }
        if self.use_sliding_window {
            return fail("use_sliding_window true is not supported".into());
        }
        if self.attention_dropout != 0.0 {
            return fail(format!("attention_dropout {} is not supported", self.attention_dropout));
        }
        if self.other.get("rope_scaling").is_some_and(|scaling| !scaling.is_null()) {
            return fail("rope_scaling is not supported".into());
        }
        if !(self.rms_norm_eps > 0.0 && self.rope_theta > 0.0) {
            return fail("rms_norm_eps and rope_theta must be above 0".into());
        }
        Ok(())
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Every tensor of the model with its shape, under its Hugging Face name.
    pub fn tensors(&self) -> BTreeMap<String, Vec<usize>> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let narrow = self.num_key_value_heads * self.head_dim();
        let mut all = BTreeMap::new();
        let mut put = |name: String, shape: &[usize]| {
            all.insert(name, shape.to_vec());
        };
        put("model.embed_tokens.weight".into(), &[self.vocab_size, hidden]);
        put("model.norm.weight".into(), &[hidden]);
        if !self.tie_word_embeddings {
            put("lm_head.weight".into(), &[self.vocab_size, hidden]);
        }
        for layer in 0..self.num_hidden_layers {
            let mut put = |name: &str, shape: &[usize]| {
                put(format!("model.layers.{layer}.{name}"), shape);
            };
            put("input_layernorm.weight", &[hidden]);
            put("post_attention_layernorm.weight", &[hidden]);
            put("self_attn.q_proj.weight", &[hidden, hidden]);
            put("self_attn.q_proj.bias", &[hidden]);
            put("self_attn.k_proj.weight", &[narrow, hidden]);
            put("self_attn.k_proj.bias", &[narrow]);
            put("self_attn.v_proj.weight", &[narrow, hidden]);
            put("self_attn.v_proj.bias", &[narrow]);
            put("self_attn.o_proj.weight", &[hidden, hidden]);
            put("mlp.gate_proj.weight", &[inner, hidden]);
            put("mlp.up_proj.weight", &[inner, hidden]);
            put("mlp.down_proj.weight", &[hidden, inner]);
        }
        all
    }
}

fn check_architecture(object: &Map<String, Value>) -> Result<()> {
    let unsupported = |what: &Value| {
        Err(Error::data(format!(
            "config.json: unsupported architecture {what}; triad runs Qwen2ForCausalLM"
        )))
    };
    match (object.get("architectures"), object.get("model_type")) {
        (Some(given), _) if *given != serde_json::json!(architectures()) => unsupported(given),
        (_, Some(kind)) if *kind != "qwen2" => unsupported(kind),
        _ => Ok(()),
    }
}

/// transformers 5 writes `dtype` and `rope_parameters` where earlier versions (and everybody else
/// who reads these files) have `torch_dtype` and `rope_theta`.
fn take_newer_spelling(object: &mut Map<String, Value>) -> Result<()> {
    if let Some(dtype) = object.remove("dtype") {
        object.entry("torch_dtype").or_insert(dtype);
    }
    if object.get("torch_dtype").is_some_and(Value::is_null) {
        object.remove("torch_dtype");
    }
    if let Some(rope) = object.remove("rope_parameters").filter(|rope| !rope.is_null()) {
        let kind = rope.get("rope_type").and_then(Value::as_str).unwrap_or("default");
        if kind != "default" {
            return Err(Error::data(format!("config.json: rope_type `{kind}` is not supported")));
        }
        if let Some(theta) = rope.get("rope_theta") {
            object.insert("rope_theta".into(), theta.clone());
        }
    }
    Ok(())
}
