//! Parquet bytes: the same rows give the same bytes.

use bytes::Bytes;
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
pub fn decode_parquet<R: Row>(bytes: Bytes) -> Result<Vec<R>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(|builder| builder.with_batch_size(8192).build())
        .map_err(|e| Error::data(format!("`{}` is no readable Parquet: {e}", R::NAME)))?;
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|e| Error::data(format!("`{}`: {e}", R::NAME)))?;
        rows.append(&mut R::decode(&batch)?);
    }
    Ok(rows)
}
