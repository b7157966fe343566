//! `triad audit`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::Globals;
use super::output::{self, Table};
use crate::dataset::read_objects;
use crate::store::Artifact;
use crate::task::{Audit as Report, Finding, Line, Record};
use crate::{Error, Result};

#[derive(Args)]
pub(super) struct Audit {
    /// Datasets (`pipeline/stage`, a stage, digits of an id), files (Parquet in verl's layout,
    /// JSON lines), or folders of files; a number in a file's path is its level
    #[arg(required = true)]
    tasks: Vec<String>,
    /// Print everything as JSON, every shortcut included
    #[arg(long)]
    json: bool,
    /// Exit with 65 unless nothing at all is wrong
    #[arg(long)]
    strict: bool,
}

impl Audit {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let mut report = Report::default();
        for what in &self.tasks {
            let path = Path::new(what);
            if path.exists() {
                for file in files(path)? {
                    add_file(&mut report, &file)?;
                }
            } else {
                let artifact = globals.open_store()?.find(what).await?;
                add_artifact(&mut report, &artifact).await?;
            }
        }
        if self.json {
            output::json(&json!({
                "clean": report.is_clean(),
                "sets": report.lines(),
                "shortcuts": report.findings(),
            }))?;
        } else {
            print(&report)?;
        }
        if self.strict && !report.is_clean() {
            return Err(Error::data("the audit found faults"));
        }
        Ok(())
    }
}

/// The file itself, or all Parquet and JSON files below the folder, in order of path.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let fail = |e| Error::usage(format!("{}: {e}", path.display()));
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        entries.push(entry.map_err(fail)?.path());
    }
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        let extension = entry.extension().and_then(|extension| extension.to_str());
        if entry.is_dir() || matches!(extension, Some("parquet" | "jsonl" | "ndjson" | "json")) {
            found.extend(files(&entry)?);
        }
    }
    Ok(found)
}

fn add_file(report: &mut Report, path: &Path) -> Result<()> {
    let place = path.display();
    let bytes = std::fs::read(path).map_err(|e| Error::usage(format!("{place}: {e}")))?;
    let set = path.file_stem().unwrap_or_default().to_string_lossy();
    let numbers = path.iter().rev().filter_map(|part| part.to_str()?.parse::<u32>().ok());
    let level = numbers.take(1).next().unwrap_or(0);
    for (number, row) in read_objects(bytes.into()).map_err(|e| e.at(&place))?.iter().enumerate() {
        let record = Record::read(row, &set, level)
            .map_err(|e| Error::data(format!("{place}: row {}: {e}", number + 1)))?;
        report.add(&record);
    }
    Ok(())
}

async fn add_artifact(report: &mut Report, artifact: &Artifact) -> Result<()> {
    let manifest = &artifact.manifest;
    let place = format!("artifact {}", manifest.id.short());
    if !manifest.datasets.contains_key("tasks") {
        return Err(Error::usage(format!("{place} ({}) has no dataset `tasks`", manifest.job())));
    }
    for object in manifest.parts("tasks") {
        let rows = read_objects(artifact.read(&object.path).await?)
            .map_err(|e| e.at(format!("{place} {}", object.path)))?;
        for row in &rows {
            let record = Record::read(row, "tasks", 0).map_err(|e| Error::data(e).at(&place))?;
            report.add(&record);
        }
    }
    Ok(())
}

fn print(report: &Report) -> Result<()> {
    let mut table = Table::new(&[
        "family",
        "level",
        "set",
        "rows",
        "distinct",
        "up to renaming",
        "in other sets",
        "unreadable",
        "wrong",
        "uncertified",
    ]);
    let lines = report.lines();
    for line in &lines {
        let shared: Vec<_> = line
            .shared
            .iter()
            .filter(|(_, rows)| **rows > 0)
            .map(|(set, rows)| format!("{rows} in {set}"))
            .collect();
        let faults: Vec<_> =
            line.faults.iter().map(|(kind, rows)| format!("{rows} {}", kind.as_str())).collect();
        let family = if line.family.is_empty() { "?" } else { &line.family };
        table.push(vec![
            family.into(),
            line.level.into(),
            line.set.clone().into(),
            line.rows.into(),
            line.distinct_texts.into(),
            line.distinct.into(),
            shared.join(", ").into(),
            line.unparseable.into(),
            line.wrong.into(),
            faults.join(", ").into(),
        ]);
    }
    output::line(table.text())?;
    for Line { family, level, set, examples, .. } in &lines {
        for (kind, detail) in examples {
            output::line(format!("{family} {level} {set}: {kind}: {detail}"))?;
        }
    }
    let mut table = Table::new(&["tasks", "shortcut", "puzzles", "right", "chance", "verdict"]);
    for finding in telling(report.findings()) {
        let percent = |share: f64| format!("{:.1}%", 100.0 * share);
        table.push(vec![
            finding.group.clone().into(),
            finding.shortcut.clone().into(),
            finding.puzzles.into(),
            percent(finding.accuracy).into(),
            percent(finding.chance).into(),
            if finding.beats_chance() { "beats chance" } else { "best, within tolerance" }.into(),
        ]);
    }
    output::line(format!("\n{}", table.text()))?;
    output::line(if report.is_clean() { "\nNothing is wrong." } else { "\nFaults were found." })
}

/// Of each group the shortcuts that beat chance, or else the best one.
fn telling(findings: Vec<Finding>) -> Vec<Finding> {
    let mut told: Vec<Finding> = Vec::new();
    let mut best: BTreeMap<String, Finding> = BTreeMap::new();
    for finding in findings {
        if finding.beats_chance() {
            told.push(finding);
        } else if best
            .get(&finding.group)
            .is_none_or(|other| finding.accuracy - finding.chance > other.accuracy - other.chance)
        {
            best.insert(finding.group.clone(), finding);
        }
    }
    let beaten: BTreeSet<String> = told.iter().map(|finding| finding.group.clone()).collect();
    told.extend(best.into_values().filter(|finding| !beaten.contains(&finding.group)));
    told.sort_by(|a, b| a.group.cmp(&b.group).then(b.accuracy.total_cmp(&a.accuracy)));
    told
}
