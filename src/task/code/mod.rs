//! Programs in Python: the problem, what its tests ask, and what became of a response. Pure: the
//! programs run in [`crate::sandbox`].

mod compare;
mod extract;
mod layout;
mod packed;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::published::{asked, concluded, named, published, reference, words};
use super::{Certificate, Fault, FaultKind, Probe, Puzzle, Style, Verdict};
use crate::sandbox::{Failure, Limits, Reply, Request, Test};
use crate::{Error, Result};

pub use layout::Row;

/// `DATA` holds pairs of arguments, a line of JSON each, and the value that is wanted. A tuple
/// passes for a list, as it does in LiveCodeBench.
const CALL: &str = "
import json

def check(candidate):
    for inputs, output in json.loads(DATA):
        found = candidate(*[json.loads(line) for line in inputs.split('\\n')])
        if isinstance(found, tuple):
            found = list(found)
        assert found == json.loads(output)
";

/// A problem with its tests: the column `puzzle` of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// What is asked; for a function with its head, as the publisher gives it.
    pub problem: String,
    pub tests: Tests,
    /// A program that passes, where its publisher has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub solution: String,
    #[serde(default)]
    pub limits: Limits,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "layout", rename_all = "snake_case", deny_unknown_fields)]
pub enum Tests {
    /// A function, and Python that checks it. The problem is a Python text that ends in the function's head.
    Humaneval {
        entry: String,
        /// Defines `check(candidate)`.
        check: String,
    },
    /// A whole program, from standard input to standard output.
    Stdin {
        #[serde(with = "packed")]
        cases: Vec<Case>,
    },
    /// A function, or a method of the class `Solution`.
    Call {
        entry: String,
        #[serde(with = "packed")]
        cases: Vec<Case>,
    },
}

/// For a function the input has a line of JSON for each argument, and the output is JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    pub input: String,
    pub output: String,
}

/// What became of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// The first test that failed, from 1. In HumanEval's layout, the call that its check had come
    /// to.
    Failed {
        test: u32,
        failure: Failure,
    },
}

/// `passed`, `syntax error`, `test 3: wrong answer`.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed { failure: failure @ (Failure::Syntax | Failure::NoFunction), .. }
            | Self::Failed { test: 0, failure } => failure.fmt(f),
            Self::Failed { test, failure } => write!(f, "test {test}: {failure}"),
        }
    }
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        match &outcome {
            Outcome::Passed => Self::Correct,
            Outcome::Failed { failure: Failure::BrokenCheck, .. } => {
                Self::Unknown(outcome.to_string())
            }
            Outcome::Failed { .. } => Self::Wrong(outcome.to_string()),
        }
    }
}

impl Code {
    /// Judges what [`Puzzle::find`] found in a response: its tests one after the other, up to the
    /// first that fails. `run` runs a program.
    ///
    /// # Errors
    /// Those of `run`.
    pub fn judge(
        &self,
        found: &str,
        mut run: impl FnMut(&Request, &Limits) -> Result<Reply>,
    ) -> Result<Outcome> {
        let completed;
        let program = match &self.tests {
            Tests::Humaneval { entry, .. } => {
                completed = extract::complete(&self.problem, entry, found);
                &completed
            }
            Tests::Stdin { .. } | Tests::Call { .. } => found,
        };
        let mut run = |library: bool, test: Test| {
            let reply = run(&Request { program, library, test }, &self.limits)?;
            Ok::<_, Error>((reply.failure(&self.limits), reply))
        };
        let (failure, reply) = match &self.tests {
            Tests::Humaneval { entry, check } => {
                let prompt = &self.problem;
                run(false, Test::Check { entry, prompt, source: check, data: "", calls: 1 })?
            }
            Tests::Call { entry, cases } => {
                let pairs: Vec<_> = cases.iter().map(|case| [&case.input, &case.output]).collect();
                let data = serde_json::to_string(&pairs).map_err(Error::defect)?;
                let calls = u32::try_from(cases.len()).unwrap_or(u32::MAX);
                run(true, Test::Check { entry, prompt: "", source: CALL, data: &data, calls })?
            }
            Tests::Stdin { cases } => {
                for (test, case) in (1..).zip(cases) {
                    let (failure, reply) = run(true, Test::Stdin(&case.input))?;
                    let failure = failure.or_else(|| {
                        let output = String::from_utf8_lossy(&reply.output);
                        (!compare::same(&output, &case.output)).then_some(Failure::Check)
                    });
                    if let Some(failure) = failure {
                        return Ok(Outcome::Failed { test, failure });
                    }
                }
                return Ok(Outcome::Passed);
            }
        };
        Ok(match failure {
            None => Outcome::Passed,
            Some(failure) => Outcome::Failed { test: reply.calls, failure },
        })
    }
}

impl Puzzle for Code {
    published!();

    /// That there are a problem and tests. No program is run.
    fn certify(&self) -> Result<Certificate, Fault> {
        named(&self.problem, "problem")?;
        let cases = match &self.tests {
            Tests::Humaneval { entry, check } => {
                named(entry, "function's name")?;
                named(check, "check")?;
                1
            }
            Tests::Call { entry, cases } => {
                named(entry, "function's name")?;
                cases.len()
            }
            Tests::Stdin { cases } => cases.len(),
        };
        if cases == 0 {
            return Err(Fault::new(FaultKind::Malformed, "there is no test"));
        }
        let mut certificate = reference(&self.problem, "by its tests");
        certificate.proof["tests"] = json!(cases);
        Ok(certificate)
    }

    /// A short HumanEval prompt is the program so far, for a model to go on with.
    fn text(&self, style: Style) -> String {
        match (&self.tests, style) {
            (Tests::Humaneval { .. }, Style::Compact) => self.problem.trim_end().into(),
            (Tests::Humaneval { .. }, Style::Paper) => {
                format!("```python\n{}\n```", self.problem.trim())
            }
            _ => asked(&self.problem, self.instruction(), style),
        }
    }
    fn instruction(&self) -> &'static str {
        match &self.tests {
            Tests::Humaneval { .. } => {
                "Complete the function. Put all of it, with what it imports, into one block between \
                 ```python and ```."
            }
            Tests::Call { .. } => {
                "Write Python that completes the given code. Put all of it into one block between \
                 ```python and ```."
            }
            Tests::Stdin { .. } => {
                "Write a Python program that reads standard input and prints the answer. Put all of \
                 it into one block between ```python and ```."
            }
        }
    }
    fn answer(&self, _: Style) -> String {
        self.solution.clone()
    }

    /// Nothing is run here: [`Code::judge`] decides.
    fn check(&self, _: &str) -> Verdict {
        Verdict::Unknown("a program has to be run".into())
    }

    /// The program in what comes after the reasoning, and there in the last `<answer>`.
    fn find<'a>(&self, response: &'a str) -> Option<&'a str> {
        let text = concluded(response);
        let answer = text.rsplit_once("<answer>").map(|(_, answer)| answer);
        let answer = answer.and_then(|answer| Some(answer.split_once("</answer>")?.0));
        // Only a completion, or an answer that is marked as one, goes without a fence.
        let bare = answer.is_some() || matches!(self.tests, Tests::Humaneval { .. });
        extract::program(answer.unwrap_or(text), bare)
    }
    fn code(&self) -> Option<&Code> {
        Some(self)
    }

    fn canonical(&self, out: &mut Vec<u8>) {
        out.extend(b"code\0");
        words(&self.problem, out);
    }
}

#[cfg(test)]
mod tests;
