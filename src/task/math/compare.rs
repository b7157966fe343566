//! Whether two expressions say the same. The first is the right answer; the order matters where a
//! right answer asks for more than the other form gives.

use super::complex::Complex;
use super::evaluate::{Domain, Point};
use super::expression::{Expr, Join, Sign};
use super::number::Rational;
use super::real::{Fault, Real};
use super::region::{Region, is_infinite};
use super::unit::Unit;
use super::{Equality, Reason};

/// Steps of one comparison: one for each expression evaluated, more for a function.
const BUDGET: u64 = 20_000;
/// Members of a set.
const MEMBERS: usize = 400;
/// Points at which two formulas have to agree.
pub const POINTS: u32 = 5;

pub struct Comparison {
    pub(super) budget: u64,
}

impl Default for Comparison {
    fn default() -> Self {
        Self { budget: BUDGET }
    }
}

impl From<Fault> for Equality {
    fn from(fault: Fault) -> Self {
        Self::Unknown(match fault {
            Fault::TooLarge => Reason::TooLarge,
            Fault::Budget => Reason::Budget,
            Fault::Undefined | Fault::Undecided => Reason::Undecided,
        })
    }
}

impl From<bool> for Equality {
    fn from(equal: bool) -> Self {
        if equal { Self::Equal } else { Self::Different }
    }
}

impl Equality {
    fn and(self, next: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Equal => next(),
            Self::Different => self,
            Self::Unknown(_) => match next() {
                Self::Different => Self::Different,
                _ => self,
            },
        }
    }

    fn or(self, next: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Equal => self,
            Self::Different => next(),
            Self::Unknown(_) => match next() {
                Self::Equal => Self::Equal,
                _ => self,
            },
        }
    }
}

