//! One RL iteration's responses, judged.

use std::collections::BTreeSet;

use super::measure::quantiles;
use super::prompt::Prompt;
use super::responses::Sampler;
use crate::checkpoint::Tokenizer;
use crate::dataset::{Rollout, Task, Verdict};
use crate::job::draw::Drawing;
use crate::job::rl::Spec;
use crate::job::select::varied;
use crate::model::{Sampling, Transformer};
use crate::{Error, Result};

impl Drawing {
    /// Who draws iteration `step` from `model`, the policy called `policy`.
    pub fn sampler<'a>(
        &self,
        model: &'a Transformer,
        tokenizer: &'a Tokenizer,
        stops: &'a [u32],
        policy: &'a str,
        step: usize,
    ) -> Sampler<'a> {
        Sampler {
            model,
            tokenizer,
            stops,
            stop: &[],
            sampling: Sampling {
                temperature: self.temperature,
                max_new_tokens: self.max_new_tokens,
                seed: self.seed,
                ..Sampling::default()
            },
            samples: self.samples as u32,
            policy,
            step: step as u32,
        }
    }

    /// The prompts `chosen`, in the blocks that are sampled together. `first` is the number of the
    /// first among the iteration's: numbers name the randomness.
    pub fn blocks<'a>(
        &self,
        step: usize,
        first: usize,
        chosen: &[usize],
        tasks: &'a [Task],
    ) -> Vec<Vec<(u64, &'a Task)>> {
        let name = |i: usize| ((step as u64) << 32) | (first + i) as u64;
        let items: Vec<(u64, &Task)> =
            chosen.iter().enumerate().map(|(i, &task)| (name(i), &tasks[task])).collect();
        items.chunks(self.block.unwrap_or(usize::MAX)).map(<[_]>::to_vec).collect()
    }
}

#[derive(Default)]
pub struct Drawn {
    /// One for each group.
    pub prompts: Vec<Prompt>,
    /// Group by group.
    pub rollouts: Vec<Rollout>,
    pub verdicts: Vec<Verdict>,
    /// Groups whose rewards are not all equal.
    pub kept: BTreeSet<usize>,
}

impl Drawn {
    /// Takes in the responses to `tasks`, `samples` to each in turn, and the verdicts on them.
    pub fn add<'a>(
        &mut self,
        samples: usize,
        tasks: impl ExactSizeIterator<Item = &'a Task>,
        tokenizer: &Tokenizer,
        rollouts: Vec<Rollout>,
        verdicts: Vec<Verdict>,
    ) -> Result<()> {
        if rollouts.len() != tasks.len() * samples || verdicts.len() != rollouts.len() {
            return Err(Error::data(format!(
                "{} rollouts and {} verdicts of {} prompts with {samples} samples each",
                rollouts.len(),
                verdicts.len(),
                tasks.len()
            )));
        }
        for task in tasks {
            self.prompts.push(Prompt::new(task, tokenizer)?);
        }
        self.rollouts.extend(rollouts);
        self.verdicts.extend(verdicts);
        self.kept = varied(&self.verdicts, samples);
        Ok(())
    }

    /// Tokens sampled.
    pub fn tokens(&self) -> usize {
        self.rollouts.iter().map(|rollout| rollout.tokens.len()).sum()
    }

    pub fn accuracy(&self) -> f64 {
        self.mean(|verdict| f64::from(u8::from(verdict.correct)))
    }

    fn mean(&self, value: impl Fn(&Verdict) -> f64) -> f64 {
        self.verdicts.iter().map(value).sum::<f64>() / self.verdicts.len() as f64
    }

    /// By metric name.
    pub fn metrics(&self, spec: &Spec) -> Vec<(String, f64)> {
        let n = self.rollouts.len() as f64;
        let lengths: Vec<f64> = self.rollouts.iter().map(|r| r.tokens.len() as f64).collect();
        let rewards = self.verdicts.iter().map(|verdict| f64::from(verdict.reward)).collect();
        let cut = lengths.iter().filter(|&&length| length >= spec.max_new_tokens as f64).count();
        let mut all: Vec<(String, f64)> = vec![
            ("reward".into(), self.mean(|verdict| f64::from(verdict.reward))),
            ("accuracy".into(), self.accuracy()),
            ("format".into(), self.mean(|verdict| f64::from(u8::from(verdict.format_ok)))),
            ("length".into(), self.tokens() as f64 / n),
            ("cut_off".into(), cut as f64 / n),
            ("groups_with_variance".into(), self.kept.len() as f64 / self.prompts.len() as f64),
        ];
        for (name, values) in [("reward", rewards), ("length", lengths)] {
            if let Some(points) = quantiles(values) {
                let names = ["p10", "p50", "p90"].map(|point| format!("{name}_{point}"));
                all.extend(names.into_iter().zip(points));
            }
        }
        all
    }
}
