//! The SQL functions of the field; docs/query.md says what each takes and gives.

mod bootstrap;
mod counts;
mod decode;
mod judge;
mod narrow;
mod scalar;
#[cfg(test)]
mod tests;

use datafusion::logical_expr::{AggregateUDF, Volatility};
use datafusion::prelude::SessionContext;

pub use decode::decode;

/// Makes the functions that need no store known to a session.
pub fn register(context: &SessionContext) {
    for function in counts::functions().into_iter().chain(judge::functions()) {
        context.register_udf(function);
    }
    context.register_udaf(AggregateUDF::from(bootstrap::BootstrapCi::default()));
    let known = context.state();
    for length in narrow::LENGTHS.iter().filter_map(|name| known.scalar_functions().get(*name)) {
        context.register_udf(narrow::Narrow::of(length));
    }
}

/// [`register`] for a job, whose rows are a function of its inputs: takes away what asks a clock or
/// draws numbers.
pub(super) fn register_repeatable(context: &SessionContext) {
    register(context);
    for (name, function) in context.state().scalar_functions() {
        if function.signature().volatility != Volatility::Immutable {
            context.deregister_udf(name);
        }
    }
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
