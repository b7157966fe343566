//! Exact rational numbers, of bounded size.

use num_bigint::{BigInt, Sign};
use num_integer::Integer;

/// Numbers of more bits than this are not computed exactly. 2006! has 19,000.
const LIMIT: u64 = 1 << 15;

/// In lowest terms, the denominator positive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rational {
    num: BigInt,
    den: BigInt,
}

impl From<i64> for Rational {
    fn from(value: i64) -> Self {
        Self { num: value.into(), den: 1.into() }
    }
}

impl From<BigInt> for Rational {
    fn from(num: BigInt) -> Self {
        Self { num, den: 1.into() }
    }
}

impl Rational {
    /// `None`: a zero denominator.
    pub fn new(num: BigInt, den: BigInt) -> Option<Self> {
        if den == BigInt::ZERO {
            return None;
        }
        let sign = if den.sign() == Sign::Minus { -1 } else { 1 };
        let gcd = num.gcd(&den) * sign;
        Some(Self { num: num / &gcd, den: den / gcd })
    }

    /// The digits of `integer` and `fraction` as a decimal number, times ten to the `power`.
    pub fn decimal(integer: &str, fraction: &str, power: i64) -> Option<Self> {
        let digits = [integer, fraction].concat();
        let num = BigInt::parse_bytes(digits.as_bytes(), 10)?;
        let power = power - i64::try_from(fraction.len()).ok()?;
        let scale = Self::from(10).pow(power)?;
        Self::from(num).mul(&scale)
    }

    pub fn num(&self) -> &BigInt {
        &self.num
    }

    pub fn den(&self) -> &BigInt {
        &self.den
    }

    pub fn is_integer(&self) -> bool {
        self.den == BigInt::from(1)
    }

    pub fn is_negative(&self) -> bool {
        self.num.sign() == Sign::Minus
    }

    pub fn to_i64(&self) -> Option<i64> {
        if self.is_integer() { i64::try_from(&self.num).ok() } else { None }
    }

    fn bounded(self) -> Option<Self> {
        (self.num.bits() <= LIMIT && self.den.bits() <= LIMIT).then_some(self)
    }

    /// What an operation with this number costs: quadratic in its length. `None`: more than is left.
    pub fn charge(&self, budget: &mut u64) -> Option<()> {
        let words = self.num.bits().max(self.den.bits()) / 512;
        *budget = budget.checked_sub(1 + words * words)?;
        Some(())
    }

    pub fn neg(&self) -> Self {
        Self { num: -&self.num, den: self.den.clone() }
    }

    pub fn abs(&self) -> Self {
        if self.is_negative() { self.neg() } else { self.clone() }
    }

    pub fn add(&self, other: &Self) -> Option<Self> {
        if self.is_integer() && other.is_integer() {
            return Self::from(&self.num + &other.num).bounded();
        }
        let num = &self.num * &other.den + &other.num * &self.den;
        Self::new(num, &self.den * &other.den)?.bounded()
    }

    pub fn mul(&self, other: &Self) -> Option<Self> {
        if self.is_integer() && other.is_integer() {
            return Self::from(&self.num * &other.num).bounded();
        }
        Self::new(&self.num * &other.num, &self.den * &other.den)?.bounded()
    }

    pub fn inv(&self) -> Option<Self> {
        Self::new(self.den.clone(), self.num.clone())
    }

    pub fn pow(&self, power: i64) -> Option<Self> {
        let base = if power < 0 { self.inv()? } else { self.clone() };
        let power = power.unsigned_abs();
        let bits = base.num.bits().max(base.den.bits());
        if bits > 1 && bits.checked_mul(power)? > LIMIT {
            return None;
        }
        // 0, 1 and -1 take any exponent.
        let power = if bits > 1 { power } else { power.min(2 + power % 2) };
        let power = u32::try_from(power).ok()?;
        Some(Self { num: base.num.pow(power), den: base.den.pow(power) })
    }

    /// The exact root, where it is rational.
    pub fn root(&self, n: u32) -> Option<Self> {
        if n == 0 || (self.is_negative() && n.is_multiple_of(2)) {
            return None;
        }
        let root = |value: &BigInt| {
            let root = value.nth_root(n);
            (root.pow(n) == *value).then_some(root)
        };
        Some(Self { num: root(&self.num)?, den: root(&self.den)? })
    }

    pub fn floor(&self) -> Self {
        Self::from(self.num.div_floor(&self.den))
    }
}

/// `n!`, when it is within the limit.
pub fn factorial(n: &Rational) -> Option<Rational> {
    let n = n.to_i64().filter(|n| (0..=3000).contains(n))?;
    Some(Rational::from((2..=n).fold(BigInt::from(1), |product, k| product * k)))
}

/// `n` choose `k`, for integers `n` of any sign.
pub fn binomial(n: &Rational, k: &Rational) -> Option<Rational> {
    let (n, k) = (n.to_i64()?, k.to_i64()?);
    if k < 0 {
        return Some(0.into());
    }
    let k = if (0..=n).contains(&k) { k.min(n - k) } else { k };
    if k > 3000 || n.unsigned_abs() > 1 << 40 {
        return None;
    }
    let product = (0..k).fold(BigInt::from(1), |product, i| product * (n - i) / (i + 1));
    Rational::from(product).bounded()
}
