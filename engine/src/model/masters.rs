//! What an optimizer updates: the parameters in f32.

use half::bf16;
use tch::{Device, Kind, Tensor};

use super::gradients::flat_zeros;
use super::product::slice_mut;
use crate::Result;

/// Flat buffers of N parameters. Those that a model computes with are of its kind.
pub(super) enum Masters {
    /// The model's own parameters.
    Same(Tensor),
    /// In f32, and as the model has them: rounded from these.
    Beside { masters: Tensor, rounded: Tensor },
    /// The model's bf16, and what is missing to the f32, i16: its bits are those of the bf16 times
    /// 2^16, plus these. Two bytes a parameter less than masters beside.
    Rest { rounded: Tensor, rest: Tensor },
}

impl Masters {
    /// `numbers` zeros, for a model of this kind.
    pub fn new(numbers: i64, kind: Kind, device: Device) -> Result<Self> {
        let zeros = |kind: Kind| flat_zeros(numbers, kind, device);
        Ok(match (kind, device) {
            (Kind::Float, _) => Self::Same(zeros(kind)?),
            (Kind::BFloat16, Device::Cpu) => {
                Self::Rest { rounded: zeros(kind)?, rest: zeros(Kind::Int16)? }
            }
            _ => Self::Beside { masters: zeros(Kind::Float)?, rounded: zeros(kind)? },
        })
    }

    /// What the model computes with, (N).
    pub fn own(&self) -> &Tensor {
        match self {
            Self::Same(own)
            | Self::Beside { rounded: own, .. }
            | Self::Rest { rounded: own, .. } => own,
        }
    }

    /// (N), f32: these themselves where there are such.
    pub fn wide(&self) -> Result<Tensor> {
        match self {
            Self::Same(masters) | Self::Beside { masters, .. } => Ok(masters.shallow_clone()),
            Self::Rest { rounded, rest } => {
                let mut wide = rounded.f_to_kind(Kind::Float)?;
                let (mut rounded, mut rest) = (rounded.shallow_clone(), rest.shallow_clone());
                let halves = slice_mut::<bf16>(&mut rounded)?.iter().zip(slice_mut(&mut rest)?);
                for (wide, (rounded, rest)) in slice_mut(&mut wide)?.iter_mut().zip(halves) {
                    *wide = join(*rounded, *rest);
                }
                Ok(wide)
            }
        }
    }

    /// All become `wide` (N), f32.
    pub fn set(&mut self, wide: &Tensor) -> Result<()> {
        match self {
            Self::Same(masters) => masters.f_copy_(wide)?,
            Self::Beside { masters, .. } => {
                masters.f_copy_(wide)?;
                self.round()?;
            }
            Self::Rest { rounded, rest } => {
                let mut wide = wide.f_contiguous()?;
                let halves = slice_mut(rounded)?.iter_mut().zip(slice_mut(rest)?);
                for (wide, (rounded, rest)) in slice_mut(&mut wide)?.iter().zip(halves) {
                    (*rounded, *rest) = split(*wide);
                }
            }
        }
        Ok(())
    }

    /// Rounds the masters that lie beside.
    pub fn round(&mut self) -> Result<()> {
        match self {
            Self::Beside { masters, rounded } => Ok(rounded.f_copy_(masters)?),
            _ => Ok(()),
        }
    }
}

/// The f32 of its halves.
#[inline(always)]
pub(super) fn join(rounded: bf16, rest: i16) -> f32 {
    f32::from_bits((u32::from(rounded.to_bits()) << 16).wrapping_add_signed(i32::from(rest)))
}

/// The nearest bf16 (of two, the even one), and the rest. A tie with the even one below lies half a
/// step above it, which is one too much for the rest: the f32 just before is taken.
#[inline(always)]
pub(super) fn split(wide: f32) -> (bf16, i16) {
    let bits = wide.to_bits();
    let upper = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let rest = bits.wrapping_sub(upper << 16) as i32;
    (bf16::from_bits(upper as u16), rest.min(0x7fff) as i16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_the_rounded_number_and_what_is_missing() {
        let ties = (0..=u32::MAX >> 16).map(|upper| upper << 16 | 0x8000);
        for bits in (0..=u32::MAX).step_by(9_973).chain(ties) {
            let wide = f32::from_bits(bits);
            if !wide.is_finite() {
                continue;
            }
            let (rounded, rest) = split(wide);
            assert_eq!(rounded, bf16::from_f32(wide), "{wide}");
            let again = join(rounded, rest);
            let lost = bits - again.to_bits();
            assert_eq!(lost, u32::from(bits & 0x1_ffff == 0x8000), "{wide}");
            assert_eq!(split(again), (rounded, rest));
        }
    }
}
