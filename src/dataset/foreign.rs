//! Files that others wrote, row by row as JSON objects.

use bytes::Bytes;
use datafusion::arrow::json::LineDelimitedWriter;
use serde_json::{Map, Value};

use super::read_batches;
use crate::{Error, Result};

/// The rows of a Parquet file, of JSON lines or of one JSON array, told apart by their first bytes.
///
/// # Errors
/// `Data` names the line that is no JSON object.
pub fn read_objects(bytes: Bytes) -> Result<Vec<Map<String, Value>>> {
    if bytes.starts_with(b"PAR1") {
        let mut lines = Vec::new();
        for batch in read_batches(bytes, "file", None)? {
            let mut writer = LineDelimitedWriter::new(&mut lines);
            writer.write(&batch).map_err(Error::data)?;
            writer.finish().map_err(Error::data)?;
        }
        return read_lines(&lines);
    }
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => serde_json::from_slice(&bytes)
            .map_err(|e| Error::data(format!("no JSON array of objects: {e}"))),
        _ => read_lines(&bytes),
    }
}

/// The rows of a CSV file whose first row names the columns. All values are texts.
///
/// # Errors
/// `Data` names the row with more or fewer fields than there are columns.
pub fn read_csv(bytes: &[u8]) -> Result<Vec<Map<String, Value>>> {
    let fail = |e: csv::Error| Error::data(format!("no CSV: {e}"));
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut reader = csv::Reader::from_reader(bytes);
    let columns = reader.headers().map_err(fail)?.clone();
    let row = |record: csv::Result<csv::StringRecord>| {
        let record = record.map_err(fail)?;
        let pairs = columns.iter().zip(record.iter());
        Ok(pairs.map(|(column, value)| (column.into(), value.into())).collect())
    };
    reader.records().map(row).collect()
}

fn read_lines(bytes: &[u8]) -> Result<Vec<Map<String, Value>>> {
    let lines = bytes.split(|&byte| byte == b'\n').enumerate();
    lines
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(number, line)| {
            serde_json::from_slice(line).map_err(|e| {
                Error::data(format!("line {}: no Parquet and no JSON object: {e}", number + 1))
            })
        })
        .collect()
}
