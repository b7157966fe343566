//! `triad status --watch`: how a run goes on, from the store alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::try_join_all;
use serde_json::Value;

use super::output;
use crate::dataset::{Metric, Rollout, Row, Verdict, decode_parquet};
use crate::pipeline::{Pipeline, Stage};
use crate::report::{duration, rows, stage_of};
use crate::store::{Artifact, Key, Listed, Manifest, Store};
use crate::{Error, Result, entropy, job};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(3);
/// Objects from which a rate is taken.
const RECENT: usize = 20;
/// Rewards that a sparkline shows.
const REWARDS: usize = 30;
/// Committed stages that are listed.
const LISTED: usize = 8;

/// What is known of a run. Commits stay, so that a look asks only about what may go on: stages whose
/// inputs are all committed.
struct Watch<'a> {
    store: &'a Store,
    pipeline: &'a Pipeline,
    committed: BTreeMap<usize, Manifest>,
    /// Rewards by stage, and as of which checkpoint or artifact.
    rewards: BTreeMap<String, (String, Vec<f64>)>,
}

/// An unfinished stage's objects, summed up.
#[derive(Debug, Default, PartialEq)]
struct Going {
    /// Parts, steps or iterations that are written, of how many where that is known.
    done: u64,
    total: Option<u64>,
    unit: &'static str,
    /// Committed shards, and of how many.
    shards: Option<(u32, u32)>,
    /// A second's worth of `done`.
    rate: Option<f64>,
    last: Option<DateTime<Utc>>,
    checkpoint: Option<u64>,
}

/// Shows the run until all of it is committed: on a terminal in place, elsewhere whenever something
/// has changed.
pub(super) async fn watch(store: &Store, pipeline: &Pipeline) -> Result<()> {
    let (committed, rewards) = Default::default();
    let mut watch = Watch { store, pipeline, committed, rewards };
    let terminal = std::io::stdout().is_terminal();
    let mut before = String::new();
    loop {
        let text = watch.look(entropy::now()).await?;
        if terminal {
            let lines = text.lines().map(|line| format!("{line}\x1b[K\n")).collect::<String>();
            output::write(format!("\x1b[H{lines}\x1b[J").as_bytes())?;
        } else if text != before {
            output::line(&text)?;
        }
        before = text;
        if watch.committed.len() == pipeline.stages.len() {
            return Ok(());
        }
        tokio::time::sleep(EVERY).await;
    }
}

