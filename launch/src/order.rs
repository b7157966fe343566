//! Stages as a scheduler gets them.

use std::time::Duration;

/// The stages of a pipeline that are wanted and not committed.
#[derive(Debug, Clone)]
pub struct Order {
    pub pipeline: String,
    /// Where `triad job` reads the pipeline from.
    pub source: String,
    /// The store's URL, as jobs open it.
    pub store: String,
    /// Each after those that it is made from.
    pub tasks: Vec<Task>,
}

/// One stage.
#[derive(Debug, Clone)]
pub struct Task {
    pub stage: String,
    /// The job's kind.
    pub job: String,
    /// The id of what it commits, whole.
    pub artifact: String,
    /// Positions in [`Order::tasks`] of those that it is made from; what is committed already is not
    /// among them.
    pub after: Vec<usize>,
    /// Processes that share it: one array index for each, from 0.
    pub shards: u32,
    /// Whether it needs libtorch.
    pub computes: bool,
    pub resources: Resources,
}

/// What a process of a task asks of its machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    pub gpus: u32,
    pub cpus: Option<u32>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Longest duration.
    pub time: Option<Duration>,
}

impl Order {
    /// What the container or script calls `triad` with. Of several shards it does the one that the
    /// scheduler's array index names.
    pub fn arguments(&self, task: &Task) -> Vec<String> {
        let mut arguments =
            ["job", &self.source, &task.stage, "--store", &self.store].map(String::from).to_vec();
        if task.resources.gpus > 0 {
            arguments.extend(["--device".into(), "cuda".into()]);
        }
        if task.shards > 1 {
            arguments.extend(["--shards".into(), task.shards.to_string()]);
        }
        arguments
    }

    /// What tells a task from all others of a scheduler: the beginning of its artifact's id, and a
    /// digest of the store, since the same artifact may be on its way to two of them. 21 letters,
    /// digits and one `-`.
    pub fn mark(&self, task: &Task) -> String {
        let store = blake3::hash(self.store.as_bytes()).to_hex();
        format!("{:.12}-{store:.8}", task.artifact)
    }
}
