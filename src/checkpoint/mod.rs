//! Checkpoints: a model's shape, tokenizer and weights as a Hugging Face folder of safetensors.

mod chat;
mod config;
mod index;
mod init;
mod layout;
mod lazy;
mod rope;
mod tensor;
#[cfg(test)]
mod tests;
mod tokenizer;
mod vocabulary;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};

pub use chat::Message;
pub use config::{Architecture, ModelConfig, config_json};
pub use init::init_weights;
pub use layout::{Layout, Outline, index_json, layouts};
pub use lazy::{Folder, LazyCheckpoint, LazyTensor, Ranged, tensors_of};
pub use rope::{Rope, RopeScaling};
pub use tensor::{Dtype, HostTensor, Weights, decode_safetensors, encode_safetensors};
pub use tokenizer::{Tokenizer, TokenizerFiles};
pub use vocabulary::Vocabulary;

use crate::{Error, Result};

pub const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
pub const TOKENIZER: &str = "tokenizer.json";
pub const TOKENIZER_SETTINGS: &str = "tokenizer_config.json";
pub const SPECIAL_TOKENS: &str = "special_tokens_map.json";
pub const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// Files of a checkpoint that are written as they were read, for the tools that want them.
pub const CARRIED: [&str; 8] = [
    GENERATION,
    SPECIAL_TOKENS,
    CHAT_TEMPLATE,
    "chat_template.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

/// Most bytes of one weights file, as Hugging Face writes them.
pub const SHARD: usize = 5_000_000_000;

/// Most bytes of a checkpoint's other files: tokenizers have tens of megabytes.
const TEXT: u64 = 128 << 20;

/// A whole model. `transformers` loads its folder with AutoModelForCausalLM and AutoTokenizer.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    pub config: ModelConfig,
    pub tokenizer: Tokenizer,
    pub weights: Weights,
    /// Those of [`CARRIED`] that the folder had.
    pub files: BTreeMap<String, Bytes>,
}

impl Checkpoint {
    /// A model that comes from no folder: both its configs name the tokenizer's end of text.
    pub fn fresh(config: ModelConfig, tokenizer: Tokenizer, weights: Weights) -> Result<Self> {
        let eos = tokenizer.eos();
        let config = config.with(&[("eos_token_id", eos.into()), ("pad_token_id", eos.into())])?;
        let generation = json!({"eos_token_id": eos, "pad_token_id": eos});
        let mut generation = serde_json::to_vec_pretty(&generation).map_err(Error::defect)?;
        generation.push(b'\n');
        let files = BTreeMap::from([(GENERATION.to_string(), generation.into())]);
        Ok(Self { config, tokenizer, weights, files })
    }

    /// Gives the folder's files to `put`, one by one: a large model is never encoded whole. Equal
    /// checkpoints give equal bytes, and a folder that was read gives its own: only `config.json`
    /// names the type of the weights as they are.
    pub fn write(&self, put: impl FnMut(String, Bytes) -> Result<()>) -> Result<()> {
        self.write_in_shards(SHARD, put)
    }

    fn write_in_shards(
        &self,
        limit: usize,
        mut put: impl FnMut(String, Bytes) -> Result<()>,
    ) -> Result<()> {
        self.check()?;
        let dtype = self.weights.values().next().map(|tensor| tensor.dtype).unwrap_or_default();
        put(CONFIG.into(), self.config.to_json(dtype)?.into())?;
        for (name, bytes) in &self.files {
            put(name.clone(), bytes.clone())?;
        }
        match &shards(&self.weights, limit)[..] {
            [whole] => put(WEIGHTS.into(), encode_safetensors(whole)?)?,
            parts => {
                let mut map = BTreeMap::new();
                for (number, part) in parts.iter().enumerate() {
                    let file = format!("model-{:05}-of-{:05}.safetensors", number + 1, parts.len());
                    map.extend(part.keys().map(|name| (name.clone(), file.clone())));
                    put(file, encode_safetensors(part)?)?;
                }
                let size: usize = self.weights.values().map(|tensor| tensor.bytes.len()).sum();
                let index = json!({"metadata": {"total_size": size}, "weight_map": map});
                let mut index = serde_json::to_vec_pretty(&index).map_err(Error::defect)?;
                index.push(b'\n');
                put(INDEX.into(), index.into())?;
            }
        }
        put(TOKENIZER.into(), self.tokenizer.bytes())?;
        match self.tokenizer.settings() {
            Some(settings) => put(TOKENIZER_SETTINGS.into(), settings),
            None => Ok(()),
        }
    }

    /// The folder's files by name, all at once.
    pub fn objects(&self) -> Result<Vec<(String, Bytes)>> {
        let mut all = Vec::new();
        self.write(|name, bytes| {
            all.push((name, bytes));
            Ok(())
        })?;
        Ok(all)
    }

