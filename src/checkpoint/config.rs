//! The model's shape: a Hugging Face `config.json` of the families that triad runs.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Dtype;
use super::rope::Rope;
use crate::{Error, Result};

/// The families of decoders. They differ in a few biases and norms only, see [`ModelConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 2 and 3, SmolLM2.
    Llama,
    /// Qwen2 and 2.5.
    Qwen2,
    Qwen3,
}

/// What a config that lacks a key means: the defaults of transformers' config classes.
struct Defaults {
    vocab_size: usize,
    intermediate_size: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
}

impl Architecture {
    const ALL: [Self; 3] = [Self::Llama, Self::Qwen2, Self::Qwen3];

    /// `architectures` and `model_type` of a config.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Llama => ("LlamaForCausalLM", "llama"),
            Self::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
            Self::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
        }
    }

    fn of(config: &Map<String, Value>) -> Result<Self> {
        let (class, kind) = (config.get("architectures"), config.get("model_type"));
        let found = Self::ALL.into_iter().find(|one| {
            let names = one.names();
            class.is_none_or(|class| class.is_null() || *class == json!([names.0]))
                && kind.is_some_and(|kind| kind == names.1)
        });
        found.ok_or_else(|| {
            let given = |value: Option<&Value>| value.cloned().unwrap_or_default();
            Error::data(format!(
                "config.json: unsupported architecture {} (model_type {}); triad runs {}",
                given(class),
                given(kind),
                Self::ALL.map(|one| one.names().0).join(", ")
            ))
        })
    }

    fn defaults(self) -> Defaults {
        match self {
            Self::Llama => Defaults {
                vocab_size: 32_000,
                intermediate_size: 11_008,
                num_key_value_heads: None,
                head_dim: None,
                max_position_embeddings: 2048,
            },
            Self::Qwen2 | Self::Qwen3 => Defaults {
                vocab_size: 151_936,
                intermediate_size: 22_016,
                num_key_value_heads: Some(32),
                head_dim: (self == Self::Qwen3).then_some(128),
                max_position_embeddings: 32_768,
            },
        }
    }
}

/// A `config.json`, read and checked. It is written back as it was read ([`Self::to_json`]): every
/// key that triad does not use, and no default that the file left out.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    head_dim: usize,
    /// Rows of the embedding: at least the tokenizer's ids.
    pub vocab_size: usize,
    /// Longest sequence, tokens: the config's, times what its rotary scaling stretches it.
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    pub rope: Rope,
    pub tie_word_embeddings: bool,
    /// Biases of the queries, keys and values.
    pub qkv_bias: bool,
    /// Bias of the attention's output.
    pub output_bias: bool,
    pub mlp_bias: bool,
    /// RMSNorm of each head's query and key, before the rotary turn.
    pub qk_norm: bool,
    source: Map<String, Value>,
}

