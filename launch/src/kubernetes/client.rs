//! The scheduler: creates Jobs, says how far they are, deletes them.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::batch::v1 as batch;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config, ResourceExt};
use tokio::sync::Mutex;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use super::pods::Around;
use super::refusal::{self, error};
use super::watch::{self, Ended, Watch, ended};
use super::{Site, manifest, names};
use crate::order::Order;
use crate::scheduler::{Failure, Job, Scheduler, State};
use crate::{Error, Result};

/// The longest that [`Scheduler::changed`] waits: why a job waits is not watched.
const LOOK: Duration = Duration::from_secs(10);
/// How old a reason for waiting may be.
const FRESH: Duration = Duration::from_secs(5);
/// Between two looks at whether a job is gone, and the first pause after a lost connection.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a submission waits for an earlier job's pods to end before it says so.
const ROOM: Duration = Duration::from_secs(15);
/// How often a request is sent whose connection fails: half a minute in all.
const TRIES: u32 = 6;
/// How long an answer may take. Watches, the longest, are asked to end before.
const SILENCE: Duration = Duration::from_secs(watch::SECONDS as u64 + 30);
/// Objects in one answer.
const PAGE: u32 = 500;

/// Why a job of this version waits, as of then.
struct Reason {
    asked: Instant,
    version: Option<String>,
    /// Nothing where it runs.
    reason: Option<String>,
}

/// Jobs of one namespace.
pub struct Kubernetes {
    site: Site,
    api: Api<batch::Job>,
    around: Around,
    watch: Watch,
    /// What `changed` has said already.
    seen: Mutex<Receiver<u64>>,
    /// By uid.
    reasons: Mutex<BTreeMap<String, Reason>>,
}

impl Kubernetes {
    /// To the cluster of the kubeconfig (`KUBECONFIG`, `~/.kube/config`), or to the one that this
    /// process runs in.
    pub async fn connect(site: Site) -> Result<Self> {
        let config = match &site.context {
            Some(context) => Config::from_kubeconfig(&KubeConfigOptions {
                context: Some(context.clone()),
                ..KubeConfigOptions::default()
            })
            .await
            .map_err(kube::Error::from),
            None => Config::infer().await.map_err(kube::Error::InferConfig),
        };
        Self::with(config.map_err(|err| error(err, "looking for a cluster"))?, site).await
    }

    /// To this cluster. The first request shows whether jobs of the namespace may be listed.
    pub async fn with(mut config: Config, site: Site) -> Result<Self> {
        site.check()?;
        config.read_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
        let client = Client::try_from(config).map_err(|err| error(err, "connecting"))?;
        let namespace = site.namespace.as_deref().unwrap_or(client.default_namespace());
        let api: Api<batch::Job> = Api::namespaced(client.clone(), namespace);
        let around = Around::new(&client, namespace);
        let doing = format!("listing jobs in namespace {namespace}");
        let one = ListParams::default().limit(1);
        asking(&doing, || api.list(&one)).await?;
        let watch = Watch::start(api.clone());
        let seen = Mutex::new(watch.changes());
        Ok(Self { site, api, around, watch, seen, reasons: Mutex::default() })
    }

    /// Deletes an ended job and waits until it is gone, with its pods: none of its processes runs
    /// beside those of the next.
    async fn clear(&self, job: &batch::Job) -> Result<()> {
        let name = job.name_any();
        if job.metadata.deletion_timestamp.is_none() {
            tracing::info!("kubernetes: job {name} of an earlier try makes room");
            let only_this = Preconditions { uid: job.uid(), ..Preconditions::default() };
            let how = DeleteParams::foreground().preconditions(only_this);
            self.delete(&name, &how).await?;
        }
        let end = Instant::now() + ROOM;
        while Instant::now() < end {
            match self.read(&name).await? {
                Some(found) if found.uid() == job.uid() => tokio::time::sleep(PAUSE).await,
                _ => return Ok(()),
            }
        }
        Err(Error::TryAgain(format!(
            "job {name} of an earlier try is still being deleted, with its pods: `kubectl describe \
             job {name}`"
        )))
    }

    async fn read(&self, name: &str) -> Result<Option<batch::Job>> {
        asking(&format!("reading job {name}"), || self.api.get_opt(name)).await
    }

    /// One that is gone, or has made room for another of its name, is deleted.
    async fn delete(&self, name: &str, how: &DeleteParams) -> Result<()> {
        let doing = format!("deleting job {name}");
        let deleted = asking(&doing, || async {
            match self.api.delete(name, how).await {
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
                other => other.map(drop),
            }
        });
        deleted.await
    }

