//! Programs in Python: the problem, what its tests ask, and what became of a response. Pure: the
//! programs run in [`crate::sandbox`].

mod compare;
mod extract;
mod layout;
mod pickle;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::sandbox::{Failure, Limits, Reply, Request, Test};
use crate::{Error, Result};

pub use layout::Problem;

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
    pub tests: Tests,
    #[serde(default)]
    pub limits: Limits,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "layout", rename_all = "snake_case", deny_unknown_fields)]
pub enum Tests {
    /// A function that ends a prompt, and Python that checks it.
    Humaneval {
        prompt: String,
        entry: String,
        /// Defines `check(candidate)`.
        check: String,
    },
    /// A whole program, from standard input to standard output.
    Stdin { cases: Vec<Case> },
    /// A function, or a method of the class `Solution`.
    Call { entry: String, cases: Vec<Case> },
}

/// For a function the input has a line of JSON for each argument, and the output is JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    pub input: String,
    pub output: String,
}

/// What became of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// There is no program in it.
    NoProgram,
    /// The first test that failed, from 1. In HumanEval's layout, the call that its check had come
    /// to.
    Failed {
        test: u32,
        failure: Failure,
    },
}

/// `passed`, `no program`, `test 3: wrong answer`.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::NoProgram => f.write_str("no program"),
            Self::Failed { failure: failure @ (Failure::Syntax | Failure::NoFunction), .. }
            | Self::Failed { test: 0, failure } => failure.fmt(f),
            Self::Failed { test, failure } => write!(f, "test {test}: {failure}"),
        }
    }
}

impl Code {
    /// The program in an answer, `None` where there is none.
    pub fn program(&self, answer: &str) -> Option<String> {
        let program = extract::program(answer)?;
        Some(match &self.tests {
            Tests::Humaneval { prompt, entry, .. } => extract::complete(prompt, entry, program),
            Tests::Stdin { .. } | Tests::Call { .. } => program.to_string(),
        })
    }

    /// Judges an answer: its tests one after the other, up to the first that fails. `run` runs a
    /// program.
    ///
    /// # Errors
    /// Those of `run`.
    pub fn judge(
        &self,
        answer: &str,
        mut run: impl FnMut(&Request, &Limits) -> Result<Reply>,
    ) -> Result<Outcome> {
        let Some(program) = self.program(answer) else { return Ok(Outcome::NoProgram) };
        let mut run = |library: bool, test: Test| {
            let reply = run(&Request { program: &program, library, test }, &self.limits)?;
            Ok::<_, Error>((reply.failure(&self.limits), reply))
        };
        let (failure, reply) = match &self.tests {
            Tests::Humaneval { prompt, entry, check } => {
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

#[cfg(test)]
mod tests;
