//! Sets of real numbers: unions of intervals and points.

use std::cmp::Ordering;

use super::evaluate::{Domain, Point};
use super::expression::{Expr, Join, Sign};
use super::real::{Fault, Real};

/// A bound and whether it belongs to the set; `None` is infinite.
type Bound = Option<(Real, bool)>;

/// An interval, or a point where the bounds are the same.
#[derive(Debug, Clone)]
struct Piece {
    low: Bound,
    high: Bound,
}

/// Disjoint, from low to high.
#[derive(Debug, Clone)]
pub struct Region(Vec<Piece>);

impl Region {
    /// The set that `expression` denotes, where its bounds are constants.
    pub fn of(expression: &Expr, budget: &mut u64) -> Result<Self, Fault> {
        let mut pieces = Vec::new();
        match expression {
            Expr::Reals => pieces.push(Piece { low: None, high: None }),
            Expr::Tuple(open, items, close) if items.len() == 2 => pieces.push(Piece {
                low: bound(&items[0], *open == '[', budget)?,
                high: bound(&items[1], *close == ']', budget)?,
            }),
            Expr::Set(items) => {
                for item in items {
                    let point = Some((constant(item, budget)?, true));
                    pieces.push(Piece { low: point.clone(), high: point });
                }
            }
            Expr::Join(join, parts) => {
                let [left, right] = [Self::of(&parts[0], budget)?, Self::of(&parts[1], budget)?];
                return match join {
                    Join::Union => Self::new([left.0, right.0].concat()),
                    Join::Intersection => left.intersection(&right),
                    Join::Difference => left.intersection(&right.complement()),
                };
            }
            _ => return Err(Fault::Undefined),
        }
        Self::new(pieces)
    }

    fn new(mut pieces: Vec<Piece>) -> Result<Self, Fault> {
        let mut fault = None;
        pieces.sort_by(|a, b| {
            compare_low(&a.low, &b.low).unwrap_or_else(|found| {
                fault = Some(found);
                Ordering::Equal
            })
        });
        if let Some(fault) = fault {
            return Err(fault);
        }
        let mut out: Vec<Piece> = Vec::new();
        for piece in pieces {
            if let (Some((low, a)), Some((high, b))) = (&piece.low, &piece.high) {
                match low.compare(high)? {
                    Ordering::Greater => continue,
                    Ordering::Equal if !(*a && *b) => continue,
                    _ => {}
                }
            }
            let Some(last) = out.last_mut() else {
                out.push(piece);
                continue;
            };
            let touches = match (&last.high, &piece.low) {
                (None, _) | (_, None) => true,
                (Some((high, a)), Some((low, b))) => match low.compare(high)? {
                    Ordering::Less => true,
                    Ordering::Equal => *a || *b,
                    Ordering::Greater => false,
                },
            };
            if !touches {
                out.push(piece);
            } else if compare_high(&piece.high, &last.high)? == Ordering::Greater {
                last.high = piece.high;
            }
        }
        Ok(Self(out))
    }

    fn complement(&self) -> Self {
        let outside = |bound: &Bound| bound.clone().map(|(value, closed)| (value, !closed));
        let mut pieces = Vec::new();
        let mut low = None;
        let mut open = true;
        for piece in &self.0 {
            if piece.low.is_some() {
                pieces.push(Piece { low: low.clone(), high: outside(&piece.low) });
            }
            low = outside(&piece.high);
            open = piece.high.is_some();
        }
        if open {
            pieces.push(Piece { low, high: None });
        }
        Self(pieces)
    }

    fn intersection(&self, other: &Self) -> Result<Self, Fault> {
        let outside = [self.complement().0, other.complement().0].concat();
        Ok(Self::new(outside)?.complement())
    }

