//! What an answer says.

use super::number::{Rational, binomial, factorial};
use super::unit::Unit;

#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    Number(Rational),
    /// Written with a point: equal to what it is the rounding of, from the sixth digit on.
    Decimal(Rational),
    Pi,
    E,
    I,
    Infinity,
    Variable(String),
    Add(Vec<Expr>),
    Mul(Vec<Expr>),
    Pow(Box<[Expr; 2]>),
    Call(Function, Vec<Expr>),
    /// A function, sum or integral that is not computed: equal when its name and parts are.
    Opaque(String, Vec<Expr>),
    Matrix(Vec<Vec<Expr>>),
    /// A point or an interval; the brackets.
    Tuple(char, Vec<Expr>, char),
    /// In braces, or listed without brackets. Without members, the empty set.
    Set(Vec<Expr>),
    Join(Join, Box<[Expr; 2]>),
    /// The real numbers.
    Reals,
    /// `a < b <= c`: terms, and a sign between each two.
    Relation(Vec<Expr>, Vec<Sign>),
    Text(String),
    Quantity(Box<Expr>, Unit),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    /// Of a number, to a base.
    Log,
    /// Of a radicand, to an integer index from 2.
    Root,
    Abs,
    Floor,
    Ceil,
    Factorial,
    Binomial,
    Min,
    Max,
    Re,
    Im,
}

impl Function {
    /// Takes an angle.
    pub fn is_circular(self) -> bool {
        matches!(self, Self::Sin | Self::Cos | Self::Tan | Self::Cot | Self::Sec | Self::Csc)
    }

    pub fn inverse(self) -> Option<Self> {
        Some(match self {
            Self::Sin => Self::Asin,
            Self::Cos => Self::Acos,
            Self::Tan => Self::Atan,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    Union,
    Intersection,
    Difference,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Sign {
    /// Read from right to left.
    pub fn flipped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::AtMost => Self::AtLeast,
            Self::Greater => Self::Less,
            Self::AtLeast => Self::AtMost,
            same => same,
        }
    }

    pub fn is_strict(self) -> bool {
        matches!(self, Self::Less | Self::Greater)
    }
}

impl From<i64> for Expr {
    fn from(value: i64) -> Self {
        Self::Number(value.into())
    }
}

impl Expr {
    pub fn variable(name: &str) -> Self {
        Self::Variable(name.into())
    }

    pub fn pow(base: Self, exponent: Self) -> Self {
        Self::Pow(Box::new([base, exponent]))
    }

    pub fn neg(self) -> Self {
        match self {
            Self::Number(value) => Self::Number(value.neg()),
            Self::Decimal(value) => Self::Decimal(value.neg()),
            Self::Quantity(value, unit) => Self::Quantity(Box::new(value.neg()), unit),
            other => Self::Mul(vec![(-1).into(), other]),
        }
    }

    pub fn inv(self) -> Self {
        Self::pow(self, (-1).into())
    }

    /// The direct parts.
    pub fn parts(&self) -> &[Self] {
        match self {
            Self::Add(parts)
            | Self::Mul(parts)
            | Self::Call(_, parts)
            | Self::Opaque(_, parts)
            | Self::Tuple(_, parts, _)
            | Self::Set(parts)
            | Self::Relation(parts, _) => parts,
            Self::Pow(parts) | Self::Join(_, parts) => &parts[..],
            Self::Quantity(part, _) => std::slice::from_ref(part),
            _ => &[],
        }
    }

    /// Whether a part, or a part's part, is as asked. Entries of matrices count.
    pub fn any(&self, test: &dyn Fn(&Self) -> bool) -> bool {
        test(self)
            || self.parts().iter().any(|part| part.any(test))
            || matches!(self, Self::Matrix(rows) if rows.iter().flatten().any(|e| e.any(test)))
    }

    /// How many expressions this is, with its parts.
    pub fn nodes(&self) -> usize {
        let entries = match self {
            Self::Matrix(rows) => rows.iter().flatten().map(Self::nodes).sum(),
            _ => 0,
        };
        1 + entries + self.parts().iter().map(Self::nodes).sum::<usize>()
    }

    /// Depends on a variable, a function that is not computed, or a word.
    pub fn varies(&self) -> bool {
        self.any(&|e| matches!(e, Self::Variable(_) | Self::Opaque(..) | Self::Text(_)))
    }

    /// A number or a formula: nothing that has members, rows, sides or letters.
    pub fn is_scalar(&self) -> bool {
        !self.any(&|e| {
            matches!(
                e,
                Self::Matrix(_)
                    | Self::Tuple(..)
                    | Self::Set(_)
                    | Self::Join(..)
                    | Self::Reals
                    | Self::Relation(..)
            )
        })
    }

    /// Names only, as on the left of `x = 5`, `f(x) = 5`, `|AB| = 5`, `(p, q) = (3, 2)`.
    pub fn is_name(&self) -> bool {
        match self {
            Self::Variable(_) | Self::Opaque(..) | Self::Text(_) | Self::E | Self::I => true,
            Self::Pow(parts) => parts[0].is_name() && parts[1] == (-1).into(),
            Self::Mul(parts) | Self::Tuple(_, parts, _) | Self::Call(Function::Abs, parts) => {
                parts.iter().all(Self::is_name)
            }
            _ => false,
        }
    }

    /// The value of a constant, where it is rational, small enough and within the budget.
    pub fn rational(&self, budget: &mut u64) -> Option<Rational> {
        let value = match self {
            Self::Number(value) | Self::Decimal(value) => return Some(value.clone()),
            Self::Add(parts) => {
                let mut sum = Rational::from(0);
                for part in parts {
                    sum = sum.add(&part.rational(budget)?)?;
                    sum.charge(budget)?;
                }
                sum
            }
            Self::Mul(parts) => {
                let mut product = Rational::from(1);
                for part in parts {
                    product = product.mul(&part.rational(budget)?)?;
                    product.charge(budget)?;
                }
                product
            }
            Self::Pow(parts) => {
                let (base, exponent) = (parts[0].rational(budget)?, parts[1].rational(budget)?);
                let root = u32::try_from(exponent.den()).ok().filter(|n| *n <= 64)?;
                if root > 1 && base.is_negative() {
                    return None;
                }
                let base = if root > 1 { base.root(root)? } else { base };
                base.pow(i64::try_from(exponent.num()).ok()?)?
            }
            Self::Call(function, parts) => {
                let first = parts.first()?.rational(budget)?;
                let mut second = || parts.get(1)?.rational(budget);
                match function {
                    Function::Abs => first.abs(),
                    Function::Floor => first.floor(),
                    Function::Ceil => first.neg().floor().neg(),
                    Function::Factorial => factorial(&first)?,
                    Function::Binomial => binomial(&first, &second()?)?,
                    Function::Root => {
                        first.root(u32::try_from(second()?.to_i64()?).ok().filter(|n| *n <= 64)?)?
                    }
                    _ => return None,
                }
            }
            Self::Quantity(part, Unit::Percent) => {
                part.rational(budget)?.mul(&Rational::from(100).inv()?)?
            }
            Self::Quantity(part, _) => part.rational(budget)?,
            _ => return None,
        };
        value.charge(budget)?;
        Some(value)
    }
}
