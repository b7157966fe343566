//! The state of our jobs, kept up to date in the background.
//!
//! kube's watcher goes on after lost connections and lists anew when its resource version has
//! expired; while it cannot, the last state stands. What it gives may be older than what a request
//! of ours has answered meanwhile, so of two states of a job the newer resource version stays.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{names, refusal};
use crate::{Error, Result};

/// How long a watch lasts before it is begun again: the longest that a connection which died without
/// a word goes unnoticed.
pub const SECONDS: u32 = 60;
/// Errors in a row before they count: credentials are renewed, rights arrive.
const REFUSALS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

pub struct Watch {
    jobs: Arc<Mutex<Jobs>>,
    changes: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Jobs {
    known: BTreeMap<String, Job>,
    /// Those that went before they had ended. Only what has ended is removed by itself, with its time
    /// to live, so these were deleted by somebody.
    deleted: BTreeSet<String>,
    /// Why nothing new will come.
    refused: Option<Error>,
}

impl Watch {
    /// Of all of triad's jobs in the namespace.
    pub fn start(api: Api<Job>) -> Self {
        let jobs = Arc::new(Mutex::new(Jobs::default()));
        let (changed, changes) = watch::channel(0);
        let task = tokio::spawn(follow(api, jobs.clone(), changed));
        Self { jobs, changes, task }
    }

    /// The newest state that is known of the jobs, or why there will be none.
    pub fn get(&self, name: &str) -> Result<Option<Job>> {
        let jobs = lock(&self.jobs);
        match &jobs.refused {
            Some(refused) => Err(refused.clone()),
            None => Ok(jobs.known.get(name).cloned()),
        }
    }

    /// Whether a job of this name, that is not there now, was deleted before it had ended.
    pub fn is_deleted(&self, name: &str) -> bool {
        lock(&self.jobs).deleted.contains(name)
    }

    /// What a request has answered.
    pub fn learn(&self, job: &Job) {
        lock(&self.jobs).apply(job.clone());
    }

    /// A counter of changes: one that has moved on says that states may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Jobs {
    fn apply(&mut self, job: Job) {
        match self.known.get(&job.name_any()) {
            Some(known) if version(known) > version(&job) => {}
            _ => {
                self.deleted.remove(&job.name_any());
                self.known.insert(job.name_any(), job);
            }
        }
    }

    fn delete(&mut self, job: &Job) {
        let name = job.name_any();
        if self.known.get(&name).is_some_and(|known| known.uid() == job.uid()) {
            self.known.remove(&name);
            if ended(job).is_none() {
                self.deleted.insert(name);
            }
        }
    }

    /// All that there are. One that is missing among them is asked for before it counts as gone.
    fn replace(&mut self, listed: Vec<Job>) {
        let names: BTreeSet<String> = listed.iter().map(Job::name_any).collect();
        let gone = self.known.extract_if(.., |name, _| !names.contains(name));
        self.deleted.extend(gone.filter(|(_, job)| ended(job).is_none()).map(|(name, _)| name));
        listed.into_iter().for_each(|job| self.apply(job));
    }
}

pub enum Ended<'a> {
    Well,
    Badly(&'a JobCondition),
}

/// A job counts as failed from when that is decided: its other pods may take the grace period to
/// end.
pub fn ended(job: &Job) -> Option<Ended<'_>> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let has = |kind: &str| {
        conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")
    };
    if let Some(condition) = has("Failed").or_else(|| has("FailureTarget")) {
        return Some(Ended::Badly(condition));
    }
    has("Complete").map(|_| Ended::Well)
}

/// Versions are whole numbers, larger ones newer.
fn version(job: &Job) -> Option<u64> {
    job.metadata.resource_version.as_ref()?.parse().ok()
}

