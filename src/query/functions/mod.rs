//! The SQL functions of the field; docs/query.md says what each takes and gives.

mod bootstrap;
mod counts;
mod decode;
mod judge;
mod scalar;
#[cfg(test)]
mod tests;

use datafusion::logical_expr::AggregateUDF;
use datafusion::prelude::SessionContext;

pub(super) use decode::register as register_decode;

/// Makes the functions that need no store known to a session.
pub(super) fn register(context: &SessionContext) {
    for function in counts::functions().into_iter().chain(judge::functions()) {
        context.register_udf(function);
    }
    context.register_udaf(AggregateUDF::from(bootstrap::BootstrapCi::default()));
}

/// The names of all functions that a session knows, DataFusion's too.
pub(super) fn names(context: &SessionContext) -> Vec<String> {
    let state = context.state();
    let scalar = state.scalar_functions().keys().chain(state.aggregate_functions().keys());
    let all = scalar.chain(state.window_functions().keys()).chain(state.table_functions().keys());
    let mut names: Vec<String> = all.cloned().collect();
    names.sort();
    names.dedup();
    names
}
