//! `generate`: certified tasks of one family.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Context, Job, PART_ROWS, Port, Shard, parse};
use crate::dataset::Task;
use crate::task::{self, Panel, Request};
use crate::{Error, Result};

pub struct Generate;

impl Job for Generate {
    fn name(&self) -> &'static str {
        "generate"
    }
    fn version(&self) -> u32 {
        5
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

    fn run(&self, context: &mut Context) -> Result<()> {
        let request: Request = context.spec()?;
        if context.shard == Shard::WHOLE {
            return whole(context, &request);
        }
        for lot in 0..request.lots() {
            if !context.shard.owns(lot) {
                continue;
            }
            // As if no earlier lot held any of these tasks. `complete` finds out.
            let mut seen = HashSet::new();
            let panel = draw(context, &request, lot, &mut seen)?;
            let hashes = seen.into_iter().map(|hash| format!("{hash:032x}")).collect();
            let note = serde_json::to_vec(&Note { panel, hashes }).map_err(Error::defect)?;
            context.write_object(&note_path(lot), note.into())?;
        }
        Ok(())
    }

    /// A lot that holds a task of an earlier one is drawn anew, with the earlier ones known.
    fn complete(&self, context: &mut Context) -> Result<()> {
        let request: Request = context.spec()?;
        let (mut seen, mut panel) = (HashSet::new(), Panel::default());
        for lot in 0..request.lots() {
            let note = context.take(&note_path(lot))?;
            let Note { panel: found, hashes } =
                serde_json::from_slice(&note).map_err(|e| Error::data(e).at(note_path(lot)))?;
            let hashes: Vec<u128> =
                hashes.iter().filter_map(|hash| u128::from_str_radix(hash, 16).ok()).collect();
            if hashes.iter().any(|hash| seen.contains(hash)) {
                tracing::info!(lot, "holds tasks of earlier lots: drawn anew");
                panel.merge(draw(context, &request, lot, &mut seen)?);
            } else {
                seen.extend(hashes);
                panel.merge(found);
            }
        }
        summarize(context, &panel);
        Ok(())
    }
}

/// What a shard tells of a lot, besides its rows.
#[derive(Serialize, Deserialize)]
struct Note {
    panel: Panel,
    /// Canonical hashes, 32 hex digits.
    hashes: Vec<String>,
}

fn note_path(lot: usize) -> String {
    format!("lots/{lot:05}.json")
}

fn whole(context: &mut Context, request: &Request) -> Result<()> {
    let (mut seen, mut panel) = (HashSet::new(), Panel::default());
    for lot in 0..request.lots() {
        panel.merge(draw(context, request, lot, &mut seen)?);
    }
    summarize(context, &panel);
    Ok(())
}

fn summarize(context: &mut Context, panel: &Panel) {
    for finding in panel.findings() {
        let name = format!("level {} {}", finding.group, finding.shortcut);
        context.summarize(&name, finding.accuracy);
        context.summarize(&format!("level {} chance", finding.group), finding.chance);
    }
}

/// Draws a lot and writes its parts.
fn draw(
    context: &mut Context,
    request: &Request,
    lot: usize,
    seen: &mut HashSet<u128>,
) -> Result<Panel> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut rows, mut part) = (Vec::new(), lot * task::LOT / PART_ROWS);
    let mut write = |rows: &[Task]| -> Result<()> {
        context.check_stop()?;
        context.write(part, rows)?;
        part += 1;
        let (done, total) = ((part * PART_ROWS).min(request.tasks()), request.tasks());
        context.progress.update("tasks", done as u64, total as u64, "");
        Ok(())
    };
    let panel = task::generate_lot(request, lot, workers, seen, &mut |more| {
        rows.extend(more);
        while rows.len() >= PART_ROWS {
            let rest = rows.split_off(PART_ROWS);
            write(&rows)?;
            rows = rest;
        }
        Ok(())
    })?;
    if !rows.is_empty() {
        write(&rows)?;
    }
    Ok(panel)
}
