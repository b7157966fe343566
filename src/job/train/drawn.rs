//! One RL iteration's responses, judged.

use std::collections::BTreeSet;

use super::curriculum::Curriculum;
use super::measure::quantiles;
use super::prompt::Prompt;
use super::responses::Sampler;
use crate::Result;
use crate::dataset::{Rollout, Task, Verdict};
use crate::job::rl::Spec;
use crate::job::verify::judge;

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
    /// Samples and judges iteration `index`, whose tasks are `chosen`. With refills, as many prompts
    /// as have no variance are drawn again, from the same lesson, until there are enough with it.
    pub fn new(
        spec: &Spec,
        curriculum: &Curriculum,
        index: usize,
        chosen: &[usize],
        tasks: &[Task],
        sampler: &Sampler,
    ) -> Result<Self> {
        let mut drawn = Self {
            prompts: Vec::new(),
            rollouts: Vec::new(),
            verdicts: Vec::new(),
            kept: BTreeSet::new(),
        };
        drawn.add(spec, chosen, tasks, sampler)?;
        for refill in 0..spec.refills {
            let missing = spec.prompts.saturating_sub(drawn.kept.len());
            if missing == 0 {
                break;
            }
            drawn.add(spec, &curriculum.refill(index, refill, missing), tasks, sampler)?;
        }
        Ok(drawn)
    }

    fn add(
        &mut self,
        spec: &Spec,
        chosen: &[usize],
        tasks: &[Task],
        sampler: &Sampler,
    ) -> Result<()> {
        let first = self.prompts.len();
        let name = |i: usize| (u64::from(sampler.step) << 32) | (first + i) as u64;
        let chosen: Vec<(u64, &Task)> =
            chosen.iter().enumerate().map(|(i, &task)| (name(i), &tasks[task])).collect();
        for (_, task) in &chosen {
            self.prompts.push(Prompt::new(task, sampler.tokenizer)?);
        }
        let rollouts = sampler.rollouts(&chosen)?;
        let verdicts = judge(chosen.iter().map(|&(_, task)| task), &rollouts, spec.reward)?;
        for (group, verdicts) in verdicts.chunks(spec.samples).enumerate() {
            if verdicts.iter().any(|verdict| verdict.reward != verdicts[0].reward) {
                self.kept.insert(first + group);
            }
        }
        self.rollouts.extend(rollouts);
        self.verdicts.extend(verdicts);
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
