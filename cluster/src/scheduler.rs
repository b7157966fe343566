//! The scheduler: plans queries, cuts them into tasks, and hands those to executors that ask.

use std::sync::Arc;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::utils::default_session_builder;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::{create_scheduler, start_grpc_service_with_listener};
use datafusion::error::DataFusionError;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use tokio::net::TcpListener;
use triad::query::{Serving, register};
use triad::store::Store;
use triad::{Error, Result};

use crate::codec::{Logical, Physical};
use crate::{MESSAGE, host};

pub async fn run(store: &Store, scheduler: Serving) -> Result<()> {
    let Serving { listen, advertise, patience } = scheduler;
    let busy = |e: std::io::Error| Error::try_again(format!("--listen {listen}: {e}"));
    let listener = TcpListener::bind(listen).await.map_err(busy)?;
    let listen = listener.local_addr().map_err(busy)?;
    let session = |config: SessionConfig| {
        let context = SessionContext::new_with_state(default_session_builder(config)?);
        register(&context);
        Ok::<_, DataFusionError>(context.state())
    };
    let config = SchedulerConfig {
        bind_host: host(listen.ip()),
        external_host: advertise.unwrap_or_else(|| host(listen.ip())),
        bind_port: listen.port(),
        // Executors that ask for work cannot be told to stop.
        scheduling_policy: TaskSchedulingPolicy::PushStaged,
        executor_timeout_seconds: patience,
        no_executors_grace_period_seconds: patience,
        expire_dead_executor_interval_seconds: (patience / 4).max(1),
        grpc_server_max_decoding_message_size: MESSAGE as u32,
        grpc_server_max_encoding_message_size: MESSAGE as u32,
        grpc_client_max_message_size: MESSAGE as u32,
        override_session_builder: Some(Arc::new(session)),
        override_logical_codec: Some(Arc::new(Logical::new(store))),
        override_physical_codec: Some(Arc::new(Physical::new(store))),
        ..Default::default()
    };
    let cluster = BallistaCluster::new_from_config(&config).await.map_err(Error::defect)?;
    let scheduler =
        create_scheduler::<LogicalPlanNode, PhysicalPlanNode>(cluster, Arc::new(config))
            .await
            .map_err(Error::defect)?;
    println!("ballista://{listen}");
    start_grpc_service_with_listener(listener, scheduler).await.map_err(Error::defect)
}
