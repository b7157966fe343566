//! Sampled responses to tasks, as rows.

use crate::Result;
use crate::model::{SampleRequest, Sampling, Stop, Stops, Transformer, check_cache, sample};
use triad::checkpoint::Tokenizer;
use triad::dataset::{Rollout, Task};
use triad::job::prompt::Prompt;

/// Who samples what, and how the rows are labelled.
pub struct Sampler<'a> {
    pub model: &'a Transformer,
    pub tokenizer: &'a Tokenizer,
    /// Ids that end a response.
    pub stops: &'a [u32],
    /// Texts that end one.
    pub stop: &'a [String],
    pub sampling: Sampling,
    pub samples: u32,
    /// Artifact id of the policy.
    pub policy: &'a str,
    /// RL iteration, 0 outside RL.
    pub step: u32,
}

impl Sampler<'_> {
    /// Fails now, and not hours into the job, where the cache has no room for a response to one of
    /// `tasks`.
    pub fn check_cache<'t>(&self, tasks: impl Iterator<Item = &'t Task>) -> Result<()> {
        let longest = self.model.config.max_position_embeddings;
        if check_cache(self.model, &[0, longest], &self.sampling).is_ok() {
            return Ok(()); // whatever their lengths
        }
        let length = |task| Ok(Prompt::new(task, self.tokenizer)?.ids.len());
        check_cache(self.model, &tasks.map(length).collect::<Result<Vec<_>>>()?, &self.sampling)
    }

    /// `samples` responses to each task. `tasks` come with their item number, which
    /// names their randomness.
    pub fn rollouts(&self, tasks: &[(u64, &Task)]) -> Result<Vec<Rollout>> {
        let mut requests = Vec::with_capacity(tasks.len() * self.samples as usize);
        let mut owners = Vec::with_capacity(requests.capacity());
        for &(item, task) in tasks {
            let Prompt { text, ids } = Prompt::new(task, self.tokenizer)?;
            for sample in 0..self.samples {
                requests.push(SampleRequest { prompt: ids.clone(), item, sample });
                owners.push((task, text.clone()));
            }
        }
        let decode = |tokens: &[u32]| Ok(self.tokenizer.decode(tokens)?);
        let stops = Stops { ids: self.stops, texts: self.stop, decode: &decode };
        let drawn = sample(self.model, &stops, &requests, &self.sampling)?;
        drawn
            .into_iter()
            .zip(requests)
            .zip(owners)
            .map(|((drawn, request), (task, prompt))| {
                Ok(Rollout {
                    task_id: task.task_id.clone(),
                    family: task.family.clone(),
                    level: task.level,
                    sample: request.sample,
                    step: self.step,
                    policy: self.policy.into(),
                    prompt,
                    response: self.tokenizer.decode(&drawn.tokens)?,
                    tokens: drawn.tokens,
                    logprobs: drawn.logprobs,
                    stop: match drawn.stop {
                        Stop::End => "end".into(),
                        Stop::Text => "text".into(),
                        Stop::Length => "length".into(),
                    },
                    temperature: self.sampling.temperature as f32,
                    model_logprobs: Some(drawn.model_logprobs),
                })
            })
            .collect()
    }
}
