//! `merge`: several checkpoints become one in parameter space. Its parameters are mergekit's keys,
//! where a model is an input of port `models`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::{Arity, Context, Input, Job, Port, Progress, StopFlag, parse};
use crate::checkpoint::{Folder, LazyCheckpoint, SHARD, index_json, layouts};
use crate::merge::{self, Limits, Plan, Recipe, Watch};
use crate::{Error, Result};

pub struct Merge;

impl Job for Merge {
    fn name(&self) -> &'static str {
        "merge"
    }
    fn version(&self) -> u32 {
        2
    }
    fn ports(&self) -> &'static [Port] {
        &[Port { name: "models", accepts: &["checkpoint"], arity: Arity::Many }]
    }
    fn output(&self) -> &'static str {
        "checkpoint"
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        let recipe: Recipe = parse(raw)?;
        recipe.check()?;
        serde_json::to_value(recipe).map_err(Error::defect)
    }

    fn run(&self, context: &mut Context) -> Result<()> {
        let recipe = context.spec()?;
        run(context, recipe)
    }
}

/// The artifacts of port `models`, with their weights where they are.
pub(super) fn models(context: &Context) -> Result<BTreeMap<String, LazyCheckpoint>> {
    let open = |input: &Input| {
        let artifact = Box::new(input.artifact.clone());
        let model = LazyCheckpoint::open(&Folder::Artifact(artifact, context.runtime.clone()))
            .map_err(|e| e.at(format!("checkpoint {}", input.artifact.manifest.id.short())))?;
        Ok((input.name.clone(), model))
    };
    context.inputs("models").iter().map(open).collect()
}

/// Merges the inputs of port `models` into the artifact.
pub(super) fn run(context: &mut Context, recipe: Recipe) -> Result<()> {
    let inputs = context.inputs("models");
    let names: Vec<&str> = inputs.iter().map(|input| &input.name[..]).collect();
    let wanted = recipe.model_names();
    if let Some(name) = wanted.iter().find(|name| !names.contains(name)) {
        return Err(Error::usage(format!(
            "the recipe names `{name}`, the port `models` has {}",
            names.join(", ")
        )));
    }
    if let Some(name) = names.iter().find(|name| !wanted.contains(name)) {
        return Err(Error::usage(format!(
            "the port `models` has `{name}`, which the recipe does not name"
        )));
    }
    let is_remote = inputs.iter().any(|input| input.artifact.store.is_remote());
    let plan = Plan::new(recipe, models(context)?)?;
    plan.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    write(context, &plan, Limits::new(merge::MEMORY, None, is_remote), SHARD as u64)
}

/// Shows how far a merge is, and ends it at a signal.
pub struct Watching {
    pub progress: Progress,
    pub stop: StopFlag,
    pub done: AtomicU64,
    /// Bytes of weights.
    pub total: u64,
}

impl Watch for Watching {
    fn wrote(&self, bytes: u64) -> Result<()> {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.progress.update("MB", done >> 20, self.total >> 20, "");
        self.stop.check()
    }
}

/// Merges into the artifact, in files of `limit` bytes of weights. Where there are several each is a
/// step: a later attempt keeps it.
fn write(context: &mut Context, plan: &Plan, limits: Limits, limit: u64) -> Result<()> {
    let outlines = plan.outlines();
    let layouts = layouts(&outlines, limit)?;
    let watch = Watching {
        progress: context.progress.clone(),
        stop: context.stop.clone(),
        done: AtomicU64::new(0),
        total: outlines.iter().map(|outline| outline.bytes()).sum(),
    };
    if layouts.len() > 1 {
        context.resume()?;
    }
    let runtime = context.runtime.clone();
    for (number, layout) in layouts.iter().enumerate() {
        if context.attempt.has(&layout.file) {
            watch.wrote(layout.size - layout.header.len() as u64)?;
            continue;
        }
        let attempt = &mut context.attempt;
        merge::upload(plan, layout, limits, &watch, &runtime, |source| async move {
            attempt.write(&layout.file, source, None).await
        })?;
        if layouts.len() > 1 {
            context.commit_step(number as u64 + 1, Vec::new())?;
        }
    }
    if layouts.len() > 1 {
        let (name, bytes) = index_json(&outlines, &layouts)?;
        context.write_object(&name, bytes.into())?;
    }
    for (name, bytes) in &plan.files {
        context.write_object(name, bytes.clone())?;
    }
    let facts = plan.preflight(limits);
    context.summarize("parameters", facts.parameters);
    let weights = facts.models.iter().filter_map(|model| {
        let (least, most) = model.weight?;
        Some((&model.name, if least == most { json!(least) } else { json!([least, most]) }))
    });
    let weights: BTreeMap<_, _> = weights.collect();
    if !weights.is_empty() {
        context.summarize("effective_weights", json!(weights));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::super::{Inputs, ProgressSink, Shard};
    use super::*;
    use crate::id::ArtifactId;
    use crate::store::{Attempt, Store};

    /// Asks for a stop at a number of updates.
    struct Stops(AtomicU64, StopFlag);

    impl ProgressSink for Stops {
        fn update(&self, _: &str, _: &str, _: u64, _: u64, _: &str) {
            if self.0.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.1.request();
            }
        }
    }

    fn context(store: &Store, updates: u64) -> Context {
        let stop = StopFlag::default();
        let sink = Arc::new(Stops(AtomicU64::new(updates), stop.clone()));
        let id = ArtifactId::of(&json!("merge"));
        Context {
            attempt: Attempt::new(store, &id),
            id,
            params: Value::Null,
            inputs: Inputs::new(),
            shard: Shard::WHOLE,
            device: "cpu".into(),
            server: None,
            stop,
            progress: Progress { stage: "merge".into(), sink },
            summary: BTreeMap::new(),
            timings: BTreeMap::new(),
            plan: None,
            datasets: BTreeMap::new(),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    #[tokio::test]
    async fn a_stopped_merge_continues_behind_its_last_whole_file() {
        let made = tokio::task::spawn_blocking(|| {
            let text = "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]";
            let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/merge/models");
            let model = LazyCheckpoint::from_folder(&models.join("a"))?;
            let models = BTreeMap::from([("a".into(), model)]);
            let plan = Plan::new(Recipe::from_yaml(text)?, models)?;
            let limits = Limits::new(merge::MEMORY, None, false);
            let store = Store::open("memory://")?;
            let mut first = context(&store, 30);
            let error = write(&mut first, &plan, limits, 2000).unwrap_err();
            assert_eq!(error.exit_code(), 75);
            let mut second = context(&store, u64::MAX);
            let steps = second.wait(store.steps(&second.id))?;
            assert!(!steps.is_empty());
            let before = store.traffic().bytes_written;
            write(&mut second, &plan, limits, 2000)?;
            let rest = store.traffic().bytes_written - before;
            let other = Store::open("memory://")?;
            let mut whole = context(&other, u64::MAX);
            write(&mut whole, &plan, limits, 2000)?;
            assert_eq!(whole.summary, second.summary);
            // At least one file was not written again.
            Ok::<_, Error>((rest + 2000, other.traffic().bytes_written))
        });
        let (least, all) = made.await.unwrap().unwrap();
        assert!(least < all, "{least} of {all} bytes");
    }
}