async fn follow(api: Api<Job>, jobs: Arc<Mutex<Jobs>>, changed: watch::Sender<u64>) {
    let config = watcher::Config::default().labels(&names::selector()).timeout(SECONDS);
    let begin = || watcher(api.clone(), config.clone()).default_backoff();
    let mut events = pin!(begin());
    let mut listed = Vec::new();
    let mut failures = 0;
    while let Some(event) = events.next().await {
        if let Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) = &event
            && status.code == 410
        {
            // The watcher would ask for the same version for ever.
            tokio::time::sleep(PAUSE).await;
            events.set(begin());
            continue;
        }
        let mut jobs = lock(&jobs);
        match event {
            Ok(event) => {
                // `Init` only says that a list is about to be asked for.
                if failures > 0 && !matches!(event, Event::Init) {
                    tracing::info!("kubernetes: jobs are watched again");
                    failures = 0;
                    jobs.refused = None;
                }
                match event {
                    Event::Init => listed.clear(),
                    Event::InitApply(job) => {
                        listed.push(job);
                        continue;
                    }
                    Event::InitDone => jobs.replace(std::mem::take(&mut listed)),
                    Event::Apply(job) => jobs.apply(job),
                    Event::Delete(job) => jobs.delete(&job),
                }
            }
            Err(err) => {
                failures += 1;
                if failures == 1 {
                    tracing::info!("kubernetes: {}; going on", refusal::chain(&err));
                }
                jobs.refused = refused(err).filter(|_| failures >= REFUSALS);
            }
        }
        drop(jobs);
        changed.send_modify(|count| *count += 1);
    }
}

/// What does not pass by waiting: rights, credentials, a namespace that is not there.
fn refused(err: watcher::Error) -> Option<Error> {
    let (watcher::Error::InitialListFailed(err)
    | watcher::Error::WatchStartFailed(err)
    | watcher::Error::WatchFailed(err)) = err
    else {
        return None;
    };
    let refused = refusal::error(err, "watching jobs");
    matches!(refused, Error::Usage(_)).then_some(refused)
}

fn lock(jobs: &Mutex<Jobs>) -> MutexGuard<'_, Jobs> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(uid: &str, version: &str) -> Job {
        let mut job = Job::default();
        job.metadata.name = Some("job".into());
        job.metadata.uid = Some(uid.into());
        job.metadata.resource_version = Some(version.into());
        job
    }

    #[test]
    fn only_what_had_not_ended_was_deleted_by_somebody() {
        let ended = |mut job: Job| {
            job.status = serde_json::from_value(serde_json::json!({
                "conditions": [{ "type": "Complete", "status": "True" }],
            }))
            .unwrap();
            job
        };
        let mut jobs = Jobs::default();
        jobs.apply(job("one", "1"));
        jobs.delete(&ended(job("one", "2")));
        assert!(jobs.deleted.is_empty(), "its time to live is over");
        jobs.apply(job("two", "3"));
        jobs.delete(&job("two", "4"));
        assert!(jobs.deleted.contains("job"));
        jobs.apply(job("three", "5"));
        assert!(jobs.deleted.is_empty(), "another has its name");
        // While nobody watched.
        jobs.replace(Vec::new());
        assert!(jobs.deleted.contains("job"));
    }

    #[test]
    fn a_late_event_of_a_deleted_job_does_not_hide_the_next_one() {
        let mut jobs = Jobs::default();
        let uid = |jobs: &Jobs| jobs.known.get("job").and_then(ResourceExt::uid);
        jobs.apply(job("old", "9"));
        jobs.apply(job("new", "12"));
        jobs.apply(job("old", "10"));
        assert_eq!(uid(&jobs).as_deref(), Some("new"));
        jobs.delete(&job("old", "11"));
        assert_eq!(uid(&jobs).as_deref(), Some("new"));
        jobs.replace(vec![job("old", "10")]);
        assert_eq!(uid(&jobs).as_deref(), Some("new"));
        jobs.replace(Vec::new());
        assert_eq!(uid(&jobs), None);
    }
}
