//! `triad job`.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use triad_launch::duration;

use super::logging::Terminal;
use super::run::{self, Source};
use super::{Globals, environment, output, signals};
use crate::dataset::{Rejected, Row};
use crate::job::engine::ENGINE;
use crate::job::{self, Shard};
use crate::pipeline::{self, Ending, Pipeline};
use crate::{Error, Result};

#[derive(Args)]
pub(super) struct Job {
    /// The pipeline's YAML file, or store:DIGEST for one that a client of a scheduler left in the store
    #[arg(value_name = "PIPELINE", required_unless_present = "replay")]
    file: Option<PathBuf>,
    /// The stage to run; what it is made from must be committed
    #[arg(required_unless_present = "replay")]
    stage: Option<String>,
    /// Change a parameter: a dotted path below the stage, and a YAML value
    #[arg(long, value_name = "STAGE.KEY=VALUE")]
    set: Vec<String>,
    /// Do part I of N only, counted from 1; the last to finish commits the whole
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<Shard>,
    /// Do one part of N, the one that the scheduler's array index says
    #[arg(long, value_name = "N", conflicts_with = "shard")]
    shards: Option<NonZeroU32>,
    /// Wait that long for what it is made from to be committed, such as 10m, and leave with 75 then
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
    /// Compute an update again that was rejected, by the artifact that the log names
    #[arg(long, value_name = "ARTIFACT", conflicts_with_all = ["file", "stage", "set", "shard", "shards", "wait"])]
    replay: Option<String>,
}

/// `1/4` to `4/4`.
fn shard(text: &str) -> Result<Shard, String> {
    let parsed = text.split_once('/').and_then(|(i, n)| {
        let (i, of) = (i.parse::<u32>().ok()?, n.parse::<u32>().ok()?);
        (1..=of).contains(&i).then(|| Shard { index: i - 1, of })
    });
    parsed.ok_or_else(|| "shards of 4 are 1/4, 2/4, 3/4, 4/4".into())
}

/// The index from 0 that a scheduler gave this process.
fn array_index(of: u32) -> Result<u32> {
    let found = environment::SHARD.iter().find_map(|name| Some((name, std::env::var(name).ok()?)));
    let Some((name, text)) = found else {
        return Err(Error::usage(format!(
            "--shards {of}: none of {} is set; schedulers do, and `--shard I/N` says it by hand",
            environment::SHARD.join(", ")
        )));
    };
    match text.parse::<u32>() {
        Ok(index) if index < of => Ok(index),
        _ => Err(Error::usage(format!("--shards {of}: {name} is `{text}`, not 0 to {}", of - 1))),
    }
}

impl Job {
    pub async fn execute(self, globals: &Globals, terminal: Terminal) -> Result<()> {
        if let Some(artifact) = &self.replay {
            return replay(globals, artifact).await;
        }
        let (Some(file), Some(stage)) = (self.file, self.stage) else {
            return Err(Error::usage("give a pipeline and a stage"));
        };
        let store = globals.open_store()?;
        let source = Source { file, set: self.set };
        let pipeline = match source.file.to_str().and_then(|name| name.strip_prefix("store:")) {
            Some(digest) => {
                let text = store.get_pipeline(digest).await?;
                let file = source.file.display().to_string();
                Pipeline::parse(&file, &text, &source.set, job::kinds())?
            }
            None => source.load()?,
        };
        let position = pipeline.position(&stage)?;
        let options = run::options(globals, terminal, signals::stop_flag()?)?;
        run::set_threads(globals);
        let shard = match self.shards {
            Some(of) => Shard { index: array_index(of.get())?, of: of.get() },
            None => self.shard.unwrap_or(Shard::WHOLE),
        };
        if let Some(wait) = self.wait {
            let wait = pipeline::await_inputs(&store, &pipeline, position, wait, &options.stop);
            wait.await?;
        }
        let ending = pipeline::run_stage(&store, &pipeline, position, shard, &options).await?;
        let state = match &ending {
            Ending::Found(_) => "found committed",
            Ending::ShardCommitted => "shard committed, others are missing",
            _ => "committed",
        };
        let id = &pipeline.stages[position].id;
        output::line(format!("{}/{stage} {id} {state}", pipeline.name))
    }
}

async fn replay(globals: &Globals, artifact: &str) -> Result<()> {
    ENGINE.get()?;
    let artifact = globals.open_store()?.find(artifact).await?;
    run::set_threads(globals);
    let rows = artifact.manifest.rows(Rejected::NAME);
    let step = artifact.manifest.identity["params"]["step"].clone();
    let (loss, norm) = job::replay(artifact, globals.device.clone()).await?;
    output::line(format!("step {step}, {rows} sequences: loss {loss:?}, gradient norm {norm:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_count_from_one() {
        assert_eq!(shard("1/4"), Ok(Shard { index: 0, of: 4 }));
        assert_eq!(shard("4/4"), Ok(Shard { index: 3, of: 4 }));
        for wrong in ["0/4", "5/4", "4", "a/b", "1/0"] {
            assert!(shard(wrong).is_err(), "{wrong}");
        }
    }
}