    /// Reads a checkpoint through `read`, which answers a file name with its bytes, or None if there
    /// is no such file. Weights lie in `model.safetensors`, or in the shards that
    /// `model.safetensors.index.json` lists.
    pub fn from_objects(mut read: impl FnMut(&str) -> Result<Option<Bytes>>) -> Result<Self> {
        let mut checkpoint = Self::without_weights(&mut read)?;
        checkpoint.weights = match read(WEIGHTS)? {
            Some(file) => decode_safetensors(file).map_err(|e| e.at(WEIGHTS))?,
            None => {
                let index = read(INDEX)?.ok_or_else(|| lacking(WEIGHTS))?;
                let mut weights = Weights::new();
                for name in index::files(&index).map_err(|e| e.at(INDEX))? {
                    let file = read(&name)?.ok_or_else(|| lacking(&name))?;
                    weights.extend(decode_safetensors(file).map_err(|e| e.at(&name))?);
                }
                weights
            }
        };
        checkpoint.drop_what_is_derived();
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// The same without reading weights, for whoever needs tokenizer and config alone: `weights` is
    /// empty.
    pub fn without_weights(mut read: impl FnMut(&str) -> Result<Option<Bytes>>) -> Result<Self> {
        let config = read(CONFIG)?.ok_or_else(|| lacking(CONFIG))?;
        let config = ModelConfig::from_json(&config)?;
        let tokenizer = read(TOKENIZER)?.ok_or_else(|| lacking(TOKENIZER))?;
        let settings = read(TOKENIZER_SETTINGS)?;
        let mut files = BTreeMap::new();
        for name in CARRIED {
            if let Some(bytes) = read(name)? {
                files.insert(name.to_string(), bytes);
            }
        }
        let tokenizer = Tokenizer::from_files(TokenizerFiles {
            tokenizer,
            settings,
            special: files.get(SPECIAL_TOKENS).cloned(),
            template: files.get(CHAT_TEMPLATE).cloned(),
            eos: ends(config.source()).into_iter().next(),
        })?;
        Ok(Self { config, tokenizer, weights: Weights::new(), files })
    }

    /// The ids that end a response, in order: those of `generation_config.json`, of `config.json`
    /// and the tokenizer's.
    pub fn stop_ids(&self) -> Result<Vec<u32>> {
        let mut ids = ends(self.config.source());
        if let Some(file) = self.files.get(GENERATION) {
            let generation: Value = serde_json::from_slice(file)
                .map_err(|e| Error::data(format!("{GENERATION}: {e}")))?;
            ids.extend(generation.as_object().map(ends).unwrap_or_default());
        }
        ids.insert(self.tokenizer.eos());
        Ok(ids.into_iter().collect())
    }

    pub fn from_folder(folder: &Path) -> Result<Self> {
        Self::from_objects(|name| {
            let path = folder.join(name);
            let size = std::fs::metadata(&path).map_or(0, |found| found.len());
            if size > TEXT && !name.ends_with(".safetensors") {
                return Err(Error::data(format!("{name}: {size} bytes, more than {TEXT}")));
            }
            match std::fs::read(path) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(Error::data(format!("cannot read {name}: {e}"))),
            }
        })
        .map_err(|e| e.at(folder.display()))
    }

    pub fn to_folder(&self, folder: &Path) -> Result<()> {
        let fail =
            |e: std::io::Error| Error::try_again(format!("cannot write {}: {e}", folder.display()));
        std::fs::create_dir_all(folder).map_err(fail)?;
        self.write(|name, bytes| std::fs::write(folder.join(name), bytes).map_err(fail))
    }

    /// Checks that config, weights and tokenizer belong together.
    pub fn check(&self) -> Result<()> {
        check_weights(&self.config, &self.weights)?;
        let (ids, rows) = (self.tokenizer.size(), self.config.vocab_size);
        if ids > rows {
            return Err(Error::data(format!(
                "tokenizer and model vocabulary disagree: the tokenizer has {ids} ids, \
                 the model {rows} rows"
            )));
        }
        Ok(())
    }

    /// Some tools store a tied output head a second time, and old Llama folders the rotary
    /// frequencies, which the config gives.
    fn drop_what_is_derived(&mut self) {
        let (head, embedding) = ("lm_head.weight", "model.embed_tokens.weight");
        if self.config.tie_word_embeddings
            && self.weights.contains_key(head)
            && self.weights.get(head) == self.weights.get(embedding)
        {
            self.weights.remove(head);
        }
        self.weights.retain(|name, _| !name.ends_with(".rotary_emb.inv_freq"));
    }
}

fn lacking(name: &str) -> Error {
    Error::data(format!("{name} is missing"))
}

/// The `eos_token_id` of a config: one id or a list of them.
fn ends(config: &serde_json::Map<String, Value>) -> BTreeSet<u32> {
    let ids = match config.get("eos_token_id") {
        Some(Value::Array(ids)) => &ids[..],
        Some(id) => std::slice::from_ref(id),
        None => &[],
    };
    ids.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect()
}

/// `weights` in order of name, cut where a part would exceed `limit` bytes.
fn shards(weights: &Weights, limit: usize) -> Vec<Weights> {
    let mut parts = vec![Weights::new()];
    let mut size = 0;
    for (name, tensor) in weights {
        if size > 0 && size + tensor.bytes.len() > limit {
            parts.push(Weights::new());
            size = 0;
        }
        size += tensor.bytes.len();
        if let Some(part) = parts.last_mut() {
            part.insert(name.clone(), tensor.clone());
        }
    }
    parts
}

/// Checks that `weights` are exactly the tensors of a model of this shape.
pub fn check_weights(config: &ModelConfig, weights: &Weights) -> Result<()> {
    let expected = config.tensors();
    for (name, shape) in &expected {
        let tensor = weights
            .get(name)
            .ok_or_else(|| Error::data(format!("checkpoint lacks the tensor `{name}`")))?;
        if tensor.shape != *shape {
            return Err(Error::data(format!(
                "tensor `{name}` has shape {:?}; the config asks for {shape:?}",
                tensor.shape
            )));
        }
        if tensor.bytes.len() != tensor.len() * tensor.dtype.size() {
            return Err(Error::data(format!("tensor `{name}` has {} bytes", tensor.bytes.len())));
        }
    }
    match weights.keys().find(|name| !expected.contains_key(*name)) {
        Some(name) => Err(Error::data(format!(
            "checkpoint has the tensor `{name}`, which a model of this config does not"
        ))),
        None => Ok(()),
    }
}
