//! `triad run`.

use std::path::PathBuf;

use clap::Args;

use super::logging::Terminal;
use super::output::{self, Table};
use super::place::{On, Place};
use super::{Globals, launch, progress, report, server, signals};
use crate::job::StopFlag;
use crate::job::engine::ENGINE;
use crate::pipeline::{self, Ending, Pipeline, RunOptions, StageEnd};
use crate::report::Request;
use crate::store::Store;
use crate::{Error, Result, job};

#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub source: Source,
    /// The last stage wanted, with everything it is made from
    #[arg(long, value_name = "STAGE")]
    until: Option<String>,
    /// Stages at a time [default: the number of cores, 2 at most]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    #[command(flatten)]
    place: Place,
}

/// A pipeline file and what is changed in it.
#[derive(Args)]
pub(super) struct Source {
    /// The pipeline's YAML file
    #[arg(value_name = "PIPELINE")]
    pub file: PathBuf,
    /// Change a parameter: a dotted path below the stage, and a YAML value
    #[arg(long, value_name = "STAGE.KEY=VALUE")]
    pub set: Vec<String>,
}

impl Source {
    pub fn load(&self) -> Result<Pipeline> {
        Pipeline::load(&self.file, &self.set, job::kinds())
    }
}

/// What `run` and `job` hand to the stages they start.
pub(super) fn options(globals: &Globals, terminal: Terminal, stop: StopFlag) -> Result<RunOptions> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(RunOptions {
        workers: cores.min(2),
        device: globals.device(),
        server: server::endpoint(globals)?,
        until: None,
        stop,
        observer: progress::observer(terminal),
    })
}

/// Must precede the first tensor.
pub(super) fn set_threads(globals: &Globals) {
    if let Some(engine) = ENGINE.installed() {
        engine.set_threads(globals.threads);
    }
}

impl Run {
    pub async fn execute(self, globals: &Globals, terminal: Terminal) -> Result<()> {
        let pipeline = self.source.load()?;
        let store = globals.open_store()?;
        let until = self.until;
        let ends = if self.place.on == On::Local {
            let mut options = options(globals, terminal, signals::stop_flag()?)?;
            options.workers = self.workers.map_or(options.workers, usize::from);
            options.until = until.clone();
            set_threads(globals);
            pipeline::run(&store, &pipeline, &options).await?
        } else if self.workers.is_some() {
            return Err(Error::usage(
                "--workers counts those of this machine; leave it out with --on",
            ));
        } else {
            launch::run(&store, &pipeline, until.as_deref(), &self.place, (globals, terminal))
                .await?
        };
        if ends.iter().all(|end| matches!(end.ending, Ending::Found(_))) {
            let upto = until.map(|stage| format!(" up to `{stage}`")).unwrap_or_default();
            let (count, verb) = match ends.len() {
                1 => ("the one stage".to_string(), "is"),
                count => (format!("all {count} stages"), "are"),
            };
            let name = &pipeline.name;
            return output::line(format!(
                "Nothing to do: {count} of `{name}`{upto} {verb} committed"
            ));
        }
        table(&pipeline, &ends).print(false)?;
        if let Some(error) = pipeline::worst(&ends) {
            return Err(error);
        }
        if let Some(error) = launch::left(&ends, &self.source, &self.place) {
            return Err(error);
        }
        if ends.iter().any(|end| matches!(end.ending, Ending::NotStarted)) {
            return Err(Error::try_again("stopped on request; run the same command to continue"));
        }
        print_report(&store, &pipeline, &ends).await
    }
}

fn table(pipeline: &Pipeline, ends: &[StageEnd]) -> Table {
    let mut table = Table::new(&["stage", "job", "state", "id", "seconds", "summary"]);
    for end in ends {
        let stage = &pipeline.stages[end.stage];
        let state = match &end.ending {
            Ending::Found(_) => "found",
            Ending::Committed(_) => "committed",
            Ending::ShardCommitted => "shard committed",
            Ending::Failed(Error::TryAgain(_)) => "stopped",
            Ending::Failed(_) => "failed",
            Ending::NotStarted => "not started",
            Ending::Left => "going on",
        };
        let manifest = end.ending.manifest();
        table.push(vec![
            stage.name.clone().into(),
            stage.job.name().into(),
            state.into(),
            stage.id.short().into(),
            manifest.map(output::seconds).into(),
            manifest.map(output::summary).into(),
        ]);
    }
    table
}

/// The result table and the page, when a report is among what was run.
async fn print_report(store: &Store, pipeline: &Pipeline, ends: &[StageEnd]) -> Result<()> {
    let mut manifests = ends.iter().filter_map(|end| end.ending.manifest());
    if !manifests.any(|manifest| manifest.kind == "report") {
        return Ok(());
    }
    output::line("")?;
    let request = Request { run: pipeline.name.clone(), ..Request::default() };
    report::write(store, request, Some(&report::page(&pipeline.name))).await
}
