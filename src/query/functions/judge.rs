//! Functions that judge: the checkers of `task` and the rules of `reward`, on plain columns.

use std::collections::hash_map::{Entry, HashMap};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Float32Array, StringArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::ScalarUDF;

use super::scalar::{Kind, Scalar, columns, texts};
use crate::reward::{Judge, Rule};
use crate::task::AnyPuzzle;
use crate::{Error, Result};

pub(super) fn functions() -> [ScalarUDF; 3] {
    const FAMILY: (&str, Kind) = ("family", Kind::Text);
    const PUZZLE: (&str, Kind) = ("puzzle", Kind::Text);
    const TEXT: (&str, Kind) = ("text", Kind::Text);
    const PROMPT: (&str, Kind) = ("prompt", Kind::Text);
    const RULE: (&str, Kind) = ("rule", Kind::Text);
    [
        Scalar::new("canonical", &[FAMILY, PUZZLE], DataType::Utf8, canonical),
        Scalar::new("verdict", &[FAMILY, PUZZLE, TEXT], DataType::Utf8, verdict),
        Scalar::new("reward", &[FAMILY, PUZZLE, PROMPT, TEXT, RULE], DataType::Float32, reward),
    ]
    .map(ScalarUDF::from)
}

fn read(family: &str, puzzle: &str) -> Result<AnyPuzzle> {
    AnyPuzzle::from_json(family.parse()?, puzzle).map_err(Error::data)
}

/// The judges of one batch, each made once: by family, puzzle and prompt.
#[derive(Default)]
struct Judges<'a>(HashMap<[&'a str; 3], Judge>);

impl<'a> Judges<'a> {
    fn get(&mut self, family: &'a str, puzzle: &'a str, prompt: &'a str) -> Result<&Judge> {
        match self.0.entry([family, puzzle, prompt]) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let judge = Judge::of(read(family, puzzle)?, prompt);
                if judge.runs() {
                    return Err(Error::usage(
                        "a query runs no programs: the verdicts of a `verify` stage have them judged",
                    ));
                }
                Ok(entry.insert(judge))
            }
        }
    }
}

fn canonical(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let all = columns::<StringArray, 2>(arrays)?;
    let row = |at| {
        let Some([family, puzzle]) = texts(all, at) else { return Ok(None) };
        Ok(Some(read(family, puzzle)?.canonical()))
    };
    Ok(Arc::new((0..all[0].len()).map(row).collect::<Result<StringArray>>()?))
}

fn verdict(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let all = columns::<StringArray, 3>(arrays)?;
    let mut judges = Judges::default();
    let row = |at| {
        let Some([family, puzzle, text]) = texts(all, at) else { return Ok(None) };
        // The prompt matters to the format alone.
        let judge = judges.get(family, puzzle, "")?;
        Ok(Some(judge.judge(text, Rule::Correct).word()))
    };
    Ok(Arc::new((0..all[0].len()).map(row).collect::<Result<StringArray>>()?))
}

fn reward(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let all = columns::<StringArray, 5>(arrays)?;
    let mut judges = Judges::default();
    let row = |at| {
        let Some([family, puzzle, prompt, text, rule]) = texts(all, at) else { return Ok(None) };
        let rule: Rule = rule.parse()?;
        Ok(Some(judges.get(family, puzzle, prompt)?.judge(text, rule).reward))
    };
    Ok(Arc::new((0..all[0].len()).map(row).collect::<Result<Float32Array>>()?))
}
