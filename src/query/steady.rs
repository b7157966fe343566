//! A query over committed artifacts whose rows depend on its inputs alone, in bounded memory: what the
//! `filter` job runs.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionConfig;
use futures::{StreamExt, TryStreamExt};
use url::Url;

use super::catalog::{main_dataset, schema_of, tuned};
use super::failure::one_line;
use super::gather::gathered;
use super::kept::Kept;
use super::parts::in_parts;
use super::select::Session;
use super::settle::{is_settled, with_total_orders};
use super::table::{DatasetTable, STORE_URL};
use super::verified::{Check, Verified};
use crate::store::Artifact;
use crate::{Error, Result};

/// Memory below which one more partition is none too many.
const PARTITION: usize = 32 << 20;
/// How many batches of rows the memory is to hold, in all partitions together.
const BATCHES: usize = 256;

/// Bytes of values in a part, but for its last row.
const PART_BYTES: u64 = 256 << 20;

/// What a query may use. Its rows do not depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes, for what sorts, joins and groups hold; what they hold beyond that goes to the system's
    /// temporary folder.
    pub memory: usize,
    pub cores: usize,
}

/// What [`allow`] was told.
static ALLOWED: OnceLock<usize> = OnceLock::new();

/// Sets the memory of [`Limits::of_this_process`], in bytes. Only the first call counts.
pub fn allow(memory: usize) {
    let _ = ALLOWED.set(memory);
}

impl Limits {
    /// The memory that was allowed, else half of that of the machine, or of the process's control
    /// group; and all cores.
    pub fn of_this_process() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        if let Some(&memory) = ALLOWED.get() {
            return Self { memory, cores };
        }
        let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        // `0::/path`: the process's group lies in others, each with a bound of its own.
        let group = text(Path::new("/proc/self/cgroup"));
        let group = group.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let group = Path::new("/sys/fs/cgroup").join(group);
        let bounds = group.ancestors().map(|group| text(&group.join("memory.max")));
        let group = bounds.filter_map(|text| text.trim().parse::<usize>().ok()).min();
        let info = text(Path::new("/proc/meminfo"));
        let total = info.strip_prefix("MemTotal:").and_then(|rest| rest.split_whitespace().next());
        let total = total.and_then(|kb| kb.parse::<usize>().ok()).map_or(4 << 30, |kb| kb << 10);
        Self { memory: total.min(group.unwrap_or(total)) / 2, cores }
    }
}

/// How a query is computed: the faster ways need more memory.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// Its last sort spills nothing, nor do joins.
    InMemory,
    HashJoins,
    /// All can spill.
    MergeJoins,
}

/// The fastest first.
const WAYS: [Way; 3] = [Way::InMemory, Way::HashJoins, Way::MergeJoins];

/// A query that is planned, and has read nothing yet.
pub struct Steady<'a> {
    sql: &'a str,
    inputs: Vec<(String, &'a Artifact)>,
    tables: Vec<(String, Arc<dyn TableProvider>)>,
    limits: Limits,
    schema: SchemaRef,
    plan: String,
    /// Whether the order in which rows are worked on shows nowhere.
    settled: bool,
}

