//! `triad fsck`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use super::logging::Terminal;
use super::output::{self, Table};
use super::{Globals, run, signals};
use crate::id::ArtifactId;
use crate::job::{self, Input, Inputs, Progress, ProgressSink, Run, Shard};
use crate::pipeline::RunOptions;
use crate::store::{Artifact, Finding, Manifest, Problem, SchemaRef, Store, check};
use crate::{Error, Result, dataset};

#[derive(Args)]
pub(super) struct Fsck {
    /// Make damaged artifacts again from their inputs, and remove names that point to nothing
    #[arg(long, conflicts_with = "quick")]
    repair: bool,
    /// Look at sizes only, without reading the objects
    #[arg(long)]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Whether this program reads such a dataset.
fn known(schema: &SchemaRef) -> bool {
    dataset::schemas()
        .iter()
        .any(|(name, version, _)| *name == schema.schema && schema.version <= *version)
}

impl Fsck {
    pub async fn execute(self, globals: &Globals, terminal: Terminal) -> Result<()> {
        let store = globals.open_store()?;
        let mut found = check(&store, !self.quick, &known).await?;
        if self.repair && found.findings.iter().any(|finding| finding.problem.is_damage()) {
            let options = run::options(globals, terminal, signals::stop_flag()?)?;
            run::set_threads(globals);
            let repairs = repair(&store, &found.findings, &options).await?;
            if !self.json {
                repairs.print(false)?;
                output::line("")?;
            }
            found = check(&store, true, &known).await?;
        }
        let damages = found.findings.iter().filter(|finding| finding.problem.is_damage()).count();
        if self.json {
            output::json(&found)?;
        } else {
            let mut table = Table::new(&["problem", "path", "what"]);
            for Finding { problem, path, what, .. } in &found.findings {
                let problem = serde_json::to_value(problem).map_err(Error::defect)?;
                table.push(vec![problem, path.clone().into(), what.clone().into()]);
            }
            if !found.findings.is_empty() {
                table.print(false)?;
            }
            output::line(format!(
                "{} artifacts, {} objects, {} bytes: {}",
                found.artifacts,
                found.objects,
                output::text(&Value::from(found.bytes)),
                match damages {
                    0 => "no damage".to_string(),
                    n => format!("{n} damages"),
                }
            ))?;
        }
        if damages == 0 {
            return Ok(());
        }
        let next = if self.repair {
            "see above for what cannot be made again"
        } else {
            "`triad fsck --repair` makes again what it can"
        };
        Err(Error::data(format!("{damages} damages in {}; {next}", store.url())))
    }
}

/// Makes damaged artifacts again, inputs first; gives what became of each.
async fn repair(store: &Store, findings: &[Finding], options: &RunOptions) -> Result<Table> {
    let mut table = Table::new(&["artifact", "job", "repair"]);
    let mut damaged: BTreeMap<ArtifactId, Option<Value>> = BTreeMap::new();
    for finding in findings {
        use Problem::{BadManifest, ChangedObject, MissingObject, Truncated};
        let repairable =
            matches!(finding.problem, BadManifest | ChangedObject | MissingObject | Truncated);
        if let Some(id) = finding.artifact.as_ref().filter(|_| repairable) {
            damaged.insert(id.clone(), store.identity(id).await?);
        }
    }
    // A checkpoint that lists a damaged object must not be continued from.
    let records = findings.iter().filter(|finding| {
        use Problem::{BadCheckpoint, BadPipeline, DanglingRef};
        matches!(finding.problem, BadCheckpoint | BadPipeline | DanglingRef)
    });
    store.forget(records.map(|finding| finding.path.clone())).await?;
    let mut todo: BTreeSet<ArtifactId> = damaged.keys().cloned().collect();
    while !todo.is_empty() {
        let ready = todo.iter().find(|id| {
            let identity = damaged.get(*id).and_then(Option::as_ref);
            !inputs(identity).any(|(_, _, input)| todo.contains(&input))
        });
        // No artifact is its own ancestor: its id is a hash over theirs.
        let Some(id) = ready.cloned() else { break };
        todo.remove(&id);
        let identity = damaged.get(&id).and_then(Option::as_ref);
        let job = identity.map(|identity| output::text(&identity["job"]));
        let repair = match again(store, &id, identity, options).await {
            Ok(repair) => repair,
            Err(e @ Error::TryAgain(_)) => return Err(e),
            Err(e) => format!("failed: {e}"),
        };
        table.push(vec![id.short().into(), job.into(), repair.into()]);
    }
    Ok(table)
}

/// The inputs that an identity names: port, name, id.
fn inputs(identity: Option<&Value>) -> impl Iterator<Item = (&str, &str, ArtifactId)> {
    let ports = identity.and_then(|identity| identity["inputs"].as_object()).into_iter().flatten();
    ports.flat_map(|(port, named)| {
        named.as_object().into_iter().flatten().filter_map(move |(name, id)| {
            let id = ArtifactId::try_from(id.as_str()?.to_string()).ok()?;
            Some((port.as_str(), name.as_str(), id))
        })
    })
}

/// Makes artifact `id` again. Its commit record is replaced when all is there.
async fn again(
    store: &Store,
    id: &ArtifactId,
    identity: Option<&Value>,
    options: &RunOptions,
) -> Result<String> {
    let Some(identity) = identity else {
        return Err(Error::data("its manifest does not say what it was made from"));
    };
    let job = job::kind(identity["job"].as_str().unwrap_or_default())?;
    if identity["version"] != job.version() {
        return Err(Error::usage(format!(
            "made by version {} of job `{}`, this triad has {}",
            identity["version"],
            job.name(),
            job.version()
        )));
    }
    let mut held = vec![id.clone()];
    let mut given = Inputs::new();
    for (port, name, input) in inputs(Some(identity)) {
        held.push(input.clone());
        let artifact = Artifact::open(store, &input)
            .await?
            .ok_or_else(|| Error::data(format!("its input {} is not committed", input.short())))?;
        given.entry(port.into()).or_default().push(Input { name: name.into(), artifact });
    }
    let hold = store.hold(held).await?;
    let before = Artifact::open(store, id).await.ok().flatten().map(|found| found.manifest);
    let sink: Arc<dyn ProgressSink> = options.observer.clone();
    options.observer.started(id.short(), job.name());
    let run = Run {
        job,
        params: identity["params"].clone(),
        inputs: given,
        shard: Shard::WHOLE,
        device: options.device.clone(),
        server: options.server.clone(),
        stop: options.stop.clone(),
        progress: Progress { stage: id.short().into(), sink },
    };
    let made = job::run_again(store, run).await;
    hold.release().await;
    let manifest = made?;
    let digests = |manifest: &Manifest| -> Vec<String> {
        manifest.objects.iter().map(|object| object.digest.clone()).collect()
    };
    Ok(match before {
        Some(before) if digests(&before) != digests(&manifest) => {
            "made again, with other digests than before: what was made from it is not what a run \
             would make now"
        }
        _ => "made again",
    }
    .into())
}