impl Watch<'_> {
    /// The whole view.
    async fn look(&mut self, now: DateTime<Utc>) -> Result<String> {
        let going = self.ask().await?;
        let mut lines = vec![self.head()];
        let mut active = BTreeSet::new();
        for (position, going) in &going {
            let stage = &self.pipeline.stages[*position];
            active.insert(stage_of(&stage.name));
            lines.push(line(stage, going, now));
            let rewards = self.rewards(stage, going).await?;
            if !rewards.is_empty() {
                let last = rewards.last().copied().unwrap_or_default();
                lines.push(format!("    reward {} {last:.3}", sparkline(&rewards)));
            }
        }
        lines.extend(self.made());
        let groups: BTreeSet<&str> =
            self.pipeline.stages.iter().map(|s| stage_of(&s.name)).collect();
        let whole = |name: &&str| {
            let of = |(_, s): &(usize, &Stage)| stage_of(&s.name) == *name;
            let all = self.pipeline.stages.iter().enumerate().filter(of);
            all.into_iter().all(|(at, _)| self.committed.contains_key(&at))
        };
        let waiting: Vec<&str> =
            groups.into_iter().filter(|name| !active.contains(name) && !whole(name)).collect();
        if !waiting.is_empty() {
            lines.push(format!("waiting: {}", waiting.join(", ")));
        }
        Ok(lines.join("\n"))
    }

    /// Notes new commits, and lists the objects of stages that may be going on.
    async fn ask(&mut self) -> Result<Vec<(usize, Going)>> {
        loop {
            let ready: Vec<usize> = (0..self.pipeline.stages.len())
                .filter(|at| !self.committed.contains_key(at))
                .filter(|at| {
                    // Before anything is known, all are asked for.
                    let mut from = self.pipeline.stages[*at].upstream();
                    self.committed.is_empty() || from.all(|at| self.committed.contains_key(&at))
                })
                .collect();
            let (store, stages) = (self.store, &self.pipeline.stages);
            let opened = try_join_all(ready.iter().map(|&at| async move {
                let found = Artifact::open(store, &stages[at].id).await?;
                Ok::<_, Error>(found.map(|found| (at, found.manifest)))
            }))
            .await?;
            let before = self.committed.len();
            self.committed.extend(opened.into_iter().flatten());
            if self.committed.len() > before {
                continue; // what is made from them may be committed as well
            }
            let ready = ready
                .into_iter()
                .filter(|at| stages[*at].upstream().all(|from| self.committed.contains_key(&from)));
            let listed = try_join_all(ready.map(|at| async move {
                Ok::<_, Error>((at, store.listed(&stages[at].id).await?))
            }))
            .await?;
            let going = listed.into_iter().map(|(at, listed)| (at, self.going(at, &listed)));
            return Ok(going.filter(|(_, going)| going.last.is_some()).collect());
        }
    }

    fn going(&self, at: usize, listed: &[Listed]) -> Going {
        let stage = &self.pipeline.stages[at];
        let job = stage.job.name();
        let mut going = Going::of(job, listed);
        going.total = self.total(stage);
        if let Some((_, of)) = going.shards.as_mut()
            && stage.shards > 1
        {
            *of = stage.shards;
        }
        going
    }

    /// How many of its units a stage has, where that follows from parameters and inputs.
    fn total(&self, stage: &Stage) -> Option<u64> {
        let params = &stage.params;
        let number = |key: &str| params[key].as_u64();
        let inputs = |port: &str| -> Vec<&Manifest> {
            let named = stage.inputs.get(port).into_iter().flat_map(|named| named.values());
            named.filter_map(|at| self.committed.get(at)).collect()
        };
        match stage.job.name() {
            "rl" => {
                let lessons = params["curriculum"].as_array()?;
                Some(lessons.iter().filter_map(|lesson| lesson["steps"].as_u64()).sum())
            }
            "sft" => number("steps"),
            "rollout" | "evaluate" => {
                let block = number("block").filter(|block| *block > 0)?;
                let parts = |manifest: &Manifest| manifest.rows("tasks").div_ceil(block);
                Some(inputs("tasks").into_iter().map(parts).sum())
            }
            "verify" | "score" => {
                let parts = |manifest: &Manifest| manifest.parts(Rollout::NAME).count() as u64;
                Some(inputs("rollouts").into_iter().map(parts).sum())
            }
            _ => None,
        }
    }

    fn head(&self) -> String {
        let all = self.pipeline.stages.len();
        let seconds: f64 = self.committed.values().map(|m| m.producer.seconds).sum();
        format!(
            "{}: {} of {all} stages committed, {} of work",
            self.pipeline.name,
            self.committed.len(),
            duration(seconds)
        )
    }

    /// The stages that were committed last, the rounds of one as one.
    fn made(&self) -> Vec<String> {
        let mut groups: BTreeMap<&str, (DateTime<Utc>, f64, usize, String)> = BTreeMap::new();
        for (at, manifest) in &self.committed {
            let name = stage_of(&self.pipeline.stages[*at].name);
            let producer = &manifest.producer;
            let empty = (producer.started, 0.0, 0, String::new());
            let (started, seconds, parts, summary) = groups.entry(name).or_insert(empty);
            if producer.started >= *started {
                (*started, *summary) = (producer.started, output::summary(manifest));
            }
            *seconds += producer.seconds;
            *parts += 1;
        }
        let mut sorted: Vec<_> = groups.into_iter().collect();
        sorted.sort_by_key(|(_, (started, ..))| std::cmp::Reverse(*started));
        let more = sorted.len().saturating_sub(LISTED);
        let mut lines: Vec<String> = sorted
            .into_iter()
            .take(LISTED)
            .map(|(name, (_, seconds, parts, summary))| {
                let parts = if parts > 1 { format!(" ({parts} artifacts)") } else { String::new() };
                format!("  ✓ {name}{parts}  {}  {summary}", duration(seconds)).trim_end().into()
            })
            .collect();
        if more > 0 {
            lines.push(format!("  ✓ and {more} more"));
        }
        lines
    }

    /// The last rewards of a training run: of its newest checkpoint, or in rounds of the newest
    /// update.
    async fn rewards(&mut self, stage: &Stage, going: &Going) -> Result<Vec<f64>> {
        let name = stage_of(&stage.name).to_string();
        let mut updates = self.committed.iter().filter(|(at, manifest)| {
            manifest.job() == "update" && stage_of(&self.pipeline.stages[**at].name) == name
        });
        let newest = updates.next_back().map(|(_, manifest)| manifest.clone());
        let version = match (&newest, going.checkpoint) {
            (Some(manifest), _) => manifest.id.to_string(),
            (None, Some(step)) => step.to_string(),
            (None, None) => return Ok(Vec::new()),
        };
        if self.rewards.get(&name).is_none_or(|(known, _)| *known != version) {
            let metrics: Vec<Metric> = match newest {
                Some(manifest) => {
                    rows(&Artifact { store: self.store.clone(), manifest }, false).await?
                }
                None => match self.store.latest_state(&stage.id, job::METRICS).await? {
                    Some(bytes) => decode_parquet(bytes)?,
                    None => Vec::new(),
                },
            };
            let rewards = metrics.iter().filter(|m| m.level == 0 && m.name == "reward");
            let rewards = rewards.map(|m| m.value).collect();
            self.rewards.insert(name.clone(), (version, rewards));
        }
        let rewards = self.rewards.get(&name).map_or(&[][..], |(_, rewards)| rewards);
        Ok(rewards[rewards.len().saturating_sub(REWARDS)..].to_vec())
    }
}

