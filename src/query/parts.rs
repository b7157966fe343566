//! A stream of rows cut into parts whose rows do not depend on the batches they came in.

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

/// The rows of `rows` in parts of `size` rows, fewer in the last, and where their values come to
/// `bytes` before. There is at least one part, be it empty.
pub(super) fn in_parts(
    rows: SendableRecordBatchStream,
    size: usize,
    bytes: u64,
) -> BoxStream<'static, Result<RecordBatch, DataFusionError>> {
    let state = Parts { rows, size, bytes, waiting: None, begun: false };
    stream::try_unfold(state, |mut state| async move {
        Ok(state.next().await?.map(|part| (part, state)))
    })
    .boxed()
}

struct Parts {
    rows: SendableRecordBatchStream,
    size: usize,
    bytes: u64,
    /// Rows behind the last part.
    waiting: Option<RecordBatch>,
    begun: bool,
}

impl Parts {
    async fn next(&mut self) -> Result<Option<RecordBatch>, DataFusionError> {
        let (mut kept, mut count, mut bytes) = (Vec::new(), 0, 0);
        while count < self.size && bytes < self.bytes {
            let batch = match self.waiting.take() {
                Some(batch) => batch,
                None => match self.rows.try_next().await? {
                    Some(batch) => batch,
                    None => break,
                },
            };
            let mut fits = 0;
            for size in sizes(&batch) {
                if count == self.size || bytes >= self.bytes {
                    break;
                }
                (fits, count, bytes) = (fits + 1, count + 1, bytes + size);
            }
            if fits < batch.num_rows() {
                self.waiting = Some(batch.slice(fits, batch.num_rows() - fits));
            }
            kept.push(batch.slice(0, fits));
        }
        if count == 0 && self.begun {
            return Ok(None);
        }
        self.begun = true;
        Ok(Some(concat_batches(&self.rows.schema(), &kept)?))
    }
}

/// Bytes of the values of each row.
fn sizes(rows: &RecordBatch) -> Vec<u64> {
    let mut sizes = vec![0; rows.num_rows()];
    rows.columns().iter().for_each(|column| add_sizes(column, &mut sizes));
    sizes
}

fn add_sizes(array: &dyn Array, sizes: &mut [u64]) {
    let each = sizes.iter_mut();
    match array.data_type() {
        DataType::Utf8 => {
            let texts = array.as_string::<i32>();
            let sized = each.enumerate();
            sized.for_each(|(row, size)| *size += texts.value_length(row) as u64);
        }
        DataType::Utf8View => {
            let texts = array.as_string_view();
            each.zip(texts.lengths()).for_each(|(size, more)| *size += u64::from(more));
        }
        DataType::List(item) => {
            let lists = array.as_list::<i32>();
            let width = item.data_type().primitive_width().unwrap_or(1) as u64;
            let sized = each.enumerate();
            sized.for_each(|(row, size)| *size += lists.value_length(row) as u64 * width);
            if item.data_type().primitive_width().is_none() {
                for (row, size) in sizes.iter_mut().enumerate() {
                    let items = lists.value(row);
                    let mut inner = vec![0; items.len()];
                    add_sizes(&items, &mut inner);
                    *size += inner.into_iter().sum::<u64>();
                }
            }
        }
        other => {
            let width = other.primitive_width().unwrap_or(1) as u64;
            each.for_each(|size| *size += width);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{StringArray, UInt32Array};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;

    #[tokio::test]
    async fn parts_do_not_depend_on_the_batches() {
        let long = "x".repeat(90);
        let texts = ["a", long.as_str(), long.as_str(), "b", long.as_str(), "c", "d", "e"];
        let numbers = UInt32Array::from_iter_values(0..8);
        let columns: [(&str, Arc<dyn Array>); 2] =
            [("n", Arc::new(numbers)), ("text", Arc::new(StringArray::from_iter_values(texts)))];
        let all = RecordBatch::try_from_iter(columns).unwrap();
        let cut = async |batch: usize, size: usize| {
            let batches = (0..8).step_by(batch).map(|at| all.slice(at, batch.min(8 - at)));
            let batches: Vec<Result<_, DataFusionError>> = batches.map(Ok).collect();
            let rows = RecordBatchStreamAdapter::new(all.schema(), stream::iter(batches));
            let parts = in_parts(Box::pin(rows), size, 250);
            parts.try_collect::<Vec<RecordBatch>>().await.unwrap()
        };
        let rows =
            |parts: &[RecordBatch]| parts.iter().map(RecordBatch::num_rows).collect::<Vec<_>>();
        for batch in [1, 3, 8] {
            assert_eq!(rows(&cut(batch, 4).await), [4, 4], "{batch}");
            let parts = cut(batch, 100).await;
            assert_eq!(rows(&parts), [5, 3], "the third long text ends the part");
            assert_eq!(concat_batches(&all.schema(), &parts).unwrap(), all);
        }
        let none: [Result<_, DataFusionError>; 0] = [];
        let none = RecordBatchStreamAdapter::new(all.schema(), stream::iter(none));
        let parts: Vec<_> = in_parts(Box::pin(none), 5, 250).try_collect().await.unwrap();
        assert_eq!(rows(&parts), [0]);
    }
}
