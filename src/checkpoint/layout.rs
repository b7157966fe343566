//! Where the tensors of weights that are yet to be written will lie.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use super::{Dtype, INDEX, WEIGHTS};
use crate::{Error, Result};

/// A tensor that will be written.
#[derive(Debug, Clone)]
pub struct Outline {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
}

impl Outline {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes(&self) -> u64 {
        (self.len() * self.dtype.size()) as u64
    }
}

/// A safetensors file of which everything but the numbers is known.
#[derive(Debug, Clone)]
pub struct Layout {
    pub file: String,
    /// Its first bytes: the length of the header, and the header.
    pub header: Vec<u8>,
    /// Positions of its tensors in the whole list.
    pub tensors: std::ops::Range<usize>,
    /// Of the tensors' first bytes in the file.
    pub offsets: Vec<u64>,
    pub size: u64,
}

/// Lays out `tensors` in files of at most `limit` bytes of tensors, if more than one of them fits,
/// named as Hugging Face names them.
pub fn layouts(tensors: &[Outline], limit: u64) -> Result<Vec<Layout>> {
    let mut cuts = vec![0];
    let mut size = 0;
    for (position, tensor) in tensors.iter().enumerate() {
        if size > 0 && size + tensor.bytes() > limit {
            cuts.push(position);
            size = 0;
        }
        size += tensor.bytes();
    }
    cuts.push(tensors.len());
    let count = cuts.len() - 1;
    let files = cuts.windows(2).enumerate().map(|(number, cut)| {
        let file = match count {
            1 => WEIGHTS.into(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        layout(file, tensors, cut[0]..cut[1])
    });
    files.collect()
}

/// What a header says of a tensor, in the order that the safetensors library writes.
#[derive(Serialize)]
struct Info<'a> {
    dtype: &'static str,
    shape: &'a [usize],
    data_offsets: [u64; 2],
}

/// The bytes are those of [`super::encode_safetensors`].
fn layout(file: String, all: &[Outline], tensors: std::ops::Range<usize>) -> Result<Layout> {
    let mut json = r#"{"__metadata__":{"format":"pt"}"#.to_string();
    let mut offsets = Vec::new();
    let mut end = 0;
    for tensor in &all[tensors.clone()] {
        let start = end;
        end += tensor.bytes();
        offsets.push(start);
        let dtype = tensor.dtype.safetensors_name();
        let info = Info { dtype, shape: &tensor.shape, data_offsets: [start, end] };
        let name = serde_json::to_string(&tensor.name).map_err(Error::defect)?;
        json += &format!(",{name}:{}", serde_json::to_string(&info).map_err(Error::defect)?);
    }
    json.push('}');
    // The numbers are aligned.
    let mut json = json.into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    let start = header.len() as u64;
    offsets.iter_mut().for_each(|offset| *offset += start);
    Ok(Layout { file, header, tensors, offsets, size: start + end })
}

/// `model.safetensors.index.json` of weights in several files.
pub fn index_json(tensors: &[Outline], layouts: &[Layout]) -> Result<(String, Vec<u8>)> {
    let mut map = BTreeMap::new();
    for layout in layouts {
        let names = tensors[layout.tensors.clone()].iter().map(|tensor| &tensor.name);
        map.extend(names.map(|name| (name, &layout.file)));
    }
    let size: u64 = tensors.iter().map(Outline::bytes).sum();
    let index = json!({"metadata": {"total_size": size}, "weight_map": map});
    let mut index = serde_json::to_vec_pretty(&index).map_err(Error::defect)?;
    index.push(b'\n');
    Ok((INDEX.into(), index))
}

#[cfg(test)]
mod tests {
    use super::super::{HostTensor, Weights, encode_safetensors};
    use super::*;

    #[test]
    fn a_file_begins_as_the_library_writes_it() {
        let mut weights = Weights::new();
        for (name, shape) in [("b.\"x\"", vec![3, 2]), ("a", vec![5]), ("c", vec![])] {
            let values = vec![0.5; shape.iter().product()];
            weights.insert(name.into(), HostTensor::from_f32(shape, &values, Dtype::Bf16));
        }
        let outlines: Vec<Outline> = weights
            .iter()
            .map(|(name, tensor)| Outline {
                name: name.clone(),
                dtype: tensor.dtype,
                shape: tensor.shape.clone(),
            })
            .collect();
        let all = layouts(&outlines, 100).unwrap();
        let file = encode_safetensors(&weights).unwrap();
        assert_eq!(all[0].size, file.len() as u64);
        assert_eq!(all[0].header, file[..all[0].header.len()]);
        let files: Vec<_> = layouts(&outlines, 22).unwrap().into_iter().map(|l| l.file).collect();
        assert_eq!(files, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]);
    }
}