impl Going {
    /// From everything below an artifact's folder.
    fn of(job: &str, listed: &[Listed]) -> Self {
        // Iterations are counted by their rollouts, parts by the dataset that has the most.
        let mut parts: BTreeMap<&str, BTreeMap<u64, DateTime<Utc>>> = BTreeMap::new();
        let (mut steps, mut shards) = (BTreeMap::new(), BTreeSet::new());
        let mut of_shards = None;
        for object in listed {
            match &object.key {
                Some(Key::Data { path, .. }) => {
                    let Some((dataset, file)) = path.split_once('/') else { continue };
                    let number = file.strip_suffix(".parquet").and_then(|n| n.parse().ok());
                    let Some(number) = number else { continue };
                    let known = parts.entry(dataset).or_default().entry(number);
                    let time = known.or_insert(object.modified);
                    *time = (*time).max(object.modified);
                }
                Some(Key::Step { step, .. }) => {
                    steps.insert(*step, object.modified);
                }
                Some(Key::Shard { index, of, .. }) => {
                    shards.insert(*index);
                    of_shards = Some(*of);
                }
                _ => {}
            }
        }
        let written = parts.get(Verdict::NAME).filter(|_| job == "rl");
        let most = written.or_else(|| parts.values().max_by_key(|parts| parts.len()));
        let (unit, times): (_, &BTreeMap<u64, DateTime<Utc>>) = match (job, most) {
            ("sft", _) | (_, None) => ("steps", &steps),
            ("rl", Some(parts)) => ("iterations", parts),
            (_, Some(parts)) => ("parts", parts),
        };
        let done = match unit {
            "steps" => times.keys().next_back().copied().unwrap_or(0),
            _ => times.len() as u64,
        };
        let mut recent: Vec<(DateTime<Utc>, u64)> =
            times.iter().map(|(number, time)| (*time, *number)).collect();
        recent.sort();
        let recent = &recent[recent.len().saturating_sub(RECENT)..];
        let rate = match recent {
            [(first, from), .., (last, to)] => {
                let more =
                    if unit == "steps" { to - from.min(to) } else { recent.len() as u64 - 1 };
                let seconds = (*last - *first).as_seconds_f64();
                (seconds > 0.0 && more > 0).then(|| more as f64 / seconds)
            }
            _ => None,
        };
        Self {
            done,
            total: None,
            unit,
            shards: of_shards.map(|of| (shards.len() as u32, of)),
            rate,
            last: listed.iter().map(|object| object.modified).max(),
            checkpoint: steps.keys().next_back().copied(),
        }
    }
}

