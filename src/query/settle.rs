//! What makes a query's rows depend on its inputs alone: not on cores, on memory or on which
//! partition is faster.
//!
//! Rows that an ORDER BY leaves tied are ordered by a hash of all their columns, in windows too. What
//! else depends on the order of rows (sums of fractions, lists, LIMIT without ORDER BY) is found, so
//! that such a query can run in one order.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, UInt64Array};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::hash_utils::{QualityRandomState, create_hashes};
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{AggregateFunction, Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::{
    Aggregate, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Sort, Volatility, Window, WindowFrameUnits, WindowFunctionDefinition,
};

/// Aggregates that give the same for the same values in whatever order, whatever their type.
const STEADY: [&str; 12] = [
    "count",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "grouping",
    "median",
    "approx_distinct",
    "bootstrap_ci",
];
/// Window functions that give the same to tied rows.
const RANKS: [&str; 4] = ["rank", "dense_rank", "percent_rank", "cume_dist"];

/// `plan`, optimized already, with every order total.
pub(super) fn with_total_orders(plan: LogicalPlan) -> Result<LogicalPlan> {
    let total = plan.transform_down_with_subqueries(|node| match node {
        LogicalPlan::Sort(Sort { mut expr, input, fetch }) => {
            expr.push(tie(input.schema()));
            Ok(Transformed::yes(LogicalPlan::Sort(Sort { expr, input, fetch })))
        }
        LogicalPlan::Window(Window { input, window_expr, schema }) => {
            let total = |expr| total_window(expr, input.schema());
            let window_expr = window_expr.into_iter().map(total).collect();
            Ok(Transformed::yes(LogicalPlan::Window(Window { input, window_expr, schema })))
        }
        other => Ok(Transformed::no(other)),
    });
    total.map(|total| total.data)
}

/// The hash of all columns of `schema` as the last thing to order by.
fn tie(schema: &DFSchema) -> SortExpr {
    let columns = schema.columns().into_iter().map(Expr::Column).collect();
    ScalarUDF::from(Tie::default()).call(columns).sort(true, false)
}

fn total_window(expr: Expr, schema: &DFSchema) -> Expr {
    let name = expr.schema_name().to_string();
    match expr {
        Expr::WindowFunction(mut window) if !is_rank(&window) => {
            window.params.order_by.push(tie(schema));
            Expr::WindowFunction(window).alias(name)
        }
        other => other,
    }
}

/// Whether tied rows get the same.
fn is_rank(window: &WindowFunction) -> bool {
    match &window.fun {
        WindowFunctionDefinition::WindowUDF(function) => RANKS.contains(&function.name()),
        WindowFunctionDefinition::AggregateUDF(_) => {
            window.params.window_frame.units != WindowFrameUnits::Rows
        }
    }
}

/// Whether the rows of `plan`, optimized, do not depend on the order in which they are worked on.
pub(super) fn is_settled(plan: &LogicalPlan) -> Result<bool> {
    let mut settled = true;
    plan.apply_with_subqueries(|node| {
        settled &= match node {
            LogicalPlan::Aggregate(Aggregate { input, aggr_expr, .. }) => {
                aggr_expr.iter().all(|expr| is_steady(expr, input.schema()))
            }
            LogicalPlan::Window(Window { input, window_expr, .. }) => {
                window_expr.iter().all(|expr| is_steady(expr, input.schema()))
            }
            LogicalPlan::Limit(limit) => is_sorted(&limit.input),
            LogicalPlan::TableScan(scan) => scan.fetch.is_none(),
            LogicalPlan::Distinct(_) | LogicalPlan::RecursiveQuery(_) => false,
            _ => true,
        };
        Ok(if settled { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(settled)
}

fn is_sorted(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(inner) => is_sorted(&inner.input),
        LogicalPlan::SubqueryAlias(inner) => is_sorted(&inner.input),
        _ => false,
    }
}

fn is_steady(expr: &Expr, schema: &DFSchema) -> bool {
    let aggregate = |name: &str, args: &[Expr]| {
        // Whole numbers and decimals add up to the same in any order; means of whole numbers are
        // taken of numbers that a fraction holds exactly.
        let exact = |arg: &Expr| {
            let arg = match arg {
                Expr::Cast(cast) => &cast.expr,
                other => other,
            };
            arg.get_type(schema).is_ok_and(|found| {
                found.is_integer() || found.is_decimal() || found == DataType::Boolean
            })
        };
        STEADY.contains(&name) || (matches!(name, "sum" | "avg") && args.iter().all(exact))
    };
    match expr {
        Expr::Alias(alias) => is_steady(&alias.expr, schema),
        Expr::AggregateFunction(AggregateFunction { func, params }) => {
            aggregate(func.name(), &params.args)
        }
        Expr::WindowFunction(window) => match &window.fun {
            WindowFunctionDefinition::WindowUDF(_) => true,
            WindowFunctionDefinition::AggregateUDF(func) => {
                aggregate(func.name(), &window.params.args)
            }
        },
        _ => false,
    }
}

/// A hash of some columns, the same in every process.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Tie {
    signature: Signature,
}

impl Default for Tie {
    fn default() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Tie {
    fn name(&self) -> &str {
        "hash of the row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::UInt64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let column = |value: &ColumnarValue| value.to_array(args.number_rows);
        let columns = args.args.iter().map(column).collect::<Result<Vec<ArrayRef>>>()?;
        let mut hashes = vec![0; args.number_rows];
        create_hashes(&columns, &QualityRandomState::with_seed(0), &mut hashes)?;
        Ok(ColumnarValue::Array(Arc::new(UInt64Array::from(hashes))))
    }
}
