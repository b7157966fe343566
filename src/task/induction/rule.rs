//! The hypothesis class: which rules may explain a series, and how complex each is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kinds of rules. The complexity of a rule is the number of constants that it states beyond
/// the first term:
///
/// | kind | next term | complexity |
/// |---|---|---|
/// | `arithmetic` | x + d | 1 |
/// | `geometric` | x · r | 1 |
/// | `cycle` | k operations +a, -b, ·c in turn | k |
/// | `polynomial` | by constant differences of degree n >= 2 | n |
/// | `alternating` | two interleaved arithmetic or geometric series | 3 |
/// | `recurrence` | a·x + c, or a·x + b·y + c with y the term before x | its constants that are not 0, and 1 for a second term to start from |
/// | `letters` | k steps in the alphabet, which is a ring, in turn | k |
/// | `pattern` | p letters over and over | p |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Arithmetic,
    Geometric,
    Cycle,
    Polynomial,
    Alternating,
    Recurrence,
    Letters,
    Pattern,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Arithmetic,
        Self::Geometric,
        Self::Cycle,
        Self::Polynomial,
        Self::Alternating,
        Self::Recurrence,
        Self::Letters,
        Self::Pattern,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arithmetic => "arithmetic",
            Self::Geometric => "geometric",
            Self::Cycle => "cycle",
            Self::Polynomial => "polynomial",
            Self::Alternating => "alternating",
            Self::Recurrence => "recurrence",
            Self::Letters => "letters",
            Self::Pattern => "pattern",
        }
    }

    pub fn of_letters(self) -> bool {
        matches!(self, Self::Letters | Self::Pattern)
    }
}

/// The rules that may explain a series: its kinds, and bounds of their constants. But for cycles a
/// rule counts as an explanation only where the visible terms show it at work at least once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Bounds", into = "Bounds")]
pub struct Class(Bounds);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    pub rules: Vec<Kind>,
    /// Longest cycle and longest pattern.
    pub longest: usize,
    /// Operations of a cycle: +1 … +add, -1 … -subtract, *2 … *multiply. Letters step as far
    /// (but 12 at most) or not at all.
    pub add: i64,
    pub subtract: i64,
    pub multiply: i64,
    /// Largest d, c and difference of a polynomial.
    pub step: i64,
    /// Largest r, a and b.
    pub factor: i64,
    /// Largest degree of a polynomial.
    pub degree: usize,
}

impl Bounds {
    /// The paper's operations and cycles with every other kind: what a series without a class of
    /// its own, such as the released ones, is judged under.
    pub fn everything() -> Self {
        Self {
            rules: Kind::ALL.to_vec(),
            longest: 10,
            add: 4,
            subtract: 4,
            multiply: 4,
            step: 99,
            factor: 4,
            degree: 3,
        }
    }
}

impl std::ops::Deref for Class {
    type Target = Bounds;

    fn deref(&self) -> &Bounds {
        &self.0
    }
}

impl From<Class> for Bounds {
    fn from(class: Class) -> Self {
        class.0
    }
}

impl TryFrom<Bounds> for Class {
    type Error = String;

    fn try_from(bounds: Bounds) -> Result<Self, String> {
        let within = |name: &str, value: i64, low: i64, high: i64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(format!("`{name}` is {value}; it must lie in {low}..={high}"))
        };
        let twice =
            (1..bounds.rules.len().min(9)).any(|i| bounds.rules[..i].contains(&bounds.rules[i]));
        if bounds.rules.is_empty() || twice {
            return Err("`rules` must name one kind of rule at least, and none twice".into());
        }
        within("longest", i64::try_from(bounds.longest).unwrap_or(i64::MAX), 1, 31)?;
        within("add", bounds.add, 0, 1000)?;
        within("subtract", bounds.subtract, 0, 1000)?;
        within("multiply", bounds.multiply, 0, 1000)?;
        within("step", bounds.step, 0, 1000)?;
        within("factor", bounds.factor, 0, 9)?;
        within("degree", i64::try_from(bounds.degree).unwrap_or(i64::MAX), 0, 3)?;
        Ok(Self(bounds))
    }
}

/// One operation. Written `+3`, `-3`, `*3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Sum(i64),
    Product(i64),
}

impl Step {
    pub fn apply(self, x: i64) -> i64 {
        match self {
            Self::Sum(d) => x.saturating_add(d),
            Self::Product(r) => x.saturating_mul(r),
        }
    }

    /// The term that this leads from to `x`.
    pub fn undo(self, x: i64) -> Option<i64> {
        match self {
            Self::Sum(d) => Some(x.saturating_sub(d)),
            Self::Product(r) => (x.checked_rem(r)? == 0).then(|| x / r),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sum(d) => write!(f, "{d:+}"),
            Self::Product(r) => write!(f, "*{r}"),
        }
    }
}

/// x(n) = coefficients[0] · x(n-1) + … + constant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linear {
    pub coefficients: Vec<i64>,
    pub constant: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Arithmetic and geometric rules too: one operation.
    Cycle(Vec<Step>),
    Polynomial(Linear),
    Recurrence(Linear),
    /// At even and at odd places, from 0.
    Alternating([Step; 2]),
    Letters(Vec<i64>),
    /// The period.
    Pattern(usize),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cycle(steps) => steps.iter().try_for_each(|step| step.fmt(f)),
            Self::Polynomial(linear) => {
                write!(f, "difference {}: {}", linear.coefficients.len(), linear.constant)
            }
            Self::Recurrence(linear) => linear.fmt(f),
            Self::Alternating([even, odd]) => write!(f, "{even}|{odd}"),
            Self::Letters(steps) => steps.iter().try_for_each(|step| write!(f, "{step:+}")),
            Self::Pattern(period) => write!(f, "period {period}"),
        }
    }
}

/// `2x+y-3`: x is the term before, y the one before that.
impl fmt::Display for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (coefficient, name) in self.coefficients.iter().zip(["x", "y", "z"]) {
            match (coefficient, first) {
                (0, _) => continue,
                (1, true) => write!(f, "{name}")?,
                (1, false) => write!(f, "+{name}")?,
                (-1, _) => write!(f, "-{name}")?,
                (a, true) => write!(f, "{a}{name}")?,
                (a, false) => write!(f, "{a:+}{name}")?,
            }
            first = false;
        }
        if self.constant != 0 { write!(f, "{:+}", self.constant) } else { Ok(()) }
    }
}
