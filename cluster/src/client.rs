//! A session whose plans run on a cluster, and the queries that this process has there.

use std::fmt::{self, Debug, Formatter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballista_core::config::BallistaConfig;
use ballista_core::execution_plans::DistributedQueryExec;
use ballista_core::extension::SessionConfigExt;
use ballista_core::optimizer::with_ballista_optimizer_rules;
use ballista_core::serde::protobuf::CancelJobParams;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::utils::{GrpcClientConfig, create_grpc_client_endpoint};
use datafusion::catalog::{MemTable, Session};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::{
    SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext,
};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion_proto::protobuf::LogicalPlanNode;
use futures::future::join_all;
use futures::{TryStreamExt, stream};
use tokio::runtime::Handle;
use tonic::transport::Channel;
use triad::Error;
use triad::query::{DatasetTable, Scheduler};
use triad::store::Store;

use crate::MESSAGE;
use crate::codec::Logical;
use crate::failure::explained;

/// Parts that a query is cut into where it is cut: more than this machine's cores, fewer than would
/// cost more than they share.
const PARTITIONS: usize = 16;
/// How long a scheduler may take to say that it is there, or that a query has ended.
const ANSWER: Duration = Duration::from_secs(5);

/// `state` with plans that run on the cluster.
pub fn attach(state: SessionState, on: &Scheduler, store: &Store) -> SessionState {
    let mut config = state
        .config()
        .clone()
        .upgrade_for_ballista()
        .with_target_partitions(PARTITIONS)
        .with_ballista_grpc_client_max_message_size(MESSAGE);
    // The names that this rule gives do not survive a plan's way over the wire.
    config.options_mut().optimizer.enable_leaf_expression_pushdown = false;
    let planner = Planner {
        on: on.clone(),
        codec: Arc::new(Logical::new(store)),
        config: config.ballista_config(),
    };
    let rules = with_ballista_optimizer_rules(state.optimizers());
    SessionStateBuilder::new_from_existing(state)
        .with_config(config)
        .with_optimizer_rules(rules)
        .with_query_planner(Arc::new(planner))
        .build()
}

/// Ends what this process has running.
pub async fn cancel() {
    let all: Vec<_> = running().clone();
    join_all(all.iter().map(|query| query.cancel())).await;
}

#[derive(Debug)]
struct Planner {
    on: Scheduler,
    codec: Arc<Logical>,
    config: BallistaConfig,
}

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        check(plan)?;
        if matches!(plan, LogicalPlan::EmptyRelation(_)) {
            return DefaultPhysicalPlanner::default().create_physical_plan(plan, session).await;
        }
        let exec = DistributedQueryExec::with_extension(
            address(&self.on),
            self.config.clone(),
            plan.clone(),
            self.codec.clone(),
            session.session_id().to_string(),
        );
        let query = Query { on: self.on.clone(), exec, ended: AtomicBool::new(false) };
        Ok(Arc::new(OnCluster(Arc::new(query))))
    }
}

/// Refuses what other machines could not read, or would write on their own disks.
fn check(plan: &LogicalPlan) -> Result<()> {
    let mut refused = None;
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => {
                let table = source_as_provider(&scan.source)?;
                if !table.is::<DatasetTable>() && !table.is::<MemTable>() {
                    refused = Some(format!("`{}` is read by one machine", scan.table_name));
                }
            }
            LogicalPlan::Copy(_) => refused = Some("COPY writes on one machine".into()),
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    match refused {
        Some(what) => Err(external(Error::usage(format!("{what}; leave out --on")))),
        None => Ok(()),
    }
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn address(on: &Scheduler) -> String {
    format!("http://{}:{}", on.host, on.port)
}

async fn connect(on: &Scheduler) -> triad::Result<SchedulerGrpcClient<Channel>> {
    let config =
        GrpcClientConfig { connect_timeout_seconds: ANSWER.as_secs(), ..Default::default() };
    let endpoint = create_grpc_client_endpoint(address(on), Some(&config))
        .map_err(|e| Error::usage(format!("{on}: {e}")))?;
    let channel = endpoint.connect().await.map_err(|e| {
        let mut cause: &dyn std::error::Error = &e;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Error::try_again(format!("{on}: no scheduler answers: {cause}"))
    })?;
    Ok(SchedulerGrpcClient::new(channel))
}

/// A query on its way.
struct Query {
    on: Scheduler,
    exec: DistributedQueryExec<LogicalPlanNode>,
    ended: AtomicBool,
}

static RUNNING: Mutex<Vec<Arc<Query>>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<Arc<Query>>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Query {
    /// Takes it out of what runs.
    fn forget(&self) {
        running().retain(|other| !std::ptr::eq(&**other, self));
    }

    /// Asks the scheduler to end it, and waits for the answer for a while.
    async fn cancel(&self) {
        let Some(job) = self.exec.job_id().filter(|_| !self.ended.load(Ordering::Relaxed)) else {
            return;
        };
        let asked = async {
            let mut scheduler = connect(&self.on).await.map_err(|e| e.to_string())?;
            let job = CancelJobParams { job_id: job.to_string() };
            scheduler.cancel_job(job).await.map_err(|e| e.message().to_string())
        };
        match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(_)) => self.ended.store(true, Ordering::Relaxed),
            Ok(Err(said)) => tracing::warn!("job {job} goes on: {said}"),
            Err(_) => tracing::warn!("job {job} may go on: no answer from {}", self.on),
        }
    }
}

/// Ends the query when nobody waits for its rows any more.
struct Waiting(Arc<Query>);

impl Waiting {
    fn new(query: Arc<Query>) -> Self {
        running().push(query.clone());
        Self(query)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let query = self.0.clone();
        match Handle::try_current() {
            // Until the scheduler knows, [`cancel`] may ask it too: the process may be about to end.
            Ok(runtime) if !query.ended.load(Ordering::Relaxed) => {
                runtime.spawn(async move {
                    query.cancel().await;
                    query.forget();
                });
            }
            _ => query.forget(),
        }
    }
}

/// A plan that is a query of the cluster.
struct OnCluster(Arc<Query>);

impl Debug for OnCluster {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.0.exec, f)
    }
}

impl DisplayAs for OnCluster {
    fn fmt_as(&self, form: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.exec.fmt_as(form, f)
    }
}

impl ExecutionPlan for OnCluster {
    fn name(&self) -> &str {
        "OnCluster"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.0.exec.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let (query, on) = (self.0.clone(), self.0.on.clone());
        let rows = stream::once(async move {
            connect(&query.on).await.map_err(external)?;
            let waiting = Waiting::new(query.clone());
            let rows = query.exec.execute(partition, context)?;
            Ok::<_, DataFusionError>(stream::try_unfold(
                (rows, waiting),
                async |(mut rows, waiting)| {
                    let batch = rows.try_next().await?;
                    if batch.is_none() {
                        waiting.0.ended.store(true, Ordering::Relaxed);
                    }
                    Ok::<_, DataFusionError>(batch.map(|batch| (batch, (rows, waiting))))
                },
            ))
        });
        let rows = rows.try_flatten().map_err(move |e| match e.find_root() {
            DataFusionError::External(inner) if inner.is::<Error>() => e,
            _ => external(explained(&e.to_string(), &on)),
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
