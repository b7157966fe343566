//! Commands and functions with what they are of.

use super::Reason;
use super::expression::{Expr, Function};
use super::parse::Parser;
use super::token::Kind;
use super::unit::Unit;

impl Parser<'_> {
    pub(super) fn command(&mut self, name: &str) -> Result<Expr, Reason> {
        let function = match name {
            "frac" => {
                let above = self.argument()?;
                let below = self.argument()?;
                return Ok(Expr::Mul(vec![above, below.inv()]));
            }
            "binom" => {
                let above = self.argument()?;
                return Ok(Expr::Call(Function::Binomial, vec![above, self.argument()?]));
            }
            "sqrt" => {
                let mut index = 2.into();
                if self.eat('[') {
                    index = self.inside(false, Self::sum)?;
                    self.expect(']')?;
                }
                let radicand = self.argument()?;
                return Ok(Expr::Call(Function::Root, vec![radicand, index]));
            }
            "cbrt" => return Ok(root(self.argument()?, 3)),
            "overline" => return self.argument(),
            "sum" | "prod" | "int" | "lim" => return self.operator(name),
            "log" | "lg" | "ln" => {
                let mut base = if name == "ln" { Expr::E } else { 10.into() };
                if self.eat('_') {
                    base = self.argument()?;
                }
                return self.applied(Function::Log, Some(base));
            }
            "exp" => {
                let argument = self.operand()?;
                return Ok(Expr::pow(Expr::E, argument));
            }
            "sin" => Function::Sin,
            "cos" => Function::Cos,
            "tan" => Function::Tan,
            "cot" => Function::Cot,
            "sec" => Function::Sec,
            "csc" => Function::Csc,
            "arcsin" | "asin" => Function::Asin,
            "arccos" | "acos" => Function::Acos,
            "arctan" | "atan" => Function::Atan,
            "sinh" => Function::Sinh,
            "cosh" => Function::Cosh,
            "tanh" => Function::Tanh,
            "abs" => Function::Abs,
            "floor" => Function::Floor,
            "ceil" => Function::Ceil,
            "Re" => Function::Re,
            "Im" => Function::Im,
            "min" => Function::Min,
            "max" => Function::Max,
            other => return self.named(other),
        };
        self.applied(function, None)
    }

    /// `\sin^2 x`, `\sin^{-1} x`, `\log^2 x`: the exponent is of the function or of its value.
    pub(super) fn applied(
        &mut self,
        function: Function,
        base: Option<Expr>,
    ) -> Result<Expr, Reason> {
        let exponent = if self.eat('^') { Some(self.deeper(Self::exponent)?) } else { None };
        if matches!(function, Function::Min | Function::Max) {
            return match self.operand()? {
                Expr::Tuple(_, items, _) | Expr::Set(items) => Ok(Expr::Call(function, items)),
                one => Ok(one),
            };
        }
        let mut argument = self.operand()?;
        if function.is_circular() {
            argument = radians(argument);
        }
        let (function, exponent) = match (exponent, function.inverse()) {
            (Some(exponent), Some(inverse)) if exponent == (-1).into() => (inverse, None),
            (exponent, _) => (function, exponent),
        };
        let parts = std::iter::once(argument).chain(base).collect();
        let value = Expr::Call(function, parts);
        Ok(match exponent {
            Some(exponent) => Expr::pow(value, exponent),
            None => value,
        })
    }

    /// What a function without brackets is of: `\sin 2x \cos y` has `2x` and `y`.
    pub(super) fn operand(&mut self) -> Result<Expr, Reason> {
        if matches!(self.peek(), Some('(' | '{' | '[' | '⦃')) {
            return self.argument();
        }
        let negative = self.eat('-');
        let mut factors = vec![self.deeper(Self::power)?];
        while matches!(
            self.kind(),
            Some(Kind::Number(..) | Kind::Name(_) | Kind::Symbol('π' | '√'))
        ) || self.kind() == Some(&Kind::Command("frac"))
            || self.kind() == Some(&Kind::Command("sqrt"))
        {
            factors.push(self.deeper(Self::power)?);
        }
        let value = match factors.len() {
            1 => factors.remove(0),
            _ => Expr::Mul(factors),
        };
        Ok(if negative { value.neg() } else { value })
    }

    /// `\gcd(a, b)`, and whatever else has a name and an argument.
    pub(super) fn named(&mut self, name: &str) -> Result<Expr, Reason> {
        let parts = match self.operand()? {
            Expr::Tuple(_, items, _) | Expr::Set(items) => items,
            one => vec![one],
        };
        Ok(Expr::Opaque(name.into(), parts))
    }

    /// A sum, product, integral or limit: bounds and body, not computed.
    pub(super) fn operator(&mut self, name: &str) -> Result<Expr, Reason> {
        let mut parts = Vec::new();
        for _ in 0..2 {
            if !(self.eat('_') || self.eat('^')) {
                break;
            }
            let bound = if self.eat('{') {
                let bound = self.inside(false, Self::relation)?;
                self.expect('}')?;
                bound
            } else {
                self.argument()?
            };
            match bound {
                Expr::Relation(terms, _) => parts.extend(terms),
                bound => parts.push(bound),
            }
        }
        parts.push(self.deeper(Self::product)?);
        Ok(Expr::Opaque(name.into(), parts))
    }
}

pub fn root(radicand: Expr, index: i64) -> Expr {
    Expr::Call(Function::Root, vec![radicand, index.into()])
}

/// `angle` with its degrees as numbers.
fn radians(angle: Expr) -> Expr {
    match angle {
        Expr::Quantity(value, Unit::Degree) => {
            Expr::Mul(vec![*value, Expr::Pi, Expr::from(180).inv()])
        }
        Expr::Mul(parts) => Expr::Mul(parts.into_iter().map(radians).collect()),
        Expr::Add(parts) => Expr::Add(parts.into_iter().map(radians).collect()),
        other => other,
    }
}
