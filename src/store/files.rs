//! Files below a URL that are no artifacts: other people's folders.

use std::ops::Range;

use bytes::Bytes;

use super::{Source, Store};
use crate::Result;

/// A folder in an object store.
#[derive(Debug, Clone)]
pub struct Files(Store);

impl Files {
    /// The folder at `url`, in the forms that [`Store::open`] takes.
    pub fn open(url: &str) -> Result<Self> {
        Store::open(url).map(Self)
    }

    /// Whether it lies on this machine.
    pub fn is_local(&self) -> bool {
        matches!(self.0.url().scheme(), "file" | "memory")
    }

    /// The size of a file; `None` when it does not exist.
    pub async fn size(&self, name: &str) -> Result<Option<u64>> {
        self.0.size(&name).await
    }

    /// Reads `range` of a file of `size` bytes.
    pub async fn read_range(&self, name: &str, size: u64, range: Range<u64>) -> Result<Bytes> {
        self.0.range(&name, size, range).await
    }

    /// Writes a file, in parts if it is large, and gives its digest.
    pub async fn write(&self, name: &str, source: impl Into<Source>) -> Result<String> {
        self.0.upload(&name, &source.into()).await
    }
}
