//! Query results as text or as Parquet.

use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;

use comfy_table::{CellAlignment, Table, presets};
use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::csv;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::json::writer::{JsonArray, LineDelimited, WriterBuilder};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::nearest::hint;
use crate::{Error, Result};

/// Characters of a cell in a table for people; `csv` and `json` hold everything.
const CELL: usize = 72;

/// How query results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people: long texts are cut, fractions rounded to six digits.
    Table,
    Csv,
    /// One array of objects.
    Json,
    /// One object a line.
    Ndjson,
    /// A Markdown table, cut and rounded like `Table`.
    Markdown,
    /// The columns as they are, in zstd: for files.
    Parquet,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "table" => Self::Table,
            "csv" => Self::Csv,
            "json" => Self::Json,
            "ndjson" => Self::Ndjson,
            "markdown" => Self::Markdown,
            "parquet" => Self::Parquet,
            _ => {
                let known = ["table", "csv", "json", "ndjson", "markdown", "parquet"];
                return Err(format!("no format `{text}`{}", hint(text, known)));
            }
        })
    }
}

/// Writes `batches` of `schema` to `out`. Null is an empty cell, `null` in JSON.
///
/// # Errors
/// `TryAgain` when `out` fails.
pub fn write_results(
    format: Format,
    schema: &SchemaRef,
    batches: &[RecordBatch],
    out: &mut dyn Write,
) -> Result<()> {
    match format {
        Format::Table | Format::Markdown => write_table(format, schema, batches, out),
        Format::Csv => write_csv(schema, batches, out),
        Format::Json => {
            let mut writer =
                WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(&mut *out);
            writer.write_batches(&batches.iter().collect::<Vec<_>>()).map_err(failed)?;
            writer.finish().map_err(failed)?;
            writeln!(out).map_err(failed)
        }
        Format::Ndjson => {
            let mut writer =
                WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(out);
            writer.write_batches(&batches.iter().collect::<Vec<_>>()).map_err(failed)?;
            writer.finish().map_err(failed)
        }
        Format::Parquet => {
            let schema = batches.first().map_or_else(|| schema.clone(), RecordBatch::schema);
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(ZstdLevel::default()))
                .build();
            let mut writer =
                ArrowWriter::try_new(Vec::new(), schema, Some(properties)).map_err(failed)?;
            batches.iter().try_for_each(|batch| writer.write(batch)).map_err(failed)?;
            out.write_all(&writer.into_inner().map_err(failed)?).map_err(failed)
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::try_again(format!("the results could not be written: {error}"))
}

fn write_csv(schema: &SchemaRef, batches: &[RecordBatch], out: &mut dyn Write) -> Result<()> {
    // CSV has no lists: they become their text.
    let flat = Arc::new(Schema::new(
        schema
            .fields()
            .iter()
            .map(|field| match field.data_type() {
                t if t.is_nested() => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
                _ => field.clone(),
            })
            .collect::<Vec<_>>(),
    ));
    let mut writer = csv::WriterBuilder::new().with_header(true).build(out);
    writer.write(&RecordBatch::new_empty(flat.clone())).map_err(failed)?;
    for batch in batches {
        let columns =
            batch
                .columns()
                .iter()
                .map(|column| {
                    if column.data_type().is_nested() { texts(column) } else { Ok(column.clone()) }
                })
                .collect::<Result<Vec<_>>>()?;
        let batch = RecordBatch::try_new(flat.clone(), columns).map_err(Error::defect)?;
        writer.write(&batch).map_err(failed)?;
    }
    Ok(())
}

fn texts(column: &ArrayRef) -> Result<ArrayRef> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options).map_err(Error::defect)?;
    let values = (0..column.len())
        .map(|row| (!column.is_null(row)).then(|| formatter.value(row).to_string()));
    Ok(Arc::new(values.collect::<StringArray>()))
}

fn write_table(
    format: Format,
    schema: &SchemaRef,
    batches: &[RecordBatch],
    out: &mut dyn Write,
) -> Result<()> {
    let mut table = Table::new();
    table.load_preset(match format {
        Format::Markdown => presets::ASCII_MARKDOWN,
        _ => presets::UTF8_FULL_CONDENSED,
    });
    table.set_header(schema.fields().iter().map(|field| field.name()));
    for (index, field) in schema.fields().iter().enumerate() {
        if let (true, Some(column)) = (field.data_type().is_numeric(), table.column_mut(index)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let options = FormatOptions::default();
    let mut rows = 0;
    for batch in batches {
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::defect)?;
        for row in 0..batch.num_rows() {
            table.add_row(columns.iter().zip(batch.columns()).map(|(formatter, column)| {
                cell(&formatter.value(row).to_string(), column.data_type(), format)
            }));
        }
        rows += batch.num_rows();
    }
    writeln!(out, "{table}").map_err(failed)?;
    if format == Format::Table {
        let s = if rows == 1 { "" } else { "s" };
        writeln!(out, "{rows} row{s}").map_err(failed)?;
    }
    Ok(())
}

/// One cell on one line.
fn cell(text: &str, data_type: &DataType, format: Format) -> String {
    if data_type.is_floating() {
        let Ok(value) = text.parse::<f64>() else { return text.into() };
        let short = format!("{value:.6}");
        let short = short.trim_end_matches('0').trim_end_matches('.');
        let tiny = value != 0.0 && value.abs() < 1e-4;
        return if tiny || short.len() > text.len() { text.into() } else { short.into() };
    }
    let mut line = text.replace("\r\n", "⏎").replace(['\n', '\r'], "⏎").replace('\t', " ");
    if line.chars().count() > CELL {
        line = line.chars().take(CELL - 1).chain(['…']).collect();
    }
    if format == Format::Markdown { line.replace('|', "\\|") } else { line }
}