impl Comparison {
    pub fn same(&mut self, gold: &Expr, answer: &Expr) -> Equality {
        if gold == answer {
            return Equality::Equal;
        }
        self.budget = self.budget.saturating_sub(2);
        if self.budget == 0 {
            return Equality::Unknown(Reason::Budget);
        }
        match (gold, answer) {
            (Expr::Set(items), other) | (other, Expr::Set(items))
                if items.len() == 1 && !matches!(other, Expr::Set(_)) =>
            {
                if matches!(gold, Expr::Set(_)) {
                    self.same(&items[0], answer)
                } else {
                    self.same(gold, &items[0])
                }
            }
            (Expr::Relation(a, s), Expr::Relation(b, t)) => self.relations((a, s), (b, t)),
            (Expr::Relation(terms, signs), _) => self.relation(terms, signs, answer),
            (_, Expr::Relation(terms, signs)) => {
                let assigns = signs.iter().all(|sign| *sign == Sign::Equal)
                    && (terms[0].is_name() || (terms[0].is_scalar() && !terms[0].varies()));
                if assigns { self.same(gold, &terms[terms.len() - 1]) } else { Equality::Different }
            }
            (Expr::Quantity(..), _) | (_, Expr::Quantity(..)) => self.quantities(gold, answer),
            (Expr::Text(_), _) | (_, Expr::Text(_)) => {
                let (a, b) = (letters(gold), letters(answer));
                (a.is_some() && a == b).into()
            }
            (Expr::Matrix(a), Expr::Matrix(b)) => {
                let fits = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.len() == b.len());
                if !fits {
                    return Equality::Different;
                }
                self.all(a.iter().flatten().zip(b.iter().flatten()))
            }
            (Expr::Join(..) | Expr::Reals, _) | (_, Expr::Join(..) | Expr::Reals) => {
                self.regions(gold, answer)
            }
            (Expr::Set(a), Expr::Set(b)) => self.sets(a, b),
            (Expr::Set(a), Expr::Tuple(open, b, close))
            | (Expr::Tuple(open, a, close), Expr::Set(b)) => {
                let point = (*open, *close) == ('(', ')') && a.len() == b.len();
                // `x = 1 or x = 2` is no point.
                let relation = |item: &Expr| matches!(item, Expr::Relation(..));
                let named = |items: &[Expr]| !items.iter().any(relation) || have_names(items);
                let point = point && named(a) && named(b);
                if point { self.all(a.iter().zip(b)) } else { Equality::Different }
            }
            (Expr::Tuple(open, a, close), Expr::Tuple(left, b, right)) => {
                // Of more than two, it is no interval.
                let brackets = (open, close) == (left, right) || a.len() > 2;
                if brackets && a.len() == b.len() {
                    self.all(a.iter().zip(b))
                } else {
                    Equality::Different
                }
            }
            _ if gold.is_scalar() && answer.is_scalar() => self.scalars(gold, answer),
            (Expr::Opaque(a, gold), Expr::Opaque(b, answer)) => {
                let fits = a == b && gold.len() == answer.len();
                if fits { self.all(gold.iter().zip(answer)) } else { Equality::Different }
            }
            (Expr::Set(_) | Expr::Tuple(..) | Expr::Matrix(_), _)
            | (_, Expr::Set(_) | Expr::Tuple(..) | Expr::Matrix(_)) => Equality::Different,
            _ => Equality::Unknown(Reason::Syntax("sets within a formula")),
        }
    }

    pub(super) fn all<'a>(
        &mut self,
        pairs: impl Iterator<Item = (&'a Expr, &'a Expr)>,
    ) -> Equality {
        let mut verdict = Equality::Equal;
        for (gold, answer) in pairs {
            verdict = verdict.and(|| self.same(gold, answer));
            if verdict == Equality::Different {
                break;
            }
        }
        verdict
    }

    /// Each has its equal on the other side. What has names of its own keeps its order.
    fn sets(&mut self, gold: &[Expr], answer: &[Expr]) -> Equality {
        if gold.len().max(answer.len()) > MEMBERS {
            return Equality::Unknown(Reason::TooLong);
        }
        let bare = !answer.iter().any(|item| matches!(item, Expr::Relation(..)));
        if bare && gold.len() > 1 && have_names(gold) {
            if gold.len() != answer.len() {
                return Equality::Different;
            }
            return self.all(gold.iter().zip(answer));
        }
        let mut unmatched: Vec<bool> = vec![true; answer.len()];
        let mut verdict = Equality::Equal;
        for item in gold {
            let mut found = Equality::Different;
            for (other, unmatched) in answer.iter().zip(&mut unmatched) {
                let same = self.same(item, other);
                if same == Equality::Equal {
                    *unmatched = false;
                }
                found = found.or(|| same);
            }
            verdict = verdict.and(|| found);
            if verdict == Equality::Different {
                return verdict;
            }
        }
        if verdict == Equality::Equal { (!unmatched.contains(&true)).into() } else { verdict }
    }

    fn regions(&mut self, gold: &Expr, answer: &Expr) -> Equality {
        let of = |set: &Expr, budget: &mut u64| Region::of(set, budget);
        match (of(gold, &mut self.budget), of(answer, &mut self.budget)) {
            (Ok(a), Ok(b)) => a.same(&b).map_or_else(Equality::from, Equality::from),
            _ => {
                let (mut a, mut b) = (Vec::new(), Vec::new());
                united(gold, &mut a);
                united(answer, &mut b);
                match (&a[..], &b[..]) {
                    ([Expr::Join(..)], _) | (_, [Expr::Join(..)]) => {
                        Equality::Unknown(Reason::Syntax("a set that is not computed"))
                    }
                    ([_], [_]) => Equality::Different,
                    _ => self.sets(&a, &b),
                }
            }
        }
    }

    fn quantities(&mut self, gold: &Expr, answer: &Expr) -> Equality {
        fn split(expression: &Expr) -> (&Expr, Option<&Unit>) {
            match expression {
                Expr::Quantity(value, unit) => (value, Some(unit)),
                other => (other, None),
            }
        }
        let ((a, x), (b, y)) = (split(gold), split(answer));
        let times = |value: &Expr, size: &Rational| {
            Expr::Mul(vec![value.clone(), Expr::Number(size.clone())])
        };
        match (x, y) {
            (Some(Unit::Known(kind, power, size)), Some(Unit::Known(other, to, of))) => {
                if (kind, power) != (other, to) {
                    return Equality::Different;
                }
                if size == of { self.same(a, b) } else { self.same(&times(a, size), &times(b, of)) }
            }
            (Some(Unit::Degree), Some(Unit::Known(..)))
            | (Some(Unit::Known(..)), Some(Unit::Degree)) => Equality::Different,
            // 50% is 50 where percent are asked for, and a half.
            (Some(Unit::Percent), other) if other != Some(&Unit::Percent) => {
                self.same(a, b).or(|| self.same(&percent(a), b))
            }
            (other, Some(Unit::Percent)) if other != Some(&Unit::Percent) => {
                self.same(a, b).or(|| self.same(a, &percent(b)))
            }
            (Some(Unit::Word(a_unit)), Some(Unit::Word(b_unit)))
                if a_unit != b_unit && a_unit.starts_with("base") && b_unit.starts_with("base") =>
            {
                Equality::Different
            }
            _ => self.same(a, b),
        }
    }

    fn scalars(&mut self, gold: &Expr, answer: &Expr) -> Equality {
        if is_infinite(gold) || is_infinite(answer) {
            return Equality::Different;
        }
        let budget = &mut self.budget;
        if let (Some(a), Some(b)) = (gold.rational(budget), answer.rational(budget)) {
            let near = || is_rounded(gold, answer) && close(&Real::from(&a), &Real::from(&b));
            return (a == b || near()).into();
        }
        if !gold.varies() && !answer.varies() {
            return self.constants(gold, answer);
        }
        self.formulas(gold, answer)
    }

    fn constants(&mut self, gold: &Expr, answer: &Expr) -> Equality {
        let value = |expression: &Expr, budget: &mut u64| {
            Point { domain: Domain::Complex, seed: 0, budget, fixed: None }.value(expression)
        };
        let a = value(gold, &mut self.budget);
        match (a, value(answer, &mut self.budget)) {
            (Ok(a), Ok(b)) => match a.same(&b) {
                Some(false) if is_rounded(gold, answer) && a.im.is_none() && b.im.is_none() => {
                    close(&a.re, &b.re).into()
                }
                Some(same) => same.into(),
                None => Equality::Unknown(Reason::Undecided),
            },
            // The right answer has a value.
            (Ok(_), Err(Fault::Undefined)) => Equality::Different,
            (Err(fault), _) | (_, Err(fault)) => fault.into(),
        }
    }

    fn formulas(&mut self, gold: &Expr, answer: &Expr) -> Equality {
        let complex = [gold, answer].iter().any(|e| e.any(&|part| *part == Expr::I));
        let domains = [Domain::Real, Domain::Whole, Domain::Complex];
        let mut undecided = false;
        for domain in domains.into_iter().skip(if complex { 2 } else { 0 }) {
            let mut agreed = 0;
            for seed in 0..3 * u64::from(POINTS) {
                let same = match self.at(domain, seed, gold, answer) {
                    Ok((a, b)) => a.same(&b),
                    Err(Fault::Budget) => return Equality::Unknown(Reason::Budget),
                    Err(_) => continue,
                };
                match same {
                    Some(true) => agreed += 1,
                    Some(false) => return Equality::Different,
                    None => undecided = true,
                }
                if agreed == POINTS {
                    return Equality::Equal;
                }
            }
            if agreed > 2 && !undecided {
                return Equality::Equal;
            }
        }
        Equality::Unknown(Reason::Undecided)
    }

    pub(super) fn at(
        &mut self,
        domain: Domain,
        seed: u64,
        a: &Expr,
        b: &Expr,
    ) -> Result<(Complex, Complex), Fault> {
        let mut point = Point { domain, seed, budget: &mut self.budget, fixed: None };
        Ok((point.value(a)?, point.value(b)?))
    }
}

