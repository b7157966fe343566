//! `score`: kept responses judged and scored again, by today's checkers, with nothing sampled.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::evaluate::{Sampler, averages, count, score};
use super::verify::judge;
use super::{Arity, Context, Job, Port, Shard, resolve_as};
use crate::dataset::{Rollout, Row, Score, Task, decode_parquet};
use crate::reward::Rule;
use crate::store::Artifact;
use crate::{Error, Result};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {}

pub struct ScoreJob;

impl Job for ScoreJob {
    fn name(&self) -> &'static str {
        "score"
    }
    fn version(&self) -> u32 {
        2
    }
    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "tasks", accepts: &["tasks"], arity: Arity::Many },
            Port { name: "rollouts", accepts: &["rollouts", "scores"], arity: Arity::Many },
        ]
    }
    fn output(&self) -> &'static str {
        "scores"
    }
    fn shardable(&self) -> bool {
        true
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        resolve_as::<Spec>(raw)
    }

    fn run(&self, context: &mut Context) -> Result<()> {
        context.declare::<Score>();
        let mut sets: HashMap<String, HashMap<String, Task>> = HashMap::new();
        for input in context.inputs("tasks") {
            let tasks: Vec<Task> = context.read(&input.artifact)?;
            let by_id = tasks.into_iter().map(|task| (task.task_id.clone(), task)).collect();
            sets.insert(input.name.clone(), by_id);
        }
        let parts: Vec<(String, Artifact, String)> = context
            .inputs("rollouts")
            .iter()
            .flat_map(|input| {
                let objects = input.artifact.manifest.parts(Rollout::NAME);
                let part = |object: &crate::store::ObjectEntry| {
                    (input.name.clone(), input.artifact.clone(), object.path.clone())
                };
                objects.map(part).collect::<Vec<_>>()
            })
            .collect();
        if let Some(input) =
            context.inputs("rollouts").iter().find(|i| i.artifact.manifest.rows(Rollout::NAME) == 0)
        {
            return Err(Error::data(format!(
                "`{}` keeps no responses; `evaluate` does unless `keep` says how few",
                input.name
            )));
        }
        for (part, (input, artifact, path)) in parts.iter().enumerate() {
            if !context.shard.owns(part) {
                continue;
            }
            context.check_stop()?;
            let manifest = &artifact.manifest;
            let place = format!("artifact {} {path}", manifest.id.short());
            let rows: Vec<Rollout> =
                decode_parquet(context.wait(artifact.read(path))?).map_err(|e| e.at(&place))?;
            let before = scored(context, artifact, path)?;
            let set = before.first().map_or(input, |score| &score.set);
            let tasks = sets.get(set).ok_or_else(|| {
                Error::usage(format!(
                    "{place}: port `tasks` has no set `{set}`, whose tasks it answers"
                ))
            })?;
            let sampler = Sampler::of(&manifest.identity["params"]);
            let same = |a: &Rollout, b: &Rollout| {
                a.task_id == b.task_id && a.temperature.to_bits() == b.temperature.to_bits()
            };
            let answered = |group: &'_ [Rollout]| {
                let id = &group[0].task_id;
                tasks.get(id).ok_or_else(|| {
                    Error::data(format!("{place}: task `{id}` is not in set `{set}`"))
                })
            };
            let groups = rows.chunk_by(same).map(|group| Ok((answered(group)?, group)));
            let groups = groups.collect::<Result<Vec<_>>>()?;
            let verdicts = judge(groups.iter().copied(), Rule::Correct)?;
            let (mut scores, mut rest) = (Vec::new(), &verdicts[..]);
            for (task, group) in groups {
                let (judged, more) = rest.split_at(group.len());
                let score = score(set, task, group, judged, &sampler)?;
                count(context, &score);
                scores.push(score);
                rest = more;
            }
            if scores.len() < before.len() {
                return Err(Error::data(format!(
                    "{place} keeps the responses behind {} of {} scores; `evaluate` keeps all unless \
                     `keep` says how many",
                    scores.len(),
                    before.len()
                )));
            }
            context.write(part, &scores)?;
            context.write(part, &verdicts)?;
            context.progress.update("parts", part as u64 + 1, parts.len() as u64, set);
        }
        if context.shard == Shard::WHOLE {
            averages(context);
        }
        Ok(())
    }
    fn complete(&self, context: &mut Context) -> Result<()> {
        averages(context);
        Ok(())
    }
}

/// The scores that an evaluation made of the responses at `path`; none of plain rollouts.
fn scored(context: &Context, artifact: &Artifact, path: &str) -> Result<Vec<Score>> {
    let path = path.replacen(Rollout::NAME, Score::NAME, 1);
    if artifact.manifest.object(&path).is_err() {
        return Ok(Vec::new());
    }
    decode_parquet(context.wait(artifact.read(&path))?)
}
