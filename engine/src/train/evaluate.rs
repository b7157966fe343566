//! Greedy and sampled accuracy on task sets.

use std::time::Instant;

use super::responses::Sampler;
use crate::Result;
use crate::model::{self, Sampling, Transformer};
use triad::checkpoint::Checkpoint;
use triad::dataset::Task;
use triad::job::Context;
use triad::job::evaluate::{Mode, Scores, Spec};

pub fn run(context: &mut Context) -> Result<()> {
    let spec: Spec = context.spec()?;
    let artifact = context.input("checkpoint")?;
    let policy = artifact.manifest.id.to_string();
    let checkpoint = context.checkpoint(artifact)?;
    let stops = checkpoint.stop_ids()?;
    let Checkpoint { config, tokenizer, weights, .. } = checkpoint;
    let device = model::device(&context.device)?;
    let model = Transformer::load(&config, &weights, device, spec.precision.into(), false)?;
    drop(weights); // the model holds its own copy
    let sets: Vec<(String, Vec<Task>)> = context
        .inputs("tasks")
        .iter()
        .map(|input| Ok((input.name.clone(), context.read(&input.artifact)?)))
        .collect::<Result<_>>()?;
    let mut scores = Scores::new(policy.clone(), spec.keep);
    let sampler = |mode: &Mode| Sampler {
        model: &model,
        tokenizer: &tokenizer,
        stops: &stops,
        stop: &spec.stop,
        sampling: Sampling {
            max_new_tokens: spec.max_new_tokens,
            seed: spec.seed,
            cache_bytes: spec.cache_bytes,
            ..mode.cuts.into()
        },
        samples: mode.samples,
        policy: &policy,
        step: 0,
    };
    let modes = spec.modes();
    if let Some(mode) = modes.first() {
        sampler(mode).check_cache(sets.iter().flat_map(|(_, tasks)| tasks))?;
    }
    let clock = Instant::now();
    let mut done = 0;
    let total: usize = sets.iter().map(|(_, tasks)| tasks.len()).sum();
    for (part, (set, tasks)) in sets.iter().enumerate() {
        let items: Vec<(u64, &Task)> = (0..).zip(tasks).collect();
        for block in items.chunks(spec.block) {
            context.check_stop()?;
            for mode in &modes {
                scores.add(set, mode, block, &sampler(mode).rollouts(block)?)?;
            }
            done += block.len();
            context.progress.update("tasks", done as u64, total as u64, set);
        }
        scores.finish_set(context, part, set)?;
    }
    let tokens = scores.finish(context)?;
    let rate = tokens as f64 / clock.elapsed().as_secs_f64();
    context.timings.insert("sample_tokens_per_second".into(), rate);
    Ok(())
}
