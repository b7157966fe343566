//! Reading puzzles and answers.

use super::formula::{Formula, Name};
use super::{Deduction, Raw, Solutions};

/// What an answer claims.
pub enum Claim {
    /// The set of true variables.
    Values(u64),
    Unsatisfiable,
}

/// Reads a puzzle in the paper's words: a line for each formula, with a dash before it.
pub fn read(text: &str) -> Result<Deduction, String> {
    let mut formulas = Vec::new();
    let mut solutions = Solutions::One;
    for line in text.lines().map(str::trim) {
        if let Some(formula) = line.strip_prefix("- ") {
            // The parentheses around a whole formula are no nesting.
            let inside = formula.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
            let inside = inside.and_then(|inside| Formula::read(inside).ok());
            formulas.push(inside.map_or_else(|| Formula::read(formula), Ok)?);
        } else if line.starts_with("Please") && line.contains("any that satisfy") {
            solutions = Solutions::Any;
        }
    }
    let named = formulas.iter().fold(0, |set, formula| set | formula.variables());
    if named == 0 {
        return Err("no line `- formula`".into());
    }
    Raw { variables: 64 - named.leading_zeros() as usize, formulas, solutions }.try_into()
}

/// `010`, or `A=0, B=1, C=0`, or a statement `(1) A is false` for each variable, in any order and
/// letter case, with or without numbers; or a word for unsatisfiable. As the released checker has
/// it, the number of statements must be that of the variables.
pub fn claim(answer: &str, variables: usize) -> Option<Claim> {
    let answer = answer.trim().trim_end_matches('.');
    if answer.len() == variables && answer.bytes().all(|b| matches!(b, b'0' | b'1')) {
        let ones = (0..).zip(answer.bytes());
        return Some(Claim::Values(ones.fold(0, |set, (v, b)| set | u64::from(b == b'1') << v)));
    }
    if ["none", "unsat", "unsatisfiable"].iter().any(|word| answer.eq_ignore_ascii_case(word)) {
        return Some(Claim::Unsatisfiable);
    }
    let (mut named, mut values) = (0u64, 0u64);
    let mut tokens = Tokens(answer);
    while let Some(mut word) = tokens.next() {
        if word.bytes().all(|b| b.is_ascii_digit()) {
            word = tokens.next()?;
        }
        let v = Name::index(word).filter(|v| *v < variables && named >> v & 1 == 0)?;
        let mut value = tokens.next()?;
        if value.eq_ignore_ascii_case("is") {
            value = tokens.next()?;
        }
        let value = match value {
            "1" => true,
            "0" => false,
            word if ["true", "t"].iter().any(|w| word.eq_ignore_ascii_case(w)) => true,
            word if ["false", "f"].iter().any(|w| word.eq_ignore_ascii_case(w)) => false,
            _ => return None,
        };
        named |= 1 << v;
        values |= u64::from(value) << v;
    }
    (named.count_ones() as usize == variables).then_some(Claim::Values(values))
}

/// Runs of letters or digits; what stands between them must be white space or punctuation of a
/// list. Anything else is a token too, which no statement has.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text =
            self.0.trim_start_matches(|c: char| c.is_whitespace() || "().,;:=-*".contains(c));
        let bytes = text.as_bytes();
        let run =
            |class: fn(&u8) -> bool| bytes.iter().position(|b| !class(b)).unwrap_or(bytes.len());
        let end = match *bytes.first()? {
            b if b.is_ascii_alphabetic() => run(u8::is_ascii_alphabetic),
            b if b.is_ascii_digit() => run(u8::is_ascii_digit),
            _ => text.chars().next()?.len_utf8(),
        };
        let (word, rest) = text.split_at(end);
        self.0 = rest;
        Some(word)
    }
}
