//! Answers to problems of mathematics: found in a response, read, compared. Pure, and bounded in
//! time, depth and memory whatever the text says.
//!
//! The rules and where they differ from Hugging Face's Math-Verify: docs/graders.md.

mod atom;
mod command;
mod compare;
mod complex;
mod evaluate;
mod expression;
mod extract;
mod function;
mod matrix;
mod number;
mod parse;
mod real;
mod region;
mod relation;
mod token;
mod unit;

use std::borrow::Cow;
use std::fmt;

use compare::Comparison;
use expression::Expr;
pub use extract::{extract, tagged};
use token::Commas;

/// Bytes of an answer.
const LENGTH: usize = 8192;

/// Whether an answer says the same as the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Equality {
    Equal,
    Different,
    Unknown(Reason),
}

/// Why an answer cannot be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    TooLong,
    TooDeep,
    TooLarge,
    Budget,
    /// Two values that the precision cannot tell apart, or no value at all.
    Undecided,
    /// What is wrong with the text.
    Syntax(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "too long",
            Self::TooDeep => "nested too deeply",
            Self::TooLarge => "too large a number",
            Self::Budget => "too much to compute",
            Self::Undecided => "no value to compare",
            Self::Syntax(what) => what,
        })
    }
}

/// The right answer to a problem, read once.
pub struct Gold {
    text: String,
    parsed: Result<Expr, Reason>,
}

impl Gold {
    pub fn new(text: &str) -> Self {
        let text = unboxed(text.trim()).into_owned();
        let parsed =
            if text.len() > LENGTH { Err(Reason::TooLong) } else { read(&text, Commas::Thousands) };
        Self { text, parsed }
    }

    /// Why no answer can be compared with this one, other than letter for letter.
    pub fn fault(&self) -> Option<Reason> {
        self.parsed.as_ref().err().copied()
    }

    /// Compares `answer`, which stands alone: see [`extract`].
    pub fn grade(&self, answer: &str) -> Equality {
        let answer = unboxed(answer.trim());
        if answer.is_empty() {
            return Equality::Unknown(Reason::Syntax("nothing"));
        }
        if *answer == *self.text {
            return Equality::Equal;
        }
        if answer.len() > LENGTH {
            return Equality::Unknown(Reason::TooLong);
        }
        let letters = |text: &str| letters(text).eq_ignore_ascii_case(&letters(&self.text));
        let parsed = read(&answer, Commas::Thousands);
        let verdict = match (&self.parsed, &parsed) {
            (Ok(gold), Ok(answer)) => Comparison::default().same(gold, answer),
            (Err(reason), _) | (_, Err(reason)) => {
                return if letters(&answer) { Equality::Equal } else { Equality::Unknown(*reason) };
            }
        };
        if verdict == Equality::Equal {
            return verdict;
        }
        let pair = [self.text.as_str(), &*answer];
        let again = |gold: Commas, answer: Commas| {
            let (Ok(gold), Ok(answer)) = (read(pair[0], gold), read(pair[1], answer)) else {
                return false;
            };
            Comparison::default().same(&gold, &answer) == Equality::Equal
        };
        // `100,200` may be two numbers, `2,74` one.
        let separate = pair.iter().any(|text| has_thousands(text));
        let [gold, answer] = pair.map(bare);
        let decimal = [(gold, answer), (answer, gold)]
            .iter()
            .any(|(comma, point)| comma.replacen(',', ".", 1) == **point && is_decimal(point));
        if decimal || (separate && again(Commas::Separate, Commas::Separate)) {
            return Equality::Equal;
        }
        verdict
    }
}

/// Compares two answers of which `gold` is right.
pub fn grade(gold: &str, answer: &str) -> Equality {
    Gold::new(gold).grade(answer)
}

/// What `text` says; a time of day and a sentence are taken as words.
fn read(text: &str, commas: Commas) -> Result<Expr, Reason> {
    let bare = bare(text);
    if let Some((hours, minutes)) = bare.split_once(':')
        && (1..=2).contains(&hours.len())
        && minutes.len() == 2
        && [hours, minutes].iter().all(|part| part.bytes().all(|b| b.is_ascii_digit()))
    {
        let quotient = parse::parse(text, commas)?;
        return Ok(if minutes == "00" { Expr::Text(bare.into()) } else { quotient });
    }
    match parse::parse(text, commas) {
        Err(Reason::Syntax(_)) if is_prose(bare) => Ok(Expr::Text(bare.into())),
        parsed => parsed,
    }
}

/// Two words or more, and nothing that counts.
fn is_prose(text: &str) -> bool {
    text.split_whitespace().filter(|word| word.chars().count() > 1).count() > 1
        && text.chars().all(|c| c.is_alphabetic() || c.is_whitespace() || ".,;:'’-()".contains(c))
}

/// `text` with its boxes opened, several of them as a list.
fn unboxed(text: &str) -> Cow<'_, str> {
    if !text.contains("\\boxed") && !text.contains("\\fbox") {
        return Cow::Borrowed(text);
    }
    let boxes = extract::boxes(text);
    match &boxes[..] {
        [] => Cow::Borrowed(text),
        // A box within an expression groups.
        [one] if one.start > 0 || one.end < text.len() => {
            let around = [&text[..one.start], &text[one.end..]].concat();
            let bare = around.trim_matches(|c: char| c.is_whitespace() || "$.\\()[],".contains(c));
            if bare.is_empty() { Cow::Borrowed(one.inside) } else { Cow::Borrowed(text) }
        }
        boxes => Cow::Owned(boxes.iter().map(|b| b.inside).collect::<Vec<_>>().join(", ")),
    }
}

/// What of a text counts where it is compared letter for letter.
fn letters(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c == '\\' {
            let size = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let layout = matches!(
                &rest[..size],
                "text"
                    | "textbf"
                    | "mathrm"
                    | "mbox"
                    | "textit"
                    | "left"
                    | "right"
                    | "quad"
                    | "boxed"
            );
            if layout {
                rest = &rest[size..];
            } else {
                out.push(c);
            }
        } else if c.is_whitespace() {
            // `1 1` is not 11.
            if out.ends_with(|c: char| c.is_ascii_digit())
                && rest.starts_with(|c: char| c.is_ascii_digit())
            {
                out.push(' ');
            }
        } else if !"${}.\"'".contains(c) {
            out.push(c);
        }
    }
    out
}

fn has_thousands(text: &str) -> bool {
    text.as_bytes()
        .windows(3)
        .any(|w| w[0].is_ascii_digit() && w[1] == b',' && w[2].is_ascii_digit())
}

/// Without dollars and space around it.
fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| c == '$' || c.is_whitespace())
}

/// `2.74`
fn is_decimal(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    text.split_once('.').is_some_and(|(integer, fraction)| digits(integer) && digits(fraction))
}

#[cfg(test)]
mod tests;