/// `  ▸ name  job  3/12 parts  shards 1/4  0.5/s, 18 s left  last write 2 s ago`.
fn line(stage: &Stage, going: &Going, now: DateTime<Utc>) -> String {
    let mut parts = vec![format!("  ▸ {}", stage.name), stage.job.name().to_string()];
    match going.total {
        Some(total) => parts.push(format!("{}/{total} {}", going.done, going.unit)),
        None if going.done > 0 => parts.push(format!("{} {}", going.done, going.unit)),
        None => {}
    }
    if let Some((done, of)) = going.shards {
        parts.push(format!("shards {done}/{of}"));
    }
    if let Some(rate) = going.rate {
        let mut text = match rate {
            1.0.. => format!("{}/s", output::text(&Value::from(rate))),
            _ => format!("{} each", duration(1.0 / rate)),
        };
        if let Some(total) = going.total {
            let left = total.saturating_sub(going.done) as f64 / rate;
            text += &format!(", {} left", duration(left));
        }
        parts.push(text);
    }
    if let Some(step) = going.checkpoint.filter(|_| going.unit != "steps") {
        parts.push(format!("checkpoint {step}"));
    }
    if let Some(last) = going.last {
        // Two machines' clocks may differ.
        let age = (now - last).as_seconds_f64().max(0.0);
        parts.push(format!("last write {} ago", duration(age)));
    }
    parts.join("  ")
}

/// One block for each value, as high as it lies between the least and the greatest.
fn sparkline(values: &[f64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let block = |value: &f64| {
        let share = if high > low { (value - low) / (high - low) } else { 0.5 };
        BLOCKS[((share * 7.0).round() as usize).min(7)]
    };
    values.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ArtifactId;
    use chrono::TimeDelta;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn listed(key: impl Fn(ArtifactId) -> Key, seconds: i64) -> Listed {
        let key = key(ArtifactId::of(&Value::Null));
        Listed { path: key.to_string(), key: Some(key), size: 1, modified: at(seconds) }
    }

    fn part(path: &str, attempt: &str, seconds: i64) -> Listed {
        let data = |id| Key::Data { id, attempt: attempt.into(), path: path.into() };
        listed(data, seconds)
    }

    #[test]
    fn progress_and_rate_follow_from_the_objects() {
        let mut objects: Vec<Listed> =
            (0..5).map(|i| part(&format!("verdicts/{i:05}.parquet"), "a", 10 * i)).collect();
        // Another attempt went on at the third iteration.
        objects
            .extend((2..8).map(|i| part(&format!("verdicts/{i:05}.parquet"), "b", 100 + 10 * i)));
        objects.push(part("model.safetensors", "b", 175));
        objects.push(listed(|id| Key::Step { id, step: 2 }, 20));
        let going = Going::of("rl", &objects);
        assert_eq!((going.done, going.unit, going.checkpoint), (8, "iterations", Some(2)));
        assert_eq!(going.last, Some(at(175)));
        // Two of the first attempt, six of the second: 7 more in 170 seconds.
        assert!((going.rate.unwrap() - 7.0 / 170.0).abs() < 1e-9);

        let steps = [(50, 0), (100, 60)].map(|(step, s)| listed(|id| Key::Step { id, step }, s));
        let going = Going::of("sft", &steps);
        assert_eq!((going.done, going.unit), (100, "steps"));
        assert!((going.rate.unwrap() - 50.0 / 60.0).abs() < 1e-9);

        let shards = [0, 3].map(|index| listed(|id| Key::Shard { id, index, of: 4 }, 5));
        assert_eq!(Going::of("rollout", &shards).shards, Some((2, 4)));
        assert_eq!(Going::of("rollout", &[]), Going { unit: "steps", ..Going::default() });
    }

    #[test]
    fn sparklines_span_what_they_show() {
        assert_eq!(sparkline(&[-3.0, 0.0, 3.0]), "▁▅█");
        assert_eq!(sparkline(&[1.0, 1.0]), "▅▅");
        assert_eq!(sparkline(&[]), "");
    }
}
