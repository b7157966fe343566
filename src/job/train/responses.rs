//! Sampled responses to tasks, as rows.

use crate::Result;
use crate::checkpoint::Tokenizer;
use crate::dataset::{Rollout, Task};
use crate::model::{SampleRequest, Sampling, Stop, Stops, Transformer, sample};

/// Who samples what, and how the rows are labelled.
pub struct Sampler<'a> {
    pub model: &'a Transformer,
    pub tokenizer: &'a Tokenizer,
    pub sampling: Sampling,
    pub samples: u32,
    /// Artifact id of the policy.
    pub policy: &'a str,
    /// RL iteration, 0 outside RL.
    pub step: u32,
}

impl Sampler<'_> {
    /// `samples` responses to each task. `tasks` come with their item number, which
    /// names their randomness.
    pub fn rollouts(&self, tasks: &[(u64, &Task)]) -> Result<Vec<Rollout>> {
        let mut requests = Vec::with_capacity(tasks.len() * self.samples as usize);
        for &(item, task) in tasks {
            let prompt = self.tokenizer.encode(&task.prompt)?;
            for sample in 0..self.samples {
                requests.push(SampleRequest { prompt: prompt.clone(), item, sample });
            }
        }
        let drawn =
            sample(self.model, &Stops::at(&[self.tokenizer.eos()]), &requests, &self.sampling)?;
        let owners = tasks.iter().flat_map(|&(_, task)| (0..self.samples).map(move |_| task));
        drawn
            .into_iter()
            .zip(requests)
            .zip(owners)
            .map(|((drawn, request), task)| {
                Ok(Rollout {
                    task_id: task.task_id.clone(),
                    family: task.family.clone(),
                    level: task.level,
                    sample: request.sample,
                    step: self.step,
                    policy: self.policy.into(),
                    prompt: task.prompt.clone(),
                    response: self.tokenizer.decode(&drawn.tokens)?,
                    tokens: drawn.tokens,
                    logprobs: drawn.logprobs,
                    stop: match drawn.stop {
                        Stop::End => "end".into(),
                        Stop::Text => "text".into(),
                        Stop::Length => "length".into(),
                    },
                    temperature: self.sampling.temperature as f32,
                })
            })
            .collect()
    }
}
