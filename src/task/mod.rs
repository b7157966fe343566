//! Tasks: drawn, certified, demonstrated, checked in four families, only checked in those whose
//! answers are published. Pure.

/// Calls a generic function with the puzzle type of a family.
macro_rules! for_family {
    ($family:expr, $function:ident ( $($argument:expr),* )) => {
        match $family {
            Family::Deduction => $function::<$crate::task::deduction::Deduction>($($argument),*),
            Family::Induction => $function::<$crate::task::induction::Induction>($($argument),*),
            Family::Abduction => $function::<$crate::task::abduction::Abduction>($($argument),*),
            Family::Arithmetic => $function::<$crate::task::arithmetic::Arithmetic>($($argument),*),
            Family::Math => $function::<$crate::task::published::Problem>($($argument),*),
            Family::Choice => $function::<$crate::task::published::Choice>($($argument),*),
            Family::Code => $function::<$crate::task::code::Code>($($argument),*),
        }
    };
}

mod abduction;
mod any;
mod arithmetic;
mod audit;
pub mod code;
mod deduction;
mod generate;
mod induction;
pub mod math;
mod panel;
mod published;
mod puzzle;
mod record;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::dataset::Task;
use crate::entropy::Stream;
use crate::{Error, Result};
pub use any::AnyPuzzle;
pub use audit::{Audit, Line};
pub use generate::{LOT, Request, generate, generate_lot};
pub use panel::{Finding, Panel};
pub use published::{Choice, Problem};
pub use puzzle::{Certificate, Fault, FaultKind, Form, Probe, Puzzle, Style, Verdict};
pub use record::Record;

/// The three meta-abilities, the domain of stage C, and problems with published answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    Deduction,
    Induction,
    Abduction,
    Arithmetic,
    Math,
    Choice,
    Code,
}

impl Family {
    /// Those that are drawn and certified.
    pub const ALL: [Self; 4] =
        [Self::Deduction, Self::Induction, Self::Abduction, Self::Arithmetic];
    /// Those whose answers are taken from their publishers.
    pub const PUBLISHED: [Self; 3] = [Self::Math, Self::Choice, Self::Code];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deduction => "deduction",
            Self::Induction => "induction",
            Self::Abduction => "abduction",
            Self::Arithmetic => "arithmetic",
            Self::Math => "math",
            Self::Choice => "choice",
            Self::Code => "code",
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
        let mut families = Self::ALL.into_iter().chain(Self::PUBLISHED);
        families.find(|family| family.as_str() == text).ok_or_else(|| {
            let known = [&Self::ALL[..], &Self::PUBLISHED].concat();
            let known = known.into_iter().map(Self::as_str).collect::<Vec<_>>().join(", ");
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
    P::validate(&checked).map_err(Error::usage)?;
    match serde_json::to_value(checked).map_err(Error::defect)? {
        Value::Object(map) => Ok(map),
        _ => Err(Error::defect("parameters are no object")),
    }
}

/// The solver-written reasoning that stands between `<think>` and `</think>`.
///
/// # Errors
/// [`Error::Data`] for a task with a published answer.
pub fn demonstrate(task: &Task) -> Result<String> {
    let puzzle = AnyPuzzle::of(task)?;
    if Family::PUBLISHED.contains(&puzzle.family) {
        let family = puzzle.family;
        return Err(Error::data(format!(
            "task `{}`: family {family} has published answers and no solver to demonstrate them",
            task.task_id
        )));
    }
    Ok(puzzle.trace(task.style.parse()?))
}

/// The task under other names and in another order, certified anew; its id is the same.
///
/// # Errors
/// [`Error::Data`] where puzzles of this family have no names.
pub fn renamed(task: &Task, stream: &mut Stream) -> Result<Task> {
    let fail = |what: String| Error::data(format!("task `{}`: {what}", task.task_id));
    let nameless = || fail(format!("a puzzle of {} has nothing to rename", task.family));
    let puzzle = AnyPuzzle::of(task)?.renamed(stream).ok_or_else(nameless)?;
    let certificate = puzzle.certify().map_err(|fault| fail(fault.detail))?;
    let form = Form { style: task.style.parse()?, chat: !task.messages.is_empty() };
    puzzle.row(task.level, form, certificate)
}

/// A whole response to a prompt that ends with an open `<think>`.
pub fn response(trace: &str, answer: &str) -> String {
    format!("{trace}</think><answer>{answer}</answer>")
}

/// Proves the task anew from its puzzle.
pub fn certify(task: &Task) -> Result<()> {
    let fail = |what: String| Error::data(format!("task `{}`: {what}", task.task_id));
    let puzzle = AnyPuzzle::of(task)?;
    puzzle.certify().map_err(|fault| fail(fault.detail))?;
    if !puzzle.accepts(&task.answer) {
        return Err(fail(format!("the stored answer `{}` is not right", task.answer)));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
