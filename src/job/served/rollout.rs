//! `rollout` by a server.

use std::time::Instant;

use super::Served;
use super::flow::Block;
use crate::dataset::Task;
use crate::job::rollout::Spec;
use crate::job::{Context, Shard};
use crate::{Error, Result};

/// Blocks after which what is drawn is made safe against a sudden end. A request to stop and a
/// failing server leave a checkpoint anyway.
const CHECKPOINT_EVERY: usize = 16;

pub fn run(context: &mut Context) -> Result<()> {
    let spec: Spec = context.spec()?;
    let server = spec.server.as_ref().ok_or_else(|| Error::defect("no server"))?;
    let served = Served::new(context, server, spec.seed, spec.max_new_tokens, &spec.stop)?;
    let tasks: Vec<Task> = context.read(context.input("tasks")?)?;
    let items: Vec<(u64, &Task)> = (0..).zip(&tasks).collect();
    let (parts, blocks): (Vec<usize>, Vec<Block>) = items
        .chunks(spec.block)
        .enumerate()
        .filter(|(part, _)| context.shard.owns(*part))
        .map(|(part, tasks)| (part, Block { tasks, samples: spec.samples, cuts: spec.cuts() }))
        .unzip();
    // Shards are small, and have no checkpoints; a whole rollout keeps what an earlier attempt drew.
    let whole = context.shard == Shard::WHOLE;
    let start = match whole {
        true => context.resume()?.map_or(0, |(step, _)| blocks.len().min(step as usize)),
        false => 0,
    };
    let (parts, blocks) = (&parts[start..], &blocks[start..]);
    let clock = Instant::now();
    let (mut tokens, mut done) = (0, 0);
    let sampled = served.sample(context, blocks, |context, block, rows| {
        tokens += rows.iter().map(|row| row.tokens.len()).sum::<usize>();
        context.write(parts[block], &rows)?;
        done = block + 1;
        if whole && done % CHECKPOINT_EVERY == 0 && done < blocks.len() {
            context.commit_step((start + done) as u64, Vec::new())?;
        }
        let last = blocks[block].tasks.last().map_or(0, |(item, _)| item + 1);
        context.progress.update("tasks", last, tasks.len() as u64, "");
        Ok(())
    });
    if let Err(error) = sampled {
        if whole && done % CHECKPOINT_EVERY != 0 {
            context.commit_step((start + done) as u64, Vec::new())?;
        }
        return Err(error);
    }
    served.finish(context, tokens, clock.elapsed().as_secs_f64());
    Ok(())
}
