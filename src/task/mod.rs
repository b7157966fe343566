//! Tasks of the four families: drawn, certified, demonstrated, checked. Pure.

mod abduction;
mod arithmetic;
mod deduction;
mod induction;

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::dataset::Task;
use crate::entropy::Stream;
use crate::{Error, Result};

/// The three meta-abilities, and the domain of stage C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    Deduction,
    Induction,
    Abduction,
    Arithmetic,
}

impl Family {
    pub const ALL: [Self; 4] =
        [Self::Deduction, Self::Induction, Self::Abduction, Self::Arithmetic];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deduction => "deduction",
            Self::Induction => "induction",
            Self::Abduction => "abduction",
            Self::Arithmetic => "arithmetic",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Family {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|family| family.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            Error::data(format!("no task family `{text}`; there are {known}"))
        })
    }
}

/// Which part of all tasks a task belongs to: a function of its canonical form alone, so sets of
/// different splits are disjoint whatever seeds and runs they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    Train,
    Validation,
    Heldout,
}

impl Split {
    /// 70% train, 10% validation, 20% held-out, by the first 8 digits of the canonical hash.
    pub fn of(canonical: &str) -> Self {
        let head = canonical.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        match head.unwrap_or(0) % 10 {
            0..7 => Self::Train,
            7 => Self::Validation,
            _ => Self::Heldout,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Heldout => "heldout",
        }
    }
}

/// How many tasks of a level, and the family's free parameters where they differ from the level's
/// defaults.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Level {
    pub level: u32,
    pub count: usize,
    #[serde(flatten)]
    pub parameters: Map<String, Value>,
}

/// What a checker says of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Correct,
    Wrong,
    /// No answer of the family's form.
    Unparsed,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Correct => "correct",
            Self::Wrong => "wrong",
            Self::Unparsed => "unparsed",
        }
    }
}

/// One family's puzzles. The JSON form of the implementing type is what datasets store.
trait Puzzle: Serialize + DeserializeOwned {
    type Parameters: Serialize + DeserializeOwned;

    /// The parameters of `level`, from 1: the paper's where the paper's give solvable puzzles.
    fn parameters(level: u32) -> Self::Parameters;
    /// A candidate; `None` when this draw came to nothing.
    fn draw(parameters: &Self::Parameters, stream: &mut Stream) -> Option<Self>;
    /// Proves, from the puzzle alone, that `answer` is the only right one; the certificate says
    /// how. An error says what is missing.
    fn certify(&self) -> std::result::Result<Value, String>;
    /// What the model reads.
    fn text(&self) -> String;
    /// The answer as a solver writes it.
    fn answer(&self) -> String;
    /// A solver's reasoning.
    fn trace(&self) -> String;
    fn check(&self, answer: &str) -> Verdict;
    /// Equal for puzzles that differ in names and order only.
    fn canonical(&self) -> String;
}

/// Calls a generic function with the puzzle type of a family.
macro_rules! for_family {
    ($family:expr, $function:ident ( $($argument:expr),* )) => {
        match $family {
            Family::Deduction => $function::<deduction::Deduction>($($argument),*),
            Family::Induction => $function::<induction::Induction>($($argument),*),
            Family::Abduction => $function::<abduction::Abduction>($($argument),*),
            Family::Arithmetic => $function::<arithmetic::Arithmetic>($($argument),*),
        }
    };
}

/// `level` with every parameter of `family` filled in. An unknown one is an error.
pub fn resolve(family: Family, level: &Level) -> Result<Level> {
    let parameters = for_family!(family, resolve_parameters(level))
        .map_err(|e| e.at(format!("level {} of {family}", level.level)))?;
    Ok(Level { parameters, ..level.clone() })
}

fn resolve_parameters<P: Puzzle>(level: &Level) -> Result<Map<String, Value>> {
    let defaults = serde_json::to_value(P::parameters(level.level)).map_err(Error::defect)?;
    let Value::Object(mut all) = defaults else {
        return Err(Error::defect("parameters are no object"));
    };
    for (key, value) in &level.parameters {
        if !all.contains_key(key) {
            let known: Vec<_> = all.keys().cloned().collect();
            return Err(Error::usage(format!(
                "unknown parameter `{key}`; there are level, count, {}",
                known.join(", ")
            )));
        }
        all.insert(key.clone(), value.clone());
    }
    let checked: P::Parameters =
        serde_json::from_value(Value::Object(all)).map_err(Error::usage)?;
    match serde_json::to_value(checked).map_err(Error::defect)? {
        Value::Object(map) => Ok(map),
        _ => Err(Error::defect("parameters are no object")),
    }
}

