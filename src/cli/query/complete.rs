//! What TAB offers at the prompt.

use crate::Result;
use crate::query::Session;

const KEYWORDS: [&str; 57] = [
    "ALL",
    "AND",
    "ANY",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COPY",
    "CREATE",
    "CROSS",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXTERNAL",
    "FALSE",
    "FILTER",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER",
    "INTERSECT",
    "IS",
    "JOIN",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LOCATION",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OVER",
    "PARTITION",
    "PARTITIONED",
    "SELECT",
    "STORED",
    "TABLE",
    "THEN",
    "TRUE",
    "UNION",
    "USING",
    "WHEN",
    "WHERE",
];
/// The prompt's own commands.
pub(super) const COMMANDS: [&str; 7] = ["\\?", "\\d", "\\format", "\\o", "\\q", "\\r", "\\timing"];
pub(super) const FORMATS: [&str; 6] = ["csv", "json", "markdown", "ndjson", "parquet", "table"];
/// After these a table's name is due.
const BEFORE_TABLES: [&str; 6] = ["FROM", "JOIN", "DESCRIBE", "TABLE", "VIEW", "\\D"];

/// What may be completed.
#[derive(Default)]
pub(super) struct Words {
    /// SQL names with their columns; a table may have two.
    tables: Vec<(String, Vec<String>)>,
    functions: Vec<String>,
}

impl Words {
    pub async fn of(session: &Session) -> Result<Self> {
        let mut tables = Vec::new();
        for name in session.tables() {
            let columns = session.columns(&name).await?;
            let columns = columns.fields().iter().map(|field| field.name().clone());
            tables.push((name, columns.collect::<Vec<_>>()));
        }
        for (full, short) in session.full_names() {
            let known = tables.iter().find(|(name, _)| *name == short);
            if let Some((_, columns)) = known.filter(|_| full != short) {
                tables.push((full, columns.clone()));
            }
        }
        Ok(Self { tables, functions: session.functions() })
    }

    /// Where the word before byte `at` of `text` begins, and what it may become.
    pub fn complete(&self, text: &str, at: usize) -> (usize, Vec<String>) {
        let before = &text[..at];
        let start = start_of_word(before, false);
        // A table's name may have hyphens before it is put in quotes.
        let wide = start_of_word(before, true);
        let due = before[..wide].split_whitespace().last().unwrap_or_default().to_uppercase();
        if BEFORE_TABLES.contains(&&*due) {
            let tables = self.tables.iter().map(|(name, _)| name.clone());
            return (wide, matching(&before[wide..], tables));
        }
        if let Some(command) = before.strip_prefix('\\') {
            return match command.split_once(' ') {
                Some(("format", _)) => {
                    (start, matching(&before[start..], FORMATS.map(String::from)))
                }
                Some(_) => (at, Vec::new()),
                None => (0, matching(before, COMMANDS.map(String::from))),
            };
        }
        let word = &before[start..];
        // `r.step` completes as `step` does.
        let qualifier = &word[..word.rfind('.').map_or(0, |dot| dot + 1)];
        let mut found: Vec<String> =
            matching(&word[qualifier.len()..], self.columns(text).into_iter().cloned())
                .into_iter()
                .map(|column| format!("{qualifier}{column}"))
                .collect();
        if !word.is_empty() {
            let tables = self.tables.iter().map(|(name, _)| name.clone());
            found.extend(matching(word, tables));
        }
        if !word.is_empty() && qualifier.is_empty() {
            let functions = self.functions.iter().map(|name| format!("{name}("));
            found.extend(matching(word, functions));
            let small = word.starts_with(|c: char| c.is_lowercase());
            let keyword = |word: &str| if small { word.to_lowercase() } else { word.into() };
            found.extend(matching(word, KEYWORDS.map(keyword)));
        }
        found.dedup();
        (start, found)
    }

    /// Of the tables that `text` names, or of all when it names none.
    fn columns(&self, text: &str) -> Vec<&String> {
        let named = |name: &str| {
            text.match_indices(name).any(|(at, _)| {
                let part = |c: char| c.is_alphanumeric() || c == '_';
                !text[..at].ends_with(part) && !text[at + name.len()..].starts_with(part)
            })
        };
        let of = |(_, columns): &'_ (String, Vec<String>)| columns.len();
        let mut tables: Vec<_> = self.tables.iter().filter(|(name, _)| named(name)).collect();
        if tables.iter().copied().map(of).sum::<usize>() == 0 {
            tables = self.tables.iter().collect();
        }
        let mut columns: Vec<_> = tables.into_iter().flat_map(|(_, columns)| columns).collect();
        columns.sort();
        columns.dedup();
        columns
    }
}

fn start_of_word(before: &str, hyphens: bool) -> usize {
    let part = |c: char| c.is_alphanumeric() || "_.\"".contains(c) || hyphens && c == '-';
    before.trim_end_matches(part).len()
}

/// Those that begin with `word`, quotes and case aside.
fn matching(word: &str, candidates: impl IntoIterator<Item = String>) -> Vec<String> {
    let plain = |text: &str| text.replace('"', "").to_lowercase();
    let word = plain(word);
    candidates.into_iter().filter(|candidate| plain(candidate).starts_with(&word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(text: &str) -> String {
        let words = Words {
            tables: vec![
                ("tasks".into(), vec!["task_id".into(), "level".into()]),
                ("\"sft-data\"".into(), vec!["response".into(), "level".into()]),
                ("quick.\"sft-data\"".into(), vec!["response".into(), "level".into()]),
            ],
            functions: vec!["avg".into(), "reward".into()],
        };
        let at = text.find('|').unwrap();
        let (start, found) = words.complete(&text.replace('|', ""), at);
        format!("{start}: {}", found.join(" "))
    }

    #[test]
    fn tables_come_after_from_and_columns_of_those_named_elsewhere() {
        assert_eq!(offered("SELECT * FROM ta|"), "14: tasks");
        assert_eq!(offered("select * from sft-|"), "14: \"sft-data\"");
        assert_eq!(offered("SELECT * FROM quick.\"s|"), "14: quick.\"sft-data\"");
        assert_eq!(offered("\\d s|"), "3: \"sft-data\"");
        assert_eq!(offered("SELECT re| FROM \"sft-data\""), "7: response reward(");
        assert_eq!(offered("SELECT re| FROM tasks"), "7: reward(");
        assert_eq!(offered("SELECT t.le| FROM tasks t"), "7: t.level");
        assert_eq!(offered("SELECT | FROM tasks"), "7: level task_id");
        assert_eq!(offered("SELECT 1 whe|"), "9: when where");
        assert_eq!(offered("SELECT 1 WHE|"), "9: WHEN WHERE");
    }

    #[test]
    fn commands_and_formats_are_completed() {
        assert_eq!(offered("\\f|"), "0: \\format");
        assert_eq!(offered("\\format c|"), "8: csv");
        assert_eq!(offered("\\timing o|"), "9: ");
    }
}
