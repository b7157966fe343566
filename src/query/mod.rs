//! SQL over committed artifacts: DataFusion tables built from manifests, without LIST or HEAD on
//! data objects, and read-only.
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
//! | `'file.parquet'` | a local file |
//!
//! A name with a hyphen stands in double quotes: `SELECT * FROM quickstart."rollout-base"`.

mod catalog;
mod failure;
mod functions;
mod output;
mod parts;
mod select;
mod settle;
mod steady;
mod system;
mod table;
mod verified;
mod version;
#[cfg(test)]
mod tests;

pub use catalog::{Catalog, main_dataset, query};
pub use output::{Format, write_results};
pub use select::{has_order, select};
pub use steady::{Limits, Steady};
