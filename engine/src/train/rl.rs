//! The one RL loop: sample, verify, select, update.

use std::mem::take;
use std::time::{Duration, Instant};

use super::curriculum::{Curriculum, Place};
use super::drawn::{self, Drawn};
use super::learner::{Learner, Setup};
use super::responses::Sampler;
use super::update;
use crate::Result;
use crate::model::{self, Transformer};
use triad::checkpoint::{ModelConfig, Weights};
use triad::dataset::Task;
use triad::job::Context;
use triad::job::rl::Spec;
use triad::job::verify::judge;

/// The frozen model of the KL term: that of port `reference`, or else the one with `weights`. None
/// without such a term.
pub fn reference(
    context: &Context,
    spec: &Spec,
    config: &ModelConfig,
    weights: &Weights,
) -> Result<Option<Transformer>> {
    if spec.kl.coefficient == 0.0 {
        return Ok(None);
    }
    let weights = match context.inputs("reference").first() {
        Some(input) => &context.checkpoint(&input.artifact)?.weights,
        None => weights,
    };
    let device = model::device(&context.device)?;
    Transformer::load(config, weights, device, spec.precision.into(), false).map(Some)
}

pub fn run(context: &mut Context) -> Result<()> {
    let spec: Spec = context.spec()?;
    let tasks: Vec<Task> = context.read(context.input("tasks")?)?;
    let curriculum = Curriculum::new(spec.seed, spec.prompts, &spec.curriculum, &tasks)?;
    let base = context.input("base")?.clone();
    let mut checkpoint = context.checkpoint(&base)?;
    let stops = checkpoint.stop_ids()?;
    let weights = take(&mut checkpoint.weights);
    let reference = reference(context, &spec, &checkpoint.config, &weights)?;
    let mut learner =
        Learner::new(context, Setup::from(&spec), &checkpoint.config, &weights, &base)?;
    drop(weights); // the model holds its own copy
    learner.state.kl_coefficient = spec.kl.coefficient;
    let start = learner.resume(context)?;
    if start == 0 && spec.continue_optimizer {
        learner.continue_optimizer(context, &base)?;
    }

    let run_id = context.id.to_string();
    let (drawing, selection) = (spec.drawing(), spec.selection());
    let (mut sampling, mut training) = (Rate::default(), Rate::default());
    let mut index = start;
    while let Some((place, chosen)) = curriculum.iteration(index) {
        let clock = Instant::now();
        let copy = drawn::copy(&drawing, &learner.policy)?;
        let (model, tokenizer) = (copy.as_ref().unwrap_or(&learner.policy), &checkpoint.tokenizer);
        let sampler = drawn::sampler(&drawing, model, tokenizer, &stops, &run_id, place.step());
        if index == start {
            let taught = |task: &&Task| spec.curriculum.iter().any(|l| l.level == task.level);
            sampler.check_cache(tasks.iter().filter(taught))?;
        }
        let drawn = draw(&spec, &curriculum, &place, chosen, &tasks, &sampler)?;
        drop(copy); // its memory is the update's
        sampling.add(drawn.tokens(), clock.elapsed());

        let clock = Instant::now();
        let selected = selection.select(&drawn.rollouts, &drawn.verdicts, &context.runtime)?;
        let tokens = update::learn(
            context,
            &spec,
            &mut learner,
            reference.as_ref(),
            &place,
            &drawn,
            &selected,
        )?;
        training.add(tokens, clock.elapsed());

        context.write(index, &drawn.rollouts)?;
        context.write(index, &drawn.verdicts)?;
        index += 1;
        context.progress.update(
            "iterations",
            index as u64,
            curriculum.len() as u64,
            &format!("level {} accuracy {:.1}%", place.level, 100.0 * drawn.accuracy()),
        );
        let failed = learner.check(index);
        let due = index.is_multiple_of(spec.checkpoint_every);
        if failed.is_err() || index < curriculum.len() && (due || context.stop.requested()) {
            learner.save(context, index)?;
            context.check_stop()?;
        }
        failed?;
    }
    if let Some(accuracy) = learner.last("accuracy") {
        context.summarize("accuracy", accuracy);
    }
    sampling.report("sample", context);
    training.report("train", context);
    learner.commit(context, checkpoint, spec.dtype, spec.optimizer_state)
}

/// Samples and judges an iteration, whose tasks are `chosen`. With refills, as many prompts as have no
/// variance are drawn again, from the same lesson, until there are enough with it.
fn draw(
    spec: &Spec,
    curriculum: &Curriculum,
    place: &Place,
    mut chosen: Vec<usize>,
    tasks: &[Task],
    sampler: &Sampler,
) -> Result<Drawn> {
    let drawing = spec.drawing();
    let mut drawn = Drawn::default();
    for refill in 0..=spec.refills {
        for block in drawn::blocks(&drawing, place.step(), drawn.prompts.len(), &chosen, tasks) {
            let tasks = || block.iter().map(|&(_, task)| task);
            let rollouts = sampler.rollouts(&block)?;
            let verdicts = judge(tasks().zip(rollouts.chunks(spec.samples)), spec.reward)?;
            drawn.add(spec.samples, tasks(), sampler.tokenizer, rollouts, verdicts)?;
        }
        let missing = spec.prompts.saturating_sub(drawn.kept.len());
        chosen = curriculum.refill(place, refill, missing);
    }
    Ok(drawn)
}

/// Tokens per second of one kind of work.
#[derive(Default)]
struct Rate {
    tokens: usize,
    time: Duration,
}

impl Rate {
    fn add(&mut self, tokens: usize, time: Duration) {
        self.tokens += tokens;
        self.time += time;
    }

    fn report(&self, name: &str, context: &mut Context) {
        let seconds = self.time.as_secs_f64();
        context.timings.insert(format!("{name}_seconds"), seconds);
        if seconds > 0.0 {
            let rate = self.tokens as f64 / seconds;
            context.timings.insert(format!("{name}_tokens_per_second"), rate);
        }
    }
}
