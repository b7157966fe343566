//! DataFusion's errors as one line each: where in the SQL, what, and the nearest name.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};

use super::catalog::quoted;
use super::functions;
use crate::Error;
use crate::nearest::nearest;

/// What went wrong with `sql`, over tables called `names`. A mistake in the SQL begins with its
/// place, `line:column: `, where that is known.
pub fn explain(error: &DataFusionError, sql: &str, names: &[String]) -> Error {
    let (said, word) = describe(error.find_root(), sql, names);
    let Error::Usage(text) = said else { return said };
    let (place, text) = match syntax_place(&text, sql) {
        Some((place, before)) => (Some(place), format!("{before}{}", hyphen_hint(sql, names))),
        None => {
            let place = match (diagnosed(error), &word) {
                // Of `t.column` DataFusion gives the beginning.
                (Some(start), Some(column)) if text.starts_with("no column") => {
                    places(sql, column).into_iter().find(|place| *place >= start).or(Some(start))
                }
                (Some(place), _) => Some(place),
                (None, Some(word)) => match places(sql, word)[..] {
                    [place] => Some(place),
                    _ => None,
                },
                (None, None) => None,
            };
            (place, text)
        }
    };
    Error::Usage(match place {
        Some(Location { line, column }) => format!("{line}:{column}: {text}"),
        None => text,
    })
}

/// Where DataFusion says that it is.
fn diagnosed(error: &DataFusionError) -> Option<Location> {
    let start = error.diagnostic()?.span?.start;
    Some(Location { line: start.line, column: start.column })
}

/// The place at the end of the parser's message, and what stands before it.
fn syntax_place(text: &str, sql: &str) -> Option<(Location, String)> {
    if text.ends_with("found: EOF") {
        let end = sql.trim_end();
        let line = end.lines().count().max(1) as u64;
        let column = end.lines().last().map_or(0, |last| last.chars().count()) as u64 + 1;
        return Some((Location { line, column }, text.replace("found: EOF", "found the end")));
    }
    let (before, place) = text.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    let location = Location { line: line.parse().ok()?, column: column.parse().ok()? };
    Some((location, before.into()))
}

/// Where `word` stands in `sql`.
fn places(sql: &str, word: &str) -> Vec<Location> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location();
    let is_word = |token: &Token| match token {
        Token::Word(found) => found.value.eq_ignore_ascii_case(word),
        Token::SingleQuotedString(text) => text == word,
        _ => false,
    };
    let tokens = tokens.unwrap_or_default().into_iter();
    tokens.filter(|found| is_word(&found.token)).map(|found| found.span.start).collect()
}

/// The line of `sql` that `error` points at, and a caret below the place: for a terminal.
pub fn pointed(sql: &str, error: &Error) -> Option<String> {
    /// Characters of a long line that are shown before the place, and from it on.
    const AROUND: usize = 60;
    let text = error.to_string();
    let (line, rest) = text.split_once(':')?;
    let (column, _) = rest.split_once(": ")?;
    let (line, column) = (line.parse::<usize>().ok()?, column.parse::<usize>().ok()?);
    let at = column.checked_sub(1)?;
    let line: Vec<char> = sql.lines().nth(line.checked_sub(1)?)?.chars().collect();
    let word = line.iter().skip(at).take_while(|c| c.is_alphanumeric() || **c == '_').count();
    let from = at.saturating_sub(AROUND);
    let shown: String = line.iter().skip(from).take(2 * AROUND).collect();
    let marks = "^".repeat(word.clamp(1, AROUND));
    Some(format!("  {}\n  {}{marks}", shown.replace('\t', " "), " ".repeat(at - from)))
}

