//! SQL over batches in memory: what a job's query runs on.

use datafusion::arrow::array::RecordBatch;
use datafusion::catalog::{MemTable, MemorySchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast;
use std::sync::Arc;

use super::catalog::{BARE, HOME, quoted};
use super::failure::explain;
use super::functions;
use super::session::reading;
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
    let session = Session::over(tables)?;
    runtime.block_on(async {
        let frame = session.plan(sql).await?;
        frame.collect().await.map_err(|e| session.explain(&e, sql))
    })
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

/// A session over some tables, in which SQL may only read.
pub(super) struct Session {
    pub context: SessionContext,
    names: Vec<String>,
}

impl Session {
    /// Over batches in memory, on one partition.
    fn over(tables: Vec<(&str, Vec<RecordBatch>)>) -> Result<Self> {
        let tables = tables.into_iter().map(|(name, batches)| {
            let schema = batches
                .first()
                .map(RecordBatch::schema)
                .ok_or_else(|| Error::defect(format!("table `{name}` has no batch")))?;
            let table = MemTable::try_new(schema, vec![batches]).map_err(Error::defect)?;
            Ok((name, Arc::new(table) as Arc<dyn TableProvider>))
        });
        let tables = tables.collect::<Result<Vec<_>>>()?;
        let config = SessionConfig::new().with_target_partitions(1);
        Self::new(config, Arc::default(), tables.into_iter())
    }

    /// `a.b` is table b of schema a.
    pub fn new<'a>(
        config: SessionConfig,
        runtime: Arc<RuntimeEnv>,
        tables: impl Iterator<Item = (&'a str, Arc<dyn TableProvider>)>,
    ) -> Result<Self> {
        let config = config.with_default_catalog_and_schema(HOME, BARE);
        let context = SessionContext::new_with_config_rt(config, runtime);
        functions::register_repeatable(&context);
        let mut names = Vec::new();
        for (name, table) in tables {
            names.push(name.split('.').map(quoted).collect::<Vec<_>>().join("."));
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
            context.register_table(reference, table).map_err(Error::defect)?;
        }
        Ok(Self { context, names })
    }

    pub async fn plan(&self, sql: &str) -> Result<DataFrame> {
        self.context.sql_with_options(sql, reading()).await.map_err(|e| self.explain(&e, sql))
    }

    pub fn explain(&self, error: &DataFusionError, sql: &str) -> Error {
        explain(error, sql, &self.names)
    }
}
