//! Running a pipeline's stages as jobs of a scheduler.

use async_trait::async_trait;
use triad_launch::drive::{self, Commits, End, Observer};
use triad_launch::order::{Order, Resources, Task};
use triad_launch::scheduler::{Failure, Scheduler};

use super::run::{committed, ends};
use super::{Ending, Pipeline, Stage, StageEnd};
use crate::id::ArtifactId;
use crate::store::{Artifact, Store};
use crate::{Error, Result};

/// What is wanted of a pipeline and not committed, as a scheduler gets it.
pub struct Launch {
    pub order: Order,
    /// Positions in [`Pipeline::stages`] of the order's tasks.
    pub stages: Vec<usize>,
    wanted: Vec<bool>,
    endings: Vec<Option<Ending>>,
}

impl Launch {
    /// Looks for what is committed, and names it. Nothing is written besides.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown `until`.
    pub async fn plan(store: &Store, pipeline: &Pipeline, until: Option<&str>) -> Result<Self> {
        let wanted = pipeline.select(until)?;
        let endings = committed(store, pipeline, &wanted).await?;
        let missing = |at: &usize| wanted[*at] && endings[*at].is_none();
        let stages: Vec<usize> = pipeline.order().into_iter().filter(missing).collect();
        let task = |&at: &usize| {
            let stage = &pipeline.stages[at];
            let mut after: Vec<usize> = stage
                .upstream()
                .filter_map(|from| stages.iter().position(|&other| other == from))
                .collect();
            after.sort_unstable();
            after.dedup();
            Task { after, ..task(stage) }
        };
        let order = Order {
            pipeline: pipeline.name.clone(),
            source: format!("store:{}", crate::id::digest(pipeline.text.as_bytes())),
            store: store.url().to_string(),
            tasks: stages.iter().map(task).collect(),
        };
        Ok(Self { order, stages, wanted, endings })
    }

    /// Puts the pipeline where its jobs read it.
    ///
    /// # Errors
    /// [`Error::Usage`] for a stage that reads files of this machine, if jobs do not see them.
    pub async fn publish(
        &self,
        store: &Store,
        pipeline: &Pipeline,
        sees_files: bool,
    ) -> Result<()> {
        for stage in self.stages.iter().map(|&at| &pipeline.stages[at]) {
            if let Some(file) = stage.job.files(&stage.params).first().filter(|_| !sees_files) {
                return Err(Error::usage(format!(
                    "stage `{}`: `{file}` is on this machine, where its job will not see it; `triad run {} \
                     --until {} --store {}` commits the stage from here",
                    stage.name,
                    pipeline.file,
                    stage.name,
                    store.url()
                )));
            }
        }
        store.put_pipeline(pipeline.text.clone()).await.map(drop)
    }
}

fn task(stage: &Stage) -> Task {
    Task {
        stage: stage.name.clone(),
        job: stage.job.name().into(),
        artifact: stage.id.as_str().into(),
        after: Vec::new(),
        shards: stage.shards,
        computes: stage.job.computes(&stage.params),
        resources: Resources {
            gpus: stage.resources.gpus.unwrap_or(0),
            cpus: stage.resources.cpus,
            memory: stage.resources.memory,
            time: stage.resources.time,
        },
    }
}

/// Has a scheduler run what is not committed, and watches it until it ends or `stop` is ready: then
/// the scheduler goes on without. All wanted stages are in the answer, in the file's order.
///
/// # Errors
/// As [`Launch::plan`] and [`Launch::publish`], and where the scheduler does not answer.
pub async fn launch(
    store: &Store,
    pipeline: &Pipeline,
    until: Option<&str>,
    (scheduler, sees_files): (&dyn Scheduler, bool),
    observer: &dyn Observer,
    stop: impl Future<Output = ()>,
) -> Result<Vec<StageEnd>> {
    let first = Launch::plan(store, pipeline, until).await?;
    if first.stages.is_empty() {
        return Ok(ends(first.endings, &first.wanted));
    }
    first.publish(store, pipeline, sees_files).await?;
    let wanted = pipeline.stages.iter().zip(&first.wanted).filter(|(_, wanted)| **wanted);
    let hold = store.hold(wanted.map(|(stage, _)| stage.id.clone()).collect()).await?;
    let ended = launch_held(store, pipeline, until, scheduler, observer, stop).await;
    hold.release().await;
    ended
}

async fn launch_held(
    store: &Store,
    pipeline: &Pipeline,
    until: Option<&str>,
    scheduler: &dyn Scheduler,
    observer: &dyn Observer,
    stop: impl Future<Output = ()>,
) -> Result<Vec<StageEnd>> {
    // What was found before it was held may be gone.
    let Launch { order, stages, wanted, mut endings } =
        Launch::plan(store, pipeline, until).await?;
    let ended = drive::drive(&order, scheduler, &Records(store), observer, stop).await?;
    for (&at, end) in stages.iter().zip(ended) {
        let stage = &pipeline.stages[at];
        endings[at] = Some(match end {
            End::Committed => match Artifact::open(store, &stage.id).await? {
                Some(artifact) => {
                    store.set_ref(&pipeline.name, &stage.name, &stage.id).await?;
                    Ending::Committed(Box::new(artifact.manifest))
                }
                None => Ending::Failed(Error::try_again(format!(
                    "stage `{}`: what it committed is gone from the store",
                    stage.name
                ))),
            },
            End::Failed(failure) => {
                Ending::Failed(error(&failure).at(format!("stage `{}`", stage.name)))
            }
            End::NotStarted => Ending::NotStarted,
            End::Left => Ending::Left,
        });
    }
    Ok(ends(endings, &wanted))
}

/// What whoever runs the command can do about a failed job.
fn error(failure: &Failure) -> Error {
    let last = failure.log.lines().last().unwrap_or_default().trim();
    let message = match last {
        "" => failure.reason.clone(),
        last => format!("{}: {last}", failure.reason),
    };
    match failure.code {
        // Its memory, or its program: the site or the pipeline asks for something else.
        Some(64 | 126 | 127 | 137) => Error::Usage(message),
        Some(65) => Error::Data(message),
        // Lost, cancelled, out of time.
        None | Some(75) => Error::TryAgain(message),
        Some(_) => Error::Defect(message),
    }
}

struct Records<'a>(&'a Store);

#[async_trait]
impl Commits for Records<'_> {
    async fn committed(&self, artifact: &str) -> Result<bool> {
        let id = ArtifactId::try_from(artifact.to_string()).map_err(Error::defect)?;
        Ok(Artifact::open(self.0, &id).await?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_its_last_words_with_the_right_code() {
        let failure = |code, log: &str| {
            let failure = Failure { code, reason: "job 7".into(), log: log.into() };
            error(&failure)
        };
        let bad = failure(Some(65), "begins\nerror: bad row 3\n");
        assert_eq!((bad.exit_code(), bad.to_string()), (65, "job 7: error: bad row 3".into()));
        let codes = [(Some(64), 64), (Some(70), 70), (Some(75), 75), (None, 75), (Some(137), 64)];
        for (code, exit) in codes.into_iter().chain([(Some(127), 64), (Some(101), 70)]) {
            assert_eq!(failure(code, "").exit_code(), exit, "{code:?}");
        }
    }
}
