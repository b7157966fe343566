//! Equations and inequalities.

use super::Equality;
use super::Reason;
use super::compare::{Comparison, POINTS};
use super::complex::Complex;
use super::evaluate::Domain;
use super::expression::{Expr, Sign};
use super::real::Fault;
use super::region::Region;

impl Comparison {
    pub(super) fn relation(&mut self, terms: &[Expr], signs: &[Sign], answer: &Expr) -> Equality {
        if signs.iter().all(|sign| *sign == Sign::Equal) {
            let (last, before) = (&terms[terms.len() - 1], &terms[..terms.len() - 1]);
            return match before {
                // `5 = x`
                [value] if !value.is_name() && last.is_name() && !value.varies() => {
                    self.same(value, answer)
                }
                _ if before.iter().any(Expr::is_name) => self.same(last, answer),
                _ => Equality::Different,
            };
        }
        if !matches!(answer, Expr::Tuple(..) | Expr::Join(..) | Expr::Set(_) | Expr::Reals) {
            return Equality::Different;
        }
        let Some((terms, name)) = in_one_variable(terms) else { return Equality::Different };
        let budget = &mut self.budget;
        Region::of(answer, budget)
            .and_then(|region| region.solves(&terms, signs, &name, budget))
            .map_or_else(Equality::from, Equality::from)
    }

    pub(super) fn relations(
        &mut self,
        gold: (&[Expr], &[Sign]),
        answer: (&[Expr], &[Sign]),
    ) -> Equality {
        let (a, s) = assignment(gold);
        let (b, t) = assignment(answer);
        if s == t && a.len() == b.len() {
            let forward = self.all(a.iter().zip(&b));
            if forward == Equality::Equal {
                return forward;
            }
        }
        let flipped: Vec<Sign> = t.iter().rev().map(|sign| sign.flipped()).collect();
        if s == flipped && self.all(a.iter().zip(b.iter().rev())) == Equality::Equal {
            return Equality::Equal;
        }
        if let ([_, _], [_, _]) = (&a[..], &b[..])
            && a.iter().chain(&b).all(Expr::is_scalar)
            && a.iter().any(Expr::varies)
        {
            let verdict = self.proportional((&a, s[0]), (&b, t[0]));
            if verdict != Equality::Different {
                return verdict;
            }
        }
        // `x^2 < 4` and `-2 < x < 2`: one of them says its set.
        let both = [(&a, &s, &b, &t), (&b, &t, &a, &s)];
        for (simple, signs, other, others) in both {
            if let Some((interval, name)) = interval(simple, signs)
                && let Some((terms, found)) = in_one_variable(other)
                && name == found
            {
                let budget = &mut self.budget;
                return Region::of(&interval, budget)
                    .and_then(|region| region.solves(&terms, others, &name, budget))
                    .map_or_else(Equality::from, Equality::from);
            }
        }
        Equality::Different
    }

    /// Whether left minus right is the same but for a constant factor, of which the direction of
    /// an inequality hangs on the sign.
    fn proportional(&mut self, gold: (&[Expr], Sign), answer: (&[Expr], Sign)) -> Equality {
        let normal = |(terms, sign): (&[Expr], Sign)| {
            let (left, right) = (terms[0].clone(), terms[1].clone());
            match sign {
                Sign::Less | Sign::AtMost => (difference(right, left), sign.flipped()),
                _ => (difference(left, right), sign),
            }
        };
        let ((a, s), (b, t)) = (normal(gold), normal(answer));
        if s != t {
            return Equality::Different;
        }
        let ordered = !matches!(s, Sign::Equal | Sign::Unequal);
        let mut factor: Option<Complex> = None;
        let mut agreed = 0;
        for seed in 0..4 * u64::from(POINTS) {
            let values = self.at(Domain::Real, seed, &a, &b);
            let (x, y) = match values {
                Ok(pair) => pair,
                Err(Fault::Budget) => return Equality::Unknown(Reason::Budget),
                Err(_) => continue,
            };
            match (x.is_zero(), y.is_zero()) {
                (true, true) => continue,
                (false, false) => {}
                _ => return Equality::Different,
            }
            let Some(known) = &factor else {
                let Ok(found) = x.inv().and_then(|inverse| y.mul(&inverse)) else { continue };
                if ordered && found.re.sign() != Some(std::cmp::Ordering::Greater) {
                    return Equality::Different;
                }
                factor = Some(found);
                continue;
            };
            match known.mul(&x).map(|scaled| scaled.same(&y)) {
                Ok(Some(true)) => agreed += 1,
                Ok(Some(false)) => return Equality::Different,
                _ => {}
            }
            if agreed == POINTS {
                return Equality::Equal;
            }
        }
        Equality::Unknown(Reason::Undecided)
    }
}

