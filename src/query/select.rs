//! SQL over batches in memory: what a job's query runs on.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{MemTable, MemorySchemaProvider};
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast;
use std::sync::Arc;

use super::catalog::{BARE, HOME, quoted};
use super::failure::explain;
use super::functions;
use crate::{Error, Result};

/// Runs `sql` over `tables` (name, batches) on one partition and returns the rows in the query's
/// order. Rows that an ORDER BY leaves tied, and all rows without one, come in the order of a
/// plan with one partition: the same every time for the same program and rows. A table's batches
/// must not be empty: pass a batch of no rows for an empty table. `a.b` is table b of schema a.
///
/// # Errors
/// `Usage` for SQL that does not parse, plan or run, or that writes.
pub fn select(
    sql: &str,
    tables: Vec<(&str, Vec<RecordBatch>)>,
    runtime: &tokio::runtime::Handle,
) -> Result<Vec<RecordBatch>> {
    let session = Session::new(tables)?;
    runtime.block_on(async {
        let frame = session.plan(sql).await?;
        frame.collect().await.map_err(|e| explain(&e, sql, &session.names))
    })
}

/// The columns that `sql` would give over tables of these schemas.
///
/// # Errors
/// `Usage` for SQL that does not parse or plan, or that writes.
pub fn plan_schema(
    sql: &str,
    tables: Vec<(&str, SchemaRef)>,
    runtime: &tokio::runtime::Handle,
) -> Result<SchemaRef> {
    let empty = |schema| vec![RecordBatch::new_empty(schema)];
    let session =
        Session::new(tables.into_iter().map(|(name, schema)| (name, empty(schema))).collect())?;
    let frame = runtime.block_on(session.plan(sql))?;
    Ok(Arc::new(frame.schema().as_arrow().clone()))
}

/// Whether `sql` is one query with an ORDER BY at its end.
///
/// # Errors
/// `Usage` for SQL that does not parse, or is no query.
pub fn has_order(sql: &str) -> Result<bool> {
    let mut statements =
        DFParser::parse_sql(sql).map_err(|e: DataFusionError| explain(&e, sql, &[]))?;
    let statement = statements.pop_front();
    match (statement, statements.is_empty()) {
        (Some(Statement::Statement(statement)), true) => match *statement {
            ast::Statement::Query(query) => Ok(query.order_by.is_some()),
            other => Err(Error::usage(format!("not a query: {other}"))),
        },
        (None, _) => Err(Error::usage("the SQL is empty")),
        _ => Err(Error::usage("not one query")),
    }
}

struct Session {
    context: SessionContext,
    names: Vec<String>,
}

impl Session {
    fn new(tables: Vec<(&str, Vec<RecordBatch>)>) -> Result<Self> {
        let config = SessionConfig::new()
            .with_target_partitions(1)
            .with_default_catalog_and_schema(HOME, BARE);
        let context = SessionContext::new_with_config(config);
        functions::register(&context);
        let names = tables
            .iter()
            .map(|(name, _)| name.split('.').map(quoted).collect::<Vec<_>>().join("."))
            .collect();
        for (name, batches) in tables {
            let schema = batches
                .first()
                .map(RecordBatch::schema)
                .ok_or_else(|| Error::defect(format!("table `{name}` has no batch")))?;
            let table = MemTable::try_new(schema, vec![batches]).map_err(Error::defect)?;
            let reference = match name.split_once('.') {
                Some((schema, table)) => TableReference::partial(schema, table),
                None => TableReference::bare(name),
            };
            if let (Some(schema), Some(catalog)) = (reference.schema(), context.catalog(HOME))
                && catalog.schema(schema).is_none()
            {
                let tables = Arc::new(MemorySchemaProvider::new());
                catalog.register_schema(schema, tables).map_err(Error::defect)?;
            }
            context.register_table(reference, Arc::new(table)).map_err(Error::defect)?;
        }
        Ok(Self { context, names })
    }

    async fn plan(&self, sql: &str) -> Result<DataFrame> {
        let options = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        self.context.sql_with_options(sql, options).await.map_err(|e| explain(&e, sql, &self.names))
    }
}
