//! `triad merge`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytesize::ByteSize;
use clap::Args;
use tokio::runtime::Handle;

use super::logging::Terminal;
use super::output::{self, Table};
use super::{Globals, progress, signals};
use crate::checkpoint::{Folder, LazyCheckpoint, SHARD, index_json, layouts};
use crate::job::{self, Input, Outcome, Progress, Run, Shard, Watching};
use crate::merge::{self, Limits, Plan, Preflight, Recipe, Watch};
use crate::pipeline::Observer;
use crate::store::{Artifact, Files};
use crate::{Error, Result};

#[derive(Args)]
pub(super) struct Merge {
    /// A recipe in mergekit's YAML. A model is a folder, a URL of one, or an artifact's name
    recipe: PathBuf,
    /// `pipeline/stage`: an artifact of the store; anything else: a new folder, or a URL of one
    out: String,
    /// Check everything and say what would be done, without reading weights
    #[arg(long)]
    dry_run: bool,
    /// With `--dry-run`: print JSON
    #[arg(long, requires = "dry_run")]
    json: bool,
    /// Bytes of inputs to keep in memory; larger tensors are read once for every pass
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(merge::MEMORY))]
    memory: ByteSize,
    /// Bytes of weights in one file of a folder
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(SHARD as u64))]
    shard_size: ByteSize,
}

/// Where the result goes.
enum Out {
    Artifact { pipeline: String, stage: String },
    Folder(PathBuf),
    Url(String),
}

impl Out {
    fn parse(text: &str) -> Self {
        if text.contains("://") {
            return Self::Url(text.into());
        }
        match text.split_once('/') {
            Some((pipeline, stage))
                if !pipeline.is_empty()
                    && !stage.is_empty()
                    && !stage.contains('/')
                    && !pipeline.starts_with(['.', '~']) =>
            {
                Self::Artifact { pipeline: pipeline.into(), stage: stage.into() }
            }
            _ => Self::Folder(text.into()),
        }
    }
}

/// Where each model lies, by its name in the recipe.
async fn folders(globals: &Globals, recipe: &Recipe) -> Result<BTreeMap<String, Folder>> {
    let mut found = BTreeMap::new();
    for model in recipe.model_names() {
        let path = Path::new(model);
        let folder = if model.contains("://") {
            Folder::Url(Box::new(Files::open(model)?), Handle::current())
        } else if path.join("config.json").is_file() || model.starts_with(['.', '/', '~']) {
            Folder::Local(path.into())
        } else {
            let artifact = globals.open_store()?.find(model).await;
            let artifact = artifact.map_err(|e| {
                e.at(format!("model `{model}` is no folder with a config.json, nor an artifact"))
            })?;
            if artifact.manifest.kind != "checkpoint" {
                return Err(Error::usage(format!(
                    "model `{model}` is no checkpoint but {}",
                    artifact.manifest.kind
                )));
            }
            Folder::Artifact(Box::new(artifact), Handle::current())
        };
        found.insert(model.to_string(), folder);
    }
    Ok(found)
}

impl Merge {
    pub async fn execute(self, globals: &Globals, terminal: Terminal) -> Result<()> {
        let at = self.recipe.display().to_string();
        let text = crate::pipeline::read_text(&self.recipe)
            .map_err(|e| Error::usage(format!("recipe `{at}`: {e}")))?;
        let recipe = Recipe::from_yaml(&text).map_err(|e| e.at(&at))?;
        let folders = folders(globals, &recipe).await.map_err(|e| e.at(&at))?;
        let is_remote = folders.values().any(Folder::is_remote);
        let limits = Limits::new(self.memory.as_u64(), None, is_remote);
        let out = Out::parse(&self.out);
        if let (Out::Artifact { pipeline, stage }, false) = (&out, self.dry_run) {
            return artifact(globals, terminal, &recipe, folders, [pipeline, stage]).await;
        }
        let planned = tokio::task::spawn_blocking(move || plan(recipe, &folders));
        let plan = planned.await.map_err(|e| Error::defect(format!("the plan died: {e}")))?;
        let plan = plan.map_err(|e| e.at(&at))?;
        let facts = plan.preflight(limits);
        if self.dry_run {
            return if self.json { output::json(&facts) } else { print(&facts) };
        }
        plan.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let observer: Arc<dyn Observer> = progress::observer(terminal);
        let watch = Watching {
            progress: Progress { stage: "merge".into(), sink: observer.clone() },
            stop: signals::stop_flag()?,
            done: AtomicU64::new(0),
            total: facts.bytes_written,
        };
        observer.started("merge", "merge");
        let shard = self.shard_size.as_u64();
        let runtime = Handle::current();
        let merging = tokio::task::spawn_blocking(move || match out {
            Out::Url(url) => to_url(&plan, &url, limits, shard, &watch, &runtime),
            Out::Folder(folder) => plan.write_to_folder(&folder, limits, shard, &watch),
            Out::Artifact { .. } => Ok(()),
        });
        merging.await.map_err(|e| Error::defect(format!("the merge died: {e}")))??;
        output::line(format!("{}: {} parameters", self.out, facts.parameters))
    }
}