impl ModelConfig {
    /// Reads a `config.json` and checks it.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|e| Error::data(format!("config.json is no JSON: {e}")))?;
        match value {
            Value::Object(source) => Self::new(source),
            _ => Err(Error::data("config.json is no JSON object")),
        }
    }

    fn new(source: Map<String, Value>) -> Result<Self> {
        // An unsupported architecture lacks other keys, too: name the cause, not the first key.
        let architecture = Architecture::of(&source)?;
        let defaults = architecture.defaults();
        let get = |key: &str| source.get(key).filter(|value| !value.is_null());
        let fail = |what: String| Error::data(format!("config.json: {what}"));
        let size = |key: &str, default: usize| match get(key) {
            None => Ok(default),
            Some(value) => match value.as_u64() {
                Some(size @ 1..=0x4000_0000) => Ok(size as usize),
                _ => Err(fail(format!("{key} is {value}"))),
            },
        };
        let flag = |key: &str| match get(key) {
            None => Ok(false),
            Some(value) => {
                value.as_bool().ok_or_else(|| fail(format!("{key} is {value}, no boolean")))
            }
        };
        let num_attention_heads = size("num_attention_heads", 32)?;
        let hidden_size = size("hidden_size", 4096)?;
        let kv_heads = match source.get("num_key_value_heads") {
            Some(Value::Null) => num_attention_heads,
            _ => defaults.num_key_value_heads.unwrap_or(num_attention_heads),
        };
        let head_dim = defaults.head_dim.unwrap_or(hidden_size / num_attention_heads).max(1);
        let explicit = get("head_dim").is_some() || defaults.head_dim.is_some();
        let positions = size("max_position_embeddings", defaults.max_position_embeddings)?;
        let rope = Rope::from_config(&source, positions)?;
        let attention_bias = architecture != Architecture::Qwen2 && flag("attention_bias")?;
        let config = Self {
            architecture,
            hidden_size,
            intermediate_size: size("intermediate_size", defaults.intermediate_size)?,
            num_hidden_layers: size("num_hidden_layers", 32)?,
            num_attention_heads,
            num_key_value_heads: size("num_key_value_heads", kv_heads)?,
            head_dim: size("head_dim", head_dim)?,
            vocab_size: size("vocab_size", defaults.vocab_size)?,
            max_position_embeddings: rope.reach(positions),
            rms_norm_eps: match get("rms_norm_eps").map_or(Some(1e-6), Value::as_f64) {
                Some(eps) if eps > 0.0 => eps,
                _ => return Err(fail(format!("rms_norm_eps is {}", source["rms_norm_eps"]))),
            },
            rope,
            tie_word_embeddings: flag("tie_word_embeddings")?,
            qkv_bias: attention_bias || architecture == Architecture::Qwen2,
            output_bias: attention_bias,
            mlp_bias: architecture == Architecture::Llama && flag("mlp_bias")?,
            qk_norm: architecture == Architecture::Qwen3,
            source,
        };
        let splits = explicit || hidden_size.is_multiple_of(num_attention_heads);
        if !splits || !config.head_dim.is_multiple_of(2) {
            return Err(fail(format!(
                "hidden_size {hidden_size} does not split into {num_attention_heads} heads of \
                 even width"
            )));
        }
        if !num_attention_heads.is_multiple_of(config.num_key_value_heads) {
            return Err(fail(format!(
                "{num_attention_heads} attention heads do not share {} key-value heads evenly",
                config.num_key_value_heads
            )));
        }
        config.refuse_the_unsupported()?;
        Ok(config)
    }

    /// Names the first key whose value would make another model than the one we compute.
    fn refuse_the_unsupported(&self) -> Result<()> {
        let get = |key: &str| self.source.get(key).filter(|value| !value.is_null());
        let fail = |key: &str, value: &Value| {
            Err(Error::data(format!("config.json: {key} {value} is not supported")))
        };
        if let Some(value) = get("hidden_act").filter(|value| *value != "silu") {
            return fail("hidden_act", value);
        }
        if let Some(value) = get("attention_dropout").filter(|value| value.as_f64() != Some(0.0)) {
            return fail("attention_dropout", value);
        }
        if let Some(value) = get("quantization_config") {
            return fail("quantization_config", value);
        }
        if let Some(types) = get("layer_types") {
            let mut types = types.as_array().into_iter().flatten();
            if let Some(value) = types.find(|kind| *kind != "full_attention") {
                return fail("layer_types", value);
            }
            return Ok(());
        }
        // The layers from max_window_layers on slide, if the switch is on and a width is given.
        let first = get("max_window_layers").and_then(Value::as_u64).unwrap_or(28);
        let width = self.source.get("sliding_window").is_none_or(|width| !width.is_null());
        match get("use_sliding_window") {
            Some(on) if *on != false && width && first < self.num_hidden_layers as u64 => {
                fail("use_sliding_window", on)
            }
            _ => Ok(()),
        }
    }

    /// The same with other values of some keys.
    pub fn with(mut self, keys: &[(&str, Value)]) -> Result<Self> {
        self.source.extend(keys.iter().map(|(key, value)| (key.to_string(), value.clone())));
        Self::new(self.source)
    }

    /// The keys as they were read.
    pub fn source(&self) -> &Map<String, Value> {
        &self.source
    }

    /// `config.json` of weights stored as `dtype`.
    pub fn to_json(&self, dtype: Dtype) -> Result<Vec<u8>> {
        config_json(&self.source, dtype)
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Every tensor of the model with its shape, under its Hugging Face name.
    pub fn tensors(&self) -> BTreeMap<String, Vec<usize>> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let wide = self.num_attention_heads * self.head_dim;
        let narrow = self.num_key_value_heads * self.head_dim;
        let mut all = BTreeMap::new();
        all.insert("model.embed_tokens.weight".into(), vec![self.vocab_size, hidden]);
        all.insert("model.norm.weight".into(), vec![hidden]);
        if !self.tie_word_embeddings {
            all.insert("lm_head.weight".into(), vec![self.vocab_size, hidden]);
        }
        for layer in 0..self.num_hidden_layers {
            let mut put = |name: &str, shape: &[usize]| {
                all.insert(format!("model.layers.{layer}.{name}"), shape.to_vec());
            };
            put("input_layernorm.weight", &[hidden]);
            put("post_attention_layernorm.weight", &[hidden]);
            if self.qk_norm {
                put("self_attn.q_norm.weight", &[self.head_dim]);
                put("self_attn.k_norm.weight", &[self.head_dim]);
            }
            for (name, rows, columns, bias) in [
                ("self_attn.q_proj", wide, hidden, self.qkv_bias),
                ("self_attn.k_proj", narrow, hidden, self.qkv_bias),
                ("self_attn.v_proj", narrow, hidden, self.qkv_bias),
                ("self_attn.o_proj", hidden, wide, self.output_bias),
                ("mlp.gate_proj", inner, hidden, self.mlp_bias),
                ("mlp.up_proj", inner, hidden, self.mlp_bias),
                ("mlp.down_proj", hidden, inner, self.mlp_bias),
            ] {
                put(&format!("{name}.weight"), &[rows, columns]);
                if bias {
                    put(&format!("{name}.bias"), &[rows]);
                }
            }
        }
        all
    }
}

/// `config.json` of weights stored as `dtype`: the keys in `source`, indented and sorted as
/// transformers writes them.
pub fn config_json(source: &Map<String, Value>, dtype: Dtype) -> Result<Vec<u8>> {
    let mut sorted: BTreeMap<&str, Value> =
        source.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    // transformers 5 writes `dtype` where earlier versions, and most who read it, have `torch_dtype`.
    let new = sorted.contains_key("dtype") && !sorted.contains_key("torch_dtype");
    for key in ["dtype", "torch_dtype"] {
        if sorted.contains_key(key) || (key == "torch_dtype" && !new) {
            sorted.insert(key, dtype.torch_name().into());
        }
    }
    let mut bytes = serde_json::to_vec_pretty(&sorted).map_err(Error::defect)?;
    bytes.push(b'\n');
    Ok(bytes)
}
