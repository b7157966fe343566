//! A session: the tables of one catalog, and what its statements add to them.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{SchemaRef, UInt64Type};
use datafusion::catalog::{CatalogProviderList, DynamicFileCatalog, MemoryCatalogProviderList};
use datafusion::common::TableReference;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use url::Url;

use super::catalog::{BARE, Catalog, HOME, quoted, tuned};
use super::cluster::{CLUSTER, Scheduler};
use super::failure::explain;
use super::files::{Buckets, FileTables, inside};
use super::kept::Kept;
use super::steady::Limits;
use super::table::STORE_URL;
use super::version::Versions;
use super::{functions, system};
use crate::store::{Store, Traffic};
use crate::{Error, Result};

/// Statements run in turn over one catalog. They may name tables and views of their own, which
/// live as long as the session.
pub struct Session {
    store: Store,
    context: SessionContext,
    buckets: Arc<Buckets>,
    state: Mutex<State>,
}

struct State {
    catalog: Arc<Catalog>,
    /// When its names were set, once somebody has asked.
    names: Option<Vec<(String, DateTime<Utc>)>>,
    /// Tables and views that statements made.
    made: BTreeSet<String>,
}

/// What came of a statement.
pub enum Outcome {
    Rows(Rows),
    /// COPY wrote so many rows.
    Written(u64),
    /// A table or view came or went.
    Done,
}

/// A query's rows as they come.
pub struct Rows {
    stream: SendableRecordBatchStream,
    sql: String,
    names: Vec<String>,
}

impl Rows {
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }

    /// # Errors
    /// `Data` and `TryAgain` as reading the objects fails, `Usage` for what the query computes.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let batch = self.stream.next().await.transpose();
        batch.map_err(|e| explain(&e, &self.sql, &self.names))
    }
}

/// A statement, planned.
struct Planned<'a> {
    plan: LogicalPlan,
    sql: &'a str,
    /// The tables that it may have meant.
    names: Vec<String>,
}

/// What neither changes a table nor the session.
pub(super) fn reading() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

impl Session {
    /// Reads the names and their manifests.
    pub async fn open(store: &Store) -> Result<Self> {
        Self::new(store.clone(), Arc::new(Catalog::open(store).await?), true, None).await
    }

    /// One whose queries run on a cluster.
    pub async fn on(store: &Store, scheduler: &Scheduler) -> Result<Self> {
        let catalog = Arc::new(Catalog::open(store).await?);
        Self::new(store.clone(), catalog, true, Some(scheduler)).await
    }

    /// One that knows no files: for who asks from another machine.
    pub async fn without_files(store: &Store, catalog: Arc<Catalog>) -> Result<Self> {
        Self::new(store.clone(), catalog, false, None).await
    }

