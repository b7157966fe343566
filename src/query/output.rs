//! Query results as text or as Parquet, batch by batch.

use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;

use comfy_table::{CellAlignment, Table, presets};
use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::csv;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::json::writer::{JsonArray, LineDelimited, Writer, WriterBuilder};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::nearest::hint;
use crate::{Error, Result};

/// Characters of a cell in a table for people; `csv` and `json` hold everything.
const CELL: usize = 72;
/// Rows of a table for people that are kept for its columns' widths.
const BLOCK: usize = 10_000;
/// Bytes of a row group before it is compressed.
const ROW_GROUP: usize = 64 << 20;

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
    out: impl Write + Send,
) -> Result<()> {
    let mut writer = ResultWriter::new(format, schema, out)?;
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.finish()
}

/// Writes a query's rows as they come, in bounded memory.
pub enum ResultWriter<W: Write + Send> {
    Table(Box<TextTable<W>>),
    /// With the schema of what is written.
    Csv(Box<csv::Writer<W>>, SchemaRef),
    Json(Writer<W, JsonArray>),
    Ndjson(Writer<W, LineDelimited>),
    Parquet(Box<ArrowWriter<W>>),
}

impl<W: Write + Send> ResultWriter<W> {
    /// # Errors
    /// `TryAgain` when `out` fails, here and below.
    pub fn new(format: Format, schema: &SchemaRef, out: W) -> Result<Self> {
        let json = WriterBuilder::new().with_explicit_nulls(true);
        Ok(match format {
            Format::Table | Format::Markdown => {
                Self::Table(Box::new(TextTable::new(format, schema, out)))
            }
            Format::Csv => {
                let schema = flat(schema);
                let mut writer = csv::WriterBuilder::new().with_header(true).build(out);
                writer.write(&RecordBatch::new_empty(schema.clone())).map_err(failed)?;
                Self::Csv(Box::new(writer), schema)
            }
            Format::Json => Self::Json(json.build(out)),
            Format::Ndjson => Self::Ndjson(json.build(out)),
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_bytes(Some(ROW_GROUP))
                    .build();
                let writer = ArrowWriter::try_new(out, schema.clone(), Some(properties));
                Self::Parquet(Box::new(writer.map_err(failed)?))
            }
        })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Table(table) => table.write(batch),
            Self::Csv(writer, schema) => {
                let text = |column: &ArrayRef| match column.data_type().is_nested() {
                    true => texts(column),
                    false => Ok(column.clone()),
                };
                let columns = batch.columns().iter().map(text).collect::<Result<Vec<_>>>()?;
                let batch = RecordBatch::try_new(schema.clone(), columns).map_err(Error::defect)?;
                writer.write(&batch).map_err(failed)
            }
            Self::Json(writer) => writer.write(batch).map_err(failed),
            Self::Ndjson(writer) => writer.write(batch).map_err(failed),
            Self::Parquet(writer) => writer.write(batch).map_err(failed),
        }
    }

    /// Writes what must stand at the end.
    pub fn finish(self) -> Result<()> {
        match self {
            Self::Table(table) => table.finish(),
            Self::Csv(writer, _) => writer.into_inner().flush().map_err(failed),
            Self::Json(mut writer) => {
                writer.finish().map_err(failed)?;
                let mut out = writer.into_inner();
                writeln!(out).and_then(|()| out.flush()).map_err(failed)
            }
            Self::Ndjson(mut writer) => {
                writer.finish().map_err(failed)?;
                writer.into_inner().flush().map_err(failed)
            }
            Self::Parquet(writer) => writer.into_inner().map_err(failed)?.flush().map_err(failed),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::try_again(format!("the results could not be written: {error}"))
}

/// CSV has no lists: they become their text.
fn flat(schema: &Schema) -> SchemaRef {
    let field = |field: &Arc<Field>| match field.data_type() {
        t if t.is_nested() => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
        _ => field.clone(),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

fn texts(column: &ArrayRef) -> Result<ArrayRef> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options).map_err(Error::defect)?;
    let values = (0..column.len())
        .map(|row| (!column.is_null(row)).then(|| formatter.value(row).to_string()));
    Ok(Arc::new(values.collect::<StringArray>()))
}

/// A table for people. Its columns are as wide as the cells of up to 10,000 rows need; further
/// rows make a further block.
pub struct TextTable<W: Write> {
    format: Format,
    schema: SchemaRef,
    block: Table,
    blocks: usize,
    rows: usize,
    out: W,
}

impl<W: Write> TextTable<W> {
    fn new(format: Format, schema: &SchemaRef, out: W) -> Self {
        let block = Self::block(format, schema, true);
        Self { format, schema: schema.clone(), block, blocks: 0, rows: 0, out }
    }

    fn block(format: Format, schema: &Schema, header: bool) -> Table {
        let mut table = Table::new();
        table.load_preset(match format {
            Format::Markdown => presets::ASCII_MARKDOWN,
            _ => presets::UTF8_FULL_CONDENSED,
        });
        if header {
            table.set_header(schema.fields().iter().map(|field| field.name()));
        }
        table
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let options = FormatOptions::default();
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::defect)?;
        for row in 0..batch.num_rows() {
            if self.block.row_count() == BLOCK {
                self.print_block()?;
            }
            self.block.add_row(columns.iter().zip(batch.columns()).map(|(formatter, column)| {
                cell(&formatter.value(row).to_string(), column.data_type(), self.format)
            }));
            self.rows += 1;
        }
        Ok(())
    }

    fn print_block(&mut self) -> Result<()> {
        // A Markdown table has one header.
        let next = Self::block(self.format, &self.schema, self.format == Format::Table);
        let mut block = std::mem::replace(&mut self.block, next);
        for (index, field) in self.schema.fields().iter().enumerate() {
            if let (true, Some(column)) = (field.data_type().is_numeric(), block.column_mut(index))
            {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self.blocks += 1;
        writeln!(self.out, "{block}").map_err(failed)
    }

    fn finish(mut self) -> Result<()> {
        if self.blocks == 0 || self.block.row_count() > 0 {
            self.print_block()?;
        }
        if self.format == Format::Table {
            let s = if self.rows == 1 { "" } else { "s" };
            writeln!(self.out, "{} row{s}", self.rows).map_err(failed)?;
        }
        self.out.flush().map_err(failed)
    }
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
