//! The sort at the end of a query whose rows are wide. What they are ordered by becomes bytes beside
//! them, batches are sorted as they come, and a row is copied once: when its turn has come. Nothing is
//! spilled.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::interleave_record_batch;
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{LexOrdering, PhysicalExpr};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt, stream};

const RECOMPUTE: ReplaceChildrenOptions =
    ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
/// Rows that are copied at a time, if they are not long.
const ROWS: usize = 65_536;
/// Bytes that are copied at a time, about.
const BYTES: usize = 64 << 20;

/// `plan` with its last sort done here; `None` if it ends with none, or with one that keeps a few rows
/// only.
pub(super) fn gathered(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if plan.is::<ProjectionExec>() {
        let Some(input) = gathered(plan.children()[0])? else { return Ok(None) };
        return plan.clone().replace_children(vec![input], RECOMPUTE).map(Some);
    }
    if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() {
        // One partition comes out of the sort already.
        return if merge.fetch().is_none() { gathered(merge.input()) } else { Ok(None) };
    }
    let Some(sort) = plan.downcast_ref::<SortExec>().filter(|sort| sort.fetch().is_none()) else {
        return Ok(None);
    };
    let one = Partitioning::UnknownPartitioning(1);
    let properties = PlanProperties::clone(sort.properties()).with_partitioning(one);
    Ok(Some(Arc::new(Gather {
        input: sort.input().clone(),
        order: sort.expr().clone(),
        properties: Arc::new(properties),
    })))
}

#[derive(Debug)]
struct Gather {
    input: Arc<dyn ExecutionPlan>,
    order: LexOrdering,
    /// Of the sort in whose place it stands, but in one partition.
    properties: Arc<PlanProperties>,
}

impl DisplayAs for Gather {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Gather: {}", self.order)
    }
}

impl ExecutionPlan for Gather {
    fn name(&self) -> &str {
        "Gather"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.order.iter().try_fold(TreeNodeRecursion::Continue, |_, by| f(&by.expr))
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (order, properties) = (self.order.clone(), self.properties.clone());
        Ok(Arc::new(Self { input: children.remove(0), order, properties }))
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let reservation = MemoryConsumer::new("the last sort").register(context.memory_pool());
        let tasks: Vec<_> = (0..self.input.output_partitioning().partition_count())
            .map(|partition| {
                let rows = self.input.execute(partition, context.clone())?;
                let (order, held) = (self.order.clone(), reservation.new_empty());
                Ok(SpawnedTask::spawn(sorted(rows, order, held)))
            })
            .collect::<Result<_>>()?;
        let cores = context.session_config().target_partitions();
        let rows = stream::once(async move {
            let (mut runs, mut held) = (Vec::new(), Vec::new());
            for task in tasks {
                let (more, reservation) = task.join().await.map_err(external)??;
                runs.extend(more);
                held.push(reservation);
            }
            Ok::<_, DataFusionError>(Merge::new(runs, held).rows(cores))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows.try_flatten())))
    }
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// A batch, and the order of its rows.
struct Run {
    batch: RecordBatch,
    keys: Rows,
    order: Vec<u32>,
}

/// The batches of a partition as runs, and the memory that they take.
async fn sorted(
    mut rows: SendableRecordBatchStream,
    order: LexOrdering,
    held: MemoryReservation,
) -> Result<(Vec<Run>, MemoryReservation)> {
    let schema = rows.schema();
    let fields = order
        .iter()
        .map(|by| Ok(SortField::new_with_options(by.expr.data_type(&schema)?, by.options)));
    let converter = RowConverter::new(fields.collect::<Result<_>>()?)?;
    let mut runs = Vec::new();
    while let Some(batch) = rows.try_next().await? {
        if batch.num_rows() == 0 {
            continue;
        }
        let columns = order.iter().map(|by| by.expr.evaluate(&batch)?.into_array(batch.num_rows()));
        let keys = converter.convert_columns(&columns.collect::<Result<Vec<_>>>()?)?;
        let mut order: Vec<u32> = (0..batch.num_rows() as u32).collect();
        order.sort_unstable_by(|&a, &b| keys.row(a as usize).cmp(&keys.row(b as usize)));
        held.try_grow(get_record_batch_memory_size(&batch) + keys.size() + 4 * order.len())?;
        runs.push(Run { batch, keys, order });
    }
    Ok((runs, held))
}

/// Runs on their way into one.
struct Merge {
    runs: Arc<Vec<Run>>,
    /// How far each run has been taken.
    taken: Vec<u32>,
    /// The runs that have rows left, as a heap: the one whose next row comes first on top.
    heap: Vec<u32>,
    /// Rows that are copied at a time.
    rows: usize,
    _held: Vec<MemoryReservation>,
}

impl Merge {
    fn new(runs: Vec<Run>, held: Vec<MemoryReservation>) -> Self {
        let rows: usize = runs.iter().map(|run| run.order.len()).sum();
        let bytes: usize = held.iter().map(MemoryReservation::size).sum();
        let mut merge = Self {
            taken: vec![0; runs.len()],
            heap: (0..runs.len() as u32).collect(),
            runs: Arc::new(runs),
            rows: (BYTES / (bytes / rows.max(1)).max(1)).clamp(1, ROWS),
            _held: held,
        };
        (0..merge.heap.len() / 2).rev().for_each(|place| merge.sink(place));
        merge
    }

