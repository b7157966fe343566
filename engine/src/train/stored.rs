//! The update of one RL iteration from stored responses.

use std::collections::HashMap;
use std::mem::take;
use std::time::Instant;

use super::curriculum::Place;
use super::drawn::Drawn;
use super::learner::{Learner, Setup};
use super::state::Saved;
use super::{rl, update};
use crate::{Error, Result};
use triad::checkpoint::Tokenizer;
use triad::dataset::{Rollout, Selected, Task, Verdict};
use triad::job::Context;
use triad::job::update::Spec;

pub fn run(context: &mut Context) -> Result<()> {
    let Spec { iteration, rl: spec } = context.spec()?;
    let place = Place::of(&spec.curriculum, iteration - 1).ok_or_else(|| {
        Error::usage(format!("iteration {iteration} is beyond the curriculum's last"))
    })?;
    if spec.kl.coefficient != 0.0 && context.inputs("reference").is_empty() {
        let coefficient = spec.kl.coefficient;
        return Err(Error::usage(format!("kl.coefficient {coefficient} needs port `reference`")));
    }
    let policy = context.input("policy")?.clone();
    let base = context.inputs("base").first().map_or(&policy, |input| &input.artifact).clone();
    let mut checkpoint = context.checkpoint(&policy)?;
    let drawn = drawn(context, spec.samples, &checkpoint.tokenizer)?;
    let mut weights = take(&mut checkpoint.weights);
    if base.manifest.id != policy.manifest.id {
        weights = context.checkpoint(&base)?.weights;
    }
    let reference = rl::reference(context, &spec, &checkpoint.config, &weights)?;
    let mut learner =
        Learner::new(context, Setup::from(&spec), &checkpoint.config, &weights, &base)?;
    drop(weights); // the model holds its own copy
    learner.state.kl_coefficient = spec.kl.coefficient;
    if iteration > 1 {
        learner.restore(Saved::beside(context, &policy)?)?;
        learner.metrics = context.read(&policy)?;
    } else if spec.continue_optimizer {
        learner.continue_optimizer(context, &policy)?;
    }
    let selected: Vec<Selected> = context.read(context.input("selected")?)?;
    let selected: Vec<usize> = selected.iter().map(|row| row.number as usize).collect();
    if let Some(number) = selected.iter().find(|&&number| number >= drawn.rollouts.len()) {
        let count = drawn.rollouts.len();
        return Err(Error::data(format!("selected: number {number} of {count} rollouts")));
    }
    let clock = Instant::now();
    let tokens =
        update::learn(context, &spec, &mut learner, reference.as_ref(), &place, &drawn, &selected)?;
    learner.check(iteration)?;
    let rate = tokens as f64 / clock.elapsed().as_secs_f64();
    context.timings.insert("train_tokens_per_second".into(), rate);
    context.summarize("accuracy", drawn.accuracy());
    learner.commit(context, checkpoint, spec.dtype, spec.optimizer_state)
}

/// The iteration's responses and verdicts, artifact by artifact in the order of their names.
fn drawn(context: &Context, samples: usize, tokenizer: &Tokenizer) -> Result<Drawn> {
    let tasks: Vec<Task> = context.read(context.input("tasks")?)?;
    let tasks: HashMap<&str, &Task> = tasks.iter().map(|task| (&task.task_id[..], task)).collect();
    let rollouts: Vec<Rollout> = context.read_all("rollouts")?;
    let groups = rollouts
        .chunks(samples)
        .map(|group| {
            let name = &group[0].task_id;
            tasks.get(&name[..]).copied().ok_or_else(|| {
                Error::data(format!("rollouts: task `{name}` is not in port `tasks`"))
            })
        })
        .collect::<Result<Vec<&Task>>>()?;
    let mut drawn = Drawn::default();
    let verdicts: Vec<Verdict> = context.read_all("verdicts")?;
    drawn.add(samples, groups.into_iter(), tokenizer, rollouts, verdicts)?;
    Ok(drawn)
}
