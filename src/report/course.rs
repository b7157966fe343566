//! What a run did: its stages with their times, sizes and costs. None of it is in the committed
//! report, whose bytes must not depend on when and where a stage ran.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::table::{Cell, Column, Row, Table};
use crate::dataset::{Rollout, Row as _};
use crate::id::ArtifactId;
use crate::store::Manifest;

/// A pause after which work counts as another sitting.
const PAUSE: TimeDelta = TimeDelta::minutes(5);

/// Money per hour: of any device, or of those whose names begin with a word (`cuda`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prices(pub Vec<(String, f64)>);

/// A stage, or all rounds of one.
#[derive(Debug, Clone)]
pub struct Stage {
    pub name: String,
    pub id: ArtifactId,
    pub job: String,
    pub device: String,
    pub started: DateTime<Utc>,
    pub seconds: f64,
    pub bytes: u64,
    /// Artifacts: more than one in rounds.
    pub parts: usize,
    pub rates: BTreeMap<String, f64>,
    /// Positions of the stages it is made from.
    pub from: BTreeSet<usize>,
    /// In which stretch of work it was made, from 1.
    pub sitting: usize,
    /// Other pipelines that have the same artifact.
    pub also: Vec<String>,
    /// Iterations that another attempt went on with, after one that was killed.
    pub resumed: Vec<u32>,
    /// `triad` and the commit that it was built from.
    pub made_by: String,
}

/// A run's stages in the order in which they were begun.
#[derive(Debug, Clone, Default)]
pub struct Course {
    pub stages: Vec<Stage>,
    pub sittings: usize,
    pub prices: Prices,
}

impl Prices {
    pub fn cost(&self, device: &str, seconds: f64) -> Option<f64> {
        let fits = |(name, _): &&(String, f64)| device.starts_with(name.as_str());
        // The longest name is the most special.
        let (_, price) = self.0.iter().filter(fits).max_by_key(|(name, _)| name.len())?;
        Some(price * seconds / 3600.0)
    }
}

/// The stage that a step of its rounds belongs to: `specialist` for `specialist.3.update`.
pub fn stage_of(stage: &str) -> &str {
    stage.split_once('.').map_or(stage, |(whole, _)| whole)
}

impl Course {
    /// Of the named artifacts of a run. `also`: the other pipelines that name an artifact.
    pub fn new(
        named: &[(String, Manifest)],
        also: &BTreeMap<ArtifactId, Vec<String>>,
        prices: Prices,
    ) -> Self {
        let mut stages: Vec<Stage> = Vec::new();
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let mut sorted: Vec<_> = named.iter().collect();
        sorted.sort_by_key(|(name, manifest)| (manifest.producer.started, name));
        for (name, manifest) in &sorted {
            let stage = Stage::new(name, manifest, also);
            match places.get(stage_of(name)) {
                Some(&at) => stages[at].add(stage, name == stage_of(name)),
                None => {
                    places.insert(stage_of(name), stages.len());
                    stages.push(stage);
                }
            }
        }
        let owner: BTreeMap<&ArtifactId, usize> = sorted
            .iter()
            .filter_map(|(name, manifest)| Some((&manifest.id, *places.get(stage_of(name))?)))
            .collect();
        for (name, manifest) in &sorted {
            let Some(&at) = places.get(stage_of(name)) else { continue };
            let inputs = manifest.inputs().filter_map(|id| owner.get(&id).copied());
            stages[at].from.extend(inputs.filter(|from| *from != at));
        }
        let mut course = Self { stages, sittings: 0, prices };
        course.sit();
        course
    }

    /// Numbers the sittings.
    fn sit(&mut self) {
        let mut end: Option<DateTime<Utc>> = None;
        for stage in &mut self.stages {
            if end.is_none_or(|end| stage.started - end > PAUSE) {
                self.sittings += 1;
            }
            stage.sitting = self.sittings;
            let own = stage.started + TimeDelta::milliseconds((1e3 * stage.seconds) as i64);
            end = end.max(Some(own));
        }
    }

    /// Whether the run found the stage made: by another pipeline, or in an earlier sitting.
    pub fn reused(&self, stage: &Stage) -> bool {
        !stage.also.is_empty() || stage.sitting < self.sittings
    }

    pub fn resumed(&self) -> BTreeMap<&str, &[u32]> {
        self.stages.iter().map(|stage| (&stage.name[..], &stage.resumed[..])).collect()
    }

    pub fn seconds(&self) -> f64 {
        self.stages.iter().map(|stage| stage.seconds).sum()
    }

    pub fn cost(&self) -> Option<f64> {
        let of = |stage: &Stage| self.prices.cost(&stage.device, stage.seconds);
        self.stages.iter().filter_map(of).reduce(|a, b| a + b)
    }

