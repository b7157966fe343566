//! A task as somebody's file has it: triad's own datasets, the layout that verl reads, JSON lines.

use serde_json::{Map, Value};

use super::{AnyPuzzle, Family};

/// One row of a file.
pub struct Record {
    /// Which set it belongs to: `train`, `test`, …
    pub set: String,
    pub level: u32,
    /// The question as it is written there.
    pub text: String,
    /// The answer as it is stored there.
    pub answer: String,
    /// The puzzle, or why it cannot be read.
    pub puzzle: Result<AnyPuzzle, String>,
}

impl Record {
    /// Reads a row by the names that its columns have: triad's `puzzle`, `family`, `split`; verl's
    /// `puzzle_text`, `prompt`, `reward_model`, `extra_info`; `question`, `answer`, `solution` in
    /// JSON lines. `set` and `default_level` stand in where the row says nothing.
    ///
    /// # Errors
    /// Which column is missing.
    pub fn read(row: &Map<String, Value>, set: &str, default_level: u32) -> Result<Self, String> {
        let word = |paths: &[&str]| paths.iter().find_map(|path| at(row, path)?.as_str());
        let number = |path| u32::try_from(at(row, path)?.as_u64()?).ok();
        let set = word(&["split", "extra_info/split"]).unwrap_or(set).to_string();
        let level = ["level", "extra_info/level", "difficulty"].into_iter().find_map(number);
        let answers = [
            "reward_model/ground_truth/solution_text_format",
            "reward_model/ground_truth",
            "answer",
            "solution_text",
            "solution",
        ];
        let answer = answers
            .into_iter()
            .find_map(|path| text(at(row, path)?))
            .ok_or_else(|| format!("no answer: none of the columns {}", answers.join(", ")))?;
        let message = || at(row, "prompt")?.as_array()?.last()?.get("content")?.as_str();
        let text = word(&["puzzle_text", "question", "prompt"]).or_else(message);
        let text = text.ok_or("no question: none of the columns puzzle_text, question, prompt")?;
        let family = word(&["family", "ability"]).and_then(|name| name.parse::<Family>().ok());
        let puzzle = match (family, word(&["puzzle", "extra_info/puzzle"])) {
            (Some(family), Some(puzzle)) => AnyPuzzle::from_json(family, puzzle),
            (Some(family), None) => AnyPuzzle::from_text(family, text),
            (None, _) => guess(text),
        };
        Ok(Self { set, level: level.unwrap_or(default_level), text: text.into(), answer, puzzle })
    }
}

/// The value at a path of keys.
fn at<'a>(row: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut keys = path.split('/');
    let first = row.get(keys.next()?)?;
    keys.try_fold(first, |value, key| value.get(key))
}

/// A string as it is, a number as it is written.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The puzzle of the family that can read the text.
fn guess(text: &str) -> Result<AnyPuzzle, String> {
    let mut reasons = Vec::new();
    for family in Family::ALL {
        match AnyPuzzle::from_text(family, text) {
            Ok(puzzle) => return Ok(puzzle),
            Err(reason) => reasons.push(format!("{family}: {reason}")),
        }
    }
    Err(format!("no family reads it ({})", reasons.join("; ")))
}