    async fn new(
        store: Store,
        catalog: Arc<Catalog>,
        files: bool,
        on: Option<&Scheduler>,
    ) -> Result<Self> {
        if files {
            // The session of one user: for as long as the process lives.
            std::mem::forget(Kept::new());
        }
        let buckets = Arc::new(Buckets::default());
        // A folder that COPY has just written to is listed again.
        let caches = CacheManagerConfig::default().with_list_files_cache_limit(0);
        let runtime = RuntimeEnvBuilder::new()
            .with_object_store_registry(buckets.clone())
            .with_cache_manager(caches)
            .with_memory_pool(Arc::new(FairSpillPool::new(Limits::of_this_process().memory)))
            .build_arc()
            .map_err(Error::defect)?;
        let mut config = tuned(SessionConfig::new()).with_default_catalog_and_schema(HOME, BARE);
        config.options_mut().sql_parser.collect_spans = true;
        let mut catalogs: Arc<dyn CatalogProviderList> = Arc::new(MemoryCatalogProviderList::new());
        if files {
            let files = Arc::new(FileTables(runtime.clone()));
            catalogs = Arc::new(DynamicFileCatalog::new(catalogs, files));
        }
        let mut state: SessionState = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_catalog_list(catalogs)
            .with_default_features()
            .build();
        if let Some(scheduler) = on {
            state = CLUSTER.get()?.attach(state, scheduler, &store)?;
        }
        let context = SessionContext::new_with_state(state);
        functions::register(&context);
        context.register_udf(functions::decode(&store));
        catalog.register(&context).await?;
        let state = State { catalog, names: None, made: BTreeSet::new() };
        let session = Self { store, context, buckets, state: Mutex::new(state) };
        session.admit(&Versions::default()).await?;
        Ok(session)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `artifact` and `parts` know these versions, and their objects readable.
    async fn admit(&self, versions: &Versions) -> Result<()> {
        let catalog = self.state().catalog.clone();
        for (name, function) in versions.functions().await? {
            self.context.register_udtf(name, function);
        }
        let url = Url::parse(STORE_URL).map_err(Error::defect)?;
        let objects = Arc::new(catalog.verified(versions));
        self.context.runtime_env().register_object_store(&url, objects);
        Ok(())
    }

    /// Reads the names anew where one has moved since they were read; whether one had.
    pub async fn follow(&self) -> Result<bool> {
        let now = self.store.names_set().await?;
        let before = self.state().names.replace(now.clone());
        let moved = before.is_some_and(|before| before != now);
        if moved {
            self.refresh().await?;
        }
        Ok(moved)
    }

    /// Reads the names anew. Tables and views of the session stay.
    pub async fn refresh(&self) -> Result<()> {
        let catalog = Catalog::open(&self.store).await?;
        let made = self.state().made.clone();
        let mut kept = Vec::new();
        for name in made {
            let table = TableReference::bare(name);
            let provider = self.context.table_provider(table.clone()).await;
            kept.push((table, provider.map_err(Error::defect)?));
        }
        catalog.register(&self.context).await?;
        self.state().catalog = Arc::new(catalog);
        self.admit(&Versions::default()).await?;
        for (table, provider) in kept {
            let bare = self.context.catalog(HOME).and_then(|home| home.schema(BARE));
            let free = bare.is_none_or(|bare| !bare.table_exist(table.table()));
            if free {
                self.context.register_table(table, provider).map_err(Error::defect)?;
            }
        }
        Ok(())
    }

    /// What was asked of the store and of other buckets.
    pub fn traffic(&self) -> Traffic {
        self.store.traffic() + self.buckets.traffic()
    }

    /// The SQL names of all tables, the session's own included.
    pub fn tables(&self) -> Vec<String> {
        let state = self.state();
        let ours = state.catalog.tables().into_iter().map(|(name, ..)| name);
        ours.chain(state.made.iter().map(|name| quoted(name))).chain(system::names()).collect()
    }

    /// `pipeline.stage` of every main dataset and `pipeline.stage.dataset` of the others, with the
    /// shortest name of each.
    pub fn full_names(&self) -> Vec<(String, String)> {
        let catalog = self.state().catalog.clone();
        catalog
            .tables()
            .into_iter()
            .map(|(short, named, dataset)| {
                let mut parts = vec![named.pipeline.as_str(), named.stage.as_str()];
                if named.main() != Some(dataset) {
                    parts.push(dataset);
                }
                (parts.into_iter().map(quoted).collect::<Vec<_>>().join("."), short)
            })
            .collect()
    }

    /// The tables and views that statements made.
    pub fn made(&self) -> Vec<String> {
        self.state().made.iter().cloned().collect()
    }

    /// The names of all functions.
    pub fn functions(&self) -> Vec<String> {
        functions::names(&self.context)
    }

    /// The columns of the table that SQL calls `name`.
    ///
    /// # Errors
    /// `Usage` for an unknown one, with the nearest name.
    pub async fn columns(&self, name: &str) -> Result<SchemaRef> {
        let fail = |e| explain(&e, "", &self.tables());
        let provider = self.context.table_provider(name).await.map_err(fail)?;
        Ok(provider.schema())
    }

    async fn plan<'a>(&self, sql: &'a str) -> Result<Planned<'a>> {
        let listing = sql.trim().trim_end_matches(';').trim();
        let sql = if listing.eq_ignore_ascii_case("show tables") {
            "SELECT * FROM triad.tables"
        } else {
            sql
        };
        let versions = Versions::find(&self.store, sql).await?;
        if versions.artifacts().next().is_some() {
            self.admit(&versions).await?;
        }
        let names = self.tables();
        let plan = self.context.state().create_logical_plan(sql).await;
        Ok(Planned { plan: plan.map_err(|e| explain(&e, sql, &names))?, sql, names })
    }

    async fn plan_query<'a>(&self, sql: &'a str) -> Result<Planned<'a>> {
        let planned = self.plan(sql).await?;
        let verified = reading().verify_plan(&planned.plan);
        verified.map_err(|e| explain(&e, planned.sql, &planned.names))?;
        Ok(planned)
    }

    /// What a query gives, without running it.
    ///
    /// # Errors
    /// As [`Session::run`], and `Usage` for all that is no query.
    pub async fn describe(&self, sql: &str) -> Result<SchemaRef> {
        Ok(self.plan_query(sql).await?.plan.schema().inner().clone())
    }

    /// Begins a query.
    ///
    /// # Errors
    /// As [`Session::describe`].
    pub async fn read(&self, sql: &str) -> Result<Rows> {
        let planned = self.plan_query(sql).await?;
        self.begin(planned).await
    }

    /// Begins what is planned: all but what changes the session.
    async fn begin(&self, Planned { plan, sql, names }: Planned<'_>) -> Result<Rows> {
        let begun = async { self.context.execute_logical_plan(plan).await?.execute_stream().await };
        let stream = begun.await.map_err(|e| explain(&e, sql, &names))?;
        Ok(Rows { stream, sql: sql.into(), names })
    }

    /// Begins one SQL statement that reads, writes by COPY, or names a table for this session.
    ///
    /// # Errors
    /// `Usage` for SQL that does not parse or plan, with its place and the nearest name, and for
    /// what is refused; `Data` and `TryAgain` as reading fails.
    pub async fn run(&self, sql: &str) -> Result<Outcome> {
        let planned = self.plan(sql).await?;
        self.check(&planned)?;
        if let LogicalPlan::Ddl(change) = &planned.plan {
            let done = self.context.execute_logical_plan(planned.plan.clone()).await;
            done.map_err(|e| explain(&e, planned.sql, &planned.names))?;
            self.note(change);
            return Ok(Outcome::Done);
        }
        let copies = matches!(planned.plan, LogicalPlan::Copy(_));
        let mut rows = self.begin(planned).await?;
        if !copies {
            return Ok(Outcome::Rows(rows));
        }
        let mut written = 0;
        while let Some(batch) = rows.next().await? {
            let counts = batch.column(0).as_primitive_opt::<UInt64Type>();
            written += counts.map_or(0, |counts| counts.iter().flatten().sum::<u64>());
        }
        Ok(Outcome::Written(written))
    }

    /// Refuses what changes more than this session, or the store.
    fn check(&self, Planned { plan, sql, names }: &Planned<'_>) -> Result<()> {
        use DdlStatement::{CreateExternalTable, CreateView, DropTable, DropView};
        let inner = match plan {
            LogicalPlan::Copy(copy) => {
                let to = &copy.output_url;
                if inside(&self.store, to).map_err(|e| explain(&e, sql, names))? {
                    return Err(Error::usage(format!(
                        "COPY TO '{to}': it lies in the store {}, where only triad writes",
                        self.store.url()
                    )));
                }
                &copy.input
            }
            LogicalPlan::Ddl(CreateExternalTable(table)) => return self.may_make(&table.name),
            LogicalPlan::Ddl(CreateView(view)) => {
                self.may_make(&view.name)?;
                &view.input
            }
            LogicalPlan::Ddl(DropTable(drop)) => return self.may_drop(&drop.name),
            LogicalPlan::Ddl(DropView(drop)) => return self.may_drop(&drop.name),
            other => other,
        };
        reading().verify_plan(inner).map_err(|e| match explain(&e, sql, names) {
            Error::Usage(said) => {
                Error::Usage(format!("{said}; a query writes with COPY (…) TO '…' only"))
            }
            other => other,
        })
    }

    fn may_make(&self, name: &TableReference) -> Result<()> {
        let TableReference::Bare { table } = name else {
            return Err(Error::usage(format!("`{name}`: a table of the session has a plain name")));
        };
        let state = self.state();
        let taken = state.catalog.named.iter().any(|named| named.stage == **table);
        if taken {
            return Err(Error::usage(format!("`{name}` is a stage's name; choose another")));
        }
        Ok(())
    }

    fn may_drop(&self, name: &TableReference) -> Result<()> {
        let state = self.state();
        let made = &state.made;
        if matches!(name, TableReference::Bare { table } if made.contains(&**table)) {
            return Ok(());
        }
        let known: Vec<_> = made.iter().map(String::as_str).collect();
        Err(Error::usage(format!(
            "SQL that changes something is refused: DROP of `{name}`, which is not of this session{}",
            crate::nearest::hint(name.table(), known)
        )))
    }

    fn note(&self, change: &DdlStatement) {
        use DdlStatement::{CreateExternalTable, CreateView, DropTable, DropView};
        let mut state = self.state();
        match change {
            CreateExternalTable(table) => state.made.insert(table.name.table().into()),
            CreateView(view) => state.made.insert(view.name.table().into()),
            DropTable(drop) => state.made.remove(drop.name.table()),
            DropView(drop) => state.made.remove(drop.name.table()),
            _ => false,
        };
    }
}