    async fn state(&self, job: &batch::Job) -> State {
        let being_deleted = job.metadata.deletion_timestamp.is_some();
        match ended(job) {
            None if being_deleted => return cancelled(&job.name_any()),
            Some(_) if being_deleted => return State::Gone,
            Some(Ended::Well) => return State::Succeeded,
            Some(Ended::Badly(condition)) => {
                return State::Failed(self.around.failure(job, condition).await);
            }
            None => {}
        }
        let status = job.status.clone().unwrap_or_default();
        // Pods that are over move from the one to the other.
        let over = status.uncounted_terminated_pods.and_then(|pods| pods.succeeded);
        let over = over.map_or(0, |pods| pods.len().try_into().unwrap_or_default());
        let done = status.succeeded.unwrap_or_default().saturating_add(over);
        // Older clusters do not count the pods that are ready.
        let running = status.ready.or(status.active).unwrap_or_default();
        if done > 0 || running > 0 {
            return State::Running { done: done.try_into().unwrap_or_default() };
        }
        self.reason(job).await.map_or(State::Running { done: 0 }, State::Waiting)
    }

    async fn reason(&self, job: &batch::Job) -> Option<String> {
        let (uid, version) = (job.uid().unwrap_or_default(), job.resource_version());
        let mut reasons = self.reasons.lock().await;
        if let Some(known) = reasons.get(&uid)
            && known.asked.elapsed() < FRESH
            && known.version == version
        {
            return known.reason.clone();
        }
        let reason = self.around.waiting(job).await;
        reasons.insert(uid, Reason { asked: Instant::now(), version, reason: reason.clone() });
        reason
    }
}

#[async_trait]
impl Scheduler for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn chains(&self) -> bool {
        false
    }

    async fn find(&self, order: &Order) -> Result<Vec<Option<Job>>> {
        let mut found = BTreeMap::new();
        let mut page = ListParams::default().labels(&names::selector()).limit(PAGE);
        loop {
            let listed = asking("listing jobs", || self.api.list(&page)).await?;
            for job in listed.items {
                if ended(&job).is_none() && job.metadata.deletion_timestamp.is_none() {
                    self.watch.learn(&job);
                    found.insert(job.name_any(), job);
                }
            }
            page.continue_token = listed.metadata.continue_.filter(|token| !token.is_empty());
            if page.continue_token.is_none() {
                break;
            }
        }
        let of_task = order.tasks.iter().map(|task| {
            let name = names::job(order, task);
            let job = found.get(&name)?;
            names::is_for(job.annotations(), order, task).then_some(Job { name })
        });
        Ok(of_task.collect())
    }

    async fn submit(&self, order: &Order, task: usize, _after: &[Job]) -> Result<Job> {
        let task = order
            .tasks
            .get(task)
            .ok_or_else(|| Error::Defect(format!("task {task} of {}", order.tasks.len())))?;
        let wanted = manifest::job(order, task, &self.site, false)?;
        let name = wanted.name_any();
        let doing = format!("creating job {name} of stage `{}`", task.stage);
        let plain = PostParams::default();
        // Between two requests others may delete and create: a few rounds settle that.
        for _ in 0..TRIES {
            let created = asking(&doing, || async {
                match self.api.create(&plain, &wanted).await {
                    Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
                    other => other.map(Some),
                }
            });
            if let Some(job) = created.await? {
                self.watch.learn(&job);
                return Ok(Job { name });
            }
            let Some(found) = self.read(&name).await? else { continue };
            if !names::is_for(found.annotations(), order, task) {
                return Err(Error::Usage(format!(
                    "{doing}: a job of this name makes something else; delete it: `kubectl delete \
                     job {name}`"
                )));
            }
            if found.metadata.deletion_timestamp.is_none() && ended(&found).is_none() {
                self.watch.learn(&found);
                return Ok(Job { name });
            }
            self.clear(&found).await?;
        }
        Err(Error::TryAgain(format!("{doing}: others create and delete it at the same time")))
    }

    async fn states(&self, jobs: &[Job]) -> Result<Vec<State>> {
        let mut states = Vec::with_capacity(jobs.len());
        for job in jobs {
            let mut known = self.watch.get(&job.name)?;
            if known.is_none() {
                known = self.read(&job.name).await?;
                known.iter().for_each(|job| self.watch.learn(job));
            }
            states.push(match known {
                Some(known) => self.state(&known).await,
                None if self.watch.is_deleted(&job.name) => cancelled(&job.name),
                None => State::Gone,
            });
        }
        Ok(states)
    }

    async fn changed(&self) {
        let mut seen = self.seen.lock().await;
        if let Ok(Err(_)) = tokio::time::timeout(LOOK, seen.changed()).await {
            // The watch has ended: requests of our own still say how far jobs are.
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn cancel(&self, jobs: &[Job]) -> Result<()> {
        for job in jobs {
            self.delete(&job.name, &DeleteParams::background()).await?;
        }
        Ok(())
    }
}

/// Whoever deleted it does not want it back: it is not submitted again as one that got lost is.
fn cancelled(name: &str) -> State {
    let reason = format!("job {name} was deleted before it ended: cancelled");
    State::Failed(Failure { code: None, reason, log: String::new() })
}

/// A request, again while its connection fails.
async fn asking<T, F>(doing: &str, request: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = kube::Result<T>>,
{
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match request().await {
            Err(err) if refusal::lost(&err) => {
                tracing::info!("{}; asking again", error(err, doing));
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            other => return other.map_err(|err| error(err, doing)),
        }
    }
    request().await.map_err(|err| error(err, doing))
}
