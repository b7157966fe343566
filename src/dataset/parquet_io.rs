//! Parquet bytes: the same rows give the same bytes.

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::Row;
use crate::{Error, Result};

/// One Parquet file of `rows`, with the schema's name and version in its metadata.
pub fn encode_parquet<R: Row>(rows: &[R]) -> Result<Bytes> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by("triad".into())
        .set_key_value_metadata(Some(vec![KeyValue::new(
            "triad.schema".into(),
            Some(format!("{}/{}", R::NAME, R::VERSION)),
        )]))
        .build();
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, R::schema(), Some(properties)).map_err(Error::defect)?;
    writer.write(&R::encode(rows)?).map_err(Error::defect)?;
    writer.close().map_err(Error::defect)?;
    Ok(bytes.into())
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
    let unreadable =
        |e: &dyn std::fmt::Display| Error::data(format!("`{dataset}` is no readable Parquet: {e}"));
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| unreadable(&e))?;
    let found = builder.schema().clone();
    let reader = builder.with_batch_size(8192).build().map_err(|e| unreadable(&e))?;
    let columns = schema
        .map(|schema| {
            let fields = schema.fields().iter();
            let needed = fields.filter(|f| !f.is_nullable() || found.index_of(f.name()).is_ok());
            needed.map(|f| position(&found, dataset, f.name())).collect()
        })
        .transpose()?
        .unwrap_or_else(|| (0..found.fields().len()).collect::<Vec<_>>());
    reader
        .map(|batch| batch.and_then(|batch| batch.project(&columns)).map_err(|e| unreadable(&e)))
        .collect()
}

fn position(found: &SchemaRef, dataset: &str, column: &str) -> Result<usize> {
    found.index_of(column).map_err(|_| {
        let has: Vec<_> = found.fields().iter().map(|field| field.name().as_str()).collect();
        Error::data(format!("`{dataset}` needs a column `{column}`; found {}", has.join(", ")))
    })
}
