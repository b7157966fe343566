//! What every task family provides.

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::entropy::Stream;

/// How a puzzle is put to a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// One short line, for small models.
    #[default]
    Compact,
    /// Words, as in the paper's released data (arXiv 2505.10554).
    Paper,
}

/// How a task's prompt is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    #[serde(default)]
    pub style: Style,
    /// The prompt is a conversation in ChatML, the markup of Qwen's models.
    #[serde(default)]
    pub chat: bool,
}

impl Style {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compact => "compact",
            Self::Paper => "paper",
        }
    }
}

impl FromStr for Style {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::Compact, Self::Paper]
            .into_iter()
            .find(|style| style.as_str() == text)
            .ok_or_else(|| Error::data(format!("no style `{text}`; there are compact, paper")))
    }
}

/// What was proven of a puzzle.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificate {
    /// Which of the family's kinds it is: `unique`, `cycle`, `reachability`, …
    pub kind: &'static str,
    /// How much there is to read: literals, visible terms, premises.
    pub size: u32,
    /// How deep the reasoning goes: nesting of operators, operations of the rule, rules in a row.
    pub depth: u32,
    /// Nodes that the family's reference solver visits.
    pub nodes: u64,
    /// Method, counts and costs.
    pub proof: Value,
}

/// Why a puzzle cannot be certified.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub kind: FaultKind,
    /// The place and the value.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Not a puzzle of the family: a formula over a variable that does not exist, no missing term.
    Malformed,
    /// More than one answer is right where one is promised.
    Ambiguous,
    /// No answer is right where one is promised.
    Unsolvable,
    /// The answer can be read off the question.
    Leak,
    /// Less reasoning than the level promises.
    Shallow,
    /// Too large for an exhaustive proof.
    Unproven,
}

impl FaultKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Ambiguous => "ambiguous",
            Self::Unsolvable => "unsolvable",
            Self::Leak => "leak",
            Self::Shallow => "shallow",
            Self::Unproven => "unproven",
        }
    }
}

impl Fault {
    pub fn new(kind: FaultKind, detail: impl fmt::Display) -> Self {
        Self { kind, detail: detail.to_string() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// What a checker says of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Correct,
    /// Where it is wrong: `formula 3`, `goal C`, `term`.
    Wrong(String),
    /// No answer of the family's form.
    Unparsed,
    /// An answer that cannot be compared with the right one, and why.
    Unknown(String),
}

impl Verdict {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Correct => "correct",
            Self::Wrong(_) => "wrong",
            Self::Unparsed | Self::Unknown(_) => "unparsed",
        }
    }

    pub fn is_correct(&self) -> bool {
        *self == Self::Correct
    }
}

/// The share of one puzzle's statements that a named strategy gets right, in 0..=1.
pub type Probe = (&'static str, f64);

/// One family's puzzles. The JSON form of the implementing type is what datasets store.
///
/// No method panics on a value that was read from JSON: sizes are checked first, numbers saturate
/// or are checked.
pub trait Puzzle: Serialize + DeserializeOwned + Send {
    type Parameters: Serialize + DeserializeOwned + Sync;
    /// What a prompt ends with: the response's first tag, where answers stand in tags.
    const THINK: &'static str = "<think>";

    /// The parameters of `level`, from 1: the paper's where the paper's give solvable puzzles.
    fn parameters(level: u32) -> Self::Parameters;
    /// What is wrong with parameters that somebody wrote: the name, the value, what it must be.
    fn validate(parameters: &Self::Parameters) -> Result<(), String>;
    /// A source of candidates: each call draws one, `None` when the draw came to nothing. What it
    /// keeps between calls saves work only: a candidate depends on the parameters and its stream.
    fn source(parameters: &Self::Parameters) -> impl FnMut(&mut Stream) -> Option<Self>;
    /// Proves, from the puzzle alone, what answers are right and that no other is.
    fn certify(&self) -> Result<Certificate, Fault>;
    /// What the model reads.
    fn text(&self, style: Style) -> String;
    /// What the paper's released prompts say before the puzzle: the task and the answer's form.
    fn instruction(&self) -> &'static str;
    /// Reads what `text` writes in the paper's style, and the texts of the paper's released data.
    /// The error says what is wrong and where.
    fn read(text: &str) -> Result<Self, String>;
    /// A right answer as a solver writes it. The empty text when there is none.
    fn answer(&self, style: Style) -> String;
    /// A solver's reasoning.
    fn trace(&self, style: Style) -> String;
    /// Whether `answer` is right, decided from the puzzle. Reads both styles, upper and lower case.
    /// Linear in the answer's length.
    fn check(&self, answer: &str) -> Verdict;
    /// The answer in a response that marks it as its family does; `None` where an answer part is
    /// asked for, or nothing is marked.
    fn find<'a>(&self, _response: &'a str) -> Option<&'a str> {
        None
    }
    /// The problem where answers are programs, which [`Puzzle::check`] does not run.
    fn code(&self) -> Option<&super::code::Code> {
        None
    }
    /// Appends bytes that are equal for puzzles that differ in names and order only, and for no
    /// others.
    fn canonical(&self, out: &mut Vec<u8>);
    /// The same puzzle under other names and in another order, so that its canonical bytes are the
    /// same; `None` where a puzzle has no names.
    fn renamed(&self, _stream: &mut Stream) -> Option<Self> {
        None
    }
    /// How often guesses are right that look at no more than the form of the question: a coin for
    /// each statement, always the same answer. Chance is the best of their means over a dataset.
    fn blind(&self) -> Vec<Probe>;
    /// How often cheap solvers are right that read the puzzle but do not reason. One that amounts
    /// to the certified rule of this very puzzle is left out.
    fn shortcuts(&self) -> Vec<Probe>;
}
