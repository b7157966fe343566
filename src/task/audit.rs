//! What a set of tasks is worth: validity, uniqueness, duplicates, leakage, shortcuts.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::{FaultKind, Finding, Panel, Record};

/// Counts over the records of any number of files. Memory: two hashes for each distinct puzzle.
#[derive(Default)]
pub struct Audit {
    sets: BTreeMap<(String, u32, String), Set>,
    panel: Panel,
}

#[derive(Default)]
struct Set {
    line: Line,
    /// Rows by hash of the text, and by hash of the canonical form.
    texts: HashMap<u128, u64>,
    forms: HashMap<u128, u64>,
}

/// The counts of one set of one level of one family.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Line {
    /// Empty for puzzles that no family can read.
    pub family: String,
    pub level: u32,
    pub set: String,
    pub rows: u64,
    /// Different texts.
    pub distinct_texts: u64,
    /// Different up to renaming and reordering, of those that can be read.
    pub distinct: u64,
    /// Rows of this set whose puzzle, up to renaming and reordering, is also in another set.
    pub shared: BTreeMap<String, u64>,
    pub unparseable: u64,
    /// Certified puzzles whose stored answer is not right.
    pub wrong: u64,
    /// Puzzles that cannot be certified, by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// The first fault of each kind, in words.
    pub examples: BTreeMap<String, String>,
}

impl Audit {
    pub fn add(&mut self, record: &Record) {
        let family = record.puzzle.as_ref().map_or("", |puzzle| puzzle.family.as_str());
        let key = (family.to_string(), record.level, record.set.clone());
        let set = self.sets.entry(key).or_default();
        let line = &mut set.line;
        line.rows += 1;
        *set.texts.entry(hash(&record.text)).or_default() += 1;
        let mut fault = |kind: &str, detail: String| {
            line.examples.entry(kind.into()).or_insert(detail);
        };
        let puzzle = match &record.puzzle {
            Ok(puzzle) => puzzle,
            Err(reason) => {
                line.unparseable += 1;
                return fault("unparseable", reason.clone());
            }
        };
        *set.forms.entry(hash(&puzzle.canonical())).or_default() += 1;
        self.panel.add(&format!("{family} {}", record.level), &puzzle.probes());
        let judged = match puzzle.certify() {
            Ok(_) => true,
            Err(found) => {
                fault(found.kind.as_str(), found.detail);
                *line.faults.entry(found.kind).or_default() += 1;
                matches!(found.kind, FaultKind::Leak | FaultKind::Shallow)
            }
        };
        if judged && !puzzle.accepts(&record.answer) {
            line.wrong += 1;
            line.examples
                .entry("wrong".into())
                .or_insert_with(|| format!("`{}` is stored", record.answer));
        }
    }

    /// By family, level and set.
    pub fn lines(&self) -> Vec<Line> {
        self.sets
            .iter()
            .map(|((family, level, name), set)| {
                let others = self.sets.iter().filter(|((other_family, other_level, other), _)| {
                    other_family == family && other_level == level && other != name
                });
                let shared = |other: &Set| {
                    let in_both =
                        set.forms.iter().filter(|(form, _)| other.forms.contains_key(form));
                    in_both.map(|(_, rows)| rows).sum()
                };
                Line {
                    family: family.clone(),
                    level: *level,
                    set: name.clone(),
                    distinct_texts: set.texts.len() as u64,
                    distinct: set.forms.len() as u64,
                    shared: others.map(|((.., other), set)| (other.clone(), shared(set))).collect(),
                    ..set.line.clone()
                }
            })
            .collect()
    }

    /// Each shortcut's accuracy against chance, by family and level.
    pub fn findings(&self) -> Vec<Finding> {
        self.panel.findings()
    }

    /// Whether nothing at all is wrong.
    pub fn is_clean(&self) -> bool {
        let clean = |line: &Line| {
            line.unparseable == 0
                && line.wrong == 0
                && line.faults.is_empty()
                && line.distinct == line.rows
                && line.shared.values().all(|&rows| rows == 0)
        };
        self.lines().iter().all(clean) && !self.findings().iter().any(Finding::beats_chance)
    }
}

fn hash(text: &str) -> u128 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    u128::from_le_bytes(bytes)
}
