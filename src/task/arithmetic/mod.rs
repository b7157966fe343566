//! Arithmetic: the domain of stage C. Integer expressions over + - * and parentheses.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Certificate, Fault, FaultKind, Probe, Puzzle, Style, Verdict};
use crate::entropy::Stream;

/// Characters of an expression at most. Every method is bounded by it.
const LENGTH: usize = 256;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Json")]
pub struct Arithmetic {
    expression: String,
    /// Every intermediate result lies in 0..=limit.
    limit: i64,
}

/// The stored form, before its size is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    expression: String,
    limit: i64,
}

impl TryFrom<Json> for Arithmetic {
    type Error = String;

    fn try_from(Json { expression, limit }: Json) -> Result<Self, String> {
        if expression.len() > LENGTH {
            return Err(format!("an expression of more than {LENGTH} characters"));
        }
        Self::new(&expression, limit)
    }
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

/// `None` when a number is too large for one.
fn tokens(expression: &str) -> Option<Vec<Token>> {
    let mut out = Vec::new();
    for c in expression.chars() {
        match (c.to_digit(10), out.last_mut()) {
            (Some(digit), Some(Token::Number(n))) => {
                *n = n.checked_mul(10)?.checked_add(digit.into())?;
            }
            (Some(digit), _) => out.push(Token::Number(digit.into())),
            (None, _) => out.push(Token::Sign(c)),
        }
    }
    Some(out)
}

/// Compact without blanks; in the paper's style with one on either side of a sign.
fn text(tokens: &[Token], style: Style) -> String {
    let mut out = String::new();
    for token in tokens {
        // Writing to a string does not fail.
        let _ = match (token, style) {
            (Token::Number(n), _) => write!(out, "{n}"),
            (Token::Sign(c @ ('+' | '-' | '*')), Style::Paper) => write!(out, " {c} "),
            (Token::Sign(c), _) => write!(out, "{c}"),
        };
    }
    out
}

fn apply(a: i64, sign: char, b: i64) -> Option<i64> {
    match sign {
        '+' => a.checked_add(b),
        '-' => a.checked_sub(b),
        '*' => a.checked_mul(b),
        _ => None,
    }
}

/// One reduction: the operation that was carried out, its value, and what is left.
struct Step {
    operation: (i64, char, i64),
    value: i64,
    left: Vec<Token>,
}

/// Reduces the first operation in order: in the leftmost innermost parentheses, products before
/// sums, left before right. `None` when a single number is left or nothing can be reduced.
fn reduce(tokens: &[Token]) -> Option<Step> {
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
    let value = apply(a, sign, b)?;
    // The parentheses go when nothing but the value is left inside.
    let whole = open.is_some() && close - start == 3;
    let (from, to) = if whole { (at - 2, at + 3) } else { (at - 1, at + 2) };
    let mut left = tokens[..from].to_vec();
    left.push(Token::Number(value));
    left.extend_from_slice(tokens.get(to..)?);
    Some(Step { operation: (a, sign, b), value, left })
}

impl Arithmetic {
    /// Zeros before a number go: `07` and `7` are one question.
    fn new(expression: &str, limit: i64) -> Result<Self, String> {
        let tokens = tokens(expression).ok_or_else(|| format!("a number beyond {}", i64::MAX))?;
        Ok(Self { expression: text(&tokens, Style::Compact), limit })
    }

    fn tokens(&self) -> Vec<Token> {
        tokens(&self.expression).unwrap_or_default()
    }

    /// The expression's reductions, down to a number.
    fn steps(&self) -> Option<Vec<Step>> {
        let mut current = self.tokens();
        let mut steps = Vec::new();
        while let Some(step) = reduce(&current) {
            current.clone_from(&step.left);
            steps.push(step);
        }
        matches!(current[..], [Token::Number(_)]).then_some(steps)
    }