    pub fn table(&self) -> Table {
        let priced = !self.prices.0.is_empty();
        let mut columns = vec![Column::text("stage")];
        columns.extend(["job", "device"].map(Column::text));
        columns.extend(["time", "size"].map(Column::number));
        if priced {
            columns.push(Column::number("cost"));
        }
        columns.extend(["sampled tokens/s", "trained tokens/s"].map(Column::number));
        columns.push(Column::text("reused"));
        let row = |stage: &Stage| {
            let rate = |name: &str| {
                Cell::new(stage.rates.get(name).map_or("–".into(), |rate| format!("{rate:.0}")))
            };
            let mut cells = vec![Cell::new(&stage.job), Cell::new(&stage.device)];
            cells.extend([Cell::new(duration(stage.seconds)), Cell::new(size(stage.bytes))]);
            if priced {
                let cost = self.prices.cost(&stage.device, stage.seconds);
                cells.push(Cell::new(cost.map_or("–".into(), |cost| format!("{cost:.2}"))));
            }
            cells.push(rate("sample_tokens_per_second"));
            cells.push(rate("train_tokens_per_second"));
            cells.push(Cell::new(self.reuse(stage)));
            let under = match stage.parts {
                1 => String::new(),
                parts => format!("in rounds, {parts} artifacts"),
            };
            Row { under, ..Row::new(&stage.name, cells) }
        };
        Table {
            title: "Stages".into(),
            note: self.note(),
            columns,
            rows: self.stages.iter().map(row).collect(),
        }
    }

    fn reuse(&self, stage: &Stage) -> String {
        match &stage.also[..] {
            [] if stage.sitting < self.sittings => format!("from sitting {}", stage.sitting),
            [] => String::new(),
            also => format!("also in {}", also.join(", ")),
        }
    }

    fn note(&self) -> String {
        let mut note =
            format!("As measured when each stage ran; {} of work", duration(self.seconds()));
        if let Some(cost) = self.cost() {
            note += &format!(", which cost {cost:.2}");
        }
        note += " in all.";
        if self.sittings > 1 {
            note += &format!(
                " Made in {} sittings, with pauses of more than 5 minutes between: what an earlier one \
                 made, the last reused.",
                self.sittings
            );
        }
        let reused: f64 =
            self.stages.iter().filter(|stage| self.reused(stage)).map(|stage| stage.seconds).sum();
        if reused > 0.0 {
            note += &format!(" {} of it was found made.", duration(reused));
        }
        note
    }
}

impl Stage {
    fn new(name: &str, manifest: &Manifest, also: &BTreeMap<ArtifactId, Vec<String>>) -> Self {
        let producer = &manifest.producer;
        let commit = producer.commit.as_ref().map(|commit| format!(" {commit}"));
        Self {
            name: stage_of(name).into(),
            id: manifest.id.clone(),
            job: manifest.job().into(),
            device: producer.device.clone(),
            started: producer.started,
            seconds: producer.seconds,
            bytes: manifest.bytes(),
            parts: 1,
            rates: producer.timings.clone(),
            from: BTreeSet::new(),
            sitting: 0,
            also: also.get(&manifest.id).cloned().unwrap_or_default(),
            resumed: resumed(manifest),
            made_by: format!("{}{}", producer.triad, commit.unwrap_or_default()),
        }
    }

    /// Takes in another of its rounds; `whole` is the one that has the stage's own name.
    fn add(&mut self, other: Self, whole: bool) {
        self.seconds += other.seconds;
        self.bytes += other.bytes;
        self.parts += 1;
        if whole {
            self.id = other.id;
        }
        if other.device != "cpu" {
            self.device = other.device;
        }
        // The one that has the stage's name is only the last of its steps.
        match &other.job[..] {
            "draw" | "update" => self.job = "rl".into(),
            job if job.starts_with("merge-") => self.job = "merge-search".into(),
            _ => {}
        }
        self.rates.extend(other.rates);
    }
}

/// The iterations, from 1, whose rollouts another attempt wrote than the ones before.
fn resumed(manifest: &Manifest) -> Vec<u32> {
    if manifest.job() != "rl" {
        return Vec::new();
    }
    let attempts: Vec<&str> = manifest.parts(Rollout::NAME).map(|part| &part.attempt[..]).collect();
    let changed = |(at, pair): (usize, &[&str])| (pair[0] != pair[1]).then_some(at as u32 + 2);
    attempts.windows(2).enumerate().filter_map(changed).collect()
}

/// `4.2 s`, `3 min 05 s`, `2 h 07 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `512 B`, `3.4 MB`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit < 4 {
        value /= 1000.0;
        unit += 1;
    }
    let name = ["B", "kB", "MB", "GB", "TB"][unit];
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {name}") }
}
