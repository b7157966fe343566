//! Functions of counts and lengths.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::ScalarUDF;

use super::scalar::{Kind, Scalar, columns};
use crate::{Error, Result, statistics};

pub(super) fn functions() -> [ScalarUDF; 3] {
    const CORRECT: (&str, Kind) = ("correct", Kind::Count);
    const N: (&str, Kind) = ("n", Kind::Count);
    [
        Scalar::new("pass_at_k", &[CORRECT, N, ("k", Kind::Count)], DataType::Float64, pass_at_k),
        Scalar::new("avg_at_k", &[CORRECT, N], DataType::Float64, avg_at_k),
        Scalar::new("token_count", &[("tokens", Kind::List)], DataType::Int64, token_count),
    ]
    .map(ScalarUDF::from)
}

/// `correct` of `n` as numbers that [`statistics`] takes.
fn counted(correct: i64, n: i64) -> Result<(u32, u32)> {
    let count = |value: i64| u32::try_from(value).ok();
    count(correct)
        .zip(count(n))
        .filter(|(correct, n)| correct <= n)
        .ok_or_else(|| Error::data(format!("{correct} of {n} cannot be correct")))
}

/// The unbiased estimator where there are `k` samples, else null.
fn pass_at_k(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let all = columns::<Int64Array, 3>(arrays)?;
    let row = |at| {
        if all.iter().any(|column| column.is_null(at)) {
            return Ok(None);
        }
        let [correct, n, k] = all.map(|column| column.value(at));
        let (correct, n) = counted(correct, n)?;
        if k < 1 {
            return Err(Error::data(format!("k is {k}; it must be at least 1")));
        }
        let k = u32::try_from(k).ok().filter(|k| *k <= n);
        Ok(k.map(|k| statistics::pass_at_k(n, correct, k)))
    };
    Ok(Arc::new((0..all[0].len()).map(row).collect::<Result<Float64Array>>()?))
}

fn avg_at_k(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let all = columns::<Int64Array, 2>(arrays)?;
    let row = |at| {
        if all.iter().any(|column| column.is_null(at)) {
            return Ok(None);
        }
        let (correct, n) = counted(all[0].value(at), all[1].value(at))?;
        Ok((n > 0).then(|| f64::from(correct) / f64::from(n)))
    };
    Ok(Arc::new((0..all[0].len()).map(row).collect::<Result<Float64Array>>()?))
}

fn token_count(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let [list] = arrays else { return Err(Error::defect("one argument was asked for")) };
    let length = |at| -> Option<i64> {
        let items = match list.data_type() {
            DataType::LargeList(_) => list.as_list::<i64>().value_length(at),
            _ => list.as_list::<i32>().value_length(at).into(),
        };
        list.is_valid(at).then_some(items)
    };
    Ok(Arc::new((0..list.len()).map(length).collect::<Int64Array>()))
}
