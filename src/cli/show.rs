//! `triad show`.

use std::time::Duration;

use clap::Args;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use serde_json::Value;

use super::output::{self, Table};
use super::{Globals, name};
use crate::dataset::open_parquet;
use crate::nearest::hint;
use crate::query::{Format, write_results};
use crate::store::{Artifact, Manifest};
use crate::{Error, Result};

#[derive(Args)]
pub(super) struct Show {
    /// `pipeline/stage`, a stage, or 6 or more digits of an id
    artifact: String,
    /// Show the rows of this dataset [default: the main one]
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// Rows to show
    #[arg(long, value_name = "N", default_value_t = 5)]
    rows: usize,
    /// Print links by which anybody may read the objects, for a day
    #[arg(long, conflicts_with_all = ["json", "dataset"])]
    share: bool,
    /// Print the manifest as JSON
    #[arg(long)]
    json: bool,
}

/// How long a shared link is good for. Amazon allows a week.
const SHARED: Duration = Duration::from_secs(86400);

impl Show {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let store = globals.open_store()?;
        let artifact = store.find(&self.artifact).await?;
        let manifest = &artifact.manifest;
        if self.json {
            return output::json(manifest);
        }
        if self.share {
            for object in &manifest.objects {
                let link = store.share(&manifest.id, object, SHARED).await?;
                output::line(format!("{}\n  {link}", object.path))?;
            }
            return Ok(());
        }
        let names = name::all(&store).await?.remove(&manifest.id).unwrap_or_default();
        output::line(facts(manifest, &names))?;
        for (dataset, schema) in &manifest.datasets {
            let columns = match head(&artifact, dataset, 0).await? {
                Some((columns, _)) => columns
                    .fields()
                    .iter()
                    .map(|field| format!("{} {}", field.name(), field.data_type()))
                    .collect::<Vec<_>>()
                    .join(", "),
                None => "no rows".into(),
            };
            output::line(format!(
                "\ndataset {dataset} (schema {} {}), {} rows\n  {columns}",
                schema.schema,
                schema.version,
                manifest.rows(dataset)
            ))?;
        }
        let main = match &self.dataset {
            Some(name) if !manifest.datasets.contains_key(name) => {
                let hint = hint(name, manifest.datasets.keys().map(String::as_str));
                return Err(Error::usage(format!("no dataset `{name}`{hint}")));
            }
            Some(name) => Some(name),
            None => manifest
                .datasets
                .keys()
                .find(|name| **name == manifest.kind)
                .or_else(|| manifest.datasets.keys().next()),
        };
        let Some(main) = main else { return Ok(()) };
        let Some((schema, batches)) = head(&artifact, main, self.rows).await? else {
            return Ok(());
        };
        output::line(format!("\nfirst rows of {main}"))?;
        let mut text = Vec::new();
        write_results(Format::Table, &schema, &batches, &mut text)?;
        output::write(&text)
    }
}

fn facts(manifest: &Manifest, names: &[String]) -> String {
    let producer = &manifest.producer;
    let mut lines = vec![
        format!("artifact  {}", manifest.id),
        format!("names     {}", names.join(" ")),
        format!("kind      {}", manifest.kind),
        format!("job       {} version {}", manifest.job(), manifest.identity["version"]),
        format!(
            "made      {} by triad {}{} on {} in {} s",
            output::text(&output::started(manifest)),
            producer.triad,
            producer.commit.as_ref().map_or(String::new(), |commit| format!(" ({commit})")),
            producer.device,
            output::text(&output::seconds(manifest))
        ),
    ];
    let traffic = &producer.storage;
    lines.push(format!(
        "storage   {} requests, {} of them repeated; {} bytes read, {} written",
        traffic.requests, traffic.retries, traffic.bytes_read, traffic.bytes_written
    ));
    let ports = manifest.identity["inputs"].as_object().into_iter().flatten();
    for (port, named) in ports {
        for (name, id) in named.as_object().into_iter().flatten() {
            let label = if name == port { port.clone() } else { format!("{port}.{name}") };
            lines.push(format!("input     {label} {}", output::text(id)));
        }
    }
    let mut params = Vec::new();
    flatten("", &manifest.identity["params"], &mut params);
    lines.extend(params.into_iter().map(|(path, value)| format!("param     {path}: {value}")));
    let numbers = manifest.summary.iter().map(|(name, value)| (name, output::text(value)));
    lines.extend(numbers.map(|(name, value)| format!("summary   {name}: {value}")));
    let timings =
        producer.timings.iter().map(|(name, value)| (name, output::text(&(*value).into())));
    lines.extend(timings.map(|(name, value)| format!("timing    {name}: {value}")));
    let mut objects = Table::new(&["object", "bytes", "rows", "blake3"]);
    for object in &manifest.objects {
        let digest = object.digest.get(..12).unwrap_or(&object.digest);
        objects.push(vec![
            object.path.clone().into(),
            object.size.into(),
            object.rows.into(),
            digest.into(),
        ]);
    }
    format!("{}\n\n{}", lines.join("\n"), objects.text())
}

fn flatten(path: &str, value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, out);
            }
        }
        value if !path.is_empty() => out.push((path.into(), value.to_string())),
        _ => {}
    }
}

/// The schema and at most `rows` rows of the first part of `dataset`; `None` without any part.
async fn head(
    artifact: &Artifact,
    dataset: &str,
    rows: usize,
) -> Result<Option<(SchemaRef, Vec<RecordBatch>)>> {
    let Some(object) = artifact.manifest.parts(dataset).next() else { return Ok(None) };
    let unreadable = |e: &dyn std::fmt::Display| {
        Error::data(format!("artifact {} {}: {e}", artifact.manifest.id.short(), object.path))
    };
    let bytes = artifact.read(&object.path).await?;
    let builder = open_parquet(bytes, &object.path)?;
    let schema = builder.schema().clone();
    let reader = builder.with_limit(rows).build().map_err(|e| unreadable(&e))?;
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(|e| unreadable(&e))?;
    Ok(Some((schema, batches)))
}
