//! Problems as their publishers lay them out.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Case, Code, Tests, packed};
use crate::sandbox::Limits;

/// A row of somebody's file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The publisher's name for it.
    pub id: String,
    /// 1 easy, 2 medium, 3 hard.
    pub level: Option<u32>,
    pub code: Code,
}

impl Row {
    /// HumanEval's JSON lines.
    ///
    /// # Errors
    /// Which column is missing or wrong.
    pub fn humaneval(row: &Map<String, Value>) -> Result<Self, String> {
        let solution = row.get("canonical_solution").and_then(Value::as_str).unwrap_or_default();
        let tests = Tests::Humaneval {
            entry: text(row, "entry_point")?.into(),
            check: text(row, "test")?.into(),
        };
        let code = Code {
            problem: text(row, "prompt")?.into(),
            tests,
            solution: solution.into(),
            limits: Limits::default(),
        };
        Ok(Self { id: text(row, "task_id")?.into(), level: None, code })
    }

    /// LiveCodeBench's rows (`code_generation`).
    ///
    /// # Errors
    /// Which column is missing or wrong.
    pub fn livecodebench(row: &Map<String, Value>) -> Result<Self, String> {
        let metadata = row.get("metadata").and_then(Value::as_str).unwrap_or("{}");
        let metadata: Metadata =
            serde_json::from_str(metadata).map_err(|e| format!("column metadata: {e}"))?;
        let mut kinds = Vec::new();
        let mut cases = Vec::new();
        for column in ["public_test_cases", "private_test_cases"] {
            for test in written(row, column)? {
                kinds.push(test.testtype);
                cases.push(Case { input: test.input, output: test.output });
            }
        }
        let functional = metadata.func_name.is_some();
        if cases.is_empty() {
            return Err("columns public_test_cases, private_test_cases: no test".into());
        }
        if kinds.iter().any(|kind| kind.as_ref().is_some_and(|k| (k == "functional") != functional))
        {
            return Err(format!(
                "column metadata: func_name is {}, and not all tests are {}",
                if functional { "there" } else { "missing" },
                if functional { "functional" } else { "stdin" },
            ));
        }
        let starter = row.get("starter_code").and_then(Value::as_str).unwrap_or_default();
        let mut problem = text(row, "question_content")?.to_string();
        if !starter.trim().is_empty() {
            problem = format!("{problem}\n\n```python\n{}\n```", starter.trim_end());
        }
        let difficulty = row.get("difficulty").and_then(Value::as_str).unwrap_or_default();
        let tests = match metadata.func_name {
            Some(entry) => {
                check_json(&cases)?;
                Tests::Call { entry, cases }
            }
            None => Tests::Stdin { cases },
        };
        let level = match difficulty {
            "easy" => Some(1),
            "medium" => Some(2),
            "hard" => Some(3),
            _ => None,
        };
        let code = Code { problem, tests, solution: String::new(), limits: Limits::default() };
        Ok(Self { id: text(row, "question_id")?.into(), level, code })
    }
}

#[derive(Deserialize)]
struct Metadata {
    func_name: Option<String>,
}

#[derive(Deserialize)]
struct Written {
    input: String,
    output: String,
    testtype: Option<String>,
}

/// A list of tests as JSON in a text, or packed.
fn written(row: &Map<String, Value>, column: &str) -> Result<Vec<Written>, String> {
    let at = |e: String| format!("column {column}: {e}");
    let written = match row.get(column) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(written)) => written,
        Some(list) => {
            return serde_json::from_value(list.clone()).map_err(|e| at(e.to_string()));
        }
    };
    let written = written.trim();
    if written.is_empty() {
        return Ok(Vec::new());
    }
    let unpacked;
    let list = if written.starts_with('[') {
        written
    } else {
        unpacked = packed::pickled(written).map_err(at)?;
        &unpacked
    };
    serde_json::from_str(list).map_err(|e| at(e.to_string()))
}

/// What a function is called with and what it returns must be JSON.
fn check_json(cases: &[Case]) -> Result<(), String> {
    let json = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).map(|_| ());
    for (number, test) in (1..).zip(cases) {
        for text in test.input.split('\n').chain([test.output.as_str()]) {
            json(text).map_err(|e| format!("test {number}: `{text:.60}` is no JSON: {e}"))?;
        }
    }
    Ok(())
}

fn text<'a>(row: &'a Map<String, Value>, column: &str) -> Result<&'a str, String> {
    let value = row.get(column).ok_or_else(|| format!("no column {column}"))?;
    value.as_str().ok_or_else(|| format!("column {column}: no text"))
}
