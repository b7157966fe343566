//! `verify`: a verdict and a reward for every rollout.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Arity, Context, Job, Port, resolve_as};
use crate::dataset::{Rollout, Task, Verdict, decode_parquet};
use crate::reward::{Rule, judge};
use crate::{Error, Result};

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
        1
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
        for (part, object) in parts.iter().enumerate() {
            if !context.shard.owns(part) {
                continue;
            }
            context.check_stop()?;
            let place = format!("artifact {} {}", rollouts.manifest.id.short(), object.path);
            let rows: Vec<Rollout> = decode_parquet(context.wait(rollouts.read(&object.path))?)
                .map_err(|e| e.at(&place))?;
            let verdicts = rows
                .iter()
                .map(|rollout| {
                    let task = tasks.get(&rollout.task_id).ok_or_else(|| {
                        Error::data(format!(
                            "{place}: task `{}` is not in the dataset of port `tasks`",
                            rollout.task_id
                        ))
                    })?;
                    verdict(task, rollout, spec.reward)
                })
                .collect::<Result<Vec<_>>>()?;
            context.write(part, &verdicts)?;
            context.progress.update("parts", part as u64 + 1, parts.len() as u64, "");
        }
        Ok(())
    }
}

/// The verdict on one rollout of `task`.
pub(super) fn verdict(task: &Task, rollout: &Rollout, rule: Rule) -> Result<Verdict> {
    let judgement = judge(task, &rollout.response, rule)?;
    Ok(Verdict {
        task_id: rollout.task_id.clone(),
        family: rollout.family.clone(),
        level: rollout.level,
        sample: rollout.sample,
        step: rollout.step,
        format_ok: judgement.format_ok,
        verdict: judgement.verdict.as_str().into(),
        correct: judgement.verdict == crate::task::Verdict::Correct,
        reward: judgement.reward,
        extracted: judgement.extracted,
    })
}
