//! Problems as their publishers lay them out.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Case, Code, Tests, pickle};
use crate::sandbox::Limits;

/// A row of somebody's file.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The publisher's name for it.
    pub name: String,
    /// What the model reads.
    pub question: String,
    /// 1 easy, 2 medium, 3 hard; 1 where the publisher has none.
    pub level: u32,
    /// A program that passes, where there is one.
    pub solution: String,
    pub code: Code,
}

impl Problem {
    /// HumanEval's JSON lines.
    ///
    /// # Errors
    /// Which column is missing or wrong.
    pub fn humaneval(row: &Map<String, Value>) -> Result<Self, String> {
        let prompt = text(row, "prompt")?.to_string();
        let solution = row.get("canonical_solution").and_then(Value::as_str).unwrap_or_default();
        let tests = Tests::Humaneval {
            prompt: prompt.clone(),
            entry: text(row, "entry_point")?.into(),
            check: text(row, "test")?.into(),
        };
        Ok(Self {
            name: text(row, "task_id")?.into(),
            question: prompt,
            level: 1,
            solution: solution.into(),
            code: Code { tests, limits: Limits::default() },
        })
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
        let mut question = text(row, "question_content")?.to_string();
        if !starter.trim().is_empty() {
            question = format!("{question}\n\n```python\n{}\n```", starter.trim_end());
        }
        let difficulty = row.get("difficulty").and_then(Value::as_str).unwrap_or_default();
        let tests = match metadata.func_name {
            Some(entry) => {
                check_json(&cases)?;
                Tests::Call { entry, cases }
            }
            None => Tests::Stdin { cases },
        };
        Ok(Self {
            name: text(row, "question_id")?.into(),
            question,
            level: match difficulty {
                "medium" => 2,
                "hard" => 3,
                _ => 1,
            },
            solution: String::new(),
            code: Code { tests, limits: Limits::default() },
        })
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
        unpacked = pickle::text(written).map_err(at)?;
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
