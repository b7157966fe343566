//! From a task to a request, from an answer to a row.

use std::sync::Arc;

use super::Logprobs;
use crate::checkpoint::Tokenizer;
use crate::dataset::{Rollout, Task};
use crate::job::prompt::Prompt;
use crate::server::{Completion, Finish, Ids, PromptForm, Request};
use crate::{Error, Result};

/// Writes requests and reads answers in the checkpoint's terms.
pub(super) struct Reader {
    pub tokenizer: Tokenizer,
    /// Number of token ids that the model has.
    pub vocabulary: usize,
    /// Number of positions that it has.
    pub positions: usize,
    pub logprobs: Logprobs,
    pub policy: String,
    pub max_new_tokens: usize,
    /// Texts that end a response.
    pub stop: Vec<String>,
}

/// A row, and how much of it is the server's word.
pub(super) struct Answer {
    pub row: Rollout,
    /// The ids are those of the text, tokenized here.
    pub retokenized: bool,
}

impl Reader {
    /// The request for a response to `task`, its seed still 0.
    pub fn request(&self, task: &Task, form: PromptForm) -> Result<Request> {
        let Prompt { text, ids } = Prompt::new(task, &self.tokenizer)?;
        let room = self.positions.saturating_sub(ids.len());
        if ids.is_empty() || room == 0 {
            return Err(Error::data(format!(
                "task `{}`: prompt of {} tokens; the model's max_position_embeddings is {}",
                task.task_id,
                ids.len(),
                self.positions
            )));
        }
        let bare = form == PromptForm::Ids || self.tokenizer.encode(&text)? == ids;
        Ok(Request {
            text: text.into(),
            ids: ids.into(),
            bare,
            max_tokens: self.max_new_tokens.min(room),
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
        })
    }

    /// The row of sample `sample` of `task`.
    pub fn read(
        &self,
        task: &Task,
        sample: u32,
        request: &Request,
        form: PromptForm,
        completion: Completion,
    ) -> Result<Answer> {
        self.check_prompt(request, form, &completion)
            .map_err(|e| e.at(format!("task `{}`", task.task_id)))?;
        let Completion { text, ids, logprobs, finish, .. } = completion;
        let (tokens, texts) = match ids {
            Ids::Given(ids) => (ids, None),
            Ids::Texts(texts) => {
                let mut ids = self.tokenizer.encode(&text)?;
                if finish == Finish::Stop && self.stop.is_empty() {
                    // The model drew an end token; a trainer must see it.
                    ids.push(self.tokenizer.eos());
                }
                (ids, Some(texts))
            }
        };
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= self.vocabulary) {
            return Err(Error::data(format!(
                "the server's answer holds token id {id}; the checkpoint has {}: it serves \
                 another model",
                self.vocabulary
            )));
        }
        let aligned = match &texts {
            None => logprobs.len() == tokens.len(),
            Some(texts) => logprobs.len() == tokens.len() && self.spell(&tokens, texts)?,
        };
        let given = Some(logprobs).filter(|_| aligned);
        let cuts = request.top_k > 0 || request.top_p < 1.0 || request.min_p > 0.0;
        // Servers that apply the temperature take greedy for temperature 1.
        let at_one = request.temperature == 1.0 || request.temperature == 0.0;
        let drawn = match &given {
            _ if request.temperature == 0.0 => vec![0.0; tokens.len()],
            Some(given) if !cuts && (at_one || self.logprobs == Logprobs::Tempered) => {
                given.clone()
            }
            _ => Vec::new(),
        };
        let response = if texts.is_some() { text } else { self.tokenizer.decode(&tokens)? };
        // Servers that give no ids take a stop text out, and do not say that it was there.
        let by_text = match &texts {
            Some(_) => !self.stop.is_empty(),
            None => self.stop.iter().any(|stop| response.contains(stop.as_str())),
        };
        let row = Rollout {
            task_id: task.task_id.clone(),
            family: task.family.clone(),
            level: task.level,
            sample,
            step: 0,
            policy: self.policy.clone(),
            prompt: request.text.to_string(),
            response,
            tokens,
            logprobs: drawn,
            stop: match finish {
                Finish::Stop if by_text => "text".into(),
                Finish::Stop => "end".into(),
                Finish::Length => "length".into(),
            },
            temperature: request.temperature as f32,
            model_logprobs: given.filter(|_| at_one || self.logprobs == Logprobs::Raw),
        };
        Ok(Answer { row, retokenized: texts.is_some() })
    }

    /// That the server's model saw the prompt's ids, as far as the server says.
    fn check_prompt(
        &self,
        request: &Request,
        form: PromptForm,
        completion: &Completion,
    ) -> Result<()> {
        let ours = Arc::as_ref(&request.ids);
        let seen = match (&completion.prompt_ids, completion.prompt_tokens) {
            (Some(ids), _) if ids[..] != *ours => ids.len(),
            (None, Some(count)) if form == PromptForm::Text && count != ours.len() => count,
            _ => return Ok(()),
        };
        let advice = match form {
            PromptForm::Ids => "it serves another model",
            PromptForm::Text => "it serves another model, or leave `prompt: text` out",
        };
        Err(Error::data(format!(
            "the server made other tokens ({seen}) of the prompt than the checkpoint's tokenizer \
             ({}): {advice}",
            ours.len()
        )))
    }

    /// Whether `texts` are those of `tokens`, one by one.
    fn spell(&self, tokens: &[u32], texts: &[String]) -> Result<bool> {
        for (&id, text) in tokens.iter().zip(texts) {
            if self.tokenizer.id(text) != Some(id) && self.tokenizer.decode(&[id])? != *text {
                return Ok(false);
            }
        }
        Ok(tokens.len() == texts.len())
    }
}
