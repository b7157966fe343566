//! `verify`: a verdict and a reward for every rollout.

use std::collections::hash_map::{Entry, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Arity, Context, Job, Port, resolve_as};
use crate::dataset::{Rollout, Task, Verdict, decode_parquet};
use crate::reward::{Format, Judge, Rule};
use crate::{Error, Result, task};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    reward: Rule,
}

pub struct Verify;

impl Job for Verify {
    fn name(&self) -> &'static str {
        "verify"
    }
    fn version(&self) -> u32 {
        2
    }
    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "tasks", accepts: &["tasks"], arity: Arity::One },
            Port { name: "rollouts", accepts: &["rollouts"], arity: Arity::One },
        ]
    }
    fn output(&self) -> &'static str {
        "verdicts"
    }
    fn shardable(&self) -> bool {
        true
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        resolve_as::<Spec>(raw)
    }

    fn run(&self, context: &mut Context) -> Result<()> {
        let spec: Spec = context.spec()?;
        let tasks: HashMap<String, Task> = context
            .read::<Task>(context.input("tasks")?)?
            .into_iter()
            .map(|task| (task.task_id.clone(), task))
            .collect();
        let rollouts = context.input("rollouts")?.clone();
        let parts: Vec<_> = rollouts.manifest.parts("rollouts").cloned().collect();
        let mut judges = HashMap::new();
        for (part, object) in parts.iter().enumerate() {
            if !context.shard.owns(part) {
                continue;
            }
            context.check_stop()?;
            let place = format!("artifact {} {}", rollouts.manifest.id.short(), object.path);
            let rows: Vec<Rollout> = decode_parquet(context.wait(rollouts.read(&object.path))?)
                .map_err(|e| e.at(&place))?;
            let mut verdicts = Vec::with_capacity(rows.len());
            for rollout in &rows {
                let judge = match judges.entry(rollout.task_id.clone()) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => {
                        let task = tasks.get(&rollout.task_id).ok_or_else(|| {
                            Error::data(format!(
                                "{place}: task `{}` is not in the dataset of port `tasks`",
                                rollout.task_id
                            ))
                        })?;
                        entry.insert(Judge::new(task)?)
                    }
                };
                verdicts.push(verdict(judge, rollout, spec.reward));
            }
            context.write(part, &verdicts)?;
            context.progress.update("parts", part as u64 + 1, parts.len() as u64, "");
        }
        Ok(())
    }
}

/// The verdict on one rollout of the judge's task.
pub(super) fn verdict(judge: &Judge, rollout: &Rollout, rule: Rule) -> Verdict {
    let judgement = judge.judge(&rollout.response, rule);
    let found = judgement.verdict.as_ref();
    Verdict {
        task_id: rollout.task_id.clone(),
        family: rollout.family.clone(),
        level: rollout.level,
        sample: rollout.sample,
        step: rollout.step,
        format_ok: judgement.format == Format::Ok,
        format: judgement.format.to_string(),
        verdict: judgement.word().into(),
        place: match found {
            Some(task::Verdict::Wrong(place) | task::Verdict::Unknown(place)) => place.clone(),
            _ => String::new(),
        },
        correct: found.is_some_and(task::Verdict::is_correct),
        reward: judgement.reward,
        extracted: judgement.extracted.into(),
    }
}

/// The verdicts on `rollouts`, which hold the same number of responses to each of `tasks` in turn.
pub fn judge<'a>(
    tasks: impl ExactSizeIterator<Item = &'a Task>,
    rollouts: &[Rollout],
    rule: Rule,
) -> Result<Vec<Verdict>> {
    let samples = rollouts.len() / tasks.len().max(1);
    let mut verdicts = Vec::with_capacity(rollouts.len());
    for (task, group) in tasks.zip(rollouts.chunks(samples.max(1))) {
        let judge = Judge::new(task)?;
        verdicts.extend(group.iter().map(|rollout| verdict(&judge, rollout, rule)));
    }
    Ok(verdicts)
}
