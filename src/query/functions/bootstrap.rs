//! `bootstrap_ci(value)`: a mean over problems with its 95% interval.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, ListArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type};
use datafusion::common::scalar::ScalarStructBuilder;
use datafusion::common::{ScalarValue, not_impl_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use crate::statistics::bootstrap_mean;

const NAME: &str = "bootstrap_ci";

/// The fields of the result.
fn interval() -> Fields {
    let field = |name| Field::new(name, DataType::Float64, false);
    Fields::from(["mean", "low", "high"].map(field).to_vec())
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct BootstrapCi {
    signature: Signature,
}

impl Default for BootstrapCi {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for BootstrapCi {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(interval()))
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        match given {
            [one] if one.is_numeric() || one.is_null() || *one == DataType::Boolean => {
                Ok(vec![DataType::Float64])
            }
            [one] => plan_err!("value must be a number or a boolean, not {one}"),
            _ => plan_err!("it takes (value); {} given", given.len()),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let item = Field::new("item", DataType::Float64, true);
        let name = format_state_name(args.name, "values");
        Ok(vec![Arc::new(Field::new(name, DataType::List(Arc::new(item)), true))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return not_impl_err!("{NAME}(DISTINCT …); equal values count each");
        }
        Ok(Box::<Values>::default())
    }
}

#[derive(Debug, Default)]
struct Values(Vec<f64>);

impl Values {
    fn add(&mut self, column: &ArrayRef) {
        self.0.extend(column.as_primitive::<Float64Type>().iter().flatten());
    }
}

impl Accumulator for Values {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        columns.iter().for_each(|column| self.add(column));
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for state in states {
            state.as_list::<i32>().iter().flatten().for_each(|values| self.add(&values));
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = self.0.iter().copied().map(Some);
        let list = ListArray::from_iter_primitive::<Float64Type, _, _>([Some(values)]);
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // In which order values come is up to the plan; the interval must not be.
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        let Some(estimate) = bootstrap_mean(&[values], NAME) else {
            return Ok(ScalarStructBuilder::new_null(interval()));
        };
        let found = [estimate.mean, estimate.low, estimate.high];
        let fields = interval();
        let filled =
            fields.iter().zip(found).fold(ScalarStructBuilder::new(), |all, (field, v)| {
                all.with_scalar(field.clone(), ScalarValue::Float64(Some(v)))
            });
        filled.build()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.capacity() * size_of::<f64>()
    }
}
