//! The program with Ballista: the same commands as `triad`, which goes on as this one where a query
//! runs on a cluster, and for the cluster's own processes.

mod client;
mod codec;
mod connections;
mod executor;
mod failure;
mod scheduler;

use std::net::IpAddr;

use async_trait::async_trait;
use datafusion::execution::SessionState;
use triad::Result;
use triad::query::{CLUSTER, Cluster, Executor, Scheduler, Serving};
use triad::store::Store;

/// As in `triad`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The largest message between two processes: a batch of rows with their tokens, or a plan with the
/// tables of many artifacts.
const MESSAGE: usize = 256 << 20;

struct Ballista;

#[async_trait]
impl Cluster for Ballista {
    fn attach(&self, state: SessionState, on: &Scheduler, store: &Store) -> Result<SessionState> {
        Ok(client::attach(state, on, store))
    }

    async fn cancel(&self) {
        client::cancel().await;
    }

    async fn schedule(&self, store: &Store, scheduler: Serving) -> Result<()> {
        scheduler::run(store, scheduler).await
    }

    async fn execute(&self, store: &Store, executor: Executor) -> Result<()> {
        executor::run(store, executor).await
    }
}

/// An address as it stands in a URL.
fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn main() {
    CLUSTER.install(&Ballista);
    triad::cli::main()
}
