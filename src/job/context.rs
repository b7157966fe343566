//! What a running job sees of the world.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::dataset::{Row, decode_parquet, encode_part};
use crate::id::ArtifactId;
use crate::server::Endpoint;
use crate::store::{Artifact, Attempt, SchemaRef};
use crate::{Error, Result};

/// A named input artifact.
#[derive(Debug, Clone)]
pub struct Input {
    pub name: String,
    pub artifact: Artifact,
}

/// The input artifacts by port, in the order of their names.
pub type Inputs = BTreeMap<String, Vec<Input>>;

/// Which part of the work this process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    pub index: u32,
    pub of: u32,
}

impl Shard {
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Whether part number `part` of the output is this shard's.
    pub fn owns(self, part: usize) -> bool {
        part % self.of as usize == self.index as usize
    }
}

/// Set on SIGTERM: the job commits a checkpoint and leaves with [`Error::TryAgain`].
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error that ends the job when the process was asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.requested() {
            return Err(Error::try_again("stopped on request; run the same command to continue"));
        }
        Ok(())
    }
}

/// Where progress goes: bars on a terminal, log lines elsewhere.
pub trait ProgressSink: Send + Sync {
    /// `done` of `total` `unit`s in `stage`, with a few words on how it goes.
    fn update(&self, stage: &str, unit: &str, done: u64, total: u64, note: &str);
}

/// One stage's handle on the sink.
#[derive(Clone)]
pub struct Progress {
    pub stage: String,
    pub sink: Arc<dyn ProgressSink>,
}

impl Progress {
    pub fn update(&self, unit: &str, done: u64, total: u64, note: &str) {
        self.sink.update(&self.stage, unit, done, total, note);
    }
}

/// A running job's inputs, output and surroundings.
pub struct Context {
    pub id: ArtifactId,
    /// Resolved parameters.
    pub params: Value,
    pub inputs: Inputs,
    pub shard: Shard,
    /// `cpu`, `cuda:N`, or `server` where one samples.
    pub device: String,
    pub server: Option<Endpoint>,
    pub stop: StopFlag,
    pub progress: Progress,
    /// Goes into the manifest. Of a sharded job, only counts (`u64`) are kept, added up.
    pub summary: BTreeMap<String, Value>,
    /// Goes into the manifest's producer record, never into a data object.
    pub timings: BTreeMap<String, f64>,
    /// How the query of a `filter` was understood; in the producer record as well.
    pub plan: Option<String>,
    /// Datasets written so far.
    pub datasets: BTreeMap<String, SchemaRef>,
    pub attempt: Attempt,
    pub runtime: tokio::runtime::Handle,
}

/// The object of part `part` of dataset `R`.
pub fn part_path<R: Row>(part: usize) -> String {
    format!("{}/{part:05}.parquet", R::NAME)
}

impl Context {
    /// Runs a store operation to its end.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// The parameters as the job's own spec struct.
    pub fn spec<S: DeserializeOwned>(&self) -> Result<S> {
        serde_json::from_value(self.params.clone()).map_err(Error::defect)
    }

    /// The artifacts of `port`, in the order of their names. Empty for an unused optional port.
    pub fn inputs(&self, port: &str) -> &[Input] {
        self.inputs.get(port).map_or(&[], Vec::as_slice)
    }

    /// The one artifact of `port`.
    pub fn input(&self, port: &str) -> Result<&Artifact> {
        self.inputs(port)
            .first()
            .map(|input| &input.artifact)
            .ok_or_else(|| Error::defect(format!("port `{port}` has no input")))
    }

    /// All rows of dataset `R` in `artifact`.
    pub fn read<R: Row>(&self, artifact: &Artifact) -> Result<Vec<R>> {
        let manifest = &artifact.manifest;
        if !manifest.datasets.contains_key(R::NAME) {
            return Err(Error::data(format!(
                "artifact {} ({}) has no dataset `{}`",
                manifest.id.short(),
                manifest.job(),
                R::NAME
            )));
        }
        let mut rows = Vec::new();
        for object in manifest.parts(R::NAME) {
            let bytes = self.wait(artifact.read(&object.path))?;
            let place = format!("artifact {} {}", manifest.id.short(), object.path);
            rows.append(&mut decode_parquet(bytes).map_err(|e| e.at(place))?);
        }
        Ok(rows)
    }

    /// Those of all artifacts of `port`, in the order of their names.
    pub fn read_all<R: Row>(&self, port: &str) -> Result<Vec<R>> {
        let mut rows = Vec::new();
        for input in self.inputs(port) {
            rows.append(&mut self.read(&input.artifact)?);
        }
        Ok(rows)
    }

    /// Says that the artifact has dataset `R`.
    pub(super) fn declare<R: Row>(&mut self) {
        let schema = SchemaRef { schema: R::NAME.into(), version: R::VERSION };
        self.datasets.insert(R::NAME.into(), schema);
    }

    /// Writes part `part` of dataset `R`: the object `<dataset>/<part>.parquet`.
    pub fn write<R: Row>(&mut self, part: usize, rows: &[R]) -> Result<()> {
        self.declare::<R>();
        let encoded = encode_part::<R>(&R::encode(rows)?)?;
        let runtime = self.runtime.clone();
        runtime.block_on(self.attempt.write_part(&part_path::<R>(part), encoded))
    }

    /// Writes any other object.
    pub fn write_object(&mut self, path: &str, bytes: Bytes) -> Result<()> {
        let runtime = self.runtime.clone();
        runtime.block_on(self.attempt.write(path, bytes, None))
    }

    /// Reads an object that a shard has written for whoever completes the artifact, and takes it out
    /// of the artifact.
    pub fn take(&mut self, path: &str) -> Result<Bytes> {
        let runtime = self.runtime.clone();
        runtime.block_on(self.attempt.take(path))
    }

    /// Commits a checkpoint inside a long job.
    pub fn commit_step(&mut self, step: u64, state: Vec<(String, Bytes)>) -> Result<()> {
        let runtime = self.runtime.clone();
        runtime.block_on(self.attempt.commit_step(step, state, &self.datasets, &self.summary))
    }

    /// The newest checkpoint of an earlier attempt: its step and state objects. The objects,
    /// datasets and summary of that attempt up to there count as this one's.
    pub fn resume(&mut self) -> Result<Option<(u64, Vec<(String, Bytes)>)>> {
        let runtime = self.runtime.clone();
        let Some(found) = runtime.block_on(self.attempt.resume())? else { return Ok(None) };
        self.datasets = found.datasets;
        self.summary = found.summary;
        Ok(Some((found.step, found.state)))
    }

    /// An error that ends the job when the process was asked to stop.
    pub fn check_stop(&self) -> Result<()> {
        self.stop.check()
    }

    pub fn summarize(&mut self, name: &str, value: impl Into<Value>) {
        self.summary.insert(name.into(), value.into());
    }
}
