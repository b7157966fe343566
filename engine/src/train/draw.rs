//! Drawing an RL iteration's responses block by block, the same for every number of shards.

use std::mem::take;
use std::time::Instant;

use super::curriculum::Curriculum;
use super::learner::policy_of;
use super::{drawn, state};
use crate::model::{self, AdamW, AdamWSettings, Transformer};
use crate::{Error, Result};
use triad::dataset::{Rollout, Task, Verdict};
use triad::job::Context;
use triad::job::draw::Spec;
use triad::job::select::varied;

pub fn run(context: &mut Context) -> Result<()> {
    let Spec { iteration, refill, drawing } = context.spec()?;
    let tasks: Vec<Task> = context.read(context.input("tasks")?)?;
    let curriculum = Curriculum::new(drawing.seed, drawing.prompts, &drawing.curriculum, &tasks)?;
    let (place, chosen) = curriculum.iteration(iteration - 1).ok_or_else(|| {
        Error::usage(format!("iteration {iteration}: the curriculum has {}", curriculum.len()))
    })?;
    let (first, chosen) = match refill {
        None => (0, chosen),
        Some(refill) => {
            let verdicts: Vec<Verdict> = context.read_all("verdicts")?;
            let kept = varied(&verdicts, drawing.samples).len();
            let missing = drawing.prompts.saturating_sub(kept);
            (verdicts.len() / drawing.samples, curriculum.refill(&place, refill, missing))
        }
    };
    let blocks = drawn::blocks(&drawing, place.step(), first, &chosen, &tasks);
    if blocks.is_empty() && context.shard.owns(0) {
        context.write::<Rollout>(0, &[])?;
    }
    if !(0..blocks.len()).any(|part| context.shard.owns(part)) {
        return Ok(());
    }
    let artifact = context.input("policy")?.clone();
    let policy = artifact.manifest.id.to_string();
    let mut checkpoint = context.checkpoint(&artifact)?;
    let weights = take(&mut checkpoint.weights);
    let device = model::device(&context.device)?;
    let (config, precision) = (&checkpoint.config, drawing.precision);
    let model = match &drawing.lora {
        None => Transformer::load(config, &weights, device, precision.into(), false)?,
        // What is sampled has to be what is trained: not the weights with the adapters merged.
        Some(lora) => {
            let base = context.checkpoint(context.input("base")?)?.weights;
            let model = policy_of(config, &base, device, precision, Some(lora), drawing.seed)?;
            if iteration > 1 {
                let learnt = state::masters(&context.runtime, &artifact)?;
                AdamW::new(model.trainable(), AdamWSettings::default())?
                    .restore_masters(&learnt)?;
            }
            model
        }
    };
    drop(weights); // the model holds its own copy
    let model = drawn::copy(&drawing, &model)?.unwrap_or(model);
    let stops = checkpoint.stop_ids()?;
    let sampler =
        drawn::sampler(&drawing, &model, &checkpoint.tokenizer, &stops, &policy, place.step());
    let clock = Instant::now();
    let (mut tokens, mut done) = (0, 0);
    for (part, block) in blocks.iter().enumerate() {
        done += block.len();
        if !context.shard.owns(part) {
            continue;
        }
        context.check_stop()?;
        let rows = sampler.rollouts(block)?;
        tokens += rows.iter().map(|row| row.tokens.len()).sum::<usize>();
        context.write(part, &rows)?;
        context.progress.update("prompts", done as u64, chosen.len() as u64, "");
    }
    let rate = tokens as f64 / clock.elapsed().as_secs_f64();
    context.timings.insert("sample_tokens_per_second".into(), rate);
    Ok(())
}
