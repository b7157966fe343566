//! What the backward passes of an update add up.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::device::prefer_large_pages;
use super::gpu::set_gradient;
use crate::Result;

/// The gradients of what is learnt, f32 whatever the parameters are: in bfloat16 the small ones of
/// many micro-batches would be rounded away. They lie in one buffer, in the order of the
/// parameters.
pub struct Gradients {
    flat: Tensor,
    /// Where libtorch adds up the gradients of parameters that are not f32, in their type, in the
    /// same order. Made when it is needed.
    rough: RefCell<Option<Tensor>>,
    /// By the parameter's name.
    each: BTreeMap<String, Place>,
}

struct Place {
    parameter: Tensor,
    /// Of its gradient in the buffers.
    offset: i64,
}

impl Place {
    fn view(&self, flat: &Tensor) -> Result<Tensor> {
        let part = flat.f_narrow(0, self.offset, self.parameter.numel() as i64)?;
        Ok(part.f_view(&self.parameter.size()[..])?)
    }
}

/// (N) zeros of an optimizer's size: on the CPU in large pages, since each step goes through all of
/// them, matrix by matrix.
pub(super) fn flat_zeros(numbers: i64, kind: Kind, device: Device) -> Result<Tensor> {
    let mut flat = Tensor::f_empty([numbers], (kind, device))?;
    if device == Device::Cpu {
        prefer_large_pages(flat.data_ptr(), flat.numel() * kind.elt_size_in_bytes());
    }
    Ok(flat.f_zero_()?)
}

impl Gradients {
    /// Zeros for `parameters` (see [`super::Transformer::trainable`]).
    pub fn new(parameters: &[(String, Tensor)]) -> Result<Self> {
        let numbers = parameters.iter().map(|(_, p)| p.numel() as i64).sum::<i64>();
        let device = parameters.first().map_or(Device::Cpu, |(_, p)| p.device());
        let flat = flat_zeros(numbers, Kind::Float, device)?;
        let mut each = BTreeMap::new();
        let mut offset = 0;
        for (name, parameter) in parameters {
            each.insert(name.clone(), Place { parameter: parameter.shallow_clone(), offset });
            offset += parameter.numel() as i64;
        }
        Ok(Self { flat, rough: RefCell::default(), each })
    }

    /// The gradient of a parameter, shaped like it; none if it is not learnt. Writing into it
    /// changes it.
    pub fn of(&self, name: &str) -> Option<Tensor> {
        self.each.get(name)?.view(&self.flat).ok()
    }

    /// All of them, one after the other.
    pub(super) fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Lets libtorch add up gradients here: [`Gradients::collect`] must follow.
    pub(super) fn receive(&self) -> Result<()> {
        let Some(first) = self.each.values().next() else { return Ok(()) };
        let mut rough = self.rough.borrow_mut();
        if rough.is_none() {
            let own = match first.parameter.f_kind()? {
                Kind::Float => self.flat.shallow_clone(),
                kind => Tensor::f_zeros(self.flat.size(), (kind, self.flat.device()))?,
            };
            for place in self.each.values() {
                set_gradient(&place.parameter, &place.view(&own)?)?;
            }
            *rough = Some(own);
        }
        Ok(())
    }

    /// Takes in what libtorch has added up.
    pub(super) fn collect(&self) -> Result<()> {
        tch::no_grad(|| {
            if let Some(rough) = &mut *self.rough.borrow_mut()
                && rough.f_kind()? != Kind::Float
            {
                let _ = self.flat.shallow_clone().f_add_(rough)?;
                let _ = rough.f_zero_()?;
            }
            Ok(())
        })
    }

    pub fn zero(&self) -> Result<()> {
        let _ = self.flat.shallow_clone().f_zero_()?;
        Ok(())
    }
}
