//! Induction: the missing term of a series made by a hidden rule.

mod draw;
mod rule;
mod series;
mod shortcuts;
mod solve;
mod trace;

use std::cell::OnceCell;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Certificate, Fault, FaultKind, Probe, Puzzle, Style, Verdict};
use crate::entropy::Stream;
pub use draw::Parameters;
use rule::{Bounds, Class};
use series::{Series, unquote};
use solve::{Solution, solve};

/// A series with one term missing, and the rules that may explain it: the simplest that do decide
/// the answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Induction {
    series: Series,
    class: Class,
    /// Found once, since every method asks for it.
    #[serde(skip)]
    solution: OnceCell<Option<Solution>>,
}

impl PartialEq for Induction {
    fn eq(&self, other: &Self) -> bool {
        self.series == other.series && self.class == other.class
    }
}

impl Induction {
    fn new(series: Series, class: Class) -> Self {
        Self { series, class, solution: OnceCell::new() }
    }

    fn solution(&self) -> Option<&Solution> {
        self.solution.get_or_init(|| solve(&self.series, &self.class)).as_ref()
    }

    /// The answer, where there is one only.
    fn value(&self) -> Option<i64> {
        match self.solution()?.values[..] {
            [value] => Some(value),
            _ => None,
        }
    }
}

impl Puzzle for Induction {
    type Parameters = Parameters;

    fn parameters(level: u32) -> Parameters {
        draw::parameters(level)
    }

    fn validate(parameters: &Parameters) -> Result<(), String> {
        draw::validate(parameters)
    }

    fn source(parameters: &Parameters) -> impl FnMut(&mut Stream) -> Option<Self> {
        |stream| draw::draw(parameters, stream)
    }

    fn certify(&self) -> Result<Certificate, Fault> {
        let found = self.solution().ok_or_else(|| {
            let detail = "no rule of the hypothesis class fits the visible terms";
            Fault::new(FaultKind::Unsolvable, detail)
        })?;
        if found.values.len() > 1 {
            let mut values = found.values.clone();
            values.sort_unstable();
            let values: Vec<String> =
                values.into_iter().map(|x| self.series.show(x).to_string()).collect();
            return Err(Fault::new(
                FaultKind::Ambiguous,
                format!(
                    "{} rules of complexity {} fit; the missing term can be {}",
                    found.rules,
                    found.complexity,
                    values.join(", ")
                ),
            ));
        }
        Ok(Certificate {
            kind: found.kind.as_str(),
            size: self.series.len() as u32 - 1,
            depth: found.complexity as u32,
            nodes: found.tried,
            proof: json!({
                "method": "every rule of the least complexity that fits gives the same term",
                "complexity": found.complexity,
                "rules": found.rules,
                "rule": found.rule.to_string(),
            }),
        })
    }

    fn text(&self, style: Style) -> String {
        match style {
            Style::Compact => format!("I:{}", self.series),
            Style::Paper => {
                let mut list = String::new();
                for (at, term) in self.series.shown().enumerate() {
                    list.push_str(if at > 0 { ", '" } else { "'" });
                    match term {
                        Some(term) => list.push_str(&term.to_string()),
                        None => list.push('?'),
                    }
                    list.push('\'');
                }
                format!(
                    "Given the following sequence,\n[{list}]\n\
                     What is the value at the question mark?"
                )
            }
        }
    }

    fn instruction(&self) -> &'static str {
        "You are shown a series of terms made by a hidden rule, with one term replaced by a \
         question mark. Find the simplest rule that explains all the terms you can see, and from \
         it the missing term. Reason step by step between <think> and </think>. Then give the \
         missing term alone, a whole number or a letter, between <answer> and </answer>, for \
         example: <answer>42</answer>"
    }

    /// The terms stand between the first brackets, or are the whole text, `I:` before them or not.
    /// A text has no class of its own; its series is judged under [`Bounds::everything`].
    fn read(text: &str) -> Result<Self, String> {
        let list = match text.split_once('[') {
            Some((_, rest)) => rest.split_once(']').ok_or("no `]` after the terms")?.0,
            None => text.trim().trim_start_matches("I:"),
        };
        Ok(Self::new(Series::read(list)?, Class::try_from(Bounds::everything())?))
    }

    fn answer(&self, _: Style) -> String {
        self.value().map_or_else(String::new, |value| self.series.show(value).to_string())
    }

    fn trace(&self, style: Style) -> String {
        match (self.solution(), style) {
            (None, _) => String::new(),
            (Some(solution), Style::Compact) => trace::compact(&self.series, solution),
            (Some(solution), Style::Paper) => trace::words(&self.series, solution),
        }
    }

    /// A whole number, `18`, `+18` or `18.0` (`-` may be the sign U+2212), or a letter in either
    /// case; white space and quotes around it do not matter. A number that is not whole is wrong,
    /// not unparsed. Where the puzzle leaves the term open every answer is wrong.
    fn check(&self, answer: &str) -> Verdict {
        let answer = unquote(answer);
        let given = match answer.as_bytes() {
            [letter] if letter.is_ascii_alphabetic() => {
                let letter = i64::from(letter.to_ascii_uppercase() - b'A');
                self.series.letters().then_some(letter)
            }
            _ => match number(answer) {
                Some(number) => number.filter(|_| !self.series.letters()),
                None => return Verdict::Unparsed,
            },
        };
        match given {
            Some(given) if self.value() == Some(given) => Verdict::Correct,
            _ => Verdict::Wrong("term".into()),
        }
    }

    /// Numbers: no two different series are the same puzzle, since shifts, factors and signs change
    /// which rule is the simplest. Letters are a ring, so a shift of all of them changes nothing;
    /// in a repeated pattern their names do not matter at all.
    fn canonical(&self, out: &mut Vec<u8>) {
        if !self.series.letters() {
            out.extend(self.text(Style::Compact).into_bytes());
            return;
        }
        let pattern = self.solution().is_some_and(|found| found.kind == rule::Kind::Pattern);
        out.extend(if pattern { b"I:pattern:" } else { b"I:letters:" });
        let visible = |at| self.series.get(at);
        let first = visible(0).or_else(|| visible(1)).unwrap_or(0);
        let mut names: Vec<i64> = Vec::new();
        for at in 0..self.series.len() {
            out.push(match visible(at) {
                None => b'?',
                Some(x) if !pattern => b'A' + (x - first).rem_euclid(26) as u8,
                Some(x) => {
                    let name = names.iter().position(|&name| name == x).unwrap_or_else(|| {
                        names.push(x);
                        names.len() - 1
                    });
                    b'A' + name as u8
                }
            });
        }
    }

    fn blind(&self) -> Vec<Probe> {
        shortcuts::blind(self)
    }

    fn shortcuts(&self) -> Vec<Probe> {
        shortcuts::shortcuts(self)
    }
}

/// `None` when `text` is no number; `Some(None)` when it is none that a term can be.
fn number(text: &str) -> Option<Option<i64>> {
    let unsigned = text.strip_prefix(['+', '-', '\u{2212}']).unwrap_or(text);
    let negative = text.starts_with(['-', '\u{2212}']);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let value = whole.parse::<i64>().ok().filter(|_| fraction.bytes().all(|byte| byte == b'0'));
    Some(value.map(|value| if negative { -value } else { value }))
}

#[cfg(test)]
mod tests;
