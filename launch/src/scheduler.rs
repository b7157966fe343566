//! What every scheduler does.

use async_trait::async_trait;

use crate::Result;
use crate::order::Order;

/// A task at a scheduler: an array job where it has shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// As the scheduler's own tools name it.
    pub name: String,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// In the queue, with the scheduler's reason.
    Waiting(String),
    /// With so many of its shards ended well.
    Running {
        done: u32,
    },
    Succeeded,
    Failed(Failure),
    /// The scheduler does not know it any more.
    Gone,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Of the process, where it ran to an end: 64, 65 and 70 do not pass by trying again.
    pub code: Option<i32>,
    /// In the scheduler's words: out of memory, over time, node lost.
    pub reason: String,
    /// The log's last lines.
    pub log: String,
}

/// A scheduler that runs an order's tasks. What is committed is the store's to say; a scheduler
/// only says why something does not get there.
#[async_trait]
pub trait Scheduler: Send + Sync {
    /// As `--on` has it.
    fn name(&self) -> &'static str;
    /// Whether a job can be submitted before what it waits for has ended.
    fn chains(&self) -> bool;
    /// By task: the job that runs or will run it, whoever submitted that. None that has ended.
    async fn find(&self, order: &Order) -> Result<Vec<Option<Job>>>;
    /// Submits a task, to start when all of `after` have ended well. Two clients that submit the
    /// same artifact at once get the same job where the scheduler can tell.
    async fn submit(&self, order: &Order, task: usize, after: &[Job]) -> Result<Job>;
    /// In the order of `jobs`.
    async fn states(&self, jobs: &[Job]) -> Result<Vec<State>>;
    /// Returns when states may have changed, after seconds at most.
    async fn changed(&self);
    async fn cancel(&self, jobs: &[Job]) -> Result<()>;
}
