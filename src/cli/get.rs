//! `triad get`.

use std::path::{Component, Path, PathBuf};

use clap::{Args, ValueEnum};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};

use super::{Globals, output};
use crate::dataset::{Row, Task, encode_verl, read_batches};
use crate::query::{Format, write_results};
use crate::store::Artifact;
use crate::{Error, Result};

#[derive(Args)]
pub(super) struct Get {
    /// `pipeline/stage`, a stage, or 6 or more digits of an id
    artifact: String,
    /// A new or empty folder, or one where getting the same artifact was interrupted
    dir: PathBuf,
    /// Write each dataset as one file instead of the stored objects: jsonl, parquet, or (tasks
    /// only) verl, the Parquet layout that verl reads
    #[arg(long)]
    format: Option<Layout>,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Layout {
    Jsonl,
    Parquet,
    Verl,
}

/// Holds the artifact's id while a download into the folder is not finished.
const UNFINISHED: &str = ".triad-get";

impl Get {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let store = globals.open_store()?;
        let artifact = store.find(&self.artifact).await?;
        let dir = &self.dir;
        let mark = dir.join(UNFINISHED);
        let id = &artifact.manifest.id;
        let continued = std::fs::read_to_string(&mark).is_ok_and(|text| text == id.as_str());
        let full = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
        if full && (!continued || self.format.is_some()) {
            return Err(Error::usage(format!(
                "folder `{}` is not empty; give a new one",
                dir.display()
            )));
        }
        if let Some(layout) = self.format {
            return export(&artifact, layout, dir).await;
        }
        let failed = |e: std::io::Error| Error::try_again(format!("{}: {e}", dir.display()));
        for object in &artifact.manifest.objects {
            let mut parts = Path::new(&object.path).components().peekable();
            if parts.peek().is_none() || !parts.all(|part| matches!(part, Component::Normal(_))) {
                return Err(Error::data(format!(
                    "artifact {}: object path `{}` leads out of the folder",
                    id.short(),
                    object.path
                )));
            }
        }
        std::fs::create_dir_all(dir).map_err(failed)?;
        std::fs::write(&mark, id.as_str()).map_err(failed)?;
        for object in &artifact.manifest.objects {
            let target = dir.join(&object.path);
            // A file gets its name when its digest is right.
            if continued && target.exists() {
                continue;
            }
            if let Some(folder) = target.parent() {
                std::fs::create_dir_all(folder).map_err(failed)?;
            }
            store.download(id, object, &target).await?;
        }
        std::fs::remove_file(&mark).map_err(failed)?;
        output::line(format!(
            "{}: {} objects, {} bytes, digests checked",
            dir.display(),
            artifact.manifest.objects.len(),
            artifact.manifest.bytes()
        ))
    }
}

/// Writes every dataset of the artifact as one file of `layout`.
async fn export(artifact: &Artifact, layout: Layout, dir: &Path) -> Result<()> {
    let manifest = &artifact.manifest;
    let failed = |e: std::io::Error| Error::try_again(format!("{}: {e}", dir.display()));
    let datasets: Vec<&String> = manifest
        .datasets
        .keys()
        .filter(|name| layout != Layout::Verl || *name == Task::NAME)
        .collect();
    if datasets.is_empty() {
        let what = if layout == Layout::Verl { "dataset `tasks`" } else { "dataset" };
        return Err(Error::usage(format!(
            "artifact {} ({}) has no {what} to write",
            manifest.id.short(),
            manifest.job()
        )));
    }
    std::fs::create_dir_all(dir).map_err(failed)?;
    for dataset in datasets {
        let mut batches = Vec::new();
        for object in manifest.parts(dataset) {
            let bytes = artifact.read(&object.path).await?;
            batches.extend(read_batches(bytes, dataset, None)?);
        }
        let schema =
            batches.first().map_or_else(|| SchemaRef::new(Schema::empty()), RecordBatch::schema);
        let (extension, bytes) = match layout {
            Layout::Jsonl => ("jsonl", written(Format::Ndjson, &schema, &batches)?),
            Layout::Parquet => ("parquet", written(Format::Parquet, &schema, &batches)?),
            Layout::Verl => {
                let tasks: Vec<Vec<Task>> =
                    batches.iter().map(Task::decode).collect::<Result<_>>()?;
                ("parquet", encode_verl(&tasks.concat())?.into())
            }
        };
        let path = dir.join(format!("{dataset}.{extension}"));
        std::fs::write(&path, bytes).map_err(failed)?;
        output::line(format!("{}: {} rows", path.display(), manifest.rows(dataset)))?;
    }
    Ok(())
}

fn written(format: Format, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write_results(format, schema, batches, &mut bytes)?;
    Ok(bytes)
}
