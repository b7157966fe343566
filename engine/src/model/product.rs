//! Products of activations and weights while sampling.
//!
//! libtorch multiplies large matrices well. With one row it reads weights at a quarter of the
//! memory's speed (2 cores of a Zen 4: 12 of 47 GB/s), and its bf16 products round their results.
//! So on x86 with AVX2 or AVX-512 a kernel of ours multiplies; it reads the weights as they lie, so
//! there is no second copy of them.

#[cfg(target_arch = "x86_64")]
mod x86;

use tch::{Device, Kind, Tensor};

#[cfg(target_arch = "x86_64")]
use super::lanes;
use super::threads;
use super::transformer::Transformer;
use crate::{Error, Result};

/// Weights below this stay in the machine's cache, where libtorch's f32 products are fast enough.
const LARGE: usize = 32 << 20;

/// How activations are multiplied with weights. Activations and results are f32; with weights in
/// bf16 and AVX-512 the activations are rounded to bf16 for the product, and its sums are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Product {
    /// By libtorch, with gradients.
    Torch,
    /// By libtorch, and sums into their first addend. No gradients.
    InPlace,
    /// By our kernel. No gradients.
    Own,
}

impl Product {
    /// What serves best for sampling from `model`.
    pub fn for_sampling(model: &Transformer) -> Self {
        let weights = model.parameters();
        let bytes: usize =
            weights.iter().map(|(_, w)| w.numel() * w.kind().elt_size_in_bytes()).sum();
        let kind = model.embedding.kind();
        let large = kind != Kind::Float || bytes > LARGE;
        if large && model.device() == Device::Cpu && supports(kind) {
            Self::Own
        } else {
            Self::Torch
        }
    }

    /// x * weight^T + bias: (M, K), (N, K), (N) -> (M, N)
    pub fn linear(self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        match self {
            Self::Own if fits(weight) => multiply(x, weight, bias),
            _ if weight.kind() == x.kind() => Ok(x.f_linear(weight, bias)?),
            _ => {
                let product = x.f_to_kind(weight.kind())?.f_linear(weight, bias)?;
                Ok(product.f_to_kind(x.kind())?)
            }
        }
    }

    /// sum + x * weight^T + bias: (M, N), (M, K), (N, K), (N) -> (M, N). `sum` may be overwritten.
    pub fn add(
        self,
        sum: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<Tensor> {
        let sum = match self {
            Self::Own if fits(weight) => multiply(x, weight, Some(sum))?,
            Self::InPlace => sum.shallow_clone().f_addmm_(x, &weight.f_transpose(0, 1)?)?,
            _ if weight.kind() == sum.kind() => sum.f_addmm(x, &weight.f_transpose(0, 1)?)?,
            _ => sum.f_add(&self.linear(x, weight, None)?)?,
        };
        match bias {
            None => Ok(sum),
            Some(bias) => Ok(sum.f_add(bias)?),
        }
    }
}

/// Whether the machine has what a kernel needs. Not optimized, it is slower than libtorch.
fn supports(kind: Kind) -> bool {
    #[cfg(target_arch = "x86_64")]
    return lanes::available() && matches!(kind, Kind::Float | Kind::BFloat16);
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Whether bf16 numbers are multiplied as they are, without widening them.
#[cfg(target_arch = "x86_64")]
pub(super) fn multiplies_bf16() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
}

fn fits(weight: &Tensor) -> bool {
    weight.is_contiguous() && weight.size2().is_ok_and(|(_, inner)| inner % 32 == 0)
}

/// x (M, K) * weight (N, K)^T + addend, (M, N) or (N), by the kernel.
fn multiply(x: &Tensor, weight: &Tensor, addend: Option<&Tensor>) -> Result<Tensor> {
    let (rows, inner) = x.size2()?;
    let (columns, width) = weight.size2()?;
    let x = x.f_to_kind(Kind::Float)?.f_contiguous()?;
    let addend = match addend {
        Some(addend) => Some(addend.f_to_kind(Kind::Float)?.f_contiguous()?),
        None => None,
    };
    let mut out = Tensor::f_empty([rows, columns], (Kind::Float, Device::Cpu))?;
    let addend = match &addend {
        Some(addend) => slice::<f32>(addend)?,
        None => &[],
    };
    let problem = Problem {
        x: slice(&x)?,
        addend,
        rows: rows as usize,
        inner: inner as usize,
        columns: columns as usize,
    };
    if width != inner
        || inner % 32 != 0
        || ![0, columns, rows * columns].contains(&(addend.len() as i64))
    {
        return Err(Error::defect(format!(
            "product of {:?} and {:?} plus {} numbers does not fit",
            x.size(),
            weight.size(),
            addend.len()
        )));
    }
    problem.solve(weight, slice_mut(&mut out)?)?;
    Ok(out)
}

/// What the kernel gets, apart from the weights.
struct Problem<'a> {
    /// (M, K)
    x: &'a [f32],
    /// (M, N), or (N) for every row, or none.
    addend: &'a [f32],
    rows: usize,
    inner: usize,
    columns: usize,
}

