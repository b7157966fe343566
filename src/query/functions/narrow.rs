//! What makes a number of a long value, where the value is read.

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExpressionPlacement, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature,
};

/// Lengths of lists and texts.
pub(super) const LENGTHS: [&str; 5] =
    ["array_length", "cardinality", "character_length", "octet_length", "token_count"];

/// A function that is computed as near to the scan as its arguments allow. Joins and sorts then copy
/// its number, where they would copy the list of tokens that nothing else asks for.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Narrow(ScalarUDF);

impl Narrow {
    pub fn of(function: &ScalarUDF) -> ScalarUDF {
        ScalarUDF::from(Self(function.clone()))
    }
}

impl ScalarUDFImpl for Narrow {
    fn placement(&self, arguments: &[ExpressionPlacement]) -> ExpressionPlacement {
        use ExpressionPlacement::{Column, KeepInPlace, Literal, MoveTowardsLeafNodes};
        match arguments {
            [Column | MoveTowardsLeafNodes, rest @ ..] if rest.iter().all(|at| *at == Literal) => {
                MoveTowardsLeafNodes
            }
            _ => KeepInPlace,
        }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        self.0.schema_name(arguments)
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.0.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.return_type(types)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        self.0.return_field_from_args(arguments)
    }

    fn is_strict(&self) -> bool {
        self.0.inner().is_strict()
    }

    fn simplify(&self, arguments: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.0.simplify(arguments, info)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.0.invoke_with_args(arguments)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        self.0.evaluate_bounds(input)
    }

    fn propagate_constraints(
        &self,
        interval: &Interval,
        inputs: &[&Interval],
    ) -> Result<Option<Vec<Interval>>> {
        self.0.propagate_constraints(interval, inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.0.output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::util::pretty::pretty_format_batches;
    use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
    use datafusion::logical_expr::LogicalPlan;
    use datafusion::prelude::SessionContext;

    use super::*;

    #[tokio::test]
    async fn joins_carry_the_length_of_a_list_instead_of_it() {
        let context = SessionContext::new();
        super::super::register(&context);
        for table in [
            "CREATE TABLE rollouts AS SELECT value AS task, make_array(value, 7) AS tokens, 'ab' AS response \
             FROM range(3)",
            "CREATE TABLE verdicts AS SELECT value AS task, 'correct' AS verdict FROM range(3)",
        ] {
            context.sql(table).await.unwrap().collect().await.unwrap();
        }
        for length in ["array_length(r.tokens)", "token_count(r.tokens)", "length(r.response)"] {
            let sql = format!(
                "SELECT v.verdict, sum({length}) AS n FROM rollouts r \
                 JOIN verdicts v ON r.task = v.task GROUP BY v.verdict"
            );
            let rows = context.sql(&sql).await.unwrap();
            let plan = rows.clone().into_optimized_plan().unwrap();
            let mut carried = Vec::new();
            plan.apply(|node| {
                if let LogicalPlan::Join(join) = node {
                    let fields = join.left.schema().fields().iter();
                    carried.extend(fields.map(|field| field.data_type().clone()));
                }
                Ok(TreeNodeRecursion::Continue)
            })
            .unwrap();
            assert!(carried.len() == 2 && carried.iter().all(DataType::is_integer), "{carried:?}");
            let found = pretty_format_batches(&rows.collect().await.unwrap()).unwrap().to_string();
            assert!(found.contains("| correct | 6 "), "{found}");
        }
    }
}