fn plan(recipe: Recipe, folders: &BTreeMap<String, Folder>) -> Result<Plan> {
    let mut models = BTreeMap::new();
    for (name, folder) in folders {
        let model = LazyCheckpoint::open(folder).map_err(|e| e.at(format!("model `{name}`")))?;
        models.insert(name.clone(), model);
    }
    Plan::new(recipe, models)
}

/// Commits the merge as an artifact: what the job of that kind makes of the same models.
async fn artifact(
    globals: &Globals,
    terminal: Terminal,
    recipe: &Recipe,
    folders: BTreeMap<String, Folder>,
    [pipeline, stage]: [&str; 2],
) -> Result<()> {
    let store = globals.open_store()?;
    let mut models = Vec::new();
    for (name, folder) in folders {
        let Folder::Artifact(artifact, _) = folder else {
            return Err(Error::usage(format!(
                "model `{name}` is no artifact, so what is made of it has no identity; commit it by \
                 a stage of `import-checkpoint`, or merge into a folder"
            )));
        };
        let artifact = Artifact { store: store.clone(), ..*artifact };
        models.push(Input { name, artifact });
    }
    let observer = progress::observer(terminal);
    observer.started(stage, "merge");
    let kind = job::kind("merge")?;
    let run = Run {
        job: kind,
        params: kind.resolve(&serde_json::to_value(recipe).map_err(Error::defect)?)?,
        inputs: BTreeMap::from([("models".into(), models)]),
        shard: Shard::WHOLE,
        device: "cpu".into(),
        server: None,
        stop: signals::stop_flag()?,
        progress: Progress { stage: stage.into(), sink: observer },
    };
    let (manifest, state) = match job::run(&store, run).await? {
        Outcome::Committed(manifest) => (manifest, "committed"),
        Outcome::Found(manifest) => (manifest, "found committed"),
        Outcome::ShardCommitted => return Err(Error::defect("a whole run committed a shard")),
    };
    store.set_ref(pipeline, stage, &manifest.id).await?;
    output::line(format!("{pipeline}/{stage} {} {state}", manifest.id))
}

/// Writes the folder's files below a URL. `config.json`, without which it is no model, comes last.
fn to_url(
    plan: &Plan,
    url: &str,
    limits: Limits,
    shard: u64,
    watch: &dyn Watch,
    runtime: &Handle,
) -> Result<()> {
    let files = Files::open(url)?;
    let outlines = plan.outlines();
    let layouts = layouts(&outlines, shard)?;
    for layout in &layouts {
        if runtime.block_on(files.size(&layout.file))? == Some(layout.size) {
            return Err(Error::usage(format!("{url}/{} exists; give a new URL", layout.file)));
        }
        let put = |source| {
            let files = &files;
            async move { files.write(&layout.file, source).await.map(drop) }
        };
        merge::upload(plan, layout, limits, watch, runtime, put)?;
    }
    if layouts.len() > 1 {
        let (name, bytes) = index_json(&outlines, &layouts)?;
        runtime.block_on(files.write(&name, bytes::Bytes::from(bytes)))?;
    }
    let (config, others): (Vec<_>, Vec<_>) =
        plan.files.iter().partition(|(name, _)| *name == "config.json");
    for (name, bytes) in others.into_iter().chain(config) {
        runtime.block_on(files.write(name, bytes.clone()))?;
    }
    Ok(())
}

/// The pre-flight for people.
fn print(facts: &Preflight) -> Result<()> {
    let mut table = Table::new(&[
        "model",
        "architecture",
        "layers",
        "vocabulary",
        "head",
        "type",
        "size",
        "weight",
    ]);
    for model in &facts.models {
        let weight = model.weight.map(|(least, most)| match least == most {
            true => output::text(&least.into()),
            false => format!("{} to {}", output::text(&least.into()), output::text(&most.into())),
        });
        let base = if model.is_base { " (base)" } else { "" };
        table.push(vec![
            format!("{}{base}", model.name).into(),
            model.architecture.clone().into(),
            model.layers.into(),
            model.vocabulary.into(),
            if model.tied_head { "tied" } else { "own" }.into(),
            model.types.join(", ").into(),
            ByteSize(model.bytes).to_string().into(),
            weight.into(),
        ]);
    }
    table.print(false)?;
    let types: Vec<&str> = facts.types.keys().copied().collect();
    output::line(format!(
        "\n{}: {} tensors, {} parameters, {}\nreads {}, writes {}, {} requests, {} of memory at most",
        facts.method.name(),
        facts.tensors,
        facts.parameters,
        types.join(", "),
        ByteSize(facts.bytes_read),
        ByteSize(facts.bytes_written),
        facts.requests,
        ByteSize(facts.memory)
    ))?;
    facts.warnings.iter().try_for_each(|warning| output::line(format!("note: {warning}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_words_name_an_artifact_and_anything_else_a_folder() {
        let is_artifact = |text: &str| matches!(Out::parse(text), Out::Artifact { .. });
        assert!(is_artifact("mine/merged"));
        for text in ["merged", "./mine/merged", "../merged", "/mine/merged", "a/b/c", "mine/"] {
            assert!(matches!(Out::parse(text), Out::Folder(_)), "{text}");
        }
        assert!(matches!(Out::parse("s3://bucket/merged"), Out::Url(_)));
    }
}