/// The error, and the word of the SQL that it is about.
fn describe(root: &DataFusionError, sql: &str, names: &[String]) -> (Error, Option<String>) {
    let error = match root {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let known: Vec<String> = valid_fields.iter().map(|c| quoted(&c.name)).collect();
                let said = format!("no column `{}`; {}", field.name, suggest(&field.name, &known));
                return (Error::usage(said), Some(field.name.clone()));
            }
            SchemaError::AmbiguousReference { field } => {
                let said = format!("column `{}` is in several tables; say of which", field.name);
                return (Error::usage(said), Some(field.name.clone()));
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
            let error = inner.downcast_ref().cloned().unwrap_or_else(|| Error::defect(inner));
            // Ours begin with the function that says it.
            let word = error.to_string().split([':', '(']).next().map(String::from);
            return (error, word);
        }
        DataFusionError::ResourcesExhausted(text) => {
            Error::try_again(format!("the query needs more memory: {}", one_line(text)))
        }
        DataFusionError::IoError(e) => Error::try_again(e),
        DataFusionError::ParquetError(e) => Error::data(one_line(&e.to_string())),
        DataFusionError::Internal(text) => Error::defect(one_line(text)),
        DataFusionError::SQL(e, _) => match e.as_ref() {
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => {
                Error::usage(one_line(text))
            }
            ParserError::RecursionLimitExceeded => Error::usage("the SQL is nested too deep"),
        },
        DataFusionError::Plan(text) => return explain_plan(text, sql, names),
        other => Error::usage(one_line(&other.strip_backtrace())),
    };
    (error, None)
}

fn explain_plan(text: &str, sql: &str, names: &[String]) -> (Error, Option<String>) {
    if let Some(table) = text.strip_prefix("table '").and_then(|t| t.strip_suffix("' not found")) {
        let table = table.strip_prefix("store.").unwrap_or(table);
        let table = table.strip_prefix("bare.").unwrap_or(table);
        let hint = hyphen_hint(sql, names);
        let hint = if hint.is_empty() { format!("; {}", suggest(table, names)) } else { hint };
        let last = table.rsplit('.').next().map(String::from);
        return (Error::usage(format!("no table `{table}`{hint}")), last);
    }
    let unknown = text.strip_prefix("Invalid function '").or(text.strip_prefix("table function '"));
    if let Some((name, _)) = unknown.and_then(|rest| rest.split_once('\'')) {
        let context = SessionContext::new();
        functions::register(&context);
        let names = functions::names(&context);
        let hint = match nearest(name, names.iter().map(String::as_str)) {
            Some(at) if names[at] == name => {
                let said = format!(
                    "`{name}` gives something else each time; the rows of a job depend on its inputs \
                     alone"
                );
                return (Error::usage(said), Some(name.into()));
            }
            Some(at) => format!("; did you mean `{}`?", names[at]),
            None => String::new(),
        };
        return (Error::usage(format!("no function `{name}`{hint}")), Some(name.into()));
    }
    // What a function says of its arguments, out of the planner's words around it.
    let function = text.split_once("Function '").and_then(|(_, rest)| {
        rest.split_once("' user-defined coercion failed with: Error during planning: ")
    });
    if let Some((name, said)) = function {
        let said = said.split(". No function matches").next().unwrap_or(said);
        return (Error::usage(one_line(&format!("{name}: {said}"))), Some(name.into()));
    }
    let unfit = text.split_once("No function matches the given name and argument types '");
    if let Some((call, rest)) = unfit.and_then(|(_, rest)| rest.split_once('\'')) {
        let known = rest.split_once("Candidate functions:").map_or("", |(_, known)| known);
        let name = call.split('(').next().map(String::from);
        return (Error::usage(format!("no function {call}; there are {}", one_line(known))), name);
    }
    if text.starts_with("DDL not supported")
        || text.starts_with("DML not supported")
        || text.starts_with("Statement not supported")
    {
        let what = text.split(": ").nth(1).unwrap_or(text);
        let said = format!("SQL that changes something is refused: {}", one_line(what));
        return (Error::usage(said), None);
    }
    let word = text.split('\'').nth(1).map(String::from);
    (Error::usage(one_line(text)), word)
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
    let wanted = plain(wanted);
    let longer = || names.iter().position(|name| wanted.len() > 2 && name.starts_with(&wanted));
    if let Some(at) = nearest(&wanted, names.iter().map(String::as_str)).or_else(longer) {
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
