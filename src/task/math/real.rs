//! Real numbers of 192 bits with a bound on their error, after Arb's balls (F. Johansson, 2017).

use std::cmp::Ordering;
use std::sync::OnceLock;

use num_bigint::{BigInt, Sign};
use num_integer::Integer;

use super::number::Rational;

/// Bits of a midpoint.
const BITS: u64 = 192;
/// Bits after the point where a series is summed.
const FIXED: u64 = 320;
/// Exponents beyond this are refused.
const EXPONENT: i64 = 1 << 50;

/// Why there is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A pole, the logarithm of zero, the factorial of a half.
    Undefined,
    /// The error is too large to tell.
    Undecided,
    TooLarge,
    Budget,
}

/// The numbers within `2^radius` of `mantissa * 2^exponent`. An exact number has radius -inf.
#[derive(Debug, Clone)]
pub struct Real {
    mantissa: BigInt,
    exponent: i64,
    /// Binary logarithm of the error.
    radius: f64,
}

/// The binary logarithm of `2^a + 2^b`, rounded up.
fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY {
        return high;
    }
    if high - low > 50.0 {
        return high + 1e-9;
    }
    high + (1.0 + (low - high).exp2()).log2() + 1e-9
}

fn shift(value: &BigInt, by: i64) -> BigInt {
    if by >= 0 { value << by.unsigned_abs() } else { value >> by.unsigned_abs() }
}

impl From<i64> for Real {
    fn from(value: i64) -> Self {
        Self::exact(value.into(), 0)
    }
}

impl From<&Rational> for Real {
    fn from(value: &Rational) -> Self {
        if value.is_integer() {
            return Self::exact(value.num().clone(), 0).rounded();
        }
        let shift = (BITS + value.den().bits()).saturating_sub(value.num().bits());
        let exponent = -(shift as i64);
        let mantissa = (value.num() << shift) / value.den();
        Self { mantissa, exponent, radius: exponent as f64 }.rounded()
    }
}

impl Real {
    fn exact(mantissa: BigInt, exponent: i64) -> Self {
        Self { mantissa, exponent, radius: f64::NEG_INFINITY }
    }

    /// `numerator / 2^bits`.
    pub fn dyadic(numerator: i64, bits: u32) -> Self {
        Self::exact(numerator.into(), -i64::from(bits))
    }

    fn from_f64(value: f64) -> Self {
        if value == 0.0 || !value.is_finite() {
            return Self::from(0);
        }
        let exponent = value.abs().log2().floor() as i64 - 52;
        let mantissa = (value * (-exponent as f64).exp2()) as i64;
        Self::exact(mantissa.into(), exponent)
    }

    fn rounded(mut self) -> Self {
        let bits = self.mantissa.bits();
        if bits > BITS {
            self.mantissa >>= bits - BITS;
            self.exponent += (bits - BITS) as i64;
            self.radius = log_add(self.radius, self.exponent as f64);
        }
        self
    }

    fn checked(self) -> Result<Self, Fault> {
        let fits = self.exponent.abs() < EXPONENT && self.radius < EXPONENT as f64;
        if fits { Ok(self.rounded()) } else { Err(Fault::TooLarge) }
    }

    /// The midpoint's absolute value is below `2^magnitude` and not below half of it.
    fn magnitude(&self) -> f64 {
        if self.mantissa == BigInt::ZERO {
            return f64::NEG_INFINITY;
        }
        (self.mantissa.bits() as i64 + self.exponent) as f64
    }

    fn widened(mut self, radius: f64) -> Self {
        self.radius = log_add(self.radius, radius);
        self
    }

    fn midpoint(&self) -> Self {
        Self::exact(self.mantissa.clone(), self.exponent)
    }

    /// `None`: the error is too large to tell.
    pub fn sign(&self) -> Option<Ordering> {
        if self.radius == f64::NEG_INFINITY || self.magnitude() - 1.0 > self.radius {
            return Some(self.mantissa.cmp(&BigInt::ZERO));
        }
        None
    }

