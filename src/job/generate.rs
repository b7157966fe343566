//! `generate`: certified tasks of one family.

use std::mem::take;

use serde_json::Value;

use super::{Context, Job, PART_ROWS, Port, parse};
use crate::dataset::Task;
use crate::task::{self, Request};
use crate::{Error, Result};

pub struct Generate;

impl Job for Generate {
    fn name(&self) -> &'static str {
        "generate"
    }
    fn version(&self) -> u32 {
        4
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
        let mut request: Request = parse(raw)?;
        for level in &mut request.levels {
            *level = task::resolve(request.family, level)?;
        }
        serde_json::to_value(request).map_err(Error::defect)
    }

    /// Every shard draws the whole dataset, because a duplicate may stand in any other part, and
    /// writes only its own parts.
    fn run(&self, context: &mut Context) -> Result<()> {
        let request: Request = context.spec()?;
        let total: usize = request.levels.iter().map(|level| level.count).sum();
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let mut parts = Parts { context, total, rows: Vec::new(), part: 0 };
        let panel = task::generate(&request, workers, &mut |rows| parts.add(rows))?;
        parts.finish()?;
        for finding in panel.findings() {
            let name = format!("level {} {}", finding.group, finding.shortcut);
            context.summarize(&name, finding.accuracy);
            context.summarize(&format!("level {} chance", finding.group), finding.chance);
        }
        Ok(())
    }
}

/// Cuts the rows into parts and writes those of this shard.
struct Parts<'a> {
    context: &'a mut Context,
    total: usize,
    rows: Vec<Task>,
    part: usize,
}

impl Parts<'_> {
    fn add(&mut self, rows: Vec<Task>) -> Result<()> {
        self.rows.extend(rows);
        while self.rows.len() >= PART_ROWS {
            let rest = self.rows.split_off(PART_ROWS);
            self.write()?;
            self.rows = rest;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        if self.rows.is_empty() { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<()> {
        self.context.check_stop()?;
        let rows = take(&mut self.rows);
        if self.context.shard.owns(self.part) {
            self.context.write(self.part, &rows)?;
        }
        self.part += 1;
        let done = (self.part * PART_ROWS).min(self.total);
        self.context.progress.update("tasks", done as u64, self.total as u64, "");
        Ok(())
    }
}
