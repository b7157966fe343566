//! Queries past one machine: what is asked of a Ballista cluster, which a crate of its own reaches.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;

use async_trait::async_trait;
use datafusion::execution::SessionState;
use url::Url;

use crate::part::Part;
use crate::store::Store;
use crate::{Error, Result};

/// The cluster's side of this program.
pub static CLUSTER: Part<dyn Cluster> = Part::new("this program has no Ballista");

/// What computes queries on several machines, over a store that all of them read.
#[async_trait]
pub trait Cluster: Sync {
    /// `state` with plans that run on the cluster. Functions have to be registered after.
    fn attach(&self, state: SessionState, on: &Scheduler, store: &Store) -> Result<SessionState>;
    /// Ends what this process has running on clusters, as far as they answer.
    async fn cancel(&self);
    /// Runs a scheduler.
    async fn schedule(&self, store: &Store, scheduler: Serving) -> Result<()>;
    /// Runs an executor until a signal comes.
    async fn execute(&self, store: &Store, executor: Executor) -> Result<()>;
}

/// How a scheduler runs.
#[derive(Debug, Clone)]
pub struct Serving {
    pub listen: SocketAddr,
    /// The name under which executors reach it; `None`: the address of `listen`.
    pub advertise: Option<String>,
    /// Seconds without a word until an executor is lost, and without executors until a query is.
    pub patience: u64,
}

/// How an executor runs.
#[derive(Debug, Clone)]
pub struct Executor {
    pub scheduler: Scheduler,
    /// Where it hands out rows. It takes tasks at the next port.
    pub listen: SocketAddr,
    /// The name under which others reach it; `None`: the address that the scheduler sees.
    pub advertise: Option<String>,
    /// Tasks at a time; 0: the machine's cores.
    pub cores: usize,
}

/// Where a scheduler is: `ballista://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduler {
    pub host: String,
    pub port: u16,
}

impl FromStr for Scheduler {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unfit = || Error::usage(format!("`{text}`: write ballista://HOST:PORT"));
        let url = Url::parse(text).map_err(|_| unfit())?;
        match (url.scheme(), url.host_str(), url.port(), url.path()) {
            ("ballista", Some(host), Some(port), "" | "/") if !host.is_empty() => {
                Ok(Self { host: host.into(), port })
            }
            _ => Err(unfit()),
        }
    }
}

impl Display for Scheduler {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "ballista://{}:{}", self.host, self.port)
    }
}

/// Refuses a store, as a user calls it, that other machines would not find under that name.
///
/// # Errors
/// `Usage` for memory and relative paths.
pub fn shared(store: &str) -> Result<()> {
    let why = match Url::parse(store) {
        Ok(url) if url.scheme() == "memory" => "no other process has it",
        Err(url::ParseError::RelativeUrlWithoutBase) if Path::new(store).is_relative() => {
            "a relative path is another one elsewhere"
        }
        _ => return Ok(()),
    };
    Err(Error::usage(format!(
        "store `{store}`: {why}; a cluster reads s3://BUCKET/PREFIX, or a folder that all its \
         machines have under the same absolute path"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_has_a_host_and_a_port() {
        let parsed: Scheduler = "ballista://10.0.0.7:50050".parse().unwrap();
        assert_eq!(parsed, Scheduler { host: "10.0.0.7".into(), port: 50050 });
        assert_eq!("ballista://[::1]:1/".parse::<Scheduler>().unwrap().host, "[::1]");
        for wrong in ["10.0.0.7:50050", "ballista://host", "http://host:1", "ballista://h:1/x"] {
            assert!(wrong.parse::<Scheduler>().unwrap_err().to_string().contains(wrong));
        }
    }

    #[test]
    fn a_shared_store_has_one_name_everywhere() {
        for fine in ["s3://bucket/prefix", "/mnt/shared/store", "file:///mnt/store"] {
            shared(fine).unwrap();
        }
        for (wrong, why) in [("memory://", "no other process"), ("./triad-store", "relative")] {
            assert!(shared(wrong).unwrap_err().to_string().contains(why));
        }
    }
}
