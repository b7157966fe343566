//! `select`: which of an RL iteration's responses the policy learns from.

use std::collections::{BTreeSet, HashSet};

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::UInt32Type;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Handle;

use super::{Arity, Context, Job, Port, resolve_as};
use crate::dataset::{Column, Rollout, Row, Selected, Verdict};
use crate::{Error, Result, query};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Responses to each prompt.
    pub samples: usize,
    /// SQL over `rollouts` and `verdicts` that gives columns task_id and sample. Absent: all.
    #[serde(default)]
    pub sql: Option<String>,
    /// Leave out groups whose rewards are all the same.
    #[serde(default)]
    pub varied: bool,
}

impl Spec {
    /// Indices of the responses to learn from, in order. `rollouts` and `verdicts` run in parallel,
    /// group by group.
    pub fn select(
        &self,
        rollouts: &[Rollout],
        verdicts: &[Verdict],
        runtime: &Handle,
    ) -> Result<Vec<usize>> {
        let mut selected: Vec<usize> = (0..rollouts.len()).collect();
        if let Some(sql) = &self.sql {
            let tables = vec![
                ("rollouts", vec![Rollout::encode(rollouts)?]),
                ("verdicts", vec![Verdict::encode(verdicts)?]),
            ];
            let mut chosen = HashSet::new();
            for batch in query::select(sql, tables, runtime)? {
                let (tasks, samples) = keys(&batch).ok_or_else(|| {
                    Error::usage("`select` must give the columns task_id and sample of `rollouts`")
                })?;
                chosen.extend(tasks.into_iter().zip(samples));
            }
            selected
                .retain(|&i| chosen.contains(&(rollouts[i].task_id.clone(), rollouts[i].sample)));
        }
        if self.varied {
            let kept = varied(verdicts, self.samples);
            selected.retain(|i| kept.contains(&(i / self.samples)));
        }
        Ok(selected)
    }
}

fn keys(batch: &RecordBatch) -> Option<(Vec<String>, Vec<u32>)> {
    let tasks = String::values(batch.column_by_name("task_id")?.as_ref())?;
    let samples = batch.column_by_name("sample")?.as_primitive_opt::<UInt32Type>()?;
    Some((tasks, samples.values().to_vec()))
}

/// Numbers of the groups of `samples` whose rewards are not all equal.
pub fn varied(verdicts: &[Verdict], samples: usize) -> BTreeSet<usize> {
    let differs = |group: &[Verdict]| group.iter().any(|v| v.reward != group[0].reward);
    let groups = verdicts.chunks(samples.max(1)).enumerate();
    groups.filter(|(_, group)| differs(group)).map(|(number, _)| number).collect()
}

pub struct Select;

impl Job for Select {
    fn name(&self) -> &'static str {
        "select"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "rollouts", accepts: &["rollouts"], arity: Arity::Many },
            Port { name: "verdicts", accepts: &["verdicts"], arity: Arity::Many },
        ]
    }
    fn output(&self) -> &'static str {
        Selected::NAME
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        resolve_as::<Spec>(raw)
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        let spec: Spec = context.spec()?;
        let rollouts: Vec<Rollout> = context.read_all("rollouts")?;
        let verdicts: Vec<Verdict> = context.read_all("verdicts")?;
        if rollouts.len() != verdicts.len() {
            return Err(Error::data(format!(
                "{} rollouts and {} verdicts",
                rollouts.len(),
                verdicts.len()
            )));
        }
        let selected = spec.select(&rollouts, &verdicts, &context.runtime)?;
        let row = |&number: &usize| {
            let Rollout { task_id, sample, step, .. } = &rollouts[number];
            let (task_id, number) = (task_id.clone(), number as u32);
            Selected { task_id, sample: *sample, step: *step, number }
        };
        context.summarize("selected", selected.len() as u64);
        context.summarize("rollouts", rollouts.len() as u64);
        context.write(0, &selected.iter().map(row).collect::<Vec<_>>())
    }
}