    pub fn same(&self, other: &Self) -> Result<bool, Fault> {
        if self.0.len() != other.0.len() {
            return Ok(false);
        }
        for (a, b) in self.0.iter().zip(&other.0) {
            let low = compare_low(&a.low, &b.low)?;
            if low != Ordering::Equal || compare_high(&a.high, &b.high)? != Ordering::Equal {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn contains(&self, x: &Real) -> Result<bool, Fault> {
        for piece in &self.0 {
            let above = match &piece.low {
                None => true,
                Some((low, closed)) => match x.compare(low)? {
                    Ordering::Equal => *closed,
                    order => order == Ordering::Greater,
                },
            };
            let below = match &piece.high {
                None => true,
                Some((high, closed)) => match x.compare(high)? {
                    Ordering::Equal => *closed,
                    order => order == Ordering::Less,
                },
            };
            if above && below {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether these are the values of `variable` for which the relation holds: tried at the
    /// bounds, close to them, between and beyond them.
    pub fn solves(
        &self,
        terms: &[Expr],
        signs: &[Sign],
        variable: &str,
        budget: &mut u64,
    ) -> Result<bool, Fault> {
        let bounds: Vec<&Real> = self
            .0
            .iter()
            .flat_map(|piece| [&piece.low, &piece.high])
            .flatten()
            .map(|b| &b.0)
            .collect();
        let mut points: Vec<Real> = [-1000, -37, -1, 0, 1, 53, 1000].map(Real::from).into();
        for (at, bound) in bounds.iter().enumerate() {
            points.push((*bound).clone());
            for (step, bits) in [(1, 24), (-1, 24), (3, 1), (-3, 1)] {
                points.push(bound.add(&Real::dyadic(step, bits)));
            }
            if let Some(next) = bounds.get(at + 1) {
                points.push(bound.add(next).mul(&Real::dyadic(1, 1))?);
            }
        }
        for x in points {
            if holds(terms, signs, variable, &x, budget)? != self.contains(&x)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether a relation is true of a value.
fn holds(
    terms: &[Expr],
    signs: &[Sign],
    variable: &str,
    x: &Real,
    budget: &mut u64,
) -> Result<bool, Fault> {
    let mut point =
        Point { domain: Domain::Real, seed: 0, budget, fixed: Some((variable, x.clone())) };
    let mut values = Vec::with_capacity(terms.len());
    for term in terms {
        match point.value(term) {
            Ok(value) if value.im.is_none() => values.push(value.re),
            Ok(_) | Err(Fault::Undefined) => return Ok(false),
            Err(fault) => return Err(fault),
        }
    }
    for (pair, sign) in values.windows(2).zip(signs) {
        let order = pair[0].compare(&pair[1])?;
        let holds = match sign {
            Sign::Equal => order == Ordering::Equal,
            Sign::Unequal => order != Ordering::Equal,
            Sign::Less => order == Ordering::Less,
            Sign::AtMost => order != Ordering::Greater,
            Sign::Greater => order == Ordering::Greater,
            Sign::AtLeast => order != Ordering::Less,
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

fn bound(expression: &Expr, closed: bool, budget: &mut u64) -> Result<Bound, Fault> {
    if is_infinite(expression) {
        Ok(None)
    } else {
        Ok(Some((constant(expression, budget)?, closed)))
    }
}

/// Infinity, of either sign.
pub fn is_infinite(expression: &Expr) -> bool {
    match expression {
        Expr::Infinity => true,
        Expr::Mul(parts) => matches!(&parts[..], [Expr::Number(_), Expr::Infinity]),
        _ => false,
    }
}

fn constant(expression: &Expr, budget: &mut u64) -> Result<Real, Fault> {
    if expression.varies() {
        return Err(Fault::Undefined);
    }
    let mut point = Point { domain: Domain::Complex, seed: 0, budget, fixed: None };
    let value = point.value(expression)?;
    if value.im.is_some() { Err(Fault::Undefined) } else { Ok(value.re) }
}

fn compare_low(a: &Bound, b: &Bound) -> Result<Ordering, Fault> {
    match (a, b) {
        (None, None) => Ok(Ordering::Equal),
        (None, _) => Ok(Ordering::Less),
        (_, None) => Ok(Ordering::Greater),
        // A closed bound begins earlier.
        (Some((x, a)), Some((y, b))) => Ok(x.compare(y)?.then(b.cmp(a))),
    }
}

fn compare_high(a: &Bound, b: &Bound) -> Result<Ordering, Fault> {
    match (a, b) {
        (None, None) => Ok(Ordering::Equal),
        (None, _) => Ok(Ordering::Greater),
        (_, None) => Ok(Ordering::Less),
        (Some((x, a)), Some((y, b))) => Ok(x.compare(y)?.then(a.cmp(b))),
    }
}
