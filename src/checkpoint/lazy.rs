//! Checkpoints of which only the headers are in memory: tensors are read by ranges.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use safetensors::tensor::TensorInfo;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use super::{CARRIED, CONFIG, Dtype, INDEX, TEXT, TOKENIZER, TOKENIZER_SETTINGS, WEIGHTS, index};
use super::{lacking, tensor::HEADER};
use crate::store::{Artifact, Files, PIECE};
use crate::{Error, Result};

/// Where a checkpoint's files lie. Whoever reads a store blocks, so not on a thread of the runtime.
#[derive(Debug, Clone)]
pub enum Folder {
    Local(PathBuf),
    Artifact(Box<Artifact>, Handle),
    Url(Box<Files>, Handle),
}

/// A file that is read by ranges, from any thread.
#[derive(Debug)]
pub struct Ranged {
    name: String,
    pub size: u64,
    folder: Opened,
}

#[derive(Debug)]
enum Opened {
    File(File),
    /// Small objects are read whole, and their digests checked.
    Memory(Bytes),
    Artifact(Box<Artifact>, Handle),
    Url(Box<Files>, Handle),
}

/// A tensor in a file.
#[derive(Debug, Clone)]
pub struct LazyTensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub file: Arc<Ranged>,
    /// Of its first byte in the file.
    pub offset: u64,
}

/// A checkpoint of any architecture whose weights stay where they are.
#[derive(Debug, Clone)]
pub struct LazyCheckpoint {
    /// `config.json`
    pub config: Map<String, Value>,
    /// The tokenizer's and the other files that are carried along, as they are.
    pub files: BTreeMap<String, Bytes>,
    pub tensors: BTreeMap<String, LazyTensor>,
}

impl Folder {
    /// Whether it is somewhere that answers slowly and many at a time.
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Local(_) => false,
            Self::Artifact(artifact, _) => artifact.store.is_remote(),
            Self::Url(files, _) => !files.is_local(),
        }
    }

    fn open(&self, name: &str) -> Result<Option<Ranged>> {
        let (size, folder) = match self {
            Self::Local(folder) => match File::open(folder.join(name)) {
                Ok(file) => {
                    let meta = file.metadata().map_err(|e| unreadable(name, &e))?;
                    (meta.len(), Opened::File(file))
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(unreadable(name, &e)),
            },
            Self::Artifact(artifact, runtime) => {
                let listed = artifact.manifest.objects.iter().find(|object| object.path == name);
                let Some(object) = listed else { return Ok(None) };
                let opened = match object.size <= PIECE as u64 {
                    true => Opened::Memory(runtime.block_on(artifact.read(name))?),
                    false => Opened::Artifact(artifact.clone(), runtime.clone()),
                };
                (object.size, opened)
            }
            Self::Url(files, runtime) => match runtime.block_on(files.size(name))? {
                Some(size) => (size, Opened::Url(files.clone(), runtime.clone())),
                None => return Ok(None),
            },
        };
        Ok(Some(Ranged { name: name.into(), size, folder }))
    }

    /// A file other than weights, whole.
    fn read(&self, name: &str) -> Result<Option<Bytes>> {
        let Some(file) = self.open(name)? else { return Ok(None) };
        if file.size > TEXT {
            return Err(Error::data(format!("{name}: {} bytes, more than {TEXT}", file.size)));
        }
        let mut bytes = vec![0; file.size as usize];
        file.read_at(&mut bytes, 0)?;
        Ok(Some(bytes.into()))
    }
}

fn unreadable(name: &str, error: &std::io::Error) -> Error {
    Error::data(format!("cannot read {name}: {error}"))
}

impl Ranged {
    /// Fills `buffer` with the bytes from `offset` on.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let runtime = match &self.folder {
            Opened::File(file) => {
                return file.read_exact_at(buffer, offset).map_err(|e| unreadable(&self.name, &e));
            }
            Opened::Memory(bytes) => {
                let found = usize::try_from(offset)
                    .ok()
                    .and_then(|from| bytes.get(from..from.checked_add(buffer.len())?))
                    .ok_or_else(|| Error::data(format!("{} ends early", self.name)))?;
                buffer.copy_from_slice(found);
                return Ok(());
            }
            Opened::Artifact(_, runtime) | Opened::Url(_, runtime) => runtime,
        };
        let mut at = offset;
        for piece in buffer.chunks_mut(PIECE) {
            let range = at..at + piece.len() as u64;
            at = range.end;
            let bytes = match &self.folder {
                Opened::Artifact(artifact, _) => {
                    runtime.block_on(artifact.read_range(&self.name, range))
                }
                Opened::Url(files, _) => {
                    runtime.block_on(files.read_range(&self.name, self.size, range))
                }
                Opened::File(_) | Opened::Memory(_) => Ok(Bytes::new()),
            }?;
            if bytes.len() != piece.len() {
                return Err(Error::data(format!("{} ends early", self.name)));
            }
            piece.copy_from_slice(&bytes);
        }
        Ok(())
    }

    /// What tells whether a file is still the same: its name, its size, and the time that a local one
    /// was changed.
    pub fn stamp(&self) -> String {
        let changed = match &self.folder {
            Opened::File(file) => file.metadata().and_then(|meta| meta.modified()).ok(),
            _ => None,
        };
        let changed = changed.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        format!("{} {} {}", self.name, self.size, changed.map_or(0, |at| at.as_nanos()))
    }

    /// How many requests reading `length` bytes takes.
    pub fn requests(&self, length: u64) -> u64 {
        match self.folder {
            Opened::File(_) | Opened::Memory(_) => 0,
            Opened::Artifact(..) | Opened::Url(..) => length.div_ceil(PIECE as u64),
        }
    }
}

