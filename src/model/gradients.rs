//! What the backward passes of an update add up.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::Result;

/// The gradients of what is learnt, f32 whatever the parameters are: in bfloat16 the small ones of
/// many micro-batches would be rounded away. They lie in one buffer, in the order of the
/// parameters.
pub struct Gradients {
    flat: Tensor,
    /// By the parameter's name: the parameter, and its gradient, a view into the buffer.
    each: BTreeMap<String, (Tensor, Tensor)>,
}

impl Gradients {
    /// Zeros for `parameters` (see [`super::Transformer::trainable`]).
    pub fn new(parameters: &[(String, Tensor)]) -> Result<Self> {
        let numbers = parameters.iter().map(|(_, p)| p.numel() as i64).sum::<i64>();
        let device = parameters.first().map_or(Device::Cpu, |(_, p)| p.device());
        let flat = Tensor::f_zeros([numbers], (Kind::Float, device))?;
        let mut each = BTreeMap::new();
        let mut offset = 0;
        for (name, parameter) in parameters {
            let size = parameter.numel() as i64;
            let view = flat.f_narrow(0, offset, size)?.f_view(&parameter.size()[..])?;
            each.insert(name.clone(), (parameter.shallow_clone(), view));
            offset += size;
        }
        Ok(Self { flat, each })
    }

    /// The gradient of a parameter, shaped like it; none if it is not learnt. Writing into it
    /// changes it.
    pub fn of(&self, name: &str) -> Option<Tensor> {
        self.each.get(name).map(|(_, gradient)| gradient.shallow_clone())
    }

    /// All of them, one after the other.
    pub(super) fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Takes in what libtorch has added up at the parameters themselves.
    pub(super) fn collect(&self) -> Result<()> {
        tch::no_grad(|| {
            for (parameter, sum) in self.each.values() {
                let mut gradient = parameter.f_grad()?;
                if gradient.defined() {
                    let _ = sum.shallow_clone().f_add_(&gradient)?;
                    let _ = gradient.f_zero_()?;
                }
            }
            Ok(())
        })
    }

    pub fn zero(&self) -> Result<()> {
        let _ = self.flat.shallow_clone().f_zero_()?;
        Ok(())
    }
}
