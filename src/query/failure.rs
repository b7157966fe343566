//! DataFusion's errors as one line each, with the nearest name.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

use super::catalog::quoted;
use crate::Error;
use crate::nearest::nearest;

/// What went wrong with `sql`, over tables called `names`.
pub(super) fn explain(error: &DataFusionError, sql: &str, names: &[String]) -> Error {
    match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let known: Vec<String> = valid_fields.iter().map(|c| quoted(&c.name)).collect();
                Error::usage(format!(
                    "no column `{}`; {}",
                    field.name,
                    suggest(&field.name, &known)
                ))
            }
            other => Error::usage(one_line(&other.to_string())),
        },
        DataFusionError::ObjectStore(inner) => match inner.as_ref() {
            object_store::Error::NotFound { path, .. } => Error::data(format!(
                "{path}: no such object; `triad fsck` finds what else is missing"
            )),
            other => std::error::Error::source(other)
                .and_then(|source| source.downcast_ref::<Error>())
                .cloned()
                .unwrap_or_else(|| Error::try_again(one_line(&other.to_string()))),
        },
        DataFusionError::External(inner) if inner.is::<Error>() => {
            inner.downcast_ref().cloned().unwrap_or_else(|| Error::defect(inner))
        }
        DataFusionError::IoError(e) => Error::try_again(e),
        DataFusionError::ParquetError(e) => Error::data(one_line(&e.to_string())),
        DataFusionError::Internal(text) => Error::defect(one_line(text)),
        DataFusionError::SQL(e, _) => {
            let text = one_line(&e.to_string());
            Error::usage(format!(
                "SQL: {}{}",
                text.trim_start_matches("sql parser error: "),
                hyphen_hint(sql, names)
            ))
        }
        DataFusionError::Plan(text) => explain_plan(text, sql, names),
        other => Error::usage(one_line(&other.strip_backtrace())),
    }
}

fn explain_plan(text: &str, sql: &str, names: &[String]) -> Error {
    if let Some(table) = text.strip_prefix("table '").and_then(|t| t.strip_suffix("' not found")) {
        let table = table.strip_prefix("store.").unwrap_or(table);
        let table = table.strip_prefix("bare.").unwrap_or(table);
        let hint = hyphen_hint(sql, names);
        let hint = if hint.is_empty() { format!("; {}", suggest(table, names)) } else { hint };
        return Error::usage(format!("no table `{table}`{hint}"));
    }
    // What a function says of its arguments, out of the planner's words around it.
    let function = text.split_once("Function '").and_then(|(_, rest)| {
        rest.split_once("' user-defined coercion failed with: Error during planning: ")
    });
    if let Some((name, said)) = function {
        let said = said.split(". No function matches").next().unwrap_or(said);
        return Error::usage(one_line(&format!("{name}: {said}")));
    }
    if text.starts_with("DDL not supported")
        || text.starts_with("DML not supported")
        || text.starts_with("Statement not supported")
    {
        let what = text.split(": ").nth(1).unwrap_or(text);
        return Error::usage(format!("SQL that changes something is refused: {}", one_line(what)));
    }
    Error::usage(one_line(text))
}

/// A hint when a table's name with a hyphen stands in the SQL without quotes.
fn hyphen_hint(sql: &str, names: &[String]) -> String {
    let bare = names.iter().flat_map(|name| name.split('.')).find(|part| {
        let inner = part.trim_matches('"');
        inner.contains('-') && sql.contains(inner) && !sql.contains(*part)
    });
    bare.map(|part| format!("; write {part}, in double quotes")).unwrap_or_default()
}

/// The nearest of `known`, or the list of them.
fn suggest(wanted: &str, known: &[String]) -> String {
    let plain = |text: &str| text.replace('"', "").to_lowercase();
    let names: Vec<String> = known.iter().map(|name| plain(name)).collect();
    if let Some(at) = nearest(&plain(wanted), names.iter().map(String::as_str)) {
        return format!("did you mean `{}`?", known[at]);
    }
    match known.len() {
        0 => "there is none".into(),
        n if n <= 24 => format!("there are {}", known.join(", ")),
        n => format!("there are {n}; `SHOW TABLES` lists them"),
    }
}

/// `text` with every run of white space as one space.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
