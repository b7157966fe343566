//! An executor: takes tasks from a scheduler, reads the store, and keeps what it made for whoever
//! goes on with it.

use std::fmt::{self, Debug, Display, Formatter};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use async_trait::async_trait;
use ballista_core::JobId;
use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::error::BallistaError;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::serde::protobuf::{
    RuntimeStatsReport, ShuffleWritePartition, TaskColumnStats, WindowStateReport,
};
use ballista_executor::execution_engine::{
    DefaultExecutionEngine, ExecutionEngine, QueryStageExecutor,
};
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use datafusion::arrow::error::ArrowError;
use datafusion::error::{DataFusionError, Result as Outcome};
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::prelude::{SessionConfig, SessionContext};
use triad::query::{Check, Executor, STORE_URL, Verified, explain, register};
use triad::store::Store;
use triad::{Error, Result};
use url::Url;

use crate::codec::{Logical, Physical};
use crate::connections::Connections;
use crate::failure::packed;
use crate::{MESSAGE, host};

pub async fn run(store: &Store, executor: Executor) -> Result<()> {
    let Executor { scheduler, listen, advertise, cores } = executor;
    let (listen, tasks) =
        ports(listen).map_err(|e| Error::try_again(format!("--listen {listen}: {e}")))?;
    // It lies here until the process ends.
    let work = tempfile::Builder::new()
        .prefix("triad-executor-")
        .tempdir()
        .map_err(|e| Error::try_again(format!("a folder for intermediate rows: {e}")))?;
    let folder = work.path().display().to_string();
    let runtime =
        RuntimeEnvBuilder::new().with_temp_file_path(&folder).build_arc().map_err(Error::defect)?;
    let url = Url::parse(STORE_URL).map_err(Error::defect)?;
    // Its plans name objects; their digests stand in the manifests.
    let objects = Verified::new(store, Check::Most, std::iter::empty());
    runtime.register_object_store(&url, Arc::new(objects));
    let context = SessionContext::new();
    register(&context);
    let engine = DefaultExecutionEngine::with_client_pool(Arc::new(Connections::default()));
    let config = ExecutorProcessConfig {
        bind_host: host(listen.ip()),
        port: listen.port(),
        grpc_port: tasks,
        external_host: advertise,
        scheduler_host: scheduler.host.clone(),
        scheduler_port: scheduler.port,
        vcores: cores,
        task_scheduling_policy: TaskSchedulingPolicy::PushStaged,
        executor_heartbeat_interval_seconds: 1,
        work_dir: Some(folder),
        job_data_ttl_seconds: 24 * 60 * 60,
        job_data_clean_up_interval_seconds: 10 * 60,
        grpc_max_decoding_message_size: MESSAGE as u32,
        grpc_max_encoding_message_size: MESSAGE as u32,
        override_execution_engine: Some(Arc::new(Explaining(engine))),
        override_function_registry: Some(Arc::new(BallistaFunctionRegistry::from(
            &context.state(),
        ))),
        override_runtime_producer: Some(Arc::new(move |_| Ok(runtime.clone()))),
        override_logical_codec: Some(Arc::new(Logical::new(store))),
        override_physical_codec: Some(Arc::new(Physical::new(store))),
        ..Default::default()
    };
    println!("ballista://{listen}");
    start_executor_process(Arc::new(config)).await.map_err(|e| match e {
        BallistaError::GrpcConnectionError(_) => {
            Error::try_again(format!("{scheduler}: no scheduler answers"))
        }
        BallistaError::TonicError(e) => Error::try_again(format!("--listen {listen}: {e}")),
        e => Error::defect(e),
    })
}

/// The address for rows and the port for tasks: Ballista opens them itself, so free ones are chosen
/// before.
fn ports(listen: SocketAddr) -> std::io::Result<(SocketAddr, u16)> {
    let rows = TcpListener::bind(listen)?;
    let next = if listen.port() == 0 { 0 } else { listen.port().saturating_add(1) };
    let tasks = TcpListener::bind((listen.ip(), next))?;
    Ok((rows.local_addr()?, tasks.local_addr()?.port()))
}

/// Says what went wrong in a task as a query in one process does.
struct Explaining<T: ?Sized>(T);

impl<T: ExecutionEngine> ExecutionEngine for Explaining<T> {
    fn create_query_stage_exec(
        &self,
        job: JobId,
        stage: usize,
        task: usize,
        partitions: Vec<usize>,
        plan: Arc<dyn ExecutionPlan>,
        folder: &str,
        config: &SessionConfig,
    ) -> Outcome<Arc<dyn QueryStageExecutor>> {
        let stage =
            self.0.create_query_stage_exec(job, stage, task, partitions, plan, folder, config)?;
        Ok(Arc::new(Explaining(stage)))
    }
}

type Stage = Explaining<Arc<dyn QueryStageExecutor>>;

impl Debug for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.0, f)
    }
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0, f)
    }
}

fn told(error: &DataFusionError) -> DataFusionError {
    DataFusionError::Execution(packed(&explain(error, "", &[])))
}

#[async_trait]
impl QueryStageExecutor for Stage {
    async fn execute_query_stage(
        &self,
        task: usize,
        context: Arc<TaskContext>,
    ) -> Outcome<Vec<ShuffleWritePartition>> {
        self.0.execute_query_stage(task, context).await.map_err(|e| match e.find_root() {
            // Ballista repeats what these are about.
            DataFusionError::IoError(_) => e,
            DataFusionError::External(inner) => match inner.downcast_ref::<BallistaError>() {
                // One of DataFusion's that has been through Ballista.
                Some(BallistaError::DataFusionError(inner)) => told(inner),
                Some(BallistaError::ArrowError(inner))
                    if matches!(**inner, ArrowError::DivideByZero) =>
                {
                    told(&DataFusionError::from(ArrowError::DivideByZero))
                }
                Some(_) => e,
                None => told(&e),
            },
            _ => told(&e),
        })
    }

    fn collect_plan_metrics(&self) -> Vec<MetricsSet> {
        self.0.collect_plan_metrics()
    }

    fn collect_runtime_stats_reports(&self) -> Vec<RuntimeStatsReport> {
        self.0.collect_runtime_stats_reports()
    }

    fn collect_window_state_reports(&self) -> Outcome<Vec<WindowStateReport>> {
        self.0.collect_window_state_reports()
    }

    fn collect_column_stats(&self) -> Vec<TaskColumnStats> {
        self.0.collect_column_stats()
    }
}