impl LazyTensor {
    /// How many numbers it holds.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes(&self) -> u64 {
        (self.len() * self.dtype.size()) as u64
    }

    /// Reads the numbers from `first` on into `buffer`, as they are stored.
    pub fn read(&self, buffer: &mut [u8], first: usize) -> Result<()> {
        self.file.read_at(buffer, self.offset + (first * self.dtype.size()) as u64)
    }
}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__", default)]
    _metadata: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    tensors: BTreeMap<String, TensorInfo>,
}

/// The tensors of a safetensors file by its header.
fn header(file: Ranged) -> Result<BTreeMap<String, LazyTensor>> {
    let broken = |what: String| {
        Error::data(format!("safetensors file of {} bytes is broken: {what}", file.size))
    };
    if file.size < 8 {
        return Err(broken("no header".into()));
    }
    let mut length = [0; 8];
    file.read_at(&mut length, 0)?;
    let length = u64::from_le_bytes(length);
    if length > HEADER || length > file.size - 8 {
        return Err(broken(format!("a header of {length} bytes")));
    }
    let mut json = vec![0; length as usize];
    file.read_at(&mut json, 8)?;
    let Header { tensors, .. } =
        serde_json::from_slice(&json).map_err(|e| broken(e.to_string()))?;
    let start = 8 + length;
    let room = (file.size - start) as usize;
    let mut found = BTreeMap::new();
    let mut covered = 0;
    let file = Arc::new(file);
    for (name, info) in tensors {
        let dtype = Dtype::of_stored(info.dtype, &name)?;
        let (from, to) = info.data_offsets;
        let size =
            info.shape.iter().try_fold(dtype.size(), |size, &length| size.checked_mul(length));
        if from > to || to > room || size != Some(to - from) {
            let shape = &info.shape;
            return Err(Error::data(format!(
                "tensor `{name}` of shape {shape:?} cannot lie at bytes {from} to {to} of {room}"
            )));
        }
        covered += to - from;
        let offset = start + from as u64;
        let tensor = LazyTensor { dtype, shape: info.shape, file: file.clone(), offset };
        found.insert(name, tensor);
    }
    if covered != room {
        return Err(Error::data(format!(
            "safetensors file of {} bytes is broken: tensors of {covered} bytes in {room}",
            file.size
        )));
    }
    Ok(found)
}

/// The tensors of one safetensors file of `folder`, by its header.
///
/// # Errors
/// `Data` for a file that is missing or broken.
pub fn tensors_of(folder: &Folder, name: &str) -> Result<BTreeMap<String, LazyTensor>> {
    let file = folder.open(name)?.ok_or_else(|| lacking(name))?;
    header(file).map_err(|e| e.at(name))
}

impl LazyCheckpoint {
    /// Reads everything but the weights.
    pub fn open(folder: &Folder) -> Result<Self> {
        let config = folder.read(CONFIG)?.ok_or_else(|| lacking(CONFIG))?;
        let config = serde_json::from_slice(&config)
            .map_err(|e| Error::data(format!("{CONFIG} is no JSON object: {e}")))?;
        let mut files = BTreeMap::new();
        for name in CARRIED.into_iter().chain([TOKENIZER, TOKENIZER_SETTINGS]) {
            if let Some(bytes) = folder.read(name)? {
                files.insert(name.to_string(), bytes);
            }
        }
        let mut tensors = match folder.open(WEIGHTS)? {
            Some(file) => header(file).map_err(|e| e.at(WEIGHTS))?,
            None => {
                let index = folder.read(INDEX)?.ok_or_else(|| lacking(WEIGHTS))?;
                let mut tensors = BTreeMap::new();
                for name in index::files(&index).map_err(|e| e.at(INDEX))? {
                    tensors.extend(tensors_of(folder, &name)?);
                }
                tensors
            }
        };
        // The config gives them.
        tensors.retain(|name, _| !name.ends_with(".rotary_emb.inv_freq"));
        Ok(Self { config, files, tensors })
    }

    /// [`Self::open`] for a local folder.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        Self::open(&Folder::Local(folder.into())).map_err(|e| e.at(folder.display()))
    }
}
