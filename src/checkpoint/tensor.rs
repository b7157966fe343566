//! Tensors in host memory, and the safetensors format.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use half::{bf16, f16};
use safetensors::{SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    #[default]
    F32,
    Bf16,
    F16,
}

impl Dtype {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// Stored numbers as f32 (exact for every type).
    pub fn to_f32(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            Self::Bf16 => {
                bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
            }
            Self::F16 => {
                bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
            }
        }
    }

    /// The name that `config.json` gives it.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    /// The type that `config.json` gives this name.
    pub fn of_torch(name: &str) -> Option<Self> {
        [Self::F32, Self::Bf16, Self::F16].into_iter().find(|dtype| dtype.torch_name() == name)
    }

    /// The name in the header of a safetensors file.
    pub fn safetensors_name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
        }
    }

    /// Of the tensor `name` in a safetensors file.
    pub(super) fn of_stored(stored: safetensors::Dtype, name: &str) -> Result<Self> {
        match stored {
            safetensors::Dtype::F32 => Ok(Self::F32),
            safetensors::Dtype::BF16 => Ok(Self::Bf16),
            safetensors::Dtype::F16 => Ok(Self::F16),
            other => Err(Error::data(format!(
                "tensor `{name}` has type {other:?}; triad reads F32, BF16 and F16"
            ))),
        }
    }

    fn stored(self) -> safetensors::Dtype {
        match self {
            Self::F32 => safetensors::Dtype::F32,
            Self::Bf16 => safetensors::Dtype::BF16,
            Self::F16 => safetensors::Dtype::F16,
        }
    }
}

/// A dense tensor: little-endian numbers in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Bytes,
}

/// Most bytes of a safetensors header: a thousand tensors take a hundred thousand.
pub(super) const HEADER: u64 = 8 << 20;

/// Tensors under their Hugging Face names.
pub type Weights = BTreeMap<String, HostTensor>;

impl HostTensor {
    /// Stores `values` (as many as `shape` holds), rounding to the nearest, ties to even.
    pub fn from_f32(shape: impl Into<Vec<usize>>, values: &[f32], dtype: Dtype) -> Self {
        let shape = shape.into();
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        let mut bytes = Vec::with_capacity(values.len() * dtype.size());
        match dtype {
            Dtype::F32 => values.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes())),
            Dtype::Bf16 => values
                .iter()
                .for_each(|v| bytes.extend_from_slice(&bf16::from_f32(*v).to_le_bytes())),
            Dtype::F16 => values
                .iter()
                .for_each(|v| bytes.extend_from_slice(&f16::from_f32(*v).to_le_bytes())),
        }
        Self { dtype, shape, bytes: bytes.into() }
    }

    /// The numbers as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        self.dtype.to_f32(&self.bytes)
    }

    /// The same numbers stored as `dtype`.
    pub fn cast(&self, dtype: Dtype) -> Self {
        if dtype == self.dtype {
            return self.clone();
        }
        Self::from_f32(self.shape.clone(), &self.to_f32(), dtype)
    }

    /// How many numbers it holds.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The safetensors file of `weights`. Equal weights give equal bytes.
pub fn encode_safetensors(weights: &Weights) -> Result<Bytes> {
    let mut views = Vec::with_capacity(weights.len());
    for (name, tensor) in weights {
        let view = TensorView::new(tensor.dtype.stored(), tensor.shape.clone(), &tensor.bytes)
            .map_err(|e| Error::defect(format!("tensor `{name}`: {e}")))?;
        views.push((name, view));
    }
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize(views, Some(metadata)).map(Bytes::from).map_err(Error::defect)
}

/// Reads a safetensors file. The tensors share its memory.
pub fn decode_safetensors(file: Bytes) -> Result<Weights> {
    let broken = |what: String| {
        Error::data(format!("safetensors file of {} bytes is broken: {what}", file.len()))
    };
    // The parser would take headers of 100 MB, which become many times that.
    let header = file.first_chunk::<8>().map_or(0, |length| u64::from_le_bytes(*length));
    if header > HEADER {
        return Err(broken(format!("a header of {header} bytes")));
    }
    let parsed = SafeTensors::deserialize(&file).map_err(|e| broken(e.to_string()))?;
    let mut weights = Weights::new();
    for (name, view) in parsed.iter() {
        let dtype = Dtype::of_stored(view.dtype(), name)?;
        let bytes = file.slice_ref(view.data());
        weights.insert(name.into(), HostTensor { dtype, shape: view.shape().to_vec(), bytes });
    }
    Ok(weights)
}
