//! `verify`: a verdict and a reward for every rollout.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Arity, Context, Job, Port, resolve_as};
use crate::dataset::{Rollout, Task, Verdict, decode_parquet};
use crate::reward::{Format, Judge, Judgement, Rule};
use crate::sandbox::{Crowd, Sandbox, Worker};
use crate::task::code::Code;
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
            for Rollout { task_id, .. } in &rows {
                if !judges.contains_key(task_id) {
                    let task = tasks.get(task_id).ok_or_else(|| {
                        Error::data(format!(
                            "{place}: task `{task_id}` is not in the dataset of port `tasks`"
                        ))
                    })?;
                    judges.insert(task_id.clone(), Judge::new(task)?);
                }
            }
            let pairs: Vec<_> = rows.iter().map(|row| (&judges[&row.task_id], row)).collect();
            let progress = |done: usize| {
                context.check_stop()?;
                let (done, all) = (done as u64, pairs.len() as u64);
                context.progress.update("programs", done, all, &object.path);
                Ok(())
            };
            let verdicts = verdicts(&pairs, spec.reward, progress)?;
            context.write(part, &verdicts)?;
            context.progress.update("parts", part as u64 + 1, parts.len() as u64, "");
        }
        if judges.values().any(Judge::runs) {
            context.summarize("python", Sandbox::shared()?.version.as_str());
        }
        Ok(())
    }
}

/// The verdict on each rollout of a judge's task, in order. Programs run on all cores; `tick` is
/// told how many have.
fn verdicts(
    pairs: &[(&Judge, &Rollout)],
    rule: Rule,
    tick: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<Verdict>> {
    let programs: Vec<_> =
        pairs.iter().filter_map(|(judge, row)| judge.program(&row.response)).collect();
    let mut outcomes = Vec::new();
    if !programs.is_empty() {
        let work = |worker: &mut Worker, (code, program): &(&Code, &str)| {
            code.judge(program, |request, limits| worker.run(request, limits))
        };
        outcomes = Crowd::new(Sandbox::shared()?, None).map(&programs, work, tick)?;
    }
    let mut outcomes = outcomes.into_iter();
    let judged = pairs.iter().map(|(judge, row)| {
        let outcome = judge.program(&row.response).and_then(|_| outcomes.next());
        verdict(
            row,
            match outcome {
                Some(outcome) => judge.decide(&row.response, rule, |_| outcome.into()),
                None => judge.judge(&row.response, rule),
            },
        )
    });
    Ok(judged.collect())
}

fn verdict(rollout: &Rollout, judgement: Judgement) -> Verdict {
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

/// The verdicts on tasks' responses, in order. Sandboxes are started once for all of them.
pub fn judge<'a, 'b>(
    groups: impl Iterator<Item = (&'a Task, &'b [Rollout])>,
    rule: Rule,
) -> Result<Vec<Verdict>> {
    let judge = |(task, group)| Ok((Judge::new(task)?, group));
    let judges: Vec<(Judge, &'b [Rollout])> = groups.map(judge).collect::<Result<_>>()?;
    let pairs: Vec<_> = judges
        .iter()
        .flat_map(|(judge, group)| group.iter().map(move |row| (judge, row)))
        .collect();
    verdicts(&pairs, rule, |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Limits;
    use crate::task::code::{Case, Tests};
    use crate::task::{AnyPuzzle, Form};

    fn task(tests: Tests) -> Task {
        let (problem, solution) = ("Twice the number.".into(), String::new());
        let puzzle = AnyPuzzle::from(Code { problem, tests, solution, limits: Limits::default() });
        puzzle.row(1, Form::default(), puzzle.certify().unwrap()).unwrap()
    }

    /// Each task's verdicts stand where its rollouts do, whether a program was run or none found.
    #[test]
    fn programs_are_judged_in_the_order_of_their_rollouts() {
        let cases: Vec<_> = ["1", "4"].map(|n| Case { input: n.into(), output: n.into() }).into();
        let tasks = [
            task(Tests::Stdin { cases: cases.clone() }),
            task(Tests::Call { entry: "f".into(), cases }),
        ];
        let said = [
            ("```\nprint(input())\n```", "correct", ""),
            ("I do not know", "missing", ""),
            ("```\nprint(1)\n```", "wrong", "test 2: wrong answer"),
            (
                "```\ndef f(n): return 4 // (n - 1)\n```",
                "wrong",
                "test 1: exception ZeroDivisionError",
            ),
            ("```\ndef f(n): return n\n```", "correct", ""),
            ("```\ndef f(n) return n\n```", "wrong", "syntax error"),
        ];
        let rollouts: Vec<Rollout> = said
            .iter()
            .map(|(response, ..)| Rollout { response: response.to_string(), ..Rollout::default() })
            .collect();
        let verdicts = judge(tasks.iter().zip(rollouts.chunks(3)), Rule::Correct).unwrap();
        for ((response, word, place), verdict) in said.iter().zip(&verdicts) {
            let found = (verdict.verdict.as_str(), verdict.place.as_str());
            assert_eq!(found, (*word, *place), "{response}");
            assert_eq!(verdict.reward, f32::from(u8::from(*word == "correct")));
        }
    }
}