    /// Whether the difference of two numbers may be zero and is known to 96 bits of the larger, or
    /// of one; `None` where it may be but is not known as well.
    pub fn same(&self, other: &Self) -> Option<bool> {
        let difference = self.add(&other.neg());
        match difference.sign() {
            Some(Ordering::Equal) => Some(true),
            Some(_) => Some(false),
            None => {
                let size = self.magnitude().max(other.magnitude()).max(0.0);
                (difference.radius <= size - 96.0).then_some(true)
            }
        }
    }

    pub fn is_zero(&self) -> bool {
        self.same(&Self::from(0)) == Some(true)
    }

    /// Whether the two differ by no more than `2^bits`.
    pub fn within(&self, other: &Self, bound: &Rational) -> bool {
        let difference = self.add(&other.neg()).abs();
        let excess = difference.add(&Self::from(bound).neg());
        excess.sign().is_none_or(Ordering::is_le)
    }

    /// The ball's midpoint as a key that nearly equal numbers share: its 64 leading bits, rounded.
    pub fn key(&self) -> (u64, i64) {
        if self.is_zero() {
            return (0, 0);
        }
        // Halfway between two keys lies what no sum of short numbers hits.
        let by = 60 - self.mantissa.bits() as i64;
        let lead = shift(&self.mantissa, by);
        let lead = (lead + (1 << 11)) >> 12_u32;
        (i64::try_from(&lead).unwrap_or(0) as u64, self.exponent - by)
    }

    /// The integer that this is, within its error.
    pub fn integer(&self) -> Option<BigInt> {
        if self.magnitude() > 4096.0 {
            return None;
        }
        let nearest = self.add(&Self::dyadic(1, 1)).floor_midpoint();
        let found = self.same(&Self::exact(nearest.clone(), 0)) == Some(true);
        (found && self.radius < -32.0).then_some(nearest)
    }

    fn floor_midpoint(&self) -> BigInt {
        shift(&self.mantissa, self.exponent.max(-(1 << 20)))
    }

    pub fn floor(&self) -> Result<Self, Fault> {
        if self.magnitude() > 4096.0 {
            return Err(Fault::TooLarge);
        }
        if let Some(whole) = self.integer() {
            return Ok(Self::exact(whole, 0));
        }
        if self.radius > -32.0 {
            return Err(Fault::Undecided);
        }
        Ok(Self::exact(self.floor_midpoint(), 0))
    }

    pub fn neg(&self) -> Self {
        Self { mantissa: -&self.mantissa, ..self.clone() }
    }

    pub fn abs(&self) -> Self {
        if self.mantissa.sign() == Sign::Minus { self.neg() } else { self.clone() }
    }

    pub fn add(&self, other: &Self) -> Self {
        let (high, low) =
            if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        let radius = log_add(self.radius, other.radius);
        if high.mantissa == BigInt::ZERO {
            return Self { radius, ..low.clone() };
        }
        let gap = high.exponent - low.exponent;
        if gap > 4 * BITS as i64 {
            return Self { radius, ..high.clone() }.widened(low.magnitude());
        }
        let mantissa = (&high.mantissa << gap) + &low.mantissa;
        Self { mantissa, exponent: low.exponent, radius }.rounded()
    }

    pub fn mul(&self, other: &Self) -> Result<Self, Fault> {
        let (a, b) = (self.magnitude() + other.radius, other.magnitude() + self.radius);
        Self {
            mantissa: &self.mantissa * &other.mantissa,
            exponent: self.exponent + other.exponent,
            radius: log_add(log_add(a, b), self.radius + other.radius),
        }
        .checked()
    }

    /// Times a power of two.
    fn scaled(mut self, by: i64) -> Self {
        self.exponent += by;
        self.radius += by as f64;
        self
    }