fn difference(left: Expr, right: Expr) -> Expr {
    Expr::Add(vec![left, right.neg()])
}

/// `x = 5 + 5 = 10` without what stands between.
fn assignment((terms, signs): (&[Expr], &[Sign])) -> (Vec<Expr>, Vec<Sign>) {
    let chain = signs.len() > 1 && signs.iter().all(|sign| *sign == Sign::Equal);
    if chain && terms[0].is_name() {
        return (vec![terms[0].clone(), terms[terms.len() - 1].clone()], vec![Sign::Equal]);
    }
    (terms.to_vec(), signs.to_vec())
}

/// `terms` and the only variable in them. A function that is not computed counts as one, where it
/// stands alone.
fn in_one_variable(terms: &[Expr]) -> Option<(Vec<Expr>, String)> {
    let unknown = "?";
    let mut terms = terms.to_vec();
    for term in &mut terms {
        if matches!(term, Expr::Opaque(..)) {
            *term = Expr::variable(unknown);
        }
    }
    let mut names = Vec::new();
    for term in &terms {
        collect(term, &mut names)?;
    }
    names.sort();
    names.dedup();
    if names.len() == 1 { Some((terms, names.remove(0))) } else { None }
}

/// The variables of a scalar; `None` for what is no scalar in variables.
fn collect(expression: &Expr, names: &mut Vec<String>) -> Option<()> {
    match expression {
        Expr::Variable(name) => names.push(name.clone()),
        Expr::Opaque(..) | Expr::Text(_) | Expr::Matrix(_) | Expr::Set(_) | Expr::Tuple(..) => {
            return None;
        }
        other => other.parts().iter().try_for_each(|part| collect(part, names))?,
    }
    Some(())
}

/// The set that `x > 3` or `1 < x <= 2` is of, and the variable.
fn interval(terms: &[Expr], signs: &[Sign]) -> Option<(Expr, String)> {
    let up = |sign: &Sign| matches!(sign, Sign::Less | Sign::AtMost);
    let mut terms = terms.to_vec();
    let mut signs = signs.to_vec();
    if !signs.iter().all(up) {
        terms.reverse();
        signs = signs.iter().rev().map(|sign| sign.flipped()).collect();
    }
    if !signs.iter().all(up) {
        return None;
    }
    let open = |sign: Sign, open, closed| if sign.is_strict() { open } else { closed };
    let below = || Expr::Infinity.neg();
    let (low, left, name, right, high) = match (&terms[..], &signs[..]) {
        ([low, Expr::Variable(name), high], [s, t]) => {
            (low.clone(), open(*s, '(', '['), name, open(*t, ')', ']'), high.clone())
        }
        ([Expr::Variable(name), high], [t]) => {
            (below(), '(', name, open(*t, ')', ']'), high.clone())
        }
        ([low, Expr::Variable(name)], [s]) => {
            (low.clone(), open(*s, '(', '['), name, ')', Expr::Infinity)
        }
        _ => return None,
    };
    Some((Expr::Tuple(left, vec![low, high], right), name.clone()))
}
