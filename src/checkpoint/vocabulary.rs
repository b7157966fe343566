//! A tokenizer's tokens by their texts, and tokenizers with more of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokenizers::AddedToken;

use super::tokenizer::added_tokens;
use super::{TOKENIZER, TOKENIZER_SETTINGS, lacking};
use crate::{Error, Result};

/// The tokens of a checkpoint's tokenizer.
#[derive(Clone)]
pub struct Vocabulary {
    inner: tokenizers::Tokenizer,
}

impl Vocabulary {
    /// By the files of a checkpoint's folder.
    pub fn from_files(files: &BTreeMap<String, Bytes>) -> Result<Self> {
        let broken = |e: tokenizers::Error| Error::data(format!("{TOKENIZER}: {e}"));
        let file = files.get(TOKENIZER).ok_or_else(|| lacking(TOKENIZER))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(file).map_err(broken)?;
        if let Some(settings) = files.get(TOKENIZER_SETTINGS) {
            let settings = serde_json::from_slice(settings)
                .map_err(|e| Error::data(format!("{TOKENIZER_SETTINGS}: {e}")))?;
            inner.add_tokens(&added_tokens(&settings)?);
        }
        Ok(Self { inner })
    }

    /// Ids by text.
    pub fn ids(&self) -> BTreeMap<String, u32> {
        self.inner.get_vocab(true).into_iter().collect()
    }

    /// Adds the tokens of `other` that it lacks, with ids from its own last on: first those that
    /// texts are cut into, then those that were added to it, each in order of their ids. Of ids from
    /// `limit` on the model knows nothing.
    pub fn extend(&mut self, other: &Self, limit: usize) {
        let added = other.inner.get_added_tokens_decoder();
        let mut tokens: Vec<(u32, AddedToken)> = Vec::new();
        for (text, id) in other.inner.get_vocab(true) {
            if (id as usize) < limit && !added.contains_key(&id) {
                tokens.push((id, AddedToken::from(text, false)));
            }
        }
        tokens.sort_by_key(|(id, _)| *id);
        let mut added: Vec<_> =
            added.into_iter().filter(|(id, _)| (*id as usize) < limit).collect();
        added.sort_by_key(|(id, _)| *id);
        let all = tokens.into_iter().chain(added).map(|(_, token)| token);
        let lacking: Vec<_> =
            all.filter(|token| self.inner.token_to_id(&token.content).is_none()).collect();
        self.inner.add_tokens(&lacking);
    }

    /// Adds a token by its text, if it is not there.
    pub fn add(&mut self, text: &str) {
        self.inner.add_tokens(&[AddedToken::from(text, false)]);
    }

    /// `tokenizer.json`
    pub fn to_bytes(&self) -> Result<Bytes> {
        let mut text = self.inner.to_string(true).map_err(Error::defect)?;
        text.push('\n');
        Ok(text.into())
    }
}
