//! Job kinds: the data path, one file per kind, and the driver they share.
//!
//! A job is synchronous and runs on one OS thread of its own, which owns every tensor it makes;
//! it reaches the asynchronous store through [`Context::wait`].

pub mod context;
pub mod cuts;
mod deltas;
mod demonstrate;
pub mod draw;
pub mod driver;
pub mod engine;
pub mod evaluate;
mod filter;
mod generate;
mod import_checkpoint;
mod import_tasks;
mod init;
mod merge;
mod merge_search;
pub mod models;
pub mod prompt;
mod report;
pub mod rl;
pub mod rollout;
mod rounds;
mod score;
pub mod select;
pub mod served;
pub mod sft;
pub mod update;
pub mod verify;

pub use context::{Context, Input, Inputs, Progress, ProgressSink, Shard, StopFlag};
pub use driver::{Outcome, Run, identity, run, run_again};
pub use merge::Watching;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::dataset::{Rejected, Row};
use crate::store::{Artifact, Manifest};
use crate::{Error, Result};

/// Rows in one part of a dataset. Parts are the unit of sharding, so their size is fixed.
const PART_ROWS: usize = 4096;

/// In the checkpoints of a training run: its metrics so far, as it commits them at its end.
pub const METRICS: &str = "metrics.parquet";

/// How many artifacts a port takes. Each is given as `name: stage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    One,
    Optional,
    /// At least one.
    Many,
    /// Any number, none included.
    Any,
}

/// An input of a job kind.
#[derive(Debug, Clone, Copy)]
pub struct Port {
    pub name: &'static str,
    /// The artifact kinds it accepts.
    pub accepts: &'static [&'static str],
    pub arity: Arity,
}

/// What an input is to be made by.
pub struct Made<'a> {
    pub port: &'a str,
    pub job: &'static str,
    pub params: &'a Value,
}

/// One of the jobs that a stage consists of when it runs in rounds. The last makes what the stage
/// makes.
pub struct Part {
    /// Its name behind the stage's.
    pub name: String,
    pub job: &'static dyn Job,
    pub params: Value,
    /// By port and name.
    pub inputs: Vec<(&'static str, String, From)>,
    pub shards: u32,
    /// Whether it computes on the stage's device.
    pub device: bool,
}

/// What a part is made from.
#[derive(Clone, Copy)]
pub enum From {
    /// The stage's own input at this port.
    Port(&'static str),
    /// All of its inputs at this port, under their own names.
    Ports(&'static str),
    /// Another part, by position.
    Part(usize),
}

/// A job kind: what the planner and the driver need to know of it.
pub trait Job: Sync {
    /// The name in a pipeline's `job:`.
    fn name(&self) -> &'static str;
    /// Bumped when the output for the same parameters and inputs changes.
    fn version(&self) -> u32;
    fn ports(&self) -> &'static [Port];
    /// The artifact kind it makes.
    fn output(&self) -> &'static str;
    /// The same for a kind whose output depends on its resolved parameters (`filter`).
    fn output_for(&self, _params: &Value) -> &'static str {
        self.output()
    }
    /// Whether `--shard I/N` is allowed.
    fn shardable(&self) -> bool {
        false
    }
    /// Checks the parameters and fills in the defaults: the `params` of the identity.
    fn resolve(&self, raw: &Value) -> Result<Value>;
    /// Checks the parameters against those of the stages that it is made from.
    fn check(&self, _params: &Value, _inputs: &[Made]) -> Result<()> {
        Ok(())
    }
    /// The jobs that do the same in rounds, `shards` at a time where they can; `ports` are those that
    /// are wired.
    fn rounds(&self, _params: &Value, _shards: u32, _ports: &[&str]) -> Result<Vec<Part>> {
        Err(Error::usage(format!("job `{}` has no rounds; `rl` has", self.name())))
    }
    /// Whether a stage of this kind always runs as its [`Job::rounds`].
    fn has_parts(&self) -> bool {
        false
    }
    /// Files and folders of this machine that it reads.
    fn files(&self, _params: &Value) -> Vec<String> {
        Vec::new()
    }
    /// Whether it needs an [`engine`] with these parameters.
    fn computes(&self, _params: &Value) -> bool {
        false
    }
    fn run(&self, context: &mut Context) -> Result<()>;
    /// After the last shard, in whichever process finds them all committed: what takes all of them
    /// to decide. Two processes may do it at once, so it must come to the same in both.
    fn complete(&self, _context: &mut Context) -> Result<()> {
        Ok(())
    }
}

/// Every job kind.
pub fn kinds() -> &'static [&'static dyn Job] {
    &[
        &generate::Generate,
        &import_tasks::ImportTasks,
        &import_checkpoint::ImportCheckpoint,
        &init::Init,
        &demonstrate::Demonstrate,
        &sft::Sft,
        &rl::Rl,
        &draw::Draw,
        &select::Select,
        &update::Update,
        &rollout::RolloutJob,
        &verify::Verify,
        &merge::Merge,
        &merge_search::MergeSearch,
        &merge_search::Try,
        &merge_search::Choose,
        &merge_search::Best,
        &deltas::Deltas,
        &evaluate::Evaluate,
        &score::ScoreJob,
        &filter::Filter,
        &report::Report,
    ]
}

/// The job kind called `name`.
pub fn kind(name: &str) -> Result<&'static dyn Job> {
    kinds().iter().copied().find(|job| job.name() == name).ok_or_else(|| {
        let known: Vec<_> = kinds().iter().map(|job| job.name()).collect();
        Error::usage(format!("no job kind `{name}`; there are {}", known.join(", ")))
    })
}

/// Computes a rejected update again on `device`: its loss and gradient norm.
///
/// # Errors
/// `Usage` for any other artifact, `Data` where the checkpoint it began with is gone.
pub async fn replay(artifact: Artifact, device: String) -> Result<(f64, f64)> {
    let Manifest { id, kind, .. } = &artifact.manifest;
    if kind != Rejected::NAME {
        return Err(Error::usage(format!(
            "artifact {} is no rejected update but {kind}",
            id.short()
        )));
    }
    let (engine, runtime) = (engine::ENGINE.get()?, Handle::current());
    // A thread of its own: tensors must not move between the runtime's.
    let replayed = tokio::task::spawn_blocking(move || engine.replay(&runtime, &artifact, &device));
    replayed.await.map_err(|e| Error::defect(format!("the replay died: {e}")))?
}

/// The spec struct of raw parameters: serde checks them, unknown keys are rejected. An error begins
/// with the dotted path of what is wrong, unless that is the whole.
fn parse<S: DeserializeOwned>(raw: &Value) -> Result<S> {
    serde_path_to_error::deserialize(raw).map_err(|e| {
        use serde_path_to_error::Segment;
        let mut path: Vec<String> = Vec::new();
        for segment in e.path() {
            path.push(match segment {
                Segment::Seq { index } => index.to_string(),
                Segment::Map { key } => key.clone(),
                Segment::Enum { variant } => variant.clone(),
                Segment::Unknown => break,
            });
        }
        let message = e.inner().to_string();
        if message.starts_with("unknown field") {
            path.pop(); // the message names it
        }
        Error::usage(if path.is_empty() {
            message
        } else {
            format!("{}: {message}", path.join("."))
        })
    })
}

/// `resolve` for a spec struct that needs no further checks: defaults are filled in.
fn resolve_as<S: Serialize + DeserializeOwned>(raw: &Value) -> Result<Value> {
    serde_json::to_value(parse::<S>(raw)?).map_err(Error::defect)
}
