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
        mean(self.verdicts.iter().map(|verdict| f64::from(u8::from(verdict.correct))))
    }

    /// By level and metric name: the whole as level 0, then each level that was drawn.
    pub fn metrics(&self, spec: &Spec) -> Vec<(u32, String, f64)> {
        let levels = self.rollouts.iter().map(|rollout| rollout.level).filter(|&level| level > 0);
        let levels: BTreeSet<u32> = levels.collect();
        let mut all = Vec::new();
        for level in [0].into_iter().chain(levels) {
            let of_level = |i: &usize| level == 0 || self.rollouts[*i].level == level;
            let own: Vec<usize> = (0..self.rollouts.len()).filter(of_level).collect();
            let groups = own.iter().map(|i| i / spec.samples).collect::<BTreeSet<_>>();
            let share =
                |of: &dyn Fn(&usize) -> bool| mean(own.iter().map(|i| f64::from(u8::from(of(i)))));
            let length = |&i: &usize| self.rollouts[i].tokens.len() as f64;
            let lengths: Vec<f64> = own.iter().map(length).collect();
            let rewards: Vec<f64> =
                own.iter().map(|&i| f64::from(self.verdicts[i].reward)).collect();
            let kept = groups.iter().filter(|group| self.kept.contains(group)).count();
            let mut note = |name: &str, value| all.push((level, name.to_string(), value));
            note("accuracy", share(&|&i| self.verdicts[i].correct));
            note("format", share(&|&i| self.verdicts[i].format_ok));
            note("cut_off", share(&|i| length(i) >= spec.max_new_tokens as f64));
            note("groups_with_variance", kept as f64 / groups.len() as f64);
            for (name, values) in [("reward", rewards), ("length", lengths)] {
                note(name, mean(values.iter().copied()));
                for (point, value) in ["p10", "p50", "p90"].iter().zip(quantiles(values)) {
                    note(&format!("{name}_{point}"), value);
                }
            }
        }
        all
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}
