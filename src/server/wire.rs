//! Requests and answers as JSON, in the dialects of the servers there are.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How the prompt is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptForm {
    /// As token ids: the model sees exactly those that a trainer will see.
    #[default]
    Ids,
    /// As text, for servers that take no ids; the server's tokenizer has to agree.
    Text,
}

/// Which fields a request has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fields {
    /// OpenAI's and the extensions of vLLM, SGLang and llama.cpp: token ids are asked for, and
    /// defaults of the server that would change the distribution are switched off.
    #[default]
    Extended,
    /// OpenAI's alone, for servers that refuse others.
    Openai,
}

/// What all requests of a job have in common.
#[derive(Debug, Clone)]
pub struct Asking {
    /// The model's name on the server.
    pub model: String,
    pub prompt: PromptForm,
    pub fields: Fields,
    /// Ids that end a response.
    pub stop_ids: Vec<u32>,
    /// Texts that end one.
    pub stop: Vec<String>,
}

/// One response to ask for.
#[derive(Debug, Clone)]
pub struct Request {
    pub text: Arc<str>,
    pub ids: Arc<[u32]>,
    /// Whether `ids` are those of `text` alone, with no begin of text added.
    pub bare: bool,
    pub max_tokens: usize,
    /// 0: greedy.
    pub temperature: f64,
    /// 0: no cut.
    pub top_k: usize,
    pub top_p: f64,
    /// 0: no cut.
    pub min_p: f64,
    /// Below 2^31, which every server takes.
    pub seed: u32,
}

impl Asking {
    /// The request's body.
    pub(super) fn body(&self, request: &Request) -> Value {
        let mut body = json!({
            "model": self.model,
            "prompt": match self.prompt {
                PromptForm::Ids => json!(request.ids),
                PromptForm::Text => json!(request.text),
            },
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            // One, though only the drawn token's is wanted: llama.cpp takes 0 for none.
            "logprobs": 1,
        });
        if !self.stop.is_empty() {
            body["stop"] = json!(self.stop);
        }
        if self.fields == Fields::Openai {
            return body;
        }
        // vLLM takes absent ones from the model's generation_config.json, llama.cpp from its own
        // defaults (top_k 40, min_p 0.05).
        body["top_k"] = if request.top_k == 0 { json!(-1) } else { json!(request.top_k) };
        body["min_p"] = json!(request.min_p);
        // The row holds the stop text, as one of ours does.
        body["include_stop_str_in_output"] = json!(true);
        body["repetition_penalty"] = json!(1.0);
        body["repeat_penalty"] = json!(1.0);
        body["presence_penalty"] = json!(0.0);
        body["frequency_penalty"] = json!(0.0);
        body["stop_token_ids"] = json!(self.stop_ids);
        body["return_token_ids"] = json!(true);
        // vLLM before 0.10.2 has no other way to name ids.
        body["return_tokens_as_token_ids"] = json!(true);
        if self.prompt == PromptForm::Text {
            body["add_special_tokens"] = json!(!request.bare);
        }
        body
    }
}

/// Why a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it.
    Stop,
    /// It has `max_tokens` tokens.
    Length,
}

/// What a server says of a response's tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum Ids {
    Given(Vec<u32>),
    /// Only their texts, or nothing (empty).
    Texts(Vec<String>),
}

/// A server's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    pub text: String,
    pub ids: Ids,
    /// Of each token, as many as the server gave; empty if any is missing or not finite.
    pub logprobs: Vec<f32>,
    /// The prompt's ids as the server saw them, and their number.
    pub prompt_ids: Option<Vec<u32>>,
    pub prompt_tokens: Option<usize>,
    pub finish: Finish,
}

#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    text: String,
    finish_reason: Option<String>,
    #[serde(default)]
    token_ids: Option<Vec<u32>>,
    #[serde(default)]
    prompt_token_ids: Option<Vec<u32>>,
    #[serde(default)]
    logprobs: Value,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<usize>,
    #[serde(default)]
    completion_tokens: Option<usize>,
}

/// A token's text, id and log-probability, where given.
#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    id: Option<u32>,
    #[serde(default)]
    logprob: Option<f32>,
}

/// OpenAI's form has a list for each column, llama.cpp's a list of entries.
#[derive(Default, Deserialize)]
struct Logprobs {
    #[serde(default)]
    tokens: Option<Vec<String>>,
    #[serde(default)]
    token_logprobs: Option<Vec<Option<f32>>>,
    #[serde(default)]
    content: Option<Vec<Entry>>,
}

impl Logprobs {
    fn entries(self) -> Vec<Entry> {
        if let Some(entries) = self.content {
            return entries;
        }
        let tokens = self.tokens.unwrap_or_default();
        let mut logprobs = self.token_logprobs.unwrap_or_default().into_iter();
        let entry = |token: String| Entry {
            // What vLLM writes for `return_tokens_as_token_ids`.
            id: token.strip_prefix("token_id:").and_then(|id| id.parse().ok()),
            token: Some(token),
            logprob: logprobs.next().flatten(),
        };
        tokens.into_iter().map(entry).collect()
    }
}

/// Why an answer is of no use.
#[derive(Debug, PartialEq)]
pub(super) enum Unfit {
    /// The server dropped the request, to restart or to change its weights.
    Aborted,
    /// It is no completion, for this reason.
    Strange(String),
}

impl Completion {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Unfit> {
        let strange = |what: String| Unfit::Strange(what);
        let answer: Answer = serde_json::from_slice(body).map_err(|e| strange(e.to_string()))?;
        let [choice] = <[Choice; 1]>::try_from(answer.choices)
            .map_err(|choices| strange(format!("{} choices, 1 was asked for", choices.len())))?;
        let finish = match choice.finish_reason.as_deref() {
            Some("stop") => Finish::Stop,
            Some("length") => Finish::Length,
            Some("abort") => return Err(Unfit::Aborted),
            other => return Err(strange(format!("finish_reason {}", json!(other)))),
        };
        let (prompt_tokens, completion_tokens) =
            answer.usage.map_or((None, None), |u| (u.prompt_tokens, u.completion_tokens));
        // Another shape of `logprobs` than the known ones says nothing; the row will say so.
        let entries = serde_json::from_value::<Logprobs>(choice.logprobs)
            .map(Logprobs::entries)
            .unwrap_or_default();
        let named: Option<Vec<u32>> = entries.iter().map(|entry| entry.id).collect();
        // llama.cpp leaves out tokens that end within a character.
        let named = named.filter(|ids| {
            !ids.is_empty() && completion_tokens.is_none_or(|count| count == ids.len())
        });
        let logprobs: Option<Vec<f32>> =
            entries.iter().map(|entry| entry.logprob.filter(|p| p.is_finite())).collect();
        let texts = || entries.iter().map(|e| e.token.clone().unwrap_or_default()).collect();
        let ids = match choice.token_ids.or(named) {
            Some(ids) => Ids::Given(ids),
            None => Ids::Texts(texts()),
        };
        Ok(Self {
            text: choice.text,
            ids,
            logprobs: logprobs.unwrap_or_default(),
            prompt_ids: choice.prompt_token_ids,
            prompt_tokens,
            finish,
        })
    }
}