    /// The value and the height of the expression, by recursive descent: the certificate's
    /// independent evaluator.
    fn value(&self) -> Option<(i64, u32)> {
        let tokens = self.tokens();
        let mut rest = tokens.as_slice();
        let value = sum(&mut rest)?;
        rest.is_empty().then_some(value)
    }

    fn numbers(&self) -> Vec<i64> {
        let number = |token| if let Token::Number(n) = token { Some(n) } else { None };
        self.tokens().into_iter().filter_map(number).collect()
    }

    fn signs(&self) -> Vec<char> {
        self.expression.chars().filter(|c| "+-*".contains(*c)).collect()
    }
}

fn sum(rest: &mut &[Token]) -> Option<(i64, u32)> {
    let (mut value, mut height) = product(rest)?;
    while let [Token::Sign(sign @ ('+' | '-')), tail @ ..] = *rest {
        *rest = tail;
        let (operand, other) = product(rest)?;
        (value, height) = (apply(value, *sign, operand)?, height.max(other) + 1);
    }
    Some((value, height))
}

fn product(rest: &mut &[Token]) -> Option<(i64, u32)> {
    let (mut value, mut height) = factor(rest)?;
    while let [Token::Sign('*'), tail @ ..] = *rest {
        *rest = tail;
        let (operand, other) = factor(rest)?;
        (value, height) = (apply(value, '*', operand)?, height.max(other) + 1);
    }
    Some((value, height))
}

/// Recursion is bounded by [`LENGTH`].
fn factor(rest: &mut &[Token]) -> Option<(i64, u32)> {
    match *rest {
        [Token::Number(n), tail @ ..] => {
            *rest = tail;
            Some((*n, 0))
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

    fn validate(parameters: &Parameters) -> Result<(), String> {
        let Parameters { operations, operands: [low, high], limit, .. } = *parameters;
        if !(1..=20).contains(&operations) {
            return Err(format!("`operations` is {operations}; it must be 1..=20"));
        }
        if low < 0 || low > high || high > 1_000_000 {
            return Err(format!(
                "`operands` is [{low}, {high}]; it must be [least, most] within 0..=1000000"
            ));
        }
        if limit < low {
            return Err(format!("`limit` is {limit}; it must be {low} or more, like the operands"));
        }
        Ok(())
    }

    fn source(parameters: &Parameters) -> impl FnMut(&mut Stream) -> Option<Self> {
        |stream| {
            let [low, high] = parameters.operands;
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
            let puzzle = Self { expression: text(&out, Style::Compact), limit: parameters.limit };
            puzzle.certify().is_ok().then_some(puzzle)
        }
    }

    fn certify(&self) -> Result<Certificate, Fault> {
        let malformed = |what: String| Fault::new(FaultKind::Malformed, what);
        let no_expression = || malformed(format!("`{}` is no expression", self.expression));
        let steps = self.steps().ok_or_else(no_expression)?;
        let (value, depth) = self.value().ok_or_else(no_expression)?;
        let Some(last) = steps.last() else {
            return Err(Fault::new(FaultKind::Leak, "nothing is to be computed"));
        };
        if let Some(step) = steps.iter().find(|step| !(0..=self.limit).contains(&step.value)) {
            let what = format!("the intermediate result {} leaves 0..={}", step.value, self.limit);
            return Err(malformed(what));
        }
        if last.value != value {
            let what = format!("two evaluators disagree on `{}`", self.expression);
            return Err(Fault::new(FaultKind::Unproven, what));
        }
        Ok(Certificate {
            kind: "arithmetic",
            size: self.numbers().len() as u32,
            depth,
            nodes: steps.len() as u64,
            proof: json!({"method": "two evaluators", "steps": steps.len()}),
        })
    }

    fn text(&self, style: Style) -> String {
        match style {
            Style::Compact => format!("M:{}=?", self.expression),
            Style::Paper => format!("{} = ?", text(&self.tokens(), style)),
        }
    }

    fn instruction(&self) -> &'static str {
        "\
You are given an arithmetic expression over whole numbers. Products come before sums and \
differences, parentheses before all, and otherwise go from left to right. Compute it step by step \
inside <think> and </think>, then give the result inside <answer> and </answer>, for example:
<answer>
14
</answer>"
    }

    /// The expression up to an equals sign. All whole numbers are allowed between.
    fn read(text: &str) -> Result<Self, String> {
        let line = text.trim().lines().next().unwrap_or_default();
        let line = line.split('=').next().unwrap_or_default();
        let mut expression = String::new();
        for c in line.chars().filter(|c| !c.is_whitespace()) {
            expression.push(match c {
                '0'..='9' | '+' | '-' | '*' | '(' | ')' => c,
                '×' | '·' => '*',
                '−' | '–' => '-',
                _ => return Err(format!("`{c}` in an expression")),
            });
            if expression.len() > LENGTH {
                return Err(format!("an expression of more than {LENGTH} characters"));
            }
        }
        let puzzle = Self::new(&expression, i64::MAX)?;
        match puzzle.value() {
            Some(_) => Ok(puzzle),
            None => Err(format!("`{}` is no expression", puzzle.expression)),
        }
    }

    fn answer(&self, _: Style) -> String {
        self.value().map_or_else(String::new, |(value, _)| value.to_string())
    }

    /// The expression after each reduction; in words, with the operation before it.
    fn trace(&self, style: Style) -> String {
        let steps = self.steps().unwrap_or_default();
        let lines = steps.iter().map(|Step { operation: (a, sign, b), value, left }| {
            let left = text(left, style);
            match style {
                Style::Compact => left,
                Style::Paper if left == value.to_string() => format!("{a} {sign} {b} = {value}."),
                Style::Paper => format!("{a} {sign} {b} = {value}, so {left} is left."),
            }
        });
        lines.collect::<Vec<_>>().join(if style == Style::Compact { " " } else { "\n" })
    }

    fn check(&self, answer: &str) -> Verdict {
        let answer = answer.trim();
        let answer = answer.strip_suffix('.').unwrap_or(answer);
        match answer.parse::<i64>() {
            Err(_) => Verdict::Unparsed,
            Ok(value) if self.value().is_some_and(|(right, _)| right == value) => Verdict::Correct,
            Ok(_) => Verdict::Wrong("value".into()),
        }
    }

    /// The expression itself: it has no names, and with another order it is another question.
    fn canonical(&self, out: &mut Vec<u8>) {
        out.extend(self.text(Style::Compact).into_bytes());
    }

    fn blind(&self) -> Vec<Probe> {
        let names = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];
        let value = self.value().map(|(value, _)| value);
        (0..).zip(names).map(|(n, name)| (name, f64::from(u8::from(value == Some(n))))).collect()
    }

    fn shortcuts(&self) -> Vec<Probe> {
        let (numbers, signs) = (self.numbers(), self.signs());
        let value = self.value().map(|(value, _)| value);
        let is = |guess: Option<i64>| f64::from(u8::from(guess.is_some() && guess == value));
        let mut probes = vec![
            ("first number", is(numbers.first().copied())),
            ("last number", is(numbers.last().copied())),
            ("largest number", is(numbers.iter().max().copied())),
            ("smallest number", is(numbers.iter().min().copied())),
            ("how many numbers", is(Some(numbers.len() as i64))),
        ];
        // Each of these is the way itself for some expressions.
        if signs.iter().any(|&sign| sign != '+') {
            let sum = numbers.iter().try_fold(0i64, |sum, &n| sum.checked_add(n));
            probes.push(("sum of all", is(sum)));
        }
        if signs.iter().any(|&sign| sign != '*') {
            let product = numbers.iter().try_fold(1i64, |product, &n| product.checked_mul(n));
            probes.push(("product of all", is(product)));
        }
        if let [a, b, .., y, z] = numbers[..]
            && let [first, .., last] = signs[..]
        {
            probes.push(("first operation", is(apply(a, first, b))));
            probes.push(("last operation", is(apply(y, last, z))));
        }
        probes
    }
}

#[cfg(test)]
mod tests;
