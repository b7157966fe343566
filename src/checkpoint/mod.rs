//! Checkpoints: a model's shape, tokenizer and weights as a Hugging Face folder of safetensors.

mod config;
mod init;
mod tensor;
#[cfg(test)]
mod tests;
mod tokenizer;

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};

pub use config::ModelConfig;
pub use init::init_weights;
pub use tensor::{Dtype, HostTensor, Weights, decode_safetensors, encode_safetensors};
pub use tokenizer::Tokenizer;

use crate::{Error, Result};

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_SETTINGS: &str = "tokenizer_config.json";

/// A whole model. `transformers` loads its folder with AutoModelForCausalLM and AutoTokenizer.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    pub config: ModelConfig,
    pub tokenizer: Tokenizer,
    pub weights: Weights,
}

impl Checkpoint {
    /// The folder's files by name. Equal checkpoints give equal bytes.
    ///
    /// The written config names the weights' type and the tokenizer's end of text, whatever
    /// `self.config` said of them.
    pub fn objects(&self) -> Result<Vec<(String, Bytes)>> {
        self.check()?;
        let eos = self.tokenizer.eos();
        let mut config = self.config.clone();
        config.eos_token_id = Some(json!(eos));
        config.pad_token_id = Some(eos);
        if let Some(tensor) = self.weights.values().next() {
            config.torch_dtype = tensor.dtype.torch_name().into();
        }
        let generation = format!("{{\n  \"eos_token_id\": {eos},\n  \"pad_token_id\": {eos}\n}}\n");
        Ok(vec![
            (CONFIG.into(), config.to_json()?.into()),
            (GENERATION.into(), generation.into()),
            (WEIGHTS.into(), encode_safetensors(&self.weights)?),
            (TOKENIZER.into(), self.tokenizer.bytes()),
            (TOKENIZER_SETTINGS.into(), self.tokenizer.settings()?.into()),
        ])
    }

    /// Reads a checkpoint through `read`, which answers a file name with its bytes. Weights lie in
    /// `model.safetensors`, or in the shards that `model.safetensors.index.json` lists.
    pub fn from_objects(mut read: impl FnMut(&str) -> Result<Bytes>) -> Result<Self> {
        let config = ModelConfig::from_json(&read(CONFIG)?)?;
        let tokenizer = read(TOKENIZER)?;
        let tokenizer = match read(TOKENIZER_SETTINGS) {
            Ok(settings) => Tokenizer::from_files(tokenizer, &settings)?,
            Err(Error::TryAgain(m)) => return Err(Error::TryAgain(m)),
            Err(_) => Tokenizer::from_bytes(tokenizer)?,
        };
        let weights = match read(WEIGHTS) {
            Ok(file) => decode_safetensors(file).map_err(|e| e.at(WEIGHTS))?,
            Err(Error::TryAgain(m)) => return Err(Error::TryAgain(m)),
            Err(missing) => match read(INDEX) {
                Ok(index) => read_shards(&index, read)?,
                Err(_) => return Err(missing),
            },
        };
        let mut checkpoint = Self { config, tokenizer, weights };
        checkpoint.drop_tied_head();
        checkpoint.check()?;
        Ok(checkpoint)
    }

    pub fn from_folder(folder: &Path) -> Result<Self> {
        Self::from_objects(|name| {
            let path = folder.join(name);
            let bytes = std::fs::read(&path)
                .map_err(|e| Error::data(format!("cannot read {}: {e}", path.display())))?;
            Ok(bytes.into())
        })
        .map_err(|e| e.at(folder.display()))
    }

    pub fn to_folder(&self, folder: &Path) -> Result<()> {
        let fail =
            |e: std::io::Error| Error::try_again(format!("cannot write {}: {e}", folder.display()));
        std::fs::create_dir_all(folder).map_err(fail)?;
        for (name, bytes) in self.objects()? {
            std::fs::write(folder.join(name), bytes).map_err(fail)?;
        }
        Ok(())
    }

    /// Checks that config, weights and tokenizer belong together.
    pub fn check(&self) -> Result<()> {
        self.config.validate()?;
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

    /// Some tools store a tied output head a second time.
    fn drop_tied_head(&mut self) {
        let (head, embedding) = ("lm_head.weight", "model.embed_tokens.weight");
        if self.config.tie_word_embeddings
            && self.weights.contains_key(head)
            && self.weights.get(head) == self.weights.get(embedding)
        {
            self.weights.remove(head);
        }
    }
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
            "checkpoint has the tensor `{name}`, which a Qwen2 model of this config does not"
        ))),
        None => Ok(()),
    }
}

fn read_shards(index: &[u8], mut read: impl FnMut(&str) -> Result<Bytes>) -> Result<Weights> {
    let index: Value =
        serde_json::from_slice(index).map_err(|e| Error::data(format!("{INDEX}: {e}")))?;
    let map = index["weight_map"]
        .as_object()
        .ok_or_else(|| Error::data(format!("{INDEX} lacks `weight_map`")))?;
    let files: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
    let mut weights = Weights::new();
    for file in files {
        weights.extend(decode_safetensors(read(file)?).map_err(|e| e.at(file))?);
    }
    Ok(weights)
}
