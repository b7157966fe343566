//! Datasets: row types with published schemas, read and written as Parquet.

mod bounds;
mod foreign;
mod guard;
mod parquet_io;
#[doc(hidden)]
pub mod row;
mod rows;
#[cfg(test)]
mod tests;
mod verl;

pub use foreign::{read_csv, read_objects};
pub use parquet_io::{decode_parquet, encode_parquet, encode_part, open_parquet, read_batches};
pub use row::{Column, Row};
pub use rows::{Delta, Example, Metric, Rejected, Rollout, Score, Selected, Task, Trial, Verdict};
pub use verl::encode_verl;

/// Every dataset's name, version and Arrow schema, for the goldens under schemas/ and for SQL.
pub fn schemas() -> Vec<(&'static str, u32, arrow::datatypes::SchemaRef)> {
    fn entry<R: Row>() -> (&'static str, u32, arrow::datatypes::SchemaRef) {
        (R::NAME, R::VERSION, R::schema())
    }
    vec![
        entry::<Task>(),
        entry::<Example>(),
        entry::<Rollout>(),
        entry::<Verdict>(),
        entry::<Selected>(),
        entry::<Rejected>(),
        entry::<Trial>(),
        entry::<Delta>(),
        entry::<Metric>(),
        entry::<Score>(),
    ]
}

use datafusion::arrow;
