//! `triad chaos`.

use std::process::{Command, Output, Stdio};

use clap::Args;

use super::output::Table;
use super::run::Source;
use super::{Globals, environment};
use crate::id::ArtifactId;
use crate::pipeline::{Pipeline, Stage};
use crate::store::{Artifact, Manifest, Store};
use crate::{Error, Result, entropy};

/// Runs the pipeline undisturbed, then kills each of its stages after every write to the store in
/// turn, lets it resume, and compares what was made. Works below `chaos/` in the store and leaves
/// nothing there.
#[derive(Args)]
pub(super) struct Chaos {
    #[command(flatten)]
    source: Source,
    /// The last stage wanted, with everything it is made from
    #[arg(long, value_name = "STAGE")]
    until: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// More writes than any stage makes: a stage that is killed that often does not get on.
const MOST: u64 = 100_000;

impl Chaos {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let pipeline = self.source.load()?;
        let wanted = pipeline.select(self.until.as_deref())?;
        let trial = Trial::new(globals, &self.source)?;
        let mut run = vec!["run", trial.file()];
        if let Some(stage) = &self.until {
            run.extend(["--until", stage]);
        }
        let outcome = self.compare(&trial, &pipeline, &wanted, &run).await;
        trial.clear().await?;
        let (table, wrong) = outcome?;
        table.print(self.json)?;
        match wrong {
            0 => Ok(()),
            n => Err(Error::defect(format!("{n} resumed runs made something else"))),
        }
    }

    /// The table, and how many resumed runs made something else.
    async fn compare(
        &self,
        trial: &Trial<'_>,
        pipeline: &Pipeline,
        wanted: &[bool],
        run: &[&str],
    ) -> Result<(Table, u64)> {
        trial.finish(&trial.reference, run)?;
        let mut table = Table::new(&["stage", "job", "kills", "same"]);
        let mut wrong = 0;
        for position in pipeline.order().into_iter().filter(|&position| wanted[position]) {
            let stage = &pipeline.stages[position];
            let (kills, same) = trial.stage(pipeline, stage).await?;
            wrong += kills - same;
            let (name, job) = (stage.name.as_str(), stage.job.name());
            tracing::info!(stage = name, kills, same, "killed after every write");
            table.push(vec![name.into(), job.into(), kills.into(), same.into()]);
        }
        Ok((table, wrong))
    }
}

/// The undisturbed run and the killed ones, each in a store of its own.
struct Trial<'a> {
    globals: &'a Globals,
    source: &'a Source,
    reference: Store,
    killed: Store,
}

impl<'a> Trial<'a> {
    fn new(globals: &'a Globals, source: &'a Source) -> Result<Self> {
        let base = globals.open_store()?.url().clone();
        if base.scheme() == "memory" {
            return Err(Error::usage(
                "`triad chaos` kills processes, and memory:// dies with them",
            ));
        }
        let base = base.as_str().trim_end_matches('/');
        let name = entropy::attempt_name();
        let open = |which: &str| Store::open(&format!("{base}/chaos/{name}/{which}"));
        Ok(Self { globals, source, reference: open("reference")?, killed: open("killed")? })
    }

    fn file(&self) -> &str {
        self.source.file.to_str().unwrap_or_default()
    }

    /// Kills `stage` after each of its writes; gives how often, and how often what the resumed run
    /// made was the same as undisturbed. In the end it is committed.
    async fn stage(&self, pipeline: &Pipeline, stage: &Stage) -> Result<(u64, u64)> {
        let expected = read(&self.reference, &stage.id).await?;
        let mut same = 0;
        let job = ["job", self.file(), &stage.name];
        for writes in 1..MOST {
            let die = writes.to_string();
            let dying = [&job[..], &["--die-after-writes", &die][..]].concat();
            let output = self.triad(&self.killed, &dying)?;
            if output.status.success() {
                return Ok((writes - 1, same));
            }
            if output.status.code().is_some() {
                return Err(failed(&output));
            }
            self.finish(&self.killed, &job)?;
            let found = read(&self.killed, &stage.id).await?;
            same += u64::from(contents(&found) == contents(&expected));
            self.killed.purge(&stage.id).await?;
            self.killed.unset_ref(&pipeline.name, &stage.name).await?;
        }
        Err(Error::defect(format!("stage `{}` never ends", stage.name)))
    }

    fn triad(&self, store: &Store, args: &[&str]) -> Result<Output> {
        let program = std::env::current_exe().map_err(Error::defect)?;
        let mut command = Command::new(program);
        command.args(args).arg("--store").arg(store.url().as_str());
        command.args(self.source.set.iter().flat_map(|set| ["--set", set.as_str()]));
        command.args(["--device", &self.globals.device]);
        command.args(["--threads", &self.globals.threads.to_string()]);
        if let Some(server) = &self.globals.server {
            command.env(environment::SERVER_URL, server);
        }
        let output = command.stdin(Stdio::null()).output();
        output.map_err(|e| Error::try_again(format!("cannot start triad: {e}")))
    }

    /// A run that must succeed.
    fn finish(&self, store: &Store, args: &[&str]) -> Result<()> {
        let output = self.triad(store, args)?;
        if output.status.success() { Ok(()) } else { Err(failed(&output)) }
    }

    async fn clear(&self) -> Result<()> {
        self.reference.clear().await?;
        self.killed.clear().await
    }
}

async fn read(store: &Store, id: &ArtifactId) -> Result<Manifest> {
    let artifact = Artifact::open(store, id).await?;
    let artifact = artifact
        .ok_or_else(|| Error::defect(format!("artifact {} was not committed", id.short())))?;
    for object in &artifact.manifest.objects {
        store.verify_entry(id, object).await?;
    }
    Ok(artifact.manifest)
}

/// What must not depend on kills: all but the attempts' names and the producer.
fn contents(manifest: &Manifest) -> Manifest {
    let mut contents = Manifest { producer: Default::default(), ..manifest.clone() };
    contents.objects.iter_mut().for_each(|object| object.attempt.clear());
    contents
}

/// A child's failure, as it said itself.
fn failed(output: &Output) -> Error {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.trim_end().lines().last().unwrap_or("no word of why");
    let text = last.strip_prefix("error: ").unwrap_or(last);
    match output.status.code() {
        Some(64) => Error::usage(text),
        Some(65) => Error::data(text),
        Some(75) => Error::try_again(text),
        _ => Error::defect(format!("{}: {text}", output.status)),
    }
}
