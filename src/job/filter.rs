//! `filter`: the rows that an SQL query over the inputs gives, as a dataset.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::{CastOptions, cast_with_options, concat_batches};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Arity, Context, Job, Port, resolve_as};
use crate::dataset::{self, Example, Rollout, Row, Task, Verdict, read_batches};
use crate::query;
use crate::{Error, Result};

/// Rows in one part of the output.
const PART: usize = 1 << 16;

/// Each input is a table under its name: the dataset called like the artifact's kind, or the only
/// one. All its datasets are `name.dataset`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// One query with an ORDER BY: the same inputs must give the same rows.
    sql: String,
    /// The dataset whose columns the query gives.
    output: String,
}

const OUTPUTS: [&str; 4] = [Example::NAME, Task::NAME, Rollout::NAME, Verdict::NAME];

pub struct Filter;

impl Job for Filter {
    fn name(&self) -> &'static str {
        "filter"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[Port {
            name: "tables",
            accepts: &["tasks", "examples", "rollouts", "verdicts", "scores", "checkpoint"],
            arity: Arity::Many,
        }]
    }
    fn output(&self) -> &'static str {
        Example::NAME
    }
    fn output_for(&self, params: &Value) -> &'static str {
        OUTPUTS.into_iter().find(|name| params["output"] == *name).unwrap_or(self.output())
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        let params = resolve_as::<Spec>(raw)?;
        let output = params["output"].as_str().unwrap_or_default();
        if !OUTPUTS.contains(&output) {
            return Err(Error::usage(format!(
                "output `{output}`: a filter makes {}",
                OUTPUTS.join(", ")
            )));
        }
        if !query::has_order(params["sql"].as_str().unwrap_or_default())? {
            return Err(Error::usage(
                "sql: no ORDER BY at the query's end; the rows' order must not be left open",
            ));
        }
        Ok(params)
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        let spec: Spec = context.spec()?;
        let tables = read_tables(context, &spec.sql)?;
        match self.output_for(&context.params) {
            Task::NAME => write::<Task>(context, &spec, tables),
            Rollout::NAME => write::<Rollout>(context, &spec, tables),
            Verdict::NAME => write::<Verdict>(context, &spec, tables),
            _ => write::<Example>(context, &spec, tables),
        }
    }
}

type Tables = Vec<(String, Vec<RecordBatch>)>;

/// The inputs' datasets by table name. One whose name is nowhere in the query is not read.
fn read_tables(context: &Context, sql: &str) -> Result<Tables> {
    let mut tables = Vec::new();
    for input in context.inputs("tables") {
        let manifest = &input.artifact.manifest;
        let only = manifest.datasets.len() == 1;
        for (name, schema) in &manifest.datasets {
            let main = only || *name == manifest.kind;
            if !main && !sql.contains(name) {
                continue;
            }
            let published = dataset::schemas()
                .into_iter()
                .find(|(known, version, _)| *known == schema.schema && *version == schema.version)
                .map(|(.., schema)| schema);
            let mut batches: Vec<RecordBatch> =
                published.iter().map(|schema| RecordBatch::new_empty(schema.clone())).collect();
            for object in manifest.parts(name) {
                let bytes = context.wait(input.artifact.read(&object.path))?;
                let place = format!("artifact {} {}", manifest.id.short(), object.path);
                let part =
                    read_batches(bytes, name, published.as_ref()).map_err(|e| e.at(place))?;
                batches.extend(part);
            }
            if batches.is_empty() {
                continue;
            }
            if main {
                tables.push((input.name.clone(), batches.clone()));
            }
            tables.push((format!("{}.{name}", input.name), batches));
        }
    }
    Ok(tables)
}

fn write<R: Row>(context: &mut Context, spec: &Spec, tables: Tables) -> Result<()> {
    let runtime = tokio::runtime::Handle::current();
    let schemas = tables.iter().map(|(name, batches)| (name.as_str(), batches[0].schema()));
    let planned = query::plan_schema(&spec.sql, schemas.collect(), &runtime)?;
    check_columns::<R>(&planned)?;
    let rows_in: usize = tables
        .iter()
        .filter(|(name, _)| !name.contains('.'))
        .flat_map(|(_, b)| b)
        .map(RecordBatch::num_rows)
        .sum();
    let tables = tables.iter().map(|(name, batches)| (name.as_str(), batches.clone())).collect();
    let found = query::select(&spec.sql, tables, &runtime)?;
    let rows = R::decode(&conform::<R>(&planned, &found)?)?;
    context.summarize("rows in", rows_in);
    context.summarize("rows", rows.len());
    if rows.is_empty() {
        return context.write::<R>(0, &rows);
    }
    rows.chunks(PART).enumerate().try_for_each(|(part, rows)| context.write(part, rows))
}

/// Checks a query's columns against the output's before anything runs.
fn check_columns<R: Row>(found: &SchemaRef) -> Result<()> {
    let wanted = R::schema();
    for field in wanted.fields() {
        let Ok(given) = found.field_with_name(field.name()) else {
            if field.is_nullable() {
                continue;
            }
            return Err(Error::usage(format!(
                "sql: the query gives no column `{}`, which `{}` has; it gives {}",
                field.name(),
                R::NAME,
                found.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ")
            )));
        };
        if !fits(given.data_type(), field.data_type()) {
            return Err(Error::usage(format!(
                "sql: column `{}` is {}, in `{}` it is {}",
                field.name(),
                given.data_type(),
                R::NAME,
                field.data_type()
            )));
        }
    }
    let extra = found.fields().iter().find(|field| wanted.field_with_name(field.name()).is_err());
    extra.map_or(Ok(()), |field| {
        Err(Error::usage(format!(
            "sql: column `{}` is none of `{}`; leave it out",
            field.name(),
            R::NAME
        )))
    })
}

/// Whether a column of type `from` may become one of type `to`: the same sort of value.
fn fits(from: &DataType, to: &DataType) -> bool {
    if let (DataType::List(from), DataType::List(to)) = (from, to) {
        return fits(from.data_type(), to.data_type());
    }
    from == to
        || (from.is_string() && to.is_string())
        || (from.is_integer() && (to.is_integer() || to.is_floating()))
        || (from.is_floating() && to.is_floating())
}

/// The rows in the columns of `R`. A number that does not fit its column is an error.
fn conform<R: Row>(planned: &SchemaRef, found: &[RecordBatch]) -> Result<RecordBatch> {
    let failed = |e: &dyn std::fmt::Display| Error::data(format!("sql: {e}"));
    let schema = found.first().map_or_else(|| planned.clone(), RecordBatch::schema);
    let all = concat_batches(&schema, found).map_err(|e| failed(&e))?;
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    // What `check_columns` let be missing reads as null.
    let columns = R::schema()
        .fields()
        .iter()
        .filter_map(|field| Some((field, all.column_by_name(field.name())?)))
        .map(|(field, column)| {
            let column = cast_with_options(column, field.data_type(), &strict)
                .map_err(|e| failed(&format!("column `{}`: {e}", field.name())))?;
            Ok((field.name().clone(), column, true))
        })
        .collect::<Result<Vec<_>>>()?;
    RecordBatch::try_from_iter_with_nullable(columns).map_err(Error::defect)
}

#[cfg(test)]
mod tests;
