//! A series with one term missing, and its one line of text.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most terms of a series. Bounds every loop of the solver.
pub const MOST_TERMS: usize = 64;
/// Largest absolute value of a visible term. No rule of [`super::rule::Class`] takes a term of this
/// size out of an `i64`, even in two steps.
pub const LARGEST: i64 = 1_000_000_000_000;

/// Stored as its line of text: `3,6,5,?` or `A,C,E,?`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Series {
    /// 0 stands in the hole. Letters are 0 to 25.
    terms: Vec<i64>,
    hole: usize,
    letters: bool,
}

impl Series {
    /// `terms` with the one at `hole` hidden; `None` when the bounds are broken.
    pub fn hide(mut terms: Vec<i64>, hole: usize, letters: bool) -> Option<Self> {
        *terms.get_mut(hole)? = 0;
        let bound = if letters { 0..=25 } else { -LARGEST..=LARGEST };
        let sound = (2..=MOST_TERMS).contains(&terms.len());
        (sound && terms.iter().all(|x| bound.contains(x))).then_some(Self { terms, hole, letters })
    }

    /// Reads terms with commas between them, in quotes or not, letters in either case.
    pub fn read(text: &str) -> Result<Self, String> {
        let (mut terms, mut hole, mut letters) = (Vec::new(), None, None);
        for (at, token) in text.split(',').enumerate() {
            if at == MOST_TERMS {
                return Err(format!("more than {MOST_TERMS} terms"));
            }
            let token = unquote(token);
            let (value, letter) = match (token, token.as_bytes()) {
                ("?", _) if hole.is_some() => {
                    return Err(format!("term {}: a second `?`", at + 1));
                }
                ("?", _) => {
                    hole = Some(at);
                    terms.push(0);
                    continue;
                }
                (_, [letter]) if letter.is_ascii_alphabetic() => {
                    (i64::from(letter.to_ascii_uppercase() - b'A'), true)
                }
                _ => match token.parse() {
                    Ok(value) if (-LARGEST..=LARGEST).contains(&value) => (value, false),
                    Ok(_) => return Err(format!("term {}: beyond {LARGEST}", at + 1)),
                    Err(_) => {
                        let head: String = token.chars().take(20).collect();
                        return Err(format!("term {}: `{head}` is no term", at + 1));
                    }
                },
            };
            if *letters.get_or_insert(letter) != letter {
                return Err(format!("term {}: letters and numbers mixed", at + 1));
            }
            terms.push(value);
        }
        match (hole, letters) {
            (None, _) => Err("no term is missing".into()),
            (_, None) => Err("no visible term".into()),
            (Some(hole), Some(letters)) => Ok(Self { terms, hole, letters }),
        }
    }

    pub fn len(&self) -> usize {
        self.terms.len()
    }

    pub fn hole(&self) -> usize {
        self.hole
    }

    pub fn letters(&self) -> bool {
        self.letters
    }

    /// All terms, 0 in the hole.
    pub fn terms(&self) -> &[i64] {
        &self.terms
    }

    pub fn get(&self, at: usize) -> Option<i64> {
        if at == self.hole { None } else { self.terms.get(at).copied() }
    }

    pub fn before(&self) -> Option<i64> {
        self.get(self.hole.checked_sub(1)?)
    }

    pub fn after(&self) -> Option<i64> {
        self.get(self.hole + 1)
    }

    /// The series with `value` in the hole.
    pub fn filled(&self, value: i64) -> Vec<i64> {
        let mut terms = self.terms.clone();
        terms[self.hole] = value;
        terms
    }

    /// A term as it is written.
    pub fn show(&self, value: i64) -> Shown {
        Shown { value, letter: self.letters }
    }

    /// The terms as they are written, `?` for the missing one.
    pub fn shown(&self) -> impl Iterator<Item = Option<Shown>> {
        (0..self.len()).map(|at| self.get(at).map(|value| self.show(value)))
    }
}

/// Without white space and quotes around it.
pub fn unquote(text: &str) -> &str {
    text.trim().trim_matches(['\'', '"', '`']).trim()
}

/// A number, or a letter of the alphabet taken as a ring.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    value: i64,
    letter: bool,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.letter {
            write!(f, "{}", char::from(b'A' + self.value.rem_euclid(26) as u8))
        } else {
            write!(f, "{}", self.value)
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.shown().enumerate() {
            f.write_str(if at > 0 { "," } else { "" })?;
            match term {
                Some(term) => term.fmt(f)?,
                None => f.write_str("?")?,
            }
        }
        Ok(())
    }
}

impl From<Series> for String {
    fn from(series: Series) -> Self {
        series.to_string()
    }
}

impl TryFrom<String> for Series {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::read(&text)
    }
}