impl<'a> Steady<'a> {
    /// Plans `sql` over `inputs` by name: the main dataset under that name, all as `name.dataset`.
    ///
    /// # Errors
    /// `Usage` for SQL that does not parse or plan, or that writes.
    pub async fn plan(
        sql: &'a str,
        inputs: Vec<(String, &'a Artifact)>,
        limits: Limits,
    ) -> Result<Self> {
        let mut tables = Vec::new();
        for (name, artifact) in &inputs {
            let main = main_dataset(&artifact.manifest);
            for (dataset, schema) in &artifact.manifest.datasets {
                // No views: what sorts hold would keep whole pages of texts alive.
                let schema = schema_of(artifact, dataset, schema).await?;
                let table = DatasetTable::new(artifact, dataset, schema).map_err(Error::defect)?;
                let table: Arc<dyn TableProvider> = Arc::new(table);
                if main == Some(dataset) {
                    tables.push((name.clone(), table.clone()));
                }
                tables.push((format!("{name}.{dataset}"), table));
            }
        }
        let schema = Arc::new(Schema::empty());
        let mut planned =
            Self { sql, inputs, tables, limits, schema, plan: String::new(), settled: false };
        let session = planned.session(Way::HashJoins)?;
        let frame = session.plan(sql).await?;
        planned.schema = Arc::new(frame.schema().as_arrow().clone());
        let plan = session.context.state().optimize(frame.logical_plan());
        let plan = plan.map_err(|e| session.explain(&e, sql))?;
        planned.settled = is_settled(&plan).map_err(|e| session.explain(&e, sql))?;
        planned.plan = plan.display_indent().to_string();
        Ok(planned)
    }

    /// The columns that it gives.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The logical plan, for people.
    pub fn text(&self) -> &str {
        &self.plan
    }

    /// What a row of the widest input takes in memory at most, by a guess from what it takes
    /// compressed.
    fn row_bytes(&self) -> usize {
        let width = |(_, artifact): &(String, &Artifact)| {
            let manifest = &artifact.manifest;
            let rows = main_dataset(manifest).map_or(0, |name| manifest.rows(name));
            16 * manifest.bytes() / rows.max(1)
        };
        self.inputs.iter().map(width).max().unwrap_or_default().max(1) as usize
    }

    fn session(&self, way: Way) -> Result<Session> {
        let hash_joins = way != Way::MergeJoins;
        let Limits { memory, cores } = self.limits;
        let mut config = tuned(SessionConfig::new()).with_repartition_file_scans(false);
        config = match self.settled {
            true => config
                // One partition is never given merge joins.
                .with_target_partitions(
                    cores.min(memory / PARTITION).max(2 - usize::from(hash_joins)),
                )
                .with_batch_size((memory / BATCHES / self.row_bytes()).clamp(16, 8192)),
            false => config.with_target_partitions(1),
        };
        let options = config.options_mut();
        options.optimizer.prefer_hash_join = hash_joins;
        options.execution.sort_spill_reservation_bytes = (memory / 32).min(10 << 20);
        let spilling =
            if self.settled { DiskManagerMode::OsTmpDirectory } else { DiskManagerMode::Disabled };
        let top = NonZeroUsize::MIN;
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(TrackConsumersPool::new(FairSpillPool::new(memory), top)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(spilling))
            .build_arc()
            .map_err(Error::defect)?;
        if let Some((_, first)) = self.inputs.first() {
            let artifacts = self.inputs.iter().map(|(_, artifact)| *artifact);
            let verified = Verified::new(&first.store, Check::All, artifacts);
            let url = Url::parse(STORE_URL).map_err(Error::defect)?;
            runtime.register_object_store(&url, Arc::new(verified));
        }
        let tables = self.tables.iter().map(|(name, table)| (name.as_str(), table.clone()));
        Session::new(config, runtime, tables)
    }

    /// Runs it: what `make` makes of each `size` rows, or fewer where they are long, goes to `take`,
    /// in order, with their number from 0. When one way of computing it needs more memory than there
    /// is, the query begins again in the next, and `take` gets the same parts once more from 0.
    /// Returns how many parts there were.
    ///
    /// # Errors
    /// `Data` and `TryAgain` as reading fails, `Usage` where the query fails, the errors of `make`
    /// and `take`.
    pub async fn run<P: Send + 'static>(
        &self,
        size: usize,
        make: impl Fn(RecordBatch) -> Result<P> + Clone + Send + Sync + 'static,
        mut take: impl AsyncFnMut(usize, P) -> Result<()>,
    ) -> Result<usize> {
        let _kept = Kept::new();
        let ways = if self.settled { &WAYS[..] } else { &WAYS[..1] };
        for &way in ways {
            let session = self.session(way)?;
            let failed = |e: &DataFusionError| match is_exhausted(e) {
                true => self.too_small(e),
                false => session.explain(e, self.sql),
            };
            let rows = self.stream(&session, way).await.map_err(|e| failed(&e))?;
            let mut parts = in_parts(rows, size, PART_BYTES)
                .map(|part| {
                    let make = make.clone();
                    async move {
                        let part = part?;
                        let made = tokio::task::spawn_blocking(move || make(part)).await;
                        Ok(made.unwrap_or_else(|e| Err(Error::defect(format!("a part died: {e}")))))
                    }
                })
                .buffered(self.limits.cores);
            let mut count = 0;
            let end = loop {
                match parts.try_next().await {
                    Ok(Some(part)) => take(count, part?).await?,
                    Ok(None) => break None,
                    Err(e) => break Some(e),
                }
                count += 1;
            };
            match end {
                None => return Ok(count),
                Some(e) if Some(&way) != ways.last() && is_exhausted(&e) => {
                    let memory = self.limits.memory;
                    tracing::info!(
                        "the query needs more than {memory} bytes: again, spilling more"
                    );
                }
                Some(e) => return Err(failed(&e)),
            }
        }
        Err(Error::defect("a query ended in no way"))
    }

    async fn stream(
        &self,
        session: &Session,
        way: Way,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let state = session.context.state();
        let plan = state.create_logical_plan(self.sql).await?;
        let plan = with_total_orders(state.optimize(&plan)?)?;
        let mut plan = state.query_planner().create_physical_plan(&plan, &state).await?;
        if way == Way::InMemory {
            plan = gathered(&plan)?.unwrap_or(plan);
        }
        execute_stream(plan, session.context.task_ctx())
    }

    fn too_small(&self, error: &DataFusionError) -> Error {
        let why = match self.settled {
            true => "",
            false => {
                "; this one cannot spill, because its result would depend on it: sums of fractions, \
                 lists and LIMIT without ORDER BY do that"
            }
        };
        let memory = self.limits.memory;
        let error = one_line(&error.to_string());
        Error::try_again(format!(
            "the query needs more than {memory} bytes of memory{why}: {error}"
        ))
    }
}

fn is_exhausted(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}
