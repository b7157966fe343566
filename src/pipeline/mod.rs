//! Pipelines: a YAML file becomes checked stages with known ids, then a plan, then a run.

mod launch;
mod overrides;
mod parse;
mod plan;
mod resolve;
mod run;
#[cfg(test)]
mod tests;
mod write;
mod yaml;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use triad_launch::duration;

use crate::id::ArtifactId;
use crate::job::Job;
use crate::nearest::hint;
use crate::{Error, Result};

pub use launch::{Launch, launch};
pub use plan::{Plan, State, plan};
pub use run::{Ending, Observer, RunOptions, StageEnd, await_inputs, run, run_stage, worst};
pub use write::write;
pub use yaml::read_text;

/// What a stage asks of the machine that runs it. Outside its identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// With 0 the stage runs on the CPU whatever device the run is given.
    pub gpus: Option<u32>,
    pub cpus: Option<u32>,
    /// Bytes: a number, or a text such as `16G`.
    #[serde(default, deserialize_with = "memory")]
    pub memory: Option<u64>,
    /// Longest duration, such as `2h`.
    #[serde(default, deserialize_with = "time")]
    pub time: Option<Duration>,
}

fn memory<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let size = Option::<ByteSize>::deserialize(from).map_err(|_| {
        serde::de::Error::custom("memory: give a number of bytes, or a text such as 16G or 512MiB")
    });
    Ok(size?.map(|size| size.as_u64()))
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let wrong = |why| serde::de::Error::custom(format!("time: {why}"));
    let text =
        Option::<String>::deserialize(from).map_err(|_| wrong("give a text such as 2h".into()))?;
    text.as_deref().map(duration).transpose().map_err(wrong)
}

/// Where a stage runs. What it makes does not depend on the number of shards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Placement {
    /// In one process.
    #[default]
    Fused,
    /// In so many processes, each of which does its share.
    Shards(NonZeroU32),
    /// Step by step, each step a stage of its own, with so many processes where there is a share for
    /// each.
    Rounds { shards: NonZeroU32 },
}

/// A stage with resolved parameters and known id.
pub struct Stage {
    pub name: String,
    pub job: &'static dyn Job,
    /// With defaults filled in.
    pub params: Value,
    /// Positions in [`Pipeline::stages`] by port and name. A port that takes one artifact calls
    /// it by the port's own name, so that renaming a stage changes no identity.
    pub inputs: BTreeMap<String, BTreeMap<String, usize>>,
    pub resources: Resources,
    /// Processes that share it.
    pub shards: u32,
    /// What the id is the hash of.
    pub identity: Value,
    pub id: ArtifactId,
}

/// A checked pipeline: no cycle, every port wired with an artifact kind that it accepts.
pub struct Pipeline {
    /// As given on the command line.
    pub file: String,
    pub name: String,
    /// In the order of the file; a stage in rounds is a stage for each of their steps, `name.1.draw`
    /// and so on, and the last has its name.
    pub stages: Vec<Stage>,
    /// A pipeline file that needs nothing beside it: parameters resolved, files' texts in their place.
    /// Its stages have the same ids.
    pub text: String,
}

impl Pipeline {
    /// Reads the pipeline file at `path` with the overrides `sets` (`stage.key=value`).
    pub fn load(path: &Path, sets: &[String], kinds: &[&'static dyn Job]) -> Result<Self> {
        let file = path.display().to_string();
        let text = yaml::read_text(path)
            .map_err(|e| Error::usage(format!("pipeline file `{file}`: {e}")))?;
        Self::parse(&file, &text, sets, kinds)
    }

    /// As [`Pipeline::load`], with the file's text given.
    ///
    /// # Errors
    /// [`Error::Usage`] beginning with `file:line` (or the override) at the first mistake.
    pub fn parse(
        file: &str,
        text: &str,
        sets: &[String],
        kinds: &[&'static dyn Job],
    ) -> Result<Self> {
        let mut raw = parse::parse(file, text)?;
        overrides::apply(&mut raw, sets, kinds)?;
        resolve::resolve(raw, kinds)
    }

    /// Position of the stage called `name`.
    pub fn position(&self, name: &str) -> Result<usize> {
        self.stages.iter().position(|stage| stage.name == name).ok_or_else(|| {
            let hint = hint(name, self.stages.iter().map(|stage| stage.name.as_str()));
            Error::usage(format!("no stage `{name}` in {}{hint}", self.file))
        })
    }

    /// The positions of all stages, each after those it is made from.
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = Vec::with_capacity(self.stages.len());
        while order.len() < self.stages.len() {
            let ready = |at: &usize| {
                !order.contains(at) && self.stages[*at].upstream().all(|from| order.contains(&from))
            };
            // There is one, as a checked pipeline has no cycle.
            let Some(next) = (0..self.stages.len()).find(ready) else { break };
            order.push(next);
        }
        order
    }

    /// Which stages are wanted: all, or `until` and everything it is made from.
    pub fn select(&self, until: Option<&str>) -> Result<Vec<bool>> {
        let Some(until) = until else { return Ok(vec![true; self.stages.len()]) };
        let mut wanted = vec![false; self.stages.len()];
        let mut todo = vec![self.position(until)?];
        while let Some(stage) = todo.pop() {
            if !std::mem::replace(&mut wanted[stage], true) {
                todo.extend(self.stages[stage].upstream());
            }
        }
        Ok(wanted)
    }
}

impl Stage {
    /// Positions of the stages it is made from.
    pub fn upstream(&self) -> impl Iterator<Item = usize> {
        self.inputs.values().flat_map(|named| named.values().copied())
    }
}