/// Distinct, certified tasks of `split`: `count` of each level, in order of level.
///
/// Distinct means up to renaming and reordering, over all levels of the call. A draw is named by
/// (`seed`, family and level, number of the draw).
pub fn generate(family: Family, levels: &[Level], split: Split, seed: u64) -> Result<Vec<Task>> {
    let mut seen = HashSet::new();
    let mut tasks = Vec::new();
    for level in levels {
        for_family!(family, fill(family, level, split, seed, &mut seen, &mut tasks))
            .map_err(|e| e.at(format!("level {} of {family}", level.level)))?;
    }
    Ok(tasks)
}

fn fill<P: Puzzle>(
    family: Family,
    level: &Level,
    split: Split,
    seed: u64,
    seen: &mut HashSet<String>,
    tasks: &mut Vec<Task>,
) -> Result<()> {
    let parameters: P::Parameters =
        serde_json::from_value(Value::Object(resolve_parameters::<P>(level)?))
            .map_err(Error::usage)?;
    let stage = format!("{family}/{}", level.level);
    let start = tasks.len();
    // Draws since the last new task: a space that is nearly used up is given up.
    let mut idle = 0;
    let mut number = 0;
    while tasks.len() - start < level.count {
        if idle > 100_000 {
            return Err(Error::data(format!(
                "only {} distinct tasks found in split {}, {} asked for; lower `count` or widen \
                 the parameters",
                tasks.len() - start,
                split.as_str(),
                level.count
            )));
        }
        idle += 1;
        let mut stream = Stream::new(seed, &stage, number);
        number += 1;
        let Some(puzzle) = P::draw(&parameters, &mut stream) else { continue };
        let canonical = blake3::hash(puzzle.canonical().as_bytes()).to_hex().to_string();
        if Split::of(&canonical) != split || seen.contains(&canonical) {
            continue;
        }
        let Ok(certificate) = puzzle.certify() else { continue };
        seen.insert(canonical.clone());
        idle = 0;
        tasks.push(Task {
            task_id: format!("{family}-{}", &canonical[..16]),
            family: family.to_string(),
            level: level.level,
            split: split.as_str().into(),
            prompt: format!("{}\n<think>", puzzle.text()),
            answer: puzzle.answer(),
            puzzle: serde_json::to_string(&puzzle).map_err(Error::defect)?,
            certificate: certificate.to_string(),
            canonical,
        });
    }
    Ok(())
}

fn read<P: Puzzle>(task: &Task) -> Result<P> {
    serde_json::from_str(&task.puzzle)
        .map_err(|e| Error::data(format!("task `{}`: column puzzle: {e}", task.task_id)))
}

/// The solver-written reasoning that stands between `<think>` and `</think>`.
pub fn demonstrate(task: &Task) -> Result<String> {
    fn run<P: Puzzle>(task: &Task) -> Result<String> {
        Ok(read::<P>(task)?.trace())
    }
    for_family!(task.family.parse()?, run(task))
}

/// A whole response to a prompt that ends with an open `<think>`.
pub fn response(trace: &str, answer: &str) -> String {
    format!("{trace}</think><answer>{answer}</answer>")
}

/// Whether `answer` solves the task. Decided from the puzzle, not from the stored answer.
pub fn check(task: &Task, answer: &str) -> Result<Verdict> {
    fn run<P: Puzzle>(task: &Task, answer: &str) -> Result<Verdict> {
        Ok(read::<P>(task)?.check(answer.trim()))
    }
    for_family!(task.family.parse()?, run(task, answer))
}

/// Proves the task anew from its puzzle.
pub fn certify(task: &Task) -> Result<()> {
    fn run<P: Puzzle>(task: &Task) -> Result<()> {
        let puzzle = read::<P>(task)?;
        let fail = |what: String| Error::data(format!("task `{}`: {what}", task.task_id));
        puzzle.certify().map_err(fail)?;
        if puzzle.check(&task.answer) != Verdict::Correct {
            return Err(fail(format!("the stored answer `{}` is not right", task.answer)));
        }
        Ok(())
    }
    for_family!(task.family.parse()?, run(task))
}

#[cfg(test)]
mod tests;
