//! Responses sampled by a server: `rollout` and `evaluate` without the checkpoint's weights.

mod answer;
pub(super) mod evaluate;
mod flow;
pub(super) mod rollout;

use serde::{Deserialize, Serialize};

use super::Context;
use crate::server::{Asking, Client, Fields, PromptForm};
use crate::{Error, Result};

use answer::Reader;

/// Who answers and how it is asked: what may change the responses. Where the server is, is not
/// among it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSpec {
    /// The model's name on the server. It has to be the checkpoint's own model: that is whose
    /// tokenizer writes the prompts and whose id the rows carry.
    pub model: String,
    #[serde(default)]
    pub prompt: PromptForm,
    #[serde(default)]
    pub fields: Fields,
    #[serde(default)]
    pub logprobs: Logprobs,
}

/// Which distribution a server's log-probabilities are of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Logprobs {
    /// The model's, whatever the temperature (vLLM, llama.cpp).
    #[default]
    Raw,
    /// That at the sampling temperature (SGLang; vLLM with `--logprobs-mode processed_logprobs`, if
    /// `top_p` is 1).
    Tempered,
}

/// A stage's connection to its server.
struct Served {
    client: std::sync::Arc<Client>,
    reader: Reader,
    seed: u64,
    concurrency: usize,
}

impl Served {
    /// Reads the checkpoint's tokenizer and config, never its weights.
    fn new(
        context: &mut Context,
        spec: &ServerSpec,
        seed: u64,
        max_new_tokens: usize,
        stop: &[String],
    ) -> Result<Self> {
        let endpoint = context.server.clone().ok_or_else(|| {
            Error::usage(format!(
                "a server is to sample from `{}`; say where it is: --server URL, or \
                 TRIAD_SERVER_URL=http://127.0.0.1:8000/v1",
                spec.model
            ))
        })?;
        let artifact = context.input("checkpoint")?;
        let policy = artifact.manifest.id.to_string();
        let checkpoint = context.checkpoint_without_weights(artifact)?;
        let asking = Asking {
            model: spec.model.clone(),
            prompt: spec.prompt,
            fields: spec.fields,
            stop_ids: checkpoint.stop_ids()?,
            stop: stop.to_vec(),
        };
        context.device = "server".into();
        Ok(Self {
            concurrency: endpoint.limits.concurrency,
            client: Client::new(endpoint, asking)?.into(),
            reader: Reader {
                tokenizer: checkpoint.tokenizer,
                vocabulary: checkpoint.config.vocab_size,
                positions: checkpoint.config.max_position_embeddings,
                logprobs: spec.logprobs,
                policy,
                max_new_tokens,
                stop: stop.to_vec(),
            },
            seed,
        })
    }

    /// Notes rate, requests and retries in the producer's record: they differ from run to run.
    fn finish(&self, context: &mut Context, tokens: usize, seconds: f64) {
        let counts = self.client.counts();
        let timings = &mut context.timings;
        timings.insert("sample_tokens_per_second".into(), tokens as f64 / seconds);
        timings.insert("server_requests".into(), counts.requests as f64);
        timings.insert("server_retries".into(), counts.retries as f64);
    }
}
