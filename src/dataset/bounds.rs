//! What the values of a part's columns lie between: what its manifest says of it.

use std::collections::BTreeMap;

use datafusion::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, RecordBatch};
use datafusion::arrow::compute::{max, max_boolean, max_string, min, min_boolean, min_string};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type, UInt32Type, UInt64Type};
use serde_json::Value;

use crate::store::Bounds;

/// The longest text that is a bound: ids and words, no prompts.
const LONGEST: usize = 48;

/// The bounds of scalar columns, but for those with long texts or numbers that are not finite.
pub(super) fn bounds(rows: &RecordBatch) -> BTreeMap<String, Bounds> {
    let schema = rows.schema();
    let named = schema.fields().iter().zip(rows.columns());
    let known = named.filter_map(|(field, column)| {
        let (min, max) = extremes(column)?;
        let fits = |value: &Value| match value {
            Value::String(text) => text.len() <= LONGEST,
            other => !other.is_null(),
        };
        let bounds = Bounds { nulls: column.null_count() as u64, min, max };
        (fits(&bounds.min) && fits(&bounds.max)).then(|| (field.name().clone(), bounds))
    });
    known.collect()
}

fn extremes(column: &ArrayRef) -> Option<(Value, Value)> {
    fn numbers<T: ArrowPrimitiveType>(column: &ArrayRef) -> Option<(Value, Value)>
    where
        T::Native: Into<Value>,
    {
        let column = column.as_primitive::<T>();
        Some((min(column)?.into(), max(column)?.into()))
    }
    match column.data_type() {
        DataType::UInt32 => numbers::<UInt32Type>(column),
        DataType::UInt64 => numbers::<UInt64Type>(column),
        DataType::Float32 => numbers::<Float32Type>(column),
        DataType::Float64 => numbers::<Float64Type>(column),
        DataType::Boolean => {
            let column = column.as_boolean();
            Some((min_boolean(column)?.into(), max_boolean(column)?.into()))
        }
        DataType::Utf8 => {
            let column = column.as_string::<i32>();
            Some((min_string(column)?.into(), max_string(column)?.into()))
        }
        _ => None,
    }
}
