//! Parquet bytes: the same rows give the same bytes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{BloomFilterPosition, WriterProperties};

use super::Row;
use super::bounds::bounds;
use super::guard::{batch_rows, check_footer, check_pages, decoded_bytes};
use crate::store::Part;
use crate::{Error, Result};

/// What point lookups go by: its values lie all over a dataset, so that no bounds tell where one is.
const LOOKED_UP: &str = "task_id";

/// One Parquet file of `rows`, with the schema's name and version in its metadata.
pub fn encode_parquet<R: Row>(rows: &[R]) -> Result<Bytes> {
    encode_part::<R>(&R::encode(rows)?).map(|part| part.bytes)
}

/// The same of rows in the columns of `R`, with what a manifest says of them.
pub fn encode_part<R: Row>(rows: &RecordBatch) -> Result<Part> {
    // Bloom filters lie beside the footer, so that one request brings both.
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by("triad".into())
        .set_bloom_filter_position(BloomFilterPosition::End)
        .set_column_bloom_filter_fpp(LOOKED_UP.into(), 0.01)
        .set_column_bloom_filter_max_ndv(LOOKED_UP.into(), rows.num_rows().max(1) as u64)
        .set_key_value_metadata(Some(vec![KeyValue::new(
            "triad.schema".into(),
            Some(format!("{}/{}", R::NAME, R::VERSION)),
        )]))
        .build();
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, R::schema(), Some(properties)).map_err(Error::defect)?;
    writer.write(rows).map_err(Error::defect)?;
    writer.close().map_err(Error::defect)?;
    Ok(Part { bytes: bytes.into(), rows: rows.num_rows() as u64, columns: bounds(rows) })
}

/// The rows of one Parquet file.
///
/// # Errors
/// `Data` for a file that is no Parquet, or lacks a column, or has one of another type.
pub fn decode_parquet<R: Row>(bytes: Bytes) -> Result<Vec<R>> {
    let mut rows = Vec::new();
    for batch in read_batches(bytes, R::NAME, Some(&R::schema()))? {
        rows.append(&mut R::decode(&batch)?);
    }
    Ok(rows)
}

/// A reader of the Parquet file `bytes`, whose footer and pages claim nothing absurd.
///
/// # Errors
/// `Data` with what is wrong.
pub fn open_parquet(bytes: Bytes, name: &str) -> Result<ParquetRecordBatchReaderBuilder<Bytes>> {
    caught(name, || open(bytes, name))
}

/// Does `work`, in which the parser may panic: for a file of hostile make it does.
fn caught<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::data(format!("`{name}` is no readable Parquet: its parser gave up")))
    })
}

fn open(bytes: Bytes, name: &str) -> Result<ParquetRecordBatchReaderBuilder<Bytes>> {
    let unreadable =
        |e: &dyn std::fmt::Display| Error::data(format!("`{name}` is no readable Parquet: {e}"));
    check_footer(&bytes).map_err(|e| unreadable(&e))?;
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(|e| unreadable(&e))?;
    let mut widest = 0;
    for group in builder.metadata().row_groups() {
        let mut width: u64 = 0;
        for column in group.columns() {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let range = (u64::try_from(start), u64::try_from(column.compressed_size()));
            let (Ok(start), Ok(length)) = range else {
                return Err(unreadable(&"a column of negative size"));
            };
            let range = start..start.saturating_add(length);
            let largest = check_pages(&bytes, range).map_err(|e| unreadable(&e))?;
            width = width.saturating_add(largest);
        }
        widest = widest.max(width);
    }
    Ok(builder.with_batch_size(batch_rows(widest)))
}

/// The rows of one Parquet file as batches. With a `schema`, columns that it lacks are an error,
/// nullable ones aside, and further ones are left out.
///
/// # Errors
/// `Data` for a file that is no Parquet or lacks a column.
pub fn read_batches(
    bytes: Bytes,
    dataset: &str,
    schema: Option<&SchemaRef>,
) -> Result<Vec<RecordBatch>> {
    caught(dataset, || read(bytes, dataset, schema))
}

fn read(bytes: Bytes, dataset: &str, schema: Option<&SchemaRef>) -> Result<Vec<RecordBatch>> {
    let unreadable =
        |e: &dyn std::fmt::Display| Error::data(format!("`{dataset}` is no readable Parquet: {e}"));
    let most = decoded_bytes(bytes.len());
    let builder = open(bytes, dataset)?;
    let found = builder.schema().clone();
    let reader = builder.build().map_err(|e| unreadable(&e))?;
    let columns = schema
        .map(|schema| {
            let fields = schema.fields().iter();
            let needed = fields.filter(|f| !f.is_nullable() || found.index_of(f.name()).is_ok());
            needed.map(|f| position(&found, dataset, f.name())).collect()
        })
        .transpose()?
        .unwrap_or_else(|| (0..found.fields().len()).collect::<Vec<_>>());
    let mut taken = 0;
    reader
        .map(|batch| {
            let batch = batch.map_err(|e| unreadable(&e))?;
            taken += batch.get_array_memory_size();
            if taken > most {
                return Err(unreadable(&format!("its rows take more than {most} bytes")));
            }
            batch.project(&columns).map_err(|e| unreadable(&e))
        })
        .collect()
}

fn position(found: &SchemaRef, dataset: &str, column: &str) -> Result<usize> {
    found.index_of(column).map_err(|_| {
        let has: Vec<_> = found.fields().iter().map(|field| field.name().as_str()).collect();
        Error::data(format!("`{dataset}` needs a column `{column}`; found {}", has.join(", ")))
    })
}
