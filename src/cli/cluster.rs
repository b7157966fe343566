//! `triad scheduler` and `triad executor`: the processes of a cluster that `triad query --on` asks.

use std::net::SocketAddr;

use clap::Args;

use super::{Globals, signals};
use crate::query::{self, CLUSTER, Serving};
use crate::store::Store;
use crate::{Error, Result};

#[derive(Args)]
pub(super) struct Scheduler {
    /// Where to listen; port 0 takes a free one. Whoever reaches it may run queries: Ballista asks
    /// for no password
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:50050")]
    listen: SocketAddr,
    /// The name or address that executors reach it by [default: that of --listen]
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Seconds without a word until an executor counts as lost, and until a query that has lost all
    /// of them ends
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(2..))]
    patience: u64,
}

#[derive(Args)]
pub(super) struct Executor {
    /// The scheduler to take work from
    #[arg(long, value_name = "ballista://HOST:PORT")]
    scheduler: query::Scheduler,
    /// Where to hand out rows; tasks come in at the next port, and port 0 takes two free ones.
    /// Whoever reaches them may read rows and run queries: Ballista asks for no password
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:50051")]
    listen: SocketAddr,
    /// The name or address that others reach it by [default: the one the scheduler sees]
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Tasks at a time [default: the cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    cores: usize,
}

impl Scheduler {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let store = shared(globals)?;
        let Self { listen, advertise, patience } = self;
        if listen.ip().is_unspecified() && advertise.is_none() {
            return Err(Error::usage(format!(
                "--listen {listen} is no address to call back; add --advertise HOST"
            )));
        }
        let (cluster, stopped) = (CLUSTER.get()?, signals::first()?);
        tokio::select! {
            ended = cluster.schedule(&store, Serving { listen, advertise, patience }) => ended,
            () = stopped => Ok(()),
        }
    }
}

impl Executor {
    pub async fn execute(self, globals: &Globals) -> Result<()> {
        let store = shared(globals)?;
        let Self { scheduler, listen, advertise, cores } = self;
        let executor = query::Executor { scheduler, listen, advertise, cores };
        CLUSTER.get()?.execute(&store, executor).await
    }
}

/// The store, if all machines of a cluster have it.
pub(super) fn shared(globals: &Globals) -> Result<Store> {
    query::shared(&globals.store)?;
    globals.open_store()
}
