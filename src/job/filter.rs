//! `filter`: the rows that an SQL query over the inputs gives, as a dataset.

use datafusion::arrow::array::{Array, RecordBatch, new_null_array};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::context::part_path;
use super::{Arity, Context, Job, Port, resolve_as};
use crate::dataset::{Example, Rollout, Row, Task, Verdict, encode_part};
use crate::query::{self, Limits, Steady};
use crate::store::Part;
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
        2
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
        run_within(context, Limits::of_this_process())
    }
}

fn run_within(context: &mut Context, limits: Limits) -> Result<()> {
    match Filter.output_for(&context.params) {
        Task::NAME => write::<Task>(context, limits),
        Rollout::NAME => write::<Rollout>(context, limits),
        Verdict::NAME => write::<Verdict>(context, limits),
        _ => write::<Example>(context, limits),
    }
}

fn write<R: Row>(context: &mut Context, limits: Limits) -> Result<()> {
    let spec: Spec = context.spec()?;
    let inputs = context.inputs("tables").to_vec();
    let tables = inputs.iter().map(|input| (input.name.clone(), &input.artifact)).collect();
    let query = context.wait(Steady::plan(&spec.sql, tables, limits))?;
    check_columns::<R>(query.schema())?;
    let runtime = context.runtime.clone();
    let mut rows = 0;
    runtime.block_on(query.run(PART, encode::<R>, async |number, part: Part| {
        context.check_stop()?;
        rows = if number == 0 { 0 } else { rows } + part.rows;
        context.progress.update("rows", rows, 0, "");
        context.attempt.write_part(&part_path::<R>(number), part).await
    }))?;
    context.declare::<R>();
    let rows_in = inputs.iter().filter_map(|input| {
        let manifest = &input.artifact.manifest;
        query::main_dataset(manifest).map(|name| manifest.rows(name))
    });
    context.summarize("rows in", rows_in.sum::<u64>());
    context.summarize("rows", rows);
    context.plan = Some(query.text().into());
    Ok(())
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
                if given.data_type().is_string() { &DataType::Utf8 } else { given.data_type() },
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

/// One part of the output. A number that does not fit its column is an error, and so is a null.
fn encode<R: Row>(rows: RecordBatch) -> Result<Part> {
    let failed =
        |name: &str, e: &dyn std::fmt::Display| Error::data(format!("sql: column `{name}`: {e}"));
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let schema = R::schema();
    let columns = schema.fields().iter().map(|field| {
        let name = field.name();
        // What `check_columns` let be missing reads as null.
        let Some(column) = rows.column_by_name(name) else {
            return Ok(new_null_array(field.data_type(), rows.num_rows()));
        };
        if !field.is_nullable() && column.null_count() > 0 {
            return Err(failed(name, &format!("{} values are null", column.null_count())));
        }
        cast_with_options(column, field.data_type(), &strict).map_err(|e| failed(name, &e))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let rows = RecordBatch::try_new(schema, columns)
        .map_err(|e| Error::data(format!("sql: {}: {e}", R::NAME)))?;
    encode_part::<R>(&rows)
}

#[cfg(test)]
mod tests;