    pub fn inv(&self) -> Result<Self, Fault> {
        match self.sign() {
            Some(Ordering::Equal) => return Err(Fault::Undefined),
            None => return Err(if self.is_zero() { Fault::Undefined } else { Fault::Undecided }),
            _ => {}
        }
        let bits = BITS + self.mantissa.bits();
        let mantissa = (BigInt::from(1) << bits) / &self.mantissa;
        let exponent = -(bits as i64) - self.exponent;
        // |1/(x+d) - 1/x| = |d| / (|x| |x+d|), where |x| is at least 2^(magnitude - 1).
        let low = self.magnitude() - 1.0;
        let slack = if self.radius < low - 1.0 { 1.0 } else { return Err(Fault::Undecided) };
        Self { mantissa, exponent, radius: exponent as f64 }
            .widened(self.radius - 2.0 * low + slack)
            .checked()
    }

    /// Of a number that is not negative.
    pub fn sqrt(&self) -> Result<Self, Fault> {
        match self.sign() {
            Some(Ordering::Equal) => return Ok(self.clone()),
            Some(Ordering::Less) => return Err(Fault::Undefined),
            None if self.is_zero() => {
                return Ok(Self::from(0).widened(log_add(self.magnitude(), self.radius) / 2.0));
            }
            None => return Err(Fault::Undecided),
            Some(Ordering::Greater) => {}
        }
        let mut by = (2 * BITS).saturating_sub(self.mantissa.bits()) as i64;
        by += (self.exponent - by) & 1;
        let mantissa = shift(&self.mantissa, by).sqrt();
        let exponent = (self.exponent - by) / 2;
        let exact = &mantissa * &mantissa == shift(&self.mantissa, by);
        let rounding = if exact { f64::NEG_INFINITY } else { exponent as f64 };
        Self { mantissa, exponent, radius: rounding }
            .widened(self.radius - (self.magnitude() - 1.0) / 2.0)
            .checked()
    }

    /// Times `2^FIXED`, rounded down.
    fn fixed(&self) -> BigInt {
        shift(&self.mantissa, (self.exponent + FIXED as i64).max(-(1 << 20)))
    }

    fn from_fixed(mantissa: BigInt, radius: f64) -> Self {
        Self { mantissa, exponent: -(FIXED as i64), radius }.rounded()
    }

    pub fn exp(&self) -> Result<Self, Fault> {
        if self.magnitude() > 40.0 {
            return Err(Fault::TooLarge);
        }
        if self.radius > 0.0 {
            return Err(Fault::Undecided);
        }
        let constants = constants();
        let whole = self.fixed();
        let twos = &whole / &constants.ln2;
        let rest: BigInt = (whole - &twos * &constants.ln2) >> 8_u32;
        let one = BigInt::from(1) << FIXED;
        let (mut sum, mut term) = (one.clone(), one);
        for n in 1_u32.. {
            term = ((term * &rest) >> FIXED) / n;
            if term.magnitude().bits() < 2 {
                break;
            }
            sum += &term;
        }
        for _ in 0..8 {
            sum = (&sum * &sum) >> FIXED;
        }
        let twos = i64::try_from(&twos).map_err(|_| Fault::TooLarge)?;
        let value = Self::from_fixed(sum, -250.0);
        // |e^d - 1| is below 2|d| for |d| up to 1.
        let value = value.widened(self.radius + 2.0);
        value.scaled(twos).checked()
    }

    pub fn ln(&self) -> Result<Self, Fault> {
        match self.sign() {
            Some(Ordering::Greater) => {}
            None if !self.is_zero() => return Err(Fault::Undecided),
            _ => return Err(Fault::Undefined),
        }
        let bits = self.mantissa.bits() as i64;
        let lead = shift(&self.mantissa, 53 - bits);
        let lead = i64::try_from(&lead).map_err(|_| Fault::Undecided)? as f64;
        let twos = (self.exponent + bits - 53) as f64;
        let x = self.midpoint();
        let mut y = Self::from_f64(lead.ln() + twos * std::f64::consts::LN_2);
        // Halley's step on e^y = x: the number of right bits is tripled.
        for _ in 0..2 {
            let e = y.exp()?;
            let step = x.add(&e.neg()).mul(&x.add(&e).inv()?)?.scaled(1);
            y = y.midpoint().add(&step);
        }
        y.widened(self.radius - self.magnitude() + 2.0).checked()
    }

