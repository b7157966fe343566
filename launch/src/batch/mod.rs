//! AWS Batch.
//!
//! A stage is a job, or an array job where it has shards. Its container settings are a job
//! definition that repeated runs share, its command comes with the job. What it waits for is left
//! to Batch, and so is starting it again: `definition` says when.

mod client;
mod definition;
mod logs;
mod site;
mod state;
mod submission;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_batch::Client;
use aws_sdk_batch::types::{JobDetail, JobStatus, JobSummary, KeyValuesPair};
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::order::{Order, Task};
use crate::scheduler::{Failure, Job, Scheduler, State};
use crate::{Error, Result};
use client::{connect, failure};
pub use site::{Images, Site};
use submission::{Planned, beginning, name, plan, reference};

/// Jobs that one DescribeJobs takes.
const DESCRIBED: usize = 100;
/// Requests at a time.
const ABREAST: usize = 8;
/// Times that a submission without an answer is looked for and sent again.
const SUBMISSIONS: u32 = 6;
const POLL: Duration = Duration::from_secs(5);
/// The first between tries; each is twice the one before.
const PAUSE: Duration = Duration::from_secs(1);
const CANCELLED: &str = "triad cancel";

pub struct Batch {
    site: Site,
    config: SdkConfig,
    client: Client,
    pause: Duration,
    /// ARNs by the definition's name.
    registered: Mutex<HashMap<String, String>>,
}

impl Batch {
    /// Sends nothing yet. `config` brings region, credentials and the HTTP client.
    ///
    /// # Errors
    /// [`Error::Usage`] for a site that no job can be made with, and without a region.
    pub fn connect(site: Site, config: &SdkConfig) -> Result<Self> {
        Self::with_pause(site, config, PAUSE)
    }

    fn with_pause(site: Site, config: &SdkConfig, pause: Duration) -> Result<Self> {
        site.check()?;
        let (client, registered) = (connect(config, pause)?, Mutex::default());
        Ok(Self { site, config: config.clone(), client, pause, registered })
    }

    /// The task's job that has not ended, the oldest where two clients made one each at once.
    async fn active(&self, order: &Order, task: &Task) -> Result<Option<Job>> {
        let begins =
            KeyValuesPair::builder().name("JOB_NAME").values(beginning(order, task) + "*").build();
        let asked = self.site.queues().into_iter().map(|queue| {
            let pages = self.client.list_jobs().job_queue(queue).filters(begins.clone());
            pages.into_paginator().items().send().try_collect()
        });
        let found: Vec<Vec<JobSummary>> =
            try_join_all(asked).await.map_err(|e| failure("ListJobs", &e))?;
        let ended = |job: &JobSummary| {
            matches!(job.status(), Some(JobStatus::Succeeded | JobStatus::Failed))
        };
        let going = found.into_iter().flatten().filter(|job| !ended(job));
        let oldest = going.min_by_key(|job| (job.created_at(), job.job_id().map(str::to_owned)));
        Ok(oldest.and_then(|job| job.job_id().map(|id| Job { name: id.into() })))
    }

    /// The ARN of a definition, registered unless it is there.
    async fn ensure(&self, planned: &Planned) -> Result<String> {
        let definition = &planned.definition;
        let mut registered = self.registered.lock().await;
        if let Some(arn) = registered.get(&definition.name) {
            return Ok(arn.clone());
        }
        let arn = definition.ensure(&self.client).await?;
        registered.insert(definition.name.clone(), arn.clone());
        Ok(arn)
    }

    async fn describe(&self, ids: &[String]) -> Result<HashMap<String, JobDetail>> {
        let mut details = HashMap::new();
        for some in ids.chunks(DESCRIBED) {
            let asked = self.client.describe_jobs().set_jobs(Some(some.to_vec())).send().await;
            let told = asked.map_err(|e| failure("DescribeJobs", &e))?;
            let told = told.jobs.unwrap_or_default().into_iter();
            details.extend(told.filter_map(|job| Some((job.job_id()?.to_owned(), job))));
        }
        Ok(details)
    }

    async fn state(&self, job: Option<&JobDetail>) -> Result<State> {
        let Some(job) = job else { return Ok(State::Gone) };
        match state::progress(job) {
            Some(state) => Ok(state),
            None => Ok(State::Failed(self.failed(job).await?)),
        }
    }

    /// Batch does not start a terminated job again, and ends an array's jobs with it.
    async fn terminate(&self, job: &Job) -> Result<()> {
        let asked = self.client.terminate_job().job_id(&job.name).reason(CANCELLED).send().await;
        asked.map(|_| ()).map_err(|e| failure("TerminateJob", &e))
    }

