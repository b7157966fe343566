//! Sampling block by block, the same for every number of shards.

use std::time::Instant;

use super::responses::Sampler;
use crate::Result;
use crate::model::{self, Sampling, Transformer};
use triad::checkpoint::Checkpoint;
use triad::dataset::Task;
use triad::job::Context;
use triad::job::rollout::Spec;

pub fn run(context: &mut Context) -> Result<()> {
    let spec: Spec = context.spec()?;
    let artifact = context.input("checkpoint")?;
    let policy = artifact.manifest.id.to_string();
    let checkpoint = context.checkpoint(artifact)?;
    let stops = checkpoint.stop_ids()?;
    let Checkpoint { config, tokenizer, weights, .. } = checkpoint;
    let tasks: Vec<Task> = context.read(context.input("tasks")?)?;
    let device = model::device(&context.device)?;
    let model = Transformer::load(&config, &weights, device, spec.precision.into(), false)?;
    drop(weights); // the model holds its own copy
    let sampler = Sampler {
        model: &model,
        tokenizer: &tokenizer,
        stops: &stops,
        stop: &spec.stop,
        sampling: Sampling {
            max_new_tokens: spec.max_new_tokens,
            seed: spec.seed,
            cache_bytes: spec.cache_bytes,
            ..spec.cuts().into()
        },
        samples: spec.samples,
        policy: &policy,
        step: 0,
    };
    sampler.check_cache(tasks.iter())?;
    let clock = Instant::now();
    let mut tokens = 0;
    let items: Vec<(u64, &Task)> = (0..).zip(&tasks).collect();
    for (part, block) in items.chunks(spec.block).enumerate() {
        if !context.shard.owns(part) {
            continue;
        }
        context.check_stop()?;
        let rows = sampler.rollouts(block)?;
        tokens += rows.iter().map(|row| row.tokens.len()).sum::<usize>();
        context.write(part, &rows)?;
        context.progress.update("tasks", block[0].0 + block.len() as u64, tasks.len() as u64, "");
    }
    let rate = tokens as f64 / clock.elapsed().as_secs_f64();
    context.timings.insert("sample_tokens_per_second".into(), rate);
    Ok(())
}
