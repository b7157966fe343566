//! One RL iteration's responses, judged.

use std::collections::BTreeSet;

use super::measure::quantiles;
use super::responses::Sampler;
use crate::model::{Sampling, Transformer};
use crate::{Error, Result};
use triad::checkpoint::Tokenizer;
use triad::dataset::{Rollout, Task, Verdict};
use triad::job::draw::Drawing;
use triad::job::prompt::Prompt;
use triad::job::rl::Spec;
use triad::job::select::varied;

/// Who draws iteration `step` from `model`, the policy called `policy`.
pub fn sampler<'a>(
    drawing: &Drawing,
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
            temperature: drawing.temperature,
            max_new_tokens: drawing.max_new_tokens,
            seed: drawing.seed,
            cache_bytes: drawing.cache_bytes,
            ..Sampling::default()
        },
        samples: drawing.samples as u32,
        policy,
        step: step as u32,
    }
}

/// The policy in what it samples in, where that is not what it is trained in.
pub fn copy(drawing: &Drawing, policy: &Transformer) -> Result<Option<Transformer>> {
    let other = drawing.sampler_precision.filter(|&precision| precision != drawing.precision);
    other.map(|precision| policy.copy(precision.into())).transpose()
}

/// The prompts `chosen`, in the blocks that are sampled together. `first` is the number of the
/// first among the iteration's: numbers name the randomness.
pub fn blocks<'a>(
    drawing: &Drawing,
    step: usize,
    first: usize,
    chosen: &[usize],
    tasks: &'a [Task],
) -> Vec<Vec<(u64, &'a Task)>> {
    let name = |i: usize| ((step as u64) << 32) | (first + i) as u64;
    let items: Vec<(u64, &Task)> =
        chosen.iter().enumerate().map(|(i, &task)| (name(i), &tasks[task])).collect();
    items.chunks(drawing.block.unwrap_or(usize::MAX)).map(<[_]>::to_vec).collect()
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