    /// Of an array the first shard that failed speaks, unless all of it was cancelled.
    async fn failed(&self, job: &JobDetail) -> Result<Failure> {
        let shards = job.array_properties().and_then(|array| array.size());
        let child = match (shards, job.job_id()) {
            (Some(_), Some(id)) if !state::cancelled(job) => self.first_failed(id).await?,
            _ => None,
        };
        let (code, mut reason) = state::reason(child.as_ref().unwrap_or(job));
        let index = child.as_ref().and_then(|child| child.array_properties()?.index());
        if let (Some(index), Some(shards)) = (index, shards) {
            reason = format!("shard {index} of {shards}: {reason}");
        }
        let log = match state::stream(child.as_ref().unwrap_or(job)) {
            Some(stream) => logs::tail(&self.config, &self.site.log_group, stream).await,
            None => String::new(),
        };
        Ok(Failure { code, reason, log })
    }

    async fn first_failed(&self, array: &str) -> Result<Option<JobDetail>> {
        let failed = self.client.list_jobs().array_job_id(array).job_status(JobStatus::Failed);
        let failed = failed.send().await.map_err(|e| failure("ListJobs", &e))?;
        let index = |job: &&JobSummary| job.array_properties().and_then(|array| array.index());
        let first = failed.job_summary_list().iter().min_by_key(index);
        let Some(id) = first.and_then(|job| job.job_id()) else { return Ok(None) };
        Ok(self.describe(&[id.into()]).await?.remove(id))
    }

    /// Sends one of the jobs that a plan consists of. Whether one that got no answer was made is
    /// looked up before it is sent again; `own` is the task whose own job it is.
    async fn send(&self, planned: &Planned, own: Option<(&Order, &Task)>) -> Result<String> {
        let mut pause = self.pause;
        for _ in 1..SUBMISSIONS {
            match planned.submission.send(&self.client).await {
                Err(Error::TryAgain(why)) => tracing::debug!("{why}; once more"),
                ended => return ended,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            if let Some((order, task)) = own
                && let Some(job) = self.active(order, task).await?
            {
                return Ok(job.name);
            }
        }
        planned.submission.send(&self.client).await
    }
}

#[async_trait]
impl Scheduler for Batch {
    fn name(&self) -> &'static str {
        "aws-batch"
    }

    fn chains(&self) -> bool {
        true
    }

    async fn find(&self, order: &Order) -> Result<Vec<Option<Job>>> {
        let asked: Vec<_> = order.tasks.iter().map(|task| self.active(order, task)).collect();
        stream::iter(asked).buffered(ABREAST).try_collect().await
    }

    /// A client that submits the same artifact sees the job once Batch lists it: two within that
    /// second make one each. Both run, one commits, the other finds it committed.
    async fn submit(&self, order: &Order, task: usize, after: &[Job]) -> Result<Job> {
        let after = after.iter().map(|job| job.name.clone()).collect();
        let planned = plan(order, task, &self.site, after)?;
        let task = &order.tasks[task];
        if let Some(job) = self.active(order, task).await? {
            return Ok(job);
        }
        let own = planned.len() - 1;
        let mut ids: HashMap<String, String> = HashMap::new();
        let mut last = String::new();
        for (position, mut planned) in planned.into_iter().enumerate() {
            planned.submission.definition = self.ensure(&planned).await?;
            for dependency in &mut planned.submission.depends_on {
                if let Some(id) = ids.get(&dependency.job_id) {
                    dependency.job_id.clone_from(id);
                }
            }
            last = self.send(&planned, (position == own).then_some((order, task))).await?;
            ids.insert(reference(&planned.submission.name), last.clone());
        }
        Ok(Job { name: last })
    }

    async fn states(&self, jobs: &[Job]) -> Result<Vec<State>> {
        let ids: Vec<String> = jobs.iter().map(|job| job.name.clone()).collect();
        let details = self.describe(&ids).await?;
        let states: Vec<_> = ids.iter().map(|id| self.state(details.get(id))).collect();
        stream::iter(states).buffered(ABREAST).try_collect().await
    }

    async fn changed(&self) {
        tokio::time::sleep(POLL).await;
    }

    async fn cancel(&self, jobs: &[Job]) -> Result<()> {
        let asked: Vec<_> = jobs.iter().map(|job| self.terminate(job)).collect();
        stream::iter(asked).buffer_unordered(ABREAST).try_collect().await
    }
}

/// What would be registered and submitted: `jobDefinitions` and `submissions`, each in the order to
/// send them, as the AWS CLI takes them. A job that has no id yet is waited for as `${jobName}`.
///
/// # Errors
/// [`Error::Usage`] for a site that no job can be made with.
pub fn render(order: &Order, site: &Site) -> Result<Value> {
    site.check()?;
    let mut definitions = BTreeMap::new();
    let mut submissions = Vec::new();
    for (position, task) in order.tasks.iter().enumerate() {
        let after = task.after.iter().map(|&from| reference(&name(order, &order.tasks[from])));
        for Planned { definition, submission } in plan(order, position, site, after.collect())? {
            definitions.insert(definition.name.clone(), definition);
            submissions.push(submission);
        }
    }
    let definitions: Vec<_> = definitions.into_values().collect();
    Ok(json!({ "jobDefinitions": definitions, "submissions": submissions }))
}
