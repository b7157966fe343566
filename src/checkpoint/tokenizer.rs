//! The tokenizer: a `tokenizer.json` and the few settings beside it.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokenizers::AddedToken;
use tokenizers::SplitDelimiterBehavior;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

use crate::{Error, Result};

/// Tags of a response's parts. Ordinary tokens to the decoder: they stay in the text.
const TAGS: [&str; 4] = ["<think>", "</think>", "<answer>", "</answer>"];
/// End of text (also the padding), and the two chat marks. Dropped from decoded text.
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// How Qwen2 cuts text before the merges: contractions, words, single digits, punctuation, spaces.
/// transformers assumes it of every model with this architecture, whatever `tokenizer.json` says.
const PATTERN: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// A Hugging Face tokenizer. Cheap to clone.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    /// `tokenizer.json` as it was read: written back unchanged.
    bytes: Bytes,
    /// `tokenizer_config.json`.
    settings: Map<String, Value>,
    eos: u32,
    size: usize,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.size)
    }
}

impl Tokenizer {
    /// Trains a byte-level BPE as Qwen2's, of at most `vocab_size` tokens: the 256 bytes, merges learnt from
    /// `texts`, then the response tags and the special tokens. 263 leaves no merges: one token a
    /// byte. The order of `texts` does not matter.
    pub fn train(texts: impl Iterator<Item = String>, vocab_size: usize) -> Result<Self> {
        let added = TAGS.len() + SPECIAL.len();
        let least = 256 + added;
        if vocab_size < least {
            return Err(Error::usage(format!(
                "vocab_size {vocab_size} is too small: 256 bytes and {added} tags need {least}"
            )));
        }
        let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
        let pattern = SplitPattern::Regex(PATTERN.into());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
            .map_err(|e| Error::defect(format!("tokenizer pattern: {e}")))?;
        let parts = vec![split.into(), ByteLevel::new(false, false, false).into()];
        tokenizer.with_normalizer(Some(NFC));
        tokenizer.with_pre_tokenizer(Some(Sequence::new(parts)));
        tokenizer.with_decoder(Some(ByteLevel::new(true, true, true)));
        let trainer = BpeTrainer::builder()
            .show_progress(false)
            .min_frequency(2)
            .vocab_size(vocab_size - added)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let texts: Vec<String> = texts.collect();
        tokenizer
            .train(&mut TrainerWrapper::from(trainer), texts.into_iter())
            .map_err(|e| Error::defect(format!("tokenizer training: {e}")))?;
        tokenizer.add_special_tokens(
            &SPECIAL.map(|token| AddedToken::from(token, true).normalized(false)),
        );
        tokenizer.add_tokens(&TAGS.map(|token| AddedToken::from(token, false).normalized(false)));
        let text = tokenizer.to_string(true).map_err(Error::defect)?;
        Self::from_bytes(text.into())
    }

    /// Reads a `tokenizer.json`, with `<|endoftext|>` as the end of text.
    pub fn from_bytes(bytes: Bytes) -> Result<Self> {
        let settings = json!({
            "add_bos_token": false,
            "add_prefix_space": false,
            "clean_up_tokenization_spaces": false,
            "eos_token": SPECIAL[0],
            "pad_token": SPECIAL[0],
            "tokenizer_class": "Qwen2Tokenizer",
        });
        match settings {
            Value::Object(settings) => Self::new(bytes, settings),
            _ => Err(Error::defect("tokenizer settings are no object")),
        }
    }

    /// Reads a `tokenizer.json` and the `tokenizer_config.json` beside it.
    pub fn from_files(bytes: Bytes, settings: &[u8]) -> Result<Self> {
        let settings = serde_json::from_slice(settings)
            .map_err(|e| Error::data(format!("tokenizer_config.json: {e}")))?;
        Self::new(bytes, settings)
    }

    fn new(bytes: Bytes, settings: Map<String, Value>) -> Result<Self> {
        let inner = tokenizers::Tokenizer::from_bytes(&bytes)
            .map_err(|e| Error::data(format!("tokenizer.json: {e}")))?;
        // A string, or an object with the string as `content`.
        let eos = settings.get("eos_token").map_or(SPECIAL[0], |token| {
            token.as_str().or_else(|| token["content"].as_str()).unwrap_or(SPECIAL[0])
        });
        let eos = inner.token_to_id(eos).ok_or_else(|| {
            Error::data(format!("tokenizer.json lacks the end-of-text token `{eos}`"))
        })?;
        let size = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        Ok(Self { inner: Arc::new(inner), bytes, settings, eos, size })
    }

    /// `tokenizer.json`.
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// `tokenizer_config.json`.
    pub fn settings(&self) -> Result<Vec<u8>> {
        let sorted: std::collections::BTreeMap<_, _> = self.settings.iter().collect();
        let mut bytes = serde_json::to_vec_pretty(&sorted).map_err(Error::defect)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Token ids of a text. Tags and special tokens in it become their own ids; nothing is added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|e| Error::data(format!("text cannot be tokenized: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of some token ids: keeps the think and answer tags, drops special tokens.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner
            .decode(ids, true)
            .map_err(|e| Error::data(format!("token ids cannot be decoded: {e}")))
    }

    /// Id of the end-of-text token.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The highest id + 1: the least vocabulary that a model needs.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Id of one token by its text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}
