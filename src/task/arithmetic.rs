//! Arithmetic: the domain of stage C. Integer expressions over + - * and parentheses.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Puzzle, Verdict};
use crate::entropy::Stream;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arithmetic {
    expression: String,
    /// Every intermediate result lies in 0..=limit.
    limit: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    operations: usize,
    operands: [i64; 2],
    parentheses: bool,
    limit: i64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token {
    Number(i64),
    Sign(char),
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut out = Vec::new();
    for c in expression.chars() {
        match (c.to_digit(10), out.last_mut()) {
            (Some(digit), Some(Token::Number(n))) => {
                *n = n.saturating_mul(10).saturating_add(digit.into());
            }
            (Some(digit), _) => out.push(Token::Number(digit.into())),
            (None, _) => out.push(Token::Sign(c)),
        }
    }
    out
}

fn text(tokens: &[Token]) -> String {
    tokens
        .iter()
        .map(|token| match token {
            Token::Number(n) => n.to_string(),
            Token::Sign(c) => c.to_string(),
        })
        .collect()
}

fn apply(a: i64, sign: char, b: i64) -> i64 {
    match sign {
        '+' => a.saturating_add(b),
        '-' => a.saturating_sub(b),
        _ => a.saturating_mul(b),
    }
}

/// Reduces the first operation in order: in the leftmost innermost parentheses, products before
/// sums, left before right. `None` when a single number is left or nothing can be reduced.
fn reduce(tokens: &[Token]) -> Option<(Vec<Token>, i64)> {
    let close = tokens.iter().position(|t| *t == Token::Sign(')')).unwrap_or(tokens.len());
    let open = tokens[..close].iter().rposition(|t| *t == Token::Sign('('));
    let start = open.map_or(0, |open| open + 1);
    let inside = &tokens[start..close];
    let find = |signs: &[char]| {
        inside.iter().position(|t| matches!(t, Token::Sign(c) if signs.contains(c)))
    };
    let at = start + find(&['*']).or_else(|| find(&['+', '-']))?;
    let (Token::Number(a), Token::Sign(sign), Token::Number(b)) =
        (*tokens.get(at.checked_sub(1)?)?, tokens[at], *tokens.get(at + 1)?)
    else {
        return None;
    };
    let value = apply(a, sign, b);
    // The parentheses go when nothing but the value is left inside.
    let whole = open.is_some() && close - start == 3;
    let (from, to) = if whole { (at - 2, at + 3) } else { (at - 1, at + 2) };
    let mut next = tokens[..from].to_vec();
    next.push(Token::Number(value));
    next.extend_from_slice(tokens.get(to..)?);
    Some((next, value))
}

impl Arithmetic {
    /// The expression after each reduction, and the extreme values met.
    fn steps(&self) -> Option<(Vec<String>, i64, i64)> {
        let mut current = tokens(&self.expression);
        let (mut steps, mut low, mut high) = (Vec::new(), i64::MAX, i64::MIN);
        while let Some((next, value)) = reduce(&current) {
            (low, high) = (low.min(value), high.max(value));
            steps.push(text(&next));
            current = next;
        }
        matches!(current[..], [Token::Number(_)]).then_some((steps, low, high))
    }

    /// The value, by recursive descent: the certificate's independent evaluator.
    fn value(&self) -> Option<i64> {
        let tokens = tokens(&self.expression);
        let mut rest = tokens.as_slice();
        let value = sum(&mut rest)?;
        rest.is_empty().then_some(value)
    }
}

fn sum(rest: &mut &[Token]) -> Option<i64> {
    let mut value = product(rest)?;
    while let [Token::Sign(sign @ ('+' | '-')), tail @ ..] = *rest {
        *rest = tail;
        value = apply(value, *sign, product(rest)?);
    }
    Some(value)
}

fn product(rest: &mut &[Token]) -> Option<i64> {
    let mut value = factor(rest)?;
    while let [Token::Sign('*'), tail @ ..] = *rest {
        *rest = tail;
        value = apply(value, '*', factor(rest)?);
    }
    Some(value)
}

fn factor(rest: &mut &[Token]) -> Option<i64> {
    match *rest {
        [Token::Number(n), tail @ ..] => {
            *rest = tail;
            Some(*n)
        }
        [Token::Sign('('), tail @ ..] => {
            *rest = tail;
            let value = sum(rest)?;
            let [Token::Sign(')'), tail @ ..] = *rest else { return None };
            *rest = tail;
            Some(value)
        }
        _ => None,
    }
}

impl Puzzle for Arithmetic {
    type Parameters = Parameters;

    fn parameters(level: u32) -> Parameters {
        let level = level.clamp(1, 5);
        Parameters {
            operations: 1 + level as usize,
            operands: [0, 12],
            parentheses: level > 1,
            limit: 99,
        }
    }

    fn draw(parameters: &Parameters, stream: &mut Stream) -> Option<Self> {
        let [low, high] = parameters.operands;
        if parameters.operations == 0 || low > high || low < 0 {
            return None;
        }
        let mut out = vec![Token::Number(stream.between(low, high))];
        for _ in 0..parameters.operations {
            out.push(Token::Sign(*stream.choose(&['+', '-', '*'])));
            out.push(Token::Number(stream.between(low, high)));
        }
        if parameters.parentheses && parameters.operations > 1 {
            // Around two or more operands, not around all of them.
            let operands = parameters.operations + 1;
            let width = 2 + stream.below(operands - 2);
            let first = stream.below(operands - width + 1);
            out.insert(2 * (first + width) - 1, Token::Sign(')'));
            out.insert(2 * first, Token::Sign('('));
        }
        let puzzle = Self { expression: text(&out), limit: parameters.limit };
        puzzle.certify().is_ok().then_some(puzzle)
    }

    fn certify(&self) -> Result<Value, String> {
        let (steps, low, high) =
            self.steps().ok_or_else(|| format!("`{}` is no expression", self.expression))?;
        if low < 0 || high > self.limit {
            return Err(format!("an intermediate result leaves 0..={}", self.limit));
        }
        let value = self.value().ok_or_else(|| format!("`{}` does not parse", self.expression))?;
        if steps.last().map(String::as_str) != Some(value.to_string().as_str()) {
            return Err(format!("two evaluators disagree on `{}`", self.expression));
        }
        Ok(json!({"method": "two evaluators", "steps": steps.len()}))
    }

    fn text(&self) -> String {
        format!("M:{}=?", self.expression)
    }

    fn answer(&self) -> String {
        self.value().map_or_else(String::new, |value| value.to_string())
    }

    fn trace(&self) -> String {
        self.steps().map_or_else(String::new, |(steps, ..)| steps.join(" "))
    }

    fn check(&self, answer: &str) -> Verdict {
        match answer.parse::<i64>() {
            Err(_) => Verdict::Unparsed,
            Ok(value) if self.value() == Some(value) => Verdict::Correct,
            Ok(_) => Verdict::Wrong,
        }
    }

    fn canonical(&self) -> String {
        self.text()
    }
}
