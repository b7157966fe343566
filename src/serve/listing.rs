//! What clients list before they ask: every dataset as catalog `pipeline`, schema `stage`, table
//! `dataset`.

use arrow_flight::error::FlightError;
use std::sync::Arc;

use arrow_flight::sql::metadata::SqlInfoDataBuilder;
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTables, SqlInfo,
};
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};

use crate::query::Catalog;
use crate::{Error, Result};

const TABLE: &str = "BASE TABLE";

fn built(batch: std::result::Result<RecordBatch, FlightError>) -> Result<RecordBatch> {
    batch.map_err(Error::defect)
}

pub fn catalogs(catalog: &Catalog, asked: CommandGetCatalogs) -> Result<RecordBatch> {
    let mut builder = asked.into_builder();
    for [pipeline, ..] in catalog.datasets() {
        builder.append(pipeline);
    }
    built(builder.build())
}

pub fn schemas(catalog: &Catalog, asked: CommandGetDbSchemas) -> Result<RecordBatch> {
    let mut builder = asked.into_builder();
    let mut last = None;
    for [pipeline, stage, _] in catalog.datasets() {
        if last.replace((pipeline, stage)) != Some((pipeline, stage)) {
            builder.append(pipeline, stage);
        }
    }
    built(builder.build())
}

pub async fn tables(catalog: &Catalog, asked: CommandGetTables) -> Result<RecordBatch> {
    let mut builder = asked.into_builder();
    for (pipeline, stage, dataset, schema) in catalog.columns().await? {
        builder.append(pipeline, stage, dataset, TABLE, &schema).map_err(Error::defect)?;
    }
    built(builder.build())
}

pub fn table_types() -> Result<RecordBatch> {
    let types: ArrayRef = Arc::new(StringArray::from(vec![TABLE]));
    RecordBatch::try_from_iter([("table_type", types)]).map_err(Error::defect)
}

/// Who serves, and what it lets clients do.
pub fn about(asked: CommandGetSqlInfo) -> Result<RecordBatch> {
    let mut builder = SqlInfoDataBuilder::new();
    builder.append(SqlInfo::FlightSqlServerName, "triad");
    builder.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    builder.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    builder.append(SqlInfo::FlightSqlServerReadOnly, true);
    builder.append(SqlInfo::FlightSqlServerSql, true);
    builder.append(SqlInfo::FlightSqlServerSubstrait, false);
    builder.append(SqlInfo::FlightSqlServerTransaction, 0i32);
    builder.append(SqlInfo::FlightSqlServerCancel, false);
    builder.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    let data = builder.build().map_err(Error::defect)?;
    built(asked.into_builder(&data).build())
}