fn percent(value: &Expr) -> Expr {
    Expr::Mul(vec![Expr::from(100).inv(), value.clone()])
}

/// The sets of a union.
fn united(set: &Expr, out: &mut Vec<Expr>) {
    match set {
        Expr::Join(Join::Union, parts) => parts.iter().for_each(|part| united(part, out)),
        Expr::Set(items) => out.extend(items.iter().cloned()),
        other => out.push(other.clone()),
    }
}

/// Whether all are equations with names of their own. `x_1` and `x_2` are one name.
fn have_names(items: &[Expr]) -> bool {
    let mut names = Vec::new();
    for item in items {
        match item {
            Expr::Relation(terms, signs) if signs[..] == [Sign::Equal] => match &terms[0] {
                Expr::Variable(name) => names.push(name.split('_').next().unwrap_or(name)),
                _ => return false,
            },
            _ => return false,
        }
    }
    names.sort_unstable();
    names.windows(2).all(|pair| pair[0] != pair[1])
}

/// Whether one of two numbers is written with a point, so that it may be rounded.
fn is_rounded(a: &Expr, b: &Expr) -> bool {
    fn decimal(expression: &Expr) -> bool {
        match expression {
            Expr::Decimal(_) => true,
            Expr::Quantity(part, _) => decimal(part),
            Expr::Mul(parts) => matches!(&parts[..], [Expr::Number(_), part] if decimal(part)),
            _ => false,
        }
    }
    decimal(a) || decimal(b)
}

/// Equal to the sixth digit behind the point, and to a thousandth of the number.
fn close(a: &Real, b: &Real) -> bool {
    let Some(half) = Rational::decimal("5", "", -7) else { return false };
    let relative = || a.inv().and_then(|inverse| inverse.mul(b));
    let thousandth = Rational::decimal("1", "", -3);
    let near = |ratio: Real| thousandth.is_some_and(|bound| ratio.within(&Real::from(1), &bound));
    a.within(b, &half) && relative().is_ok_and(near)
}

/// The letters of a word or a product of variables, in lower case.
fn letters(expression: &Expr) -> Option<String> {
    Some(match expression {
        Expr::Text(text) => {
            text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
        }
        Expr::Variable(name) => name.to_lowercase(),
        Expr::E => "e".into(),
        Expr::I => "i".into(),
        Expr::Mul(parts) => parts.iter().map(letters).collect::<Option<Vec<_>>>()?.concat(),
        Expr::Quantity(value, Unit::Word(word)) => letters(value)? + &word.replace(' ', ""),
        _ => return None,
    })
}
