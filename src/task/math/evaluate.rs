//! Values of expressions at points that their variables' names decide.

use std::cmp::Ordering;

use num_bigint::BigInt;

use super::complex::Complex;
use super::expression::{Expr, Function};
use super::number;
use super::number::Rational;
use super::real::{Fault, Real};
use super::unit::Unit;

/// Which values variables have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// Real, as are all values on the way: where a root or logarithm is not, there is none.
    Real,
    /// Integers from 1.
    Whole,
    /// Real, but what is computed from them is not always.
    Complex,
}

/// One point, and what may still be spent.
pub struct Point<'a> {
    pub domain: Domain,
    pub seed: u64,
    pub budget: &'a mut u64,
    /// A variable and its value.
    pub fixed: Option<(&'a str, Real)>,
}

/// Mixes as SplitMix64 does.
fn mix(seed: u64, value: u64) -> u64 {
    let mut x = (seed ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn mix_text(seed: u64, text: &str) -> u64 {
    text.bytes().fold(mix(seed, text.len() as u64), |hash, byte| mix(hash, byte.into()))
}

impl Point<'_> {
    fn spend(&mut self, cost: u64) -> Result<(), Fault> {
        *self.budget = self.budget.checked_sub(cost).ok_or(Fault::Budget)?;
        Ok(())
    }

    fn variable(&self, name: &str) -> Real {
        match &self.fixed {
            Some((fixed, value)) if *fixed == name => value.clone(),
            _ => self.draw(mix_text(mix(self.seed, 1), name)),
        }
    }

    /// A number of few bits for each hash: small, large, negative or between 0 and 1, as the
    /// point's seed says.
    fn draw(&self, hash: u64) -> Real {
        let bits = (hash >> 8) as i64 & 0xf_ffff;
        if self.domain == Domain::Whole {
            return Real::from(1 + bits % 14);
        }
        let one = 1 << 20;
        let numerator = match self.seed % 4 {
            0 => one / 4 + 3 * bits,
            1 => bits + 1,
            2 => 5 * one + 40 * bits,
            _ if hash & 1 == 0 => -one / 4 - 5 * bits,
            _ => one / 4 + 5 * bits,
        };
        Real::dyadic(numerator, 20)
    }

    pub fn value(&mut self, expression: &Expr) -> Result<Complex, Fault> {
        self.spend(1)?;
        Ok(match expression {
            Expr::Number(value) | Expr::Decimal(value) => Real::from(value).into(),
            Expr::Pi => Real::pi().into(),
            Expr::E => self.transcendental(1, |_| Real::from(1).exp())?.into(),
            Expr::I if self.domain == Domain::Complex => {
                Complex { re: Real::from(0), im: Some(Real::from(1)) }
            }
            Expr::I => return Err(Fault::Undefined),
            Expr::Variable(name) | Expr::Text(name) => self.variable(name).into(),
            Expr::Add(parts) => {
                let mut sum = Complex::from(Real::from(0));
                for part in parts {
                    sum = sum.add(&self.value(part)?);
                }
                sum
            }
            Expr::Mul(parts) => {
                let mut product = self.value(&parts[0])?;
                for part in &parts[1..] {
                    product = product.mul(&self.value(part)?)?;
                }
                product
            }
            Expr::Pow(parts) => self.pow(&parts[0], &parts[1])?,
            Expr::Call(function, parts) => self.call(*function, parts)?,
            Expr::Opaque(name, parts) => {
                let mut hash = mix_text(mix(self.seed, 2), name);
                for part in parts {
                    let value = self.value(part)?;
                    let (re, exponent) = value.re.key();
                    hash = mix(mix(hash, re), exponent as u64);
                    if let Some(im) = value.im {
                        let (im, exponent) = im.key();
                        hash = mix(mix(hash, im), exponent as u64);
                    }
                }
                self.draw(hash).into()
            }
            Expr::Quantity(part, Unit::Percent) => {
                let hundredth = Real::from(100).inv()?;
                self.value(part)?.mul(&hundredth.into())?
            }
            Expr::Quantity(part, _) => self.value(part)?,
            _ => return Err(Fault::Undefined),
        })
    }

    fn transcendental<T>(
        &mut self,
        times: u64,
        compute: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.spend(30 * times)?;
        compute(self)
    }

    fn pow(&mut self, base: &Expr, exponent: &Expr) -> Result<Complex, Fault> {
        if *base == Expr::E {
            let exponent = self.value(exponent)?;
            return self.transcendental(2, |_| exponent.exp());
        }
        let base = self.value(base)?;
        if let Some(exact) = exponent.rational(self.budget) {
            if exact.is_integer() {
                let power = exact.to_i64().ok_or(Fault::TooLarge)?;
                self.spend(8)?;
                let value = base.power(power.unsigned_abs())?;
                return if power < 0 { value.inv() } else { Ok(value) };
            }
            if exact.den() == &BigInt::from(2) {
                let power = i64::try_from(exact.num()).map_err(|_| Fault::TooLarge)?;
                let value = self.root(&base, 2)?.power(power.unsigned_abs())?;
                return if power < 0 { value.inv() } else { Ok(value) };
            }
        }
        let exponent = self.value(exponent)?;
        self.raise(&base, &exponent)
    }

    fn raise(&mut self, base: &Complex, exponent: &Complex) -> Result<Complex, Fault> {
        let whole = exponent.im.is_none().then(|| exponent.re.integer()).flatten();
        if let Some(power) = whole.and_then(|power| i64::try_from(power).ok()) {
            self.spend(8)?;
            let value = base.power(power.unsigned_abs())?;
            return if power < 0 { value.inv() } else { Ok(value) };
        }
        if base.is_zero() {
            let positive = exponent.re.sign() == Some(Ordering::Greater);
            return if positive { Ok(Real::from(0).into()) } else { Err(Fault::Undefined) };
        }
        let log = self.ln(base)?;
        self.transcendental(2, |_| log.mul(exponent)?.exp())
    }

    fn ln(&mut self, value: &Complex) -> Result<Complex, Fault> {
        if self.domain != Domain::Complex && value.re.sign() != Some(Ordering::Greater) {
            return Err(Fault::Undefined);
        }
        self.transcendental(4, |_| value.ln())
    }

    /// The real root of a number that has one, else the principal one.
    fn root(&mut self, radicand: &Complex, index: i64) -> Result<Complex, Fault> {
        self.spend(8)?;
        let negative = radicand.im.is_none() && radicand.re.sign() == Some(Ordering::Less);
        if negative && index % 2 != 0 {
            return Ok(self.root(&radicand.neg(), index)?.neg());
        }
        if negative && self.domain != Domain::Complex {
            return Err(Fault::Undefined);
        }
        if index == 2 && negative {
            return Ok(Complex::new(Real::from(0), radicand.re.neg().sqrt()?));
        }
        if index == 2 && radicand.im.is_none() {
            return Ok(radicand.re.sqrt()?.into());
        }
        let inverse = Real::from(index).inv()?;
        self.raise(radicand, &inverse.into())
    }

    fn real(&mut self, expression: &Expr) -> Result<Real, Fault> {
        let value = self.value(expression)?;
        if value.im.is_some() { Err(Fault::Undefined) } else { Ok(value.re) }
    }

    fn call(&mut self, function: Function, parts: &[Expr]) -> Result<Complex, Fault> {
        let first = parts.first().ok_or(Fault::Undefined)?;
        let second = parts.get(1).ok_or(Fault::Undefined);
        Ok(match function {
            Function::Sin | Function::Cos => {
                let angle = self.value(first)?;
                let (sine, cosine) = self.sin_cos(&angle)?;
                if function == Function::Sin { sine } else { cosine }
            }
            Function::Tan | Function::Cot | Function::Sec | Function::Csc => {
                let angle = self.value(first)?;
                let (sine, cosine) = self.sin_cos(&angle)?;
                match function {
                    Function::Tan => sine.mul(&cosine.inv()?)?,
                    Function::Cot => cosine.mul(&sine.inv()?)?,
                    Function::Sec => cosine.inv()?,
                    _ => sine.inv()?,
                }
            }
            Function::Sinh | Function::Cosh | Function::Tanh => {
                let up = self.value(first)?;
                let up = self.transcendental(2, |_| up.exp())?;
                let down = up.inv()?;
                let (sum, difference) = (up.add(&down), up.add(&down.neg()));
                let half = Complex::from(Real::dyadic(1, 1));
                match function {
                    Function::Sinh => difference.mul(&half)?,
                    Function::Cosh => sum.mul(&half)?,
                    _ => difference.mul(&sum.inv()?)?,
                }
            }
            Function::Asin | Function::Acos | Function::Atan => {
                let value = self.real(first)?;
                self.transcendental(2, |_| arc(function, &value))?.into()
            }
            Function::Log => {
                let value = self.value(first)?;
                let value = self.ln(&value)?;
                let base = second?;
                if *base == Expr::E {
                    return Ok(value);
                }
                let base = self.value(base)?;
                value.mul(&self.ln(&base)?.inv()?)?
            }
            Function::Root => {
                let index = second?.rational(self.budget).and_then(|index| index.to_i64());
                let radicand = self.value(first)?;
                match index {
                    Some(index) if index > 0 => self.root(&radicand, index)?,
                    _ => {
                        let index = self.value(second?)?.inv()?;
                        self.raise(&radicand, &index)?
                    }
                }
            }
            Function::Abs => self.value(first)?.abs()?.into(),
            Function::Floor => self.real(first)?.floor()?.into(),
            Function::Ceil => self.real(first)?.neg().floor()?.neg().into(),
            Function::Factorial => {
                let value = self.whole(first)?;
                Real::from(&number::factorial(&value).ok_or(Fault::TooLarge)?).into()
            }
            Function::Binomial => {
                let (n, k) = (self.whole(first)?, self.whole(second?)?);
                Real::from(&number::binomial(&n, &k).ok_or(Fault::TooLarge)?).into()
            }
            Function::Min | Function::Max => {
                let mut best = self.real(first)?;
                for part in &parts[1..] {
                    let next = self.real(part)?;
                    let wanted =
                        if function == Function::Min { Ordering::Less } else { Ordering::Greater };
                    if next.compare(&best)? == wanted {
                        best = next;
                    }
                }
                best.into()
            }
            Function::Re => self.value(first)?.re.into(),
            Function::Im => self.value(first)?.imaginary().into(),
        })
    }

    /// A number that is an integer and not negative, or whose factorial is not ours to say.
    fn whole(&mut self, expression: &Expr) -> Result<Rational, Fault> {
        let value = self.real(expression)?;
        self.spend(200)?;
        value.integer().map(Rational::from).ok_or(Fault::Undefined)
    }

    fn sin_cos(&mut self, angle: &Complex) -> Result<(Complex, Complex), Fault> {
        self.spend(40)?;
        let Some(im) = &angle.im else {
            let (sine, cosine) = angle.re.sin_cos()?;
            return Ok((sine.into(), cosine.into()));
        };
        // e^(iz), of which sine and cosine are halves of sum and difference.
        let up = Complex::new(im.neg(), angle.re.clone()).exp()?;
        let down = up.inv()?;
        let half = Complex::from(Real::dyadic(1, 1));
        let turn = Complex { re: Real::from(0), im: Some(Real::dyadic(-1, 1)) };
        Ok((up.add(&down.neg()).mul(&turn)?, up.add(&down).mul(&half)?))
    }
}

fn arc(function: Function, value: &Real) -> Result<Real, Fault> {
    if function == Function::Atan {
        return value.atan();
    }
    let one = Real::from(1);
    let half = Real::pi().mul(&Real::dyadic(1, 1))?;
    let rest = one.add(&value.mul(value)?.neg());
    let angle = if rest.is_zero() {
        if value.sign() == Some(Ordering::Less) { half.neg() } else { half.clone() }
    } else {
        if rest.sign() != Some(Ordering::Greater) {
            return Err(Fault::Undefined);
        }
        value.mul(&rest.sqrt()?.inv()?)?.atan()?
    };
    Ok(if function == Function::Asin { angle } else { half.add(&angle.neg()) })
}
