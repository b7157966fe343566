//! `triad sample`.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal};
use std::path::Path;

use bytes::Bytes;
use clap::Args;

use super::{Globals, output, run};
use crate::checkpoint::Checkpoint;
use crate::job::engine::{Draws, ENGINE, Engine};
use crate::{Error, Result};

#[derive(Args)]
pub(super) struct Sample {
    /// A checkpoint artifact's name or id, or a local Hugging Face folder
    checkpoint: String,
    /// What to continue; without it every line of stdin is a prompt
    #[arg(long)]
    prompt: Option<String>,
    /// 0 takes the likeliest token
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_new_tokens: usize,
    /// Names the draws: the same seed and prompt give the same response
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Sample {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Error::usage(format!(
                "--temperature {}: give 0 or more",
                self.temperature
            )));
        }
        let engine = ENGINE.get()?;
        let checkpoint = self.read(globals).await?;
        run::set_threads(globals);
        let on = globals.device();
        // A thread of its own: tensors must not move between the runtime's.
        let answered =
            tokio::task::spawn_blocking(move || self.answer(engine, &checkpoint, &on)).await;
        answered.map_err(|e| Error::defect(format!("sampling died: {e}")))?
    }

    async fn read(&self, globals: &Globals) -> Result<Checkpoint> {
        let folder = Path::new(&self.checkpoint);
        if folder.is_dir() {
            return Checkpoint::from_folder(folder);
        }
        let artifact = globals.open_store()?.find(&self.checkpoint).await?;
        let manifest = &artifact.manifest;
        let place = format!("`{}` ({})", self.checkpoint, manifest.id.short());
        if manifest.kind != "checkpoint" {
            return Err(Error::usage(format!(
                "{place} is no checkpoint but {}; `triad ls` lists the checkpoints",
                manifest.kind
            )));
        }
        // The model's files lie at the top, datasets of its training in folders.
        let mut files: BTreeMap<&str, Bytes> = BTreeMap::new();
        for object in manifest.objects.iter().filter(|object| !object.path.contains('/')) {
            files.insert(&object.path, artifact.read(&object.path).await?);
        }
        Checkpoint::from_objects(|path| Ok(files.get(path).cloned())).map_err(|e| e.at(place))
    }

    fn answer(&self, engine: &dyn Engine, checkpoint: &Checkpoint, on: &str) -> Result<()> {
        let draws = Draws {
            temperature: self.temperature,
            max_new_tokens: self.max_new_tokens,
            seed: self.seed,
        };
        if self.prompt.is_some() {
            let mut given = self.prompt.iter().cloned().map(Ok);
            return engine.respond(checkpoint, on, draws, &mut given, &mut output::line);
        }
        if std::io::stdin().is_terminal() {
            tracing::info!("one prompt a line; Ctrl-D ends");
        }
        let mut lines = std::io::stdin()
            .lock()
            .lines()
            .map(|line| line.map_err(|e| Error::usage(format!("prompts on stdin: {e}"))));
        engine.respond(checkpoint, on, draws, &mut lines, &mut output::line)
    }
}
