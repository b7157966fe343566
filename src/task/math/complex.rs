//! Complex numbers with bounds on their error.

use std::cmp::Ordering;

use super::real::{Fault, Real};

/// A real number where there is no imaginary part.
#[derive(Debug, Clone)]
pub struct Complex {
    pub re: Real,
    pub im: Option<Real>,
}

impl From<Real> for Complex {
    fn from(re: Real) -> Self {
        Self { re, im: None }
    }
}

impl Complex {
    pub fn new(re: Real, im: Real) -> Self {
        let im = if im.is_zero() { None } else { Some(im) };
        Self { re, im }
    }

    pub fn imaginary(&self) -> Real {
        self.im.clone().unwrap_or_else(|| Real::from(0))
    }

    pub fn add(&self, other: &Self) -> Self {
        let re = self.re.add(&other.re);
        match (&self.im, &other.im) {
            (None, None) => re.into(),
            _ => Self::new(re, self.imaginary().add(&other.imaginary())),
        }
    }

    pub fn neg(&self) -> Self {
        Self { re: self.re.neg(), im: self.im.as_ref().map(Real::neg) }
    }

    pub fn mul(&self, other: &Self) -> Result<Self, Fault> {
        match (&self.im, &other.im) {
            (None, None) => Ok(self.re.mul(&other.re)?.into()),
            (Some(im), None) => Ok(Self::new(self.re.mul(&other.re)?, im.mul(&other.re)?)),
            (None, Some(im)) => Ok(Self::new(self.re.mul(&other.re)?, self.re.mul(im)?)),
            (Some(a), Some(b)) => Ok(Self::new(
                self.re.mul(&other.re)?.add(&a.mul(b)?.neg()),
                self.re.mul(b)?.add(&a.mul(&other.re)?),
            )),
        }
    }

    pub fn inv(&self) -> Result<Self, Fault> {
        let Some(im) = &self.im else { return Ok(self.re.inv()?.into()) };
        let norm = self.re.mul(&self.re)?.add(&im.mul(im)?).inv()?;
        Ok(Self::new(self.re.mul(&norm)?, im.mul(&norm)?.neg()))
    }

    pub fn abs(&self) -> Result<Real, Fault> {
        match &self.im {
            None => Ok(self.re.abs()),
            Some(im) => self.re.mul(&self.re)?.add(&im.mul(im)?).sqrt(),
        }
    }

    pub fn exp(&self) -> Result<Self, Fault> {
        let size = self.re.exp()?;
        let Some(im) = &self.im else { return Ok(size.into()) };
        let (sine, cosine) = im.sin_cos()?;
        Ok(Self::new(size.mul(&cosine)?, size.mul(&sine)?))
    }

    pub fn ln(&self) -> Result<Self, Fault> {
        let size = self.abs()?.ln()?;
        let zero = Real::from(0);
        let right = self.re.compare(&zero)?;
        let Some(im) = &self.im else {
            return Ok(match right {
                Ordering::Less => Self::new(size, Real::pi()),
                _ => size.into(),
            });
        };
        let up = im.compare(&zero)?;
        let half = Real::pi().mul(&Real::dyadic(1, 1))?;
        let angle = match right {
            Ordering::Equal => half,
            _ => im.mul(&self.re.inv()?)?.atan()?,
        };
        let angle = match (right, up) {
            (Ordering::Equal, Ordering::Less) => angle.neg(),
            (Ordering::Less, Ordering::Less) => angle.add(&Real::pi().neg()),
            (Ordering::Less, _) => angle.add(&Real::pi()),
            _ => angle,
        };
        Ok(Self::new(size, angle))
    }

    pub fn power(&self, mut exponent: u64) -> Result<Self, Fault> {
        let (mut product, mut square) = (Self::from(Real::from(1)), self.clone());
        while exponent > 0 {
            if exponent & 1 == 1 {
                product = product.mul(&square)?;
            }
            exponent >>= 1;
            if exponent > 0 {
                square = square.mul(&square)?;
            }
        }
        Ok(product)
    }

    pub fn is_zero(&self) -> bool {
        self.im.is_none() && self.re.is_zero()
    }

    pub fn same(&self, other: &Self) -> Option<bool> {
        let re = self.re.same(&other.re)?;
        let im = match (&self.im, &other.im) {
            (None, None) => true,
            _ => self.imaginary().same(&other.imaginary())?,
        };
        Some(re && im)
    }
}
