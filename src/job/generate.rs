//! `generate`: certified tasks of one family.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Context, Job, PART_ROWS, Port, parse};
use crate::task::{self, Family, Level, Split};
use crate::{Error, Result};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    family: Family,
    split: Split,
    #[serde(default)]
    seed: u64,
    levels: Vec<Level>,
}

pub struct Generate;

impl Job for Generate {
    fn name(&self) -> &'static str {
        "generate"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[]
    }
    fn output(&self) -> &'static str {
        "tasks"
    }
    fn shardable(&self) -> bool {
        true
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        let mut spec: Spec = parse(raw)?;
        for level in &mut spec.levels {
            *level = task::resolve(spec.family, level)?;
        }
        serde_json::to_value(spec).map_err(Error::defect)
    }

    /// Every shard draws the whole dataset, because a duplicate may stand in any other part, and
    /// writes only its own parts.
    fn run(&self, context: &mut Context) -> Result<()> {
        let spec: Spec = context.spec()?;
        let tasks = task::generate(spec.family, &spec.levels, spec.split, spec.seed)?;
        for (part, rows) in tasks.chunks(PART_ROWS).enumerate() {
            if context.shard.owns(part) {
                context.write(part, rows)?;
            }
            context.progress.update("tasks", (part * PART_ROWS) as u64, tasks.len() as u64, "");
        }
        Ok(())
    }
}
