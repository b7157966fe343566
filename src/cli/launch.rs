//! `triad run --on`: stages as jobs of a scheduler, and what is said of them meanwhile.

use triad_launch::drive::{self, End};
use triad_launch::order::Task;
use triad_launch::scheduler::{Job, State};

use super::logging::Terminal;
use super::place::Place;
use super::run::{Source, options};
use super::{Globals, signals};
use crate::job::StopFlag;
use crate::pipeline::{self, Ending, Pipeline, RunOptions, Stage, StageEnd};
use crate::store::Store;
use crate::{Error, Result};

/// Runs a pipeline's stages on `place`; here those that read files which jobs there do not see.
pub(super) async fn run(
    store: &Store,
    pipeline: &Pipeline,
    until: Option<&str>,
    place: &Place,
    (globals, terminal): (&Globals, Terminal),
) -> Result<Vec<StageEnd>> {
    place.on.check(store)?;
    let wanted = pipeline.select(until)?;
    let scheduler = place.connect().await?;
    let stop = signals::first()?;
    tokio::pin!(stop);
    let is_ours =
        |stage: &Stage| !place.on.sees_files() && !stage.job.files(&stage.params).is_empty();
    let wanted = pipeline.stages.iter().zip(wanted).filter(|(_, wanted)| *wanted);
    for stage in wanted.map(|(stage, _)| stage).filter(|stage| is_ours(stage)) {
        let mut options = options(globals, terminal.clone(), StopFlag::default())?;
        options.until = Some(stage.name.clone());
        here(store, pipeline, &options, &mut stop).await?;
    }
    let how = (scheduler.as_ref(), place.on.sees_files());
    pipeline::launch(store, pipeline, until, how, &Lines(place.on.name()), stop).await
}

/// Runs a stage in this process.
async fn here(
    store: &Store,
    pipeline: &Pipeline,
    options: &RunOptions,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let run = pipeline::run(store, pipeline, options);
    tokio::pin!(run);
    let ends = tokio::select! {
        ends = &mut run => ends,
        () = stop => {
            options.stop.request();
            run.await
        }
    };
    pipeline::worst(&ends?).map_or(Ok(()), Err)?;
    options.stop.check()
}

/// What is said when a scheduler goes on alone.
pub(super) fn left(ends: &[StageEnd], source: &Source, place: &Place) -> Option<Error> {
    let count = |of: fn(&Ending) -> bool| ends.iter().filter(|end| of(&end.ending)).count();
    let waiting = count(|ending| matches!(ending, Ending::NotStarted));
    let (left, them) = match count(|ending| matches!(ending, Ending::Left)) {
        0 => return None,
        1 => ("1 stage goes".to_string(), "it"),
        left => (format!("{left} stages go"), "them"),
    };
    // Not every scheduler is given what waits for others.
    let rest = match waiting {
        0 => String::new(),
        waiting => format!(" and submits the {waiting} that wait"),
    };
    let (file, on) = (source.file.display(), place.on.name());
    Some(Error::try_again(format!(
        "{left} on without this process; `triad run {file} --on {on}` watches {them} again{rest}, `triad \
         cancel {file} --on {on}` ends {them}"
    )))
}

/// A log line for what happens, and the scheduler's name.
struct Lines(&'static str);

impl drive::Observer for Lines {
    fn submitted(&self, task: &Task, job: &Job, found: bool) {
        let (stage, job) = (&task.stage, &job.name);
        let said = if found { "found" } else { "submitted" };
        tracing::info!(stage, on = self.0, job, shards = task.shards, "{said}");
    }

    fn changed(&self, task: &Task, state: &State) {
        let stage = &task.stage;
        match state {
            State::Waiting(reason) => tracing::info!(stage, reason, "waiting"),
            State::Running { done } if task.shards > 1 => {
                tracing::info!(stage, done, shards = task.shards, "running");
            }
            State::Running { done: 0 } => tracing::info!(stage, "running"),
            State::Gone => tracing::warn!(stage, "its job is gone"),
            // What that comes to, the store says.
            State::Running { .. } | State::Succeeded | State::Failed(_) => {}
        }
    }

    fn ended(&self, task: &Task, end: &End) {
        let stage = &task.stage;
        match end {
            End::Committed => tracing::info!(stage, "committed"),
            End::Failed(failure) => {
                let log: String = failure.log.lines().map(|line| format!("\n    {line}")).collect();
                tracing::error!(stage, "{}{log}", failure.reason);
            }
            End::NotStarted => tracing::info!(stage, "not started"),
            End::Left => {}
        }
    }

    fn unanswered(&self, error: &triad_launch::Error) {
        tracing::warn!("{error}; asking again");
    }
}