    pub fn sin_cos(&self) -> Result<(Self, Self), Fault> {
        if self.magnitude() > 60.0 {
            return Err(Fault::TooLarge);
        }
        let half = &constants().pi >> 1_u32;
        let whole = self.fixed();
        let turns = (&whole + (&half >> 1_u32)).div_floor(&half);
        let rest = whole - &turns * &half;
        let square = (&rest * &rest) >> FIXED;
        let (mut sine, mut term) = (rest.clone(), rest);
        for n in 1_u32.. {
            term = -((term * &square) >> FIXED) / (2 * n * (2 * n + 1));
            if term.magnitude().bits() < 2 {
                break;
            }
            sine += &term;
        }
        let one = BigInt::from(1) << (2 * FIXED);
        let cosine = (one - &sine * &sine).sqrt();
        let quarter = i64::try_from(&turns).map_err(|_| Fault::TooLarge)?.rem_euclid(4);
        let (sine, cosine) = match quarter {
            0 => (sine, cosine),
            1 => (cosine, -sine),
            2 => (-sine, -cosine),
            _ => (-cosine, sine),
        };
        let radius = log_add(self.radius, -250.0);
        Ok((Self::from_fixed(sine, radius), Self::from_fixed(cosine, radius)))
    }

    pub fn atan(&self) -> Result<Self, Fault> {
        if self.magnitude() > 1.0 {
            let rest = self.inv()?.atan()?;
            let quarter = Self::pi().scaled(-1);
            let quarter = if self.mantissa.sign() == Sign::Minus { quarter.neg() } else { quarter };
            return Ok(quarter.add(&rest.neg()));
        }
        let one = Self::from(1);
        let mut x = self.midpoint();
        for _ in 0..4 {
            x = x.mul(&one.add(&one.add(&x.mul(&x)?).sqrt()?).inv()?)?;
        }
        let radius = x.radius;
        let x = x.fixed();
        let square = (&x * &x) >> FIXED;
        let (mut sum, mut power) = (x.clone(), x);
        for n in 1_u32.. {
            power = -((power * &square) >> FIXED);
            let term: BigInt = &power / (2 * n + 1);
            if term.magnitude().bits() < 2 {
                break;
            }
            sum += term;
        }
        let value = Self::from_fixed(sum, log_add(radius, -250.0)).scaled(4);
        Ok(value.widened(self.radius))
    }

    pub fn pi() -> Self {
        Self::from_fixed(constants().pi.clone(), -300.0)
    }

    pub fn compare(&self, other: &Self) -> Result<Ordering, Fault> {
        if self.same(other) == Some(true) {
            return Ok(Ordering::Equal);
        }
        self.add(&other.neg()).sign().ok_or(Fault::Undecided)
    }
}

struct Constants {
    pi: BigInt,
    ln2: BigInt,
}

/// As fixed-point numbers, with the bits that a large argument's reduction takes away.
fn constants() -> &'static Constants {
    static CONSTANTS: OnceLock<Constants> = OnceLock::new();
    CONSTANTS.get_or_init(|| {
        // The sum of sign^n / ((2n + 1) k^(2n + 1)): atan(1/k), atanh(1/k).
        let series = |k: u32, sign: i32| {
            let mut power: BigInt = (BigInt::from(1) << (FIXED + 32)) / k;
            let mut sum = BigInt::ZERO;
            let mut factor = 1;
            for n in 0_u32.. {
                let term: BigInt = &power / (2 * n + 1);
                if term == BigInt::ZERO {
                    break;
                }
                sum += term * factor;
                factor *= sign;
                power /= k * k;
            }
            sum
        };
        // Machin's formula; ln 2 = 2 atanh(1/3).
        let pi: BigInt = (series(5, -1) * 16 - series(239, -1) * 4) >> 32_u32;
        let ln2: BigInt = (series(3, 1) * 2) >> 32_u32;
        Constants { pi, ln2 }
    })
}