    fn comes_first(&self, a: u32, b: u32) -> bool {
        let key = |run: u32| {
            let taken = self.taken[run as usize] as usize;
            let run = &self.runs[run as usize];
            run.keys.row(run.order[taken] as usize)
        };
        key(a) < key(b)
    }

    /// Moves the run at `place` down to where it belongs.
    fn sink(&mut self, mut place: usize) {
        loop {
            let mut least = place;
            for child in [2 * place + 1, 2 * place + 2] {
                if child < self.heap.len() && self.comes_first(self.heap[child], self.heap[least]) {
                    least = child;
                }
            }
            if least == place {
                return;
            }
            self.heap.swap(place, least);
            place = least;
        }
    }

    /// Run and place of the rows that come next.
    fn next(&mut self) -> Vec<(usize, usize)> {
        let mut next = Vec::with_capacity(self.rows);
        while let Some(&top) = self.heap.first()
            && next.len() < self.rows
        {
            let (run, taken) = (&self.runs[top as usize], &mut self.taken[top as usize]);
            next.push((top as usize, run.order[*taken as usize] as usize));
            *taken += 1;
            if *taken as usize == run.order.len() {
                self.heap.swap_remove(0);
            }
            if !self.heap.is_empty() {
                self.sink(0);
            }
        }
        next
    }

    /// In order, `cores` copies at a time.
    fn rows(self, cores: usize) -> impl futures::Stream<Item = Result<RecordBatch>> {
        let copied = |(runs, places): (Arc<Vec<Run>>, Vec<_>)| {
            SpawnedTask::spawn_blocking(move || {
                let batches: Vec<_> = runs.iter().map(|run| &run.batch).collect();
                Ok(interleave_record_batch(&batches, &places)?)
            })
        };
        stream::unfold(self, |mut merge| async {
            let places = merge.next();
            (!places.is_empty()).then(|| ((merge.runs.clone(), places), merge))
        })
        .map(copied)
        .map(async |task| task.join().await.map_err(external)?)
        .buffered(cores)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, ListArray, StringArray, UInt32Array};
    use datafusion::arrow::compute::concat_batches;
    use datafusion::arrow::datatypes::UInt32Type;
    use datafusion::datasource::MemTable;
    use datafusion::physical_plan::{collect, displayable};
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;

    /// 1,000 rows in batches of all sizes, with nulls, in two partitions.
    fn table() -> MemTable {
        let batch = |first: u32| {
            let numbers = first..first + 1 + first % 60;
            let odd = |n: u32| (!n.is_multiple_of(7)).then_some(n * 7919 % 31);
            let lists = numbers.clone().map(|n| Some((0..n % 5).map(Some)));
            let lists = ListArray::from_iter_primitive::<UInt32Type, _, _>(lists);
            let texts = numbers.clone().map(|n| (n * 104_729 % 997).to_string());
            let columns: [(&str, ArrayRef, bool); 4] = [
                ("n", Arc::new(UInt32Array::from_iter_values(numbers.clone())), false),
                ("odd", Arc::new(numbers.map(odd).collect::<UInt32Array>()), true),
                ("text", Arc::new(StringArray::from_iter_values(texts)), false),
                ("list", Arc::new(lists), true),
            ];
            RecordBatch::try_from_iter_with_nullable(columns).unwrap()
        };
        let batches: Vec<_> = (0..34).map(|i| batch(i * 61)).collect();
        let (left, right) = batches.split_at(20);
        MemTable::try_new(left[0].schema(), vec![left.to_vec(), right.to_vec()]).unwrap()
    }

    #[tokio::test]
    async fn rows_come_in_the_order_of_the_sort_that_it_replaces() {
        for partitions in [1, 3] {
            let config = SessionConfig::new().with_target_partitions(partitions);
            let context = SessionContext::new_with_config(config);
            context.register_table("t", Arc::new(table())).unwrap();
            for (sql, ours) in [
                ("SELECT * FROM t ORDER BY odd DESC, text, n", true),
                ("SELECT text, list FROM t ORDER BY odd NULLS FIRST, n DESC", true),
                ("SELECT n + 1 AS m, list FROM t WHERE n > 500 ORDER BY text, n", true),
                ("SELECT * FROM t WHERE n > 100000 ORDER BY n", true),
                ("SELECT * FROM t ORDER BY text, n LIMIT 10", false),
                ("SELECT count(*) FROM t", false),
            ] {
                let planned = async || context.sql(sql).await.unwrap().create_physical_plan().await;
                let plan = planned().await.unwrap();
                let replaced = gathered(&plan).unwrap();
                let shown = displayable(plan.as_ref()).indent(false).to_string();
                assert_eq!(replaced.is_some(), ours, "{sql}\n{shown}");
                let Some(replaced) = replaced else { continue };
                let rows = async |plan: Arc<dyn ExecutionPlan>| {
                    let schema = plan.schema();
                    concat_batches(&schema, &collect(plan, context.task_ctx()).await.unwrap())
                };
                let (theirs, ours) = (rows(planned().await.unwrap()).await, rows(replaced).await);
                assert_eq!(theirs.unwrap(), ours.unwrap(), "{sql}");
            }
        }
    }
}
