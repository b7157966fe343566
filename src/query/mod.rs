//! SQL over committed artifacts: DataFusion tables built from manifests, without LIST or HEAD on
//! data objects. Only COPY writes, and never into the store.
//!
//! # Names
//! | SQL name | what it is |
//! |---|---|
//! | `pipeline.stage.dataset` | every dataset of every named artifact |
//! | `pipeline.stage` | its main dataset: the one called like the artifact's kind, or the only one |
//! | `stage.dataset`, `stage` | the same, when only one pipeline has such a stage |
//! | `artifact('id')`, `artifact('id', 'dataset')` | any version, by what `triad show` takes |
//! | `triad.artifacts`, `triad.lineage`, `triad.requests`, `triad.stages`, `triad.tables`, `triad.timings` | what the manifests say |
//! | `triad.metrics` | the training metrics of all stages |
//! | `stage.tensors` | a checkpoint's tensors; `stage` for short |
//! | `parts('id')`, `parts('id', 'dataset')` | as `artifact`, with each row's part |
//! | `'*.parquet'`, `'s3://…'` | files outside the store |
//!
//! A name with a hyphen stands in double quotes: `SELECT * FROM quickstart."rollout-base"`.

mod catalog;
mod cluster;
mod failure;
mod files;
mod functions;
mod gather;
mod kept;
mod output;
mod parts;
mod script;
mod select;
mod session;
mod settle;
mod steady;
mod system;
mod table;
mod tensors;
mod verified;
mod version;
#[cfg(test)]
mod tests;

pub use catalog::{Catalog, main_dataset, query};
pub use cluster::{CLUSTER, Cluster, Executor, Scheduler, Serving, shared};
pub use failure::{explain, pointed};
pub use functions::{decode, register};
pub use output::{Format, ResultWriter, write_results};
pub use script::{is_complete, statements};
pub use select::{has_order, select};
pub use session::{Outcome, Rows, Session};
pub use steady::{Limits, Steady, allow};
pub use table::{DatasetTable, STORE_URL};
pub use verified::{Check, Verified};
