//! triad aligns the meta-abilities of a reasoning model as stateless batch jobs.
//!
//! ```text
//! generate -> tasks -> rollout -> rollouts -> verify -> verdicts -> filter (SQL) -> examples
//!   -> sft / rl -> checkpoint -> merge -> rl (domain) -> evaluate -> scores -> report
//! ```
//!
//! # Layout
//! A module imports only from modules above its own line.
//! ```text
//! id  entropy  nearest  part  typed ids; the one clock and the counter-based RNG; the name that was
//!                       meant; what other crates bring
//! store                 object storage: keys, manifests, commit, transfer, integrity, garbage, buckets
//! server                OpenAI-compatible completion servers: requests, answers, retries
//! dataset  checkpoint   Parquet row types with their schemas; safetensors folders
//! sandbox               programs that nobody trusts, where they can only compute
//! task  reward  advantage  statistics  per task family: generate, certify, check; the reward rule;
//!                       advantages; estimates and their intervals
//! merge  query  report  parameter-space methods; DataFusion over committed artifacts,
//!                       on a cluster too (`cluster/`); result pages
//! serve                 Arrow Flight SQL
//! job                   one file per job kind, the driver they share, and what they ask of libtorch,
//!                       which a crate of its own has (`engine/`)
//! pipeline              YAML -> plan -> resume -> run, here or at a scheduler (`launch/`)
//! cli                   one file per command
//! ```
pub mod advantage;
pub mod checkpoint;
pub mod cli;
pub mod dataset;
pub mod entropy;
pub mod id;
pub mod job;
pub mod merge;
pub mod nearest;
pub mod part;
pub mod pipeline;
pub mod query;
pub mod report;
pub mod reward;
pub mod sandbox;
pub mod serve;
pub mod server;
pub mod statistics;
pub mod store;
pub mod task;

pub use triad_launch::{Error, Result};