impl Problem<'_> {
    #[cfg(target_arch = "x86_64")]
    fn solve(&self, weight: &Tensor, out: &mut [f32]) -> Result<()> {
        let threads = threads::available();
        match weight.kind() {
            Kind::Float if is_x86_feature_detected!("avx512f") => {
                x86::single512::solve(self, slice(weight)?, out, threads)
            }
            Kind::Float => x86::single256::solve(self, slice(weight)?, out, threads),
            _ if multiplies_bf16() => x86::half512::solve(self, slice(weight)?, out, threads),
            _ => x86::half256::solve(self, slice(weight)?, out, threads),
        }
        Ok(())
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn solve(&self, _: &Tensor, _: &mut [f32]) -> Result<()> {
        let _ = threads::available();
        Err(Error::defect("no kernel for this machine"))
    }
}

/// A number that tensors hold.
pub(super) trait Number: Copy {
    const KIND: Kind;
}

impl Number for f32 {
    const KIND: Kind = Kind::Float;
}

impl Number for half::bf16 {
    const KIND: Kind = Kind::BFloat16;
}

impl Number for i16 {
    const KIND: Kind = Kind::Int16;
}

/// The numbers of a contiguous tensor on the CPU.
pub(super) fn slice<T: Number>(tensor: &Tensor) -> Result<&[T]> {
    check_dense(tensor, T::KIND)?;
    // SAFETY: checked above; the borrow keeps the storage alive.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) })
}

pub(super) fn slice_mut<T: Number>(tensor: &mut Tensor) -> Result<&mut [T]> {
    check_dense(tensor, T::KIND)?;
    // SAFETY: checked above; callers pass tensors whose storage nobody else holds.
    Ok(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) })
}

fn check_dense(tensor: &Tensor, kind: Kind) -> Result<()> {
    let dense = tensor.device() == Device::Cpu
        && tensor.f_kind()? == kind
        && tensor.is_contiguous()
        && tensor.numel() > 0;
    if dense { Ok(()) } else { Err(Error::defect(format!("no dense {kind:?} tensor on the CPU"))) }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_a_product() {
        tch::set_num_threads(2);
        if !lanes::available() {
            return;
        }
        for kind in [Kind::Float, Kind::BFloat16] {
            for rows in [1, 2, 3, 4, 7, 15, 16, 17, 40, 64, 65, 150] {
                for (inner, columns) in [(32, 1), (96, 5), (64, 131)] {
                    let on = (Kind::Float, Device::Cpu);
                    let x = Tensor::randn([rows, inner], on);
                    let weight = Tensor::randn([columns, inner], on).to_kind(kind);
                    let (bias, sum) =
                        (Tensor::randn([columns], on), Tensor::randn([rows, columns], on));
                    let rounds = kind == Kind::Float || multiplies_bf16();
                    let double = |t: &Tensor| match rounds {
                        true => t.to_kind(kind).to_kind(Kind::Double),
                        false => t.to_kind(Kind::Double),
                    };
                    let expected = double(&x).matmul(&double(&weight).transpose(0, 1));
                    for addend in [None, Some(&bias), Some(&sum)] {
                        let ours = multiply(&x, &weight, addend).unwrap();
                        let expected = match addend {
                            Some(addend) => &expected + addend,
                            None => expected.shallow_clone(),
                        };
                        let far = (ours - expected).abs().max().double_value(&[]);
                        assert!(far < 1e-4, "{kind:?} {rows} {inner} {columns}: {far}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let tensor = |shape: [i64; 2]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        let (x, weight) = (tensor([2, 64]), tensor([3, 64]));
        assert!(multiply(&x, &tensor([3, 32]), None).is_err());
        assert!(multiply(&x, &weight, Some(&tensor([1, 2]))).is_err());
    }
}
