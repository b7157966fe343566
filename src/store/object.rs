//! A store is an object-store URL: open it, put, create, get, list.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};
use url::Url;

use super::Key;
use crate::id::ArtifactId;
use crate::{Error, Result};

/// An object store and the prefix below which triad keeps everything.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    prefix: Path,
    url: Url,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.url)
    }
}

impl Store {
    /// Opens `file:///…`, `s3://bucket/prefix`, `memory://` or a plain local path.
    pub fn open(text: &str) -> Result<Self> {
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(_) => {
                let path = std::path::absolute(text)
                    .map_err(|e| Error::usage(format!("store `{text}`: {e}")))?;
                Url::from_directory_path(&path)
                    .map_err(|()| Error::usage(format!("store `{text}` is no path or URL")))?
            }
        };
        if url.scheme() == "file" {
            let path = url
                .to_file_path()
                .map_err(|()| Error::usage(format!("store `{url}` is no local path")))?;
            std::fs::create_dir_all(&path)
                .map_err(|e| Error::usage(format!("store `{}`: {e}", path.display())))?;
        }
        let options = std::env::vars().map(|(key, value)| (key.to_ascii_lowercase(), value));
        let (inner, prefix) = object_store::parse_url_opts(&url, options)
            .map_err(|e| Error::usage(format!("store `{url}`: {e}")))?;
        Ok(Self { inner: inner.into(), prefix, url })
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The object store below and the path of `key` in it, for readers that stream (DataFusion).
    pub fn raw(&self, key: &Key) -> (Arc<dyn ObjectStore>, Path) {
        (self.inner.clone(), self.path(&key.to_string()))
    }

    fn path(&self, key: &str) -> Path {
        Path::from_iter(self.prefix.parts().chain(Path::from(key).parts()))
    }

    fn error(&self, key: &dyn std::fmt::Display, error: object_store::Error) -> Error {
        use object_store::Error as E;
        let place = format!("{}/{key}", self.url.as_str().trim_end_matches('/'));
        match error {
            E::NotFound { .. } => Error::data(format!("{place}: no such object")),
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => Error::usage(format!(
                "{place}: access denied; check the credentials in the environment (AWS_ACCESS_KEY_ID, …)"
            )),
            other => Error::try_again(format!("{place}: {other}")),
        }
    }

    /// Writes an object that nobody else writes.
    pub async fn put(&self, key: &Key, bytes: Bytes) -> Result<()> {
        self.inner
            .put(&self.path(&key.to_string()), bytes.into())
            .await
            .map(drop)
            .map_err(|e| self.error(key, e))
    }

    /// Writes an object unless it exists; `false` when it does.
    pub async fn create(&self, key: &Key, bytes: Bytes) -> Result<bool> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.inner.put_opts(&self.path(&key.to_string()), bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(e) => Err(self.error(key, e)),
        }
    }

    /// Reads an object whole; `None` when it does not exist.
    pub async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        match self.inner.get(&self.path(&key.to_string())).await {
            Ok(found) => found.bytes().await.map(Some).map_err(|e| self.error(key, e)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.error(key, e)),
        }
    }

    async fn list(&self, folder: &str) -> Result<Vec<Key>> {
        let found: Vec<_> = self
            .inner
            .list(Some(&self.path(folder)))
            .try_collect()
            .await
            .map_err(|e| self.error(&folder, e))?;
        let depth = self.prefix.parts().count();
        let mut keys: Vec<_> = found
            .into_iter()
            .filter_map(|meta| {
                let parts: Vec<_> = meta.location.parts().skip(depth).collect();
                let text =
                    parts.iter().map(|part| part.as_ref()).collect::<Vec<&str>>().join("/");
                Key::parse(&text)
            })
            .collect();
        keys.sort_by_key(Key::to_string);
        Ok(keys)
    }

    /// The committed steps of a long job, ascending. Only resuming lists; readers never do.
    pub async fn steps(&self, id: &ArtifactId) -> Result<Vec<u64>> {
        let mut steps: Vec<u64> = self
            .list(&Key::steps_folder(id))
            .await?
            .into_iter()
            .filter_map(|key| if let Key::Step { step, .. } = key { Some(step) } else { None })
            .collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// Every committed artifact, by id. For `ls` and maintenance.
    pub async fn artifacts(&self) -> Result<Vec<ArtifactId>> {
        let keys = self.list(Key::ARTIFACTS).await?;
        Ok(keys
            .into_iter()
            .filter_map(|key| if let Key::Manifest(id) = key { Some(id) } else { None })
            .collect())
    }

    /// Every name, as (pipeline, stage).
    pub async fn names(&self) -> Result<Vec<(String, String)>> {
        let keys = self.list(Key::REFS).await?;
        Ok(keys
            .into_iter()
            .filter_map(|key| match key {
                Key::Ref { pipeline, stage } => Some((pipeline, stage)),
                _ => None,
            })
            .collect())
    }
}
