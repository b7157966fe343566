//! Greedy and sampled accuracy on task sets.

use std::time::Instant;

use super::responses::Sampler;
use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::dataset::{Rollout, Score, Task, Verdict};
use crate::job::Context;
use crate::job::evaluate::Spec;
use crate::job::verify::judge;
use crate::model::{self, Precision, Sampling, Transformer};
use crate::reward::Rule;

pub fn run(context: &mut Context) -> Result<()> {
    let spec: Spec = context.spec()?;
    let artifact = context.input("checkpoint")?;
    let policy = artifact.manifest.id.to_string();
    let checkpoint = context.checkpoint(artifact)?;
    let stops = checkpoint.stop_ids()?;
    let Checkpoint { config, tokenizer, weights, .. } = checkpoint;
    let device = model::device(&context.device)?;
    let model = Transformer::load(&config, &weights, device, Precision::F32, false)?;
    drop(weights); // the model holds its own copy
    let sets: Vec<(String, Vec<Task>)> = context
        .inputs("tasks")
        .iter()
        .map(|input| Ok((input.name.clone(), context.read(&input.artifact)?)))
        .collect::<Result<_>>()?;
    let sampler = |temperature: f64, samples: u32| Sampler {
        model: &model,
        tokenizer: &tokenizer,
        stops: &stops,
        sampling: Sampling {
            temperature,
            max_new_tokens: spec.max_new_tokens,
            seed: spec.seed,
            top_p: if temperature == 0.0 { 1.0 } else { spec.top_p },
            ..Sampling::default()
        },
        samples,
        policy: &policy,
        step: 0,
    };
    let modes = [("greedy", sampler(0.0, 1)), ("sampled", sampler(spec.temperature, spec.samples))];
    let clock = Instant::now();
    let (mut tokens, mut done) = (0, 0);
    let total: usize = sets.iter().map(|(_, tasks)| tasks.len()).sum();
    let (mut kept, mut verdicts): (Vec<Rollout>, Vec<Verdict>) = Default::default();
    for (part, (set, tasks)) in sets.iter().enumerate() {
        let mut scores: Vec<Score> = Vec::new();
        let (mut correct, mut drawn) = (0, 0);
        let items: Vec<(u64, &Task)> = (0..).zip(tasks).collect();
        for block in items.chunks(spec.block) {
            context.check_stop()?;
            for (mode, sampler) in modes.iter().filter(|(_, sampler)| sampler.samples > 0) {
                let rows = sampler.rollouts(block)?;
                for (&(item, task), group) in
                    block.iter().zip(rows.chunks(sampler.samples as usize))
                {
                    let judged = judge([task].into_iter(), group, Rule::Correct)?;
                    let length: usize = group.iter().map(|row| row.tokens.len()).sum();
                    tokens += length;
                    let score = Score {
                        set: set.clone(),
                        task_id: task.task_id.clone(),
                        family: task.family.clone(),
                        level: task.level,
                        model: policy.clone(),
                        mode: (*mode).into(),
                        temperature: sampler.sampling.temperature as f32,
                        samples: sampler.samples,
                        correct: judged.iter().filter(|v| v.correct).count() as u32,
                        format_ok: judged.iter().filter(|v| v.format_ok).count() as u32,
                        length: length as f32 / group.len() as f32,
                    };
                    if *mode == "sampled" {
                        correct += score.correct;
                        drawn += score.samples;
                        if (item as usize) < spec.keep {
                            kept.extend_from_slice(group);
                            verdicts.extend(judged);
                        }
                    }
                    scores.push(score);
                }
            }
            done += block.len();
            context.progress.update("tasks", done as u64, total as u64, set);
        }
        context.write(part, &scores)?;
        if drawn > 0 {
            context.summarize(&format!("{set} avg"), f64::from(correct) / f64::from(drawn));
        }
    }
    context.write(0, &kept)?;
    context.write(0, &verdicts)?;
    let rate = tokens as f64 / clock.elapsed().as_secs_f64();
    context.timings.insert("sample_tokens_per_second".into(), rate);
    Ok(())
}
