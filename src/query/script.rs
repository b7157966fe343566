//! A text of several statements, as it is written in a file or typed at a prompt.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer, TokenizerError};

/// The statements of `sql`, which semicolons part. White space before each keeps its lines and
/// columns those of the whole text. What is no SQL is the last one, for the parser to refuse.
pub fn statements(sql: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut tokens = Vec::new();
    // What stands before a mistake has been read all the same.
    let _ = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location_into_buf(&mut tokens);
    let cuts = tokens.iter().filter(|t| t.token == Token::SemiColon).map(|t| t.span.start);
    let (mut start, mut from) = (Location { line: 1, column: 1 }, 0);
    for cut in cuts {
        let at = offset(sql, cut);
        found.push((start, &sql[from..at]));
        (start, from) = (Location { line: cut.line, column: cut.column + 1 }, at + 1);
    }
    found.push((start, &sql[from..]));
    let says_something = |text: &str| match Tokenizer::new(&GenericDialect {}, text).tokenize() {
        Ok(tokens) => tokens.iter().any(|token| !matches!(token, Token::Whitespace(_))),
        Err(_) => true,
    };
    let placed = |(start, text): (Location, &str)| {
        let lines = "\n".repeat(start.line as usize - 1);
        format!("{lines}{}{text}", " ".repeat(start.column as usize - 1))
    };
    found.into_iter().filter(|(_, text)| says_something(text)).map(placed).collect()
}

/// Bytes of `sql` before a place.
fn offset(sql: &str, place: Location) -> usize {
    let line: usize = sql.split_inclusive('\n').take(place.line as usize - 1).map(str::len).sum();
    let before = sql[line..].char_indices().nth(place.column as usize - 1);
    before.map_or(sql.len(), |(at, _)| line + at)
}

/// Whether what was typed can be run: a command, nothing, or statements up to a semicolon.
pub fn is_complete(typed: &str) -> bool {
    let text = typed.trim();
    if text.is_empty() || text.starts_with('\\') {
        return true;
    }
    match Tokenizer::new(&GenericDialect {}, text).tokenize() {
        Ok(tokens) => {
            let last = tokens.iter().rev().find(|token| !matches!(token, Token::Whitespace(_)));
            last.is_none_or(|token| *token == Token::SemiColon)
        }
        // Any other mistake does not go away by more text.
        Err(TokenizerError { message, .. }) => {
            !message.contains("Unterminated") && !message.contains("EOF")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_part_statements_where_they_are_no_text() {
        let sql = "SELECT ';' -- one; two\n;; SELECT \"a;b\",\n 2 /* ; */; ü + 1";
        let parts = statements(sql);
        assert_eq!(parts.len(), 3, "{parts:?}");
        assert_eq!(parts[0], "SELECT ';' -- one; two\n");
        assert_eq!(parts[1], "\n   SELECT \"a;b\",\n 2 /* ; */");
        assert_eq!(parts[2], "\n\n            ü + 1");
        assert_eq!(statements("SELECT 'open; SELECT 1"), ["SELECT 'open; SELECT 1"]);
        assert_eq!(statements("SELECT 1; SELECT 'open; x").len(), 2);
        assert!(statements(" ; -- nothing\n;").is_empty());
    }

    #[test]
    fn what_is_typed_ends_with_a_semicolon() {
        for done in ["", "\\d tasks", "SELECT 1;", "SELECT 1; -- end", "SELECT ';';", "-- note"] {
            assert!(is_complete(done), "{done}");
        }
        for open in ["SELECT 1", "SELECT ';", "SELECT 1 /* ;", "SELECT \"a;", "SELECT 1; SELECT"] {
            assert!(!is_complete(open), "{open}");
        }
    }
}
