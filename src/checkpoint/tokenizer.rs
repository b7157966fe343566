//! The tokenizer: a `tokenizer.json` and the few settings beside it.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::chat::{ChatTemplate, Message};
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
    /// `tokenizer_config.json`, if there is one: written back unchanged.
    settings: Option<Bytes>,
    chat: Option<Arc<ChatTemplate>>,
    eos: u32,
    size: usize,
}

/// The files of a checkpoint that make its tokenizer.
pub struct TokenizerFiles {
    /// `tokenizer.json`
    pub tokenizer: Bytes,
    /// `tokenizer_config.json`
    pub settings: Option<Bytes>,
    /// `special_tokens_map.json`: names special tokens that the settings do not.
    pub special: Option<Bytes>,
    /// `chat_template.jinja`: goes before the settings' template.
    pub template: Option<Bytes>,
    /// The model's end of text, for files that name none.
    pub eos: Option<u32>,
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

    /// Reads a `tokenizer.json` as [`Self::train`] makes it, with `<|endoftext|>` as the end of text.
    pub fn from_bytes(bytes: Bytes) -> Result<Self> {
        let settings = json!({
            "add_bos_token": false,
            "add_prefix_space": false,
            "clean_up_tokenization_spaces": false,
            "eos_token": SPECIAL[0],
            "pad_token": SPECIAL[0],
            "tokenizer_class": "Qwen2Tokenizer",
        });
        let sorted: std::collections::BTreeMap<_, _> =
            settings.as_object().into_iter().flatten().collect();
        let mut settings = serde_json::to_vec_pretty(&sorted).map_err(Error::defect)?;
        settings.push(b'\n');
        Self::from_files(TokenizerFiles {
            tokenizer: bytes,
            settings: Some(settings.into()),
            special: None,
            template: None,
            eos: None,
        })
    }

    /// Reads the files as AutoTokenizer does: the settings may add tokens, and what is put around a
    /// text is up to `tokenizer.json`, whatever the settings say in `add_bos_token`.
    pub fn from_files(files: TokenizerFiles) -> Result<Self> {
        let map = |name: &str, file: &Option<Bytes>| -> Result<Map<String, Value>> {
            let Some(file) = file else { return Ok(Map::new()) };
            serde_json::from_slice(file).map_err(|e| Error::data(format!("{name}: {e}")))
        };
        let mut settings = map("special_tokens_map.json", &files.special)?;
        settings.append(&mut map("tokenizer_config.json", &files.settings)?);
        let broken = |e: tokenizers::Error| Error::data(format!("tokenizer.json: {e}"));
        let mut inner = tokenizers::Tokenizer::from_bytes(&files.tokenizer).map_err(broken)?;
        inner.with_truncation(None).map_err(broken)?;
        inner.with_padding(None);
        inner.add_tokens(&added_tokens(&settings)?);
        let eos = match token(&settings, "eos_token") {
            Some(text) => inner.token_to_id(text).ok_or_else(|| {
                Error::data(format!("tokenizer.json lacks the end-of-text token `{text}`"))
            })?,
            None => files.eos.or_else(|| inner.token_to_id(SPECIAL[0])).ok_or_else(|| {
                Error::data(
                    "tokenizer_config.json names no `eos_token`, and the model no eos_token_id",
                )
            })?,
        };
        let size = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        let chat = ChatTemplate::find(files.template.as_deref(), &settings)?.map(Arc::new);
        let (bytes, settings) = (files.tokenizer, files.settings);
        Ok(Self { inner: Arc::new(inner), bytes, settings, chat, eos, size })
    }

    /// `tokenizer.json`.
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// `tokenizer_config.json`, if there is one.
    pub fn settings(&self) -> Option<Bytes> {
        self.settings.clone()
    }

    /// Token ids of a text that goes on from another, or that a chat template made. Tags and
    /// special tokens in it become their own ids; nothing is added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(text, false)
    }

    /// Token ids of a text that stands alone, as AutoTokenizer gives them: with the tokens that the
    /// tokenizer puts around it (Llama's begin of text).
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(text, true)
    }

    fn ids(&self, text: &str, surround: bool) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, surround)
            .map_err(|e| Error::data(format!("text cannot be tokenized: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// A conversation as text by the checkpoint's template, up to where the answer begins if
    /// `add_generation_prompt`. For [`Self::encode`]: the template has put every special token in
    /// its place. None: the checkpoint has no template.
    pub fn chat(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Option<String>> {
        self.chat.as_ref().map(|chat| chat.render(messages, add_generation_prompt)).transpose()
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

/// A special token's text: a string, or an object with the string as `content`.
fn token<'a>(settings: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    let value = settings.get(key)?;
    value.as_str().or_else(|| value["content"].as_str())
}

/// The tokens in the settings' `added_tokens_decoder`, by id. Those that `tokenizer.json` has as well
/// change nothing.
pub(super) fn added_tokens(settings: &Map<String, Value>) -> Result<Vec<AddedToken>> {
    let Some(listed) = settings.get("added_tokens_decoder").and_then(Value::as_object) else {
        return Ok(Vec::new());
    };
    let mut tokens = Vec::with_capacity(listed.len());
    for (id, token) in listed {
        let place = || format!("tokenizer_config.json: added_tokens_decoder: `{id}`");
        let number: u32 = id.parse().map_err(|_| Error::data(format!("{} is no id", place())))?;
        let token: AddedToken = serde_json::from_value(token.clone())
            .map_err(|e| Error::data(format!("{}: {e}", place())))?;
        tokens.push((number, token));
    }
    tokens.sort_by_key(|(id, _)| *id);
    Ok(tokens.into_iter().map(|(_, token)| token).collect())
}
