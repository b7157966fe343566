//! An object store in memory that asks before each request what shall become of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as Cause, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult,
};
use triad::entropy::Stream;
use triad::store::Store;
use url::Url;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Put,
    /// A put under a condition.
    PutIf,
    Get,
    Delete,
    List,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Pass,
    /// Not done.
    Fail(std::io::ErrorKind),
    /// Done, but the answer gets lost.
    AnswerLost,
    /// Done, and done again because the answer got lost.
    Repeated,
    /// A body that ends early.
    Cut,
    /// This bit of the body changes.
    Flip(usize),
}

type Hook = dyn Fn(Operation, Path) -> BoxFuture<'static, Fate> + Send + Sync;

pub struct Hooked {
    inner: Arc<InMemory>,
    hook: Arc<Hook>,
}

/// A store in `inner` of which `hook` decides each request's fate. A deletion of many asks for
/// each.
pub fn hooked(
    inner: &Arc<InMemory>,
    hook: impl Fn(Operation, Path) -> BoxFuture<'static, Fate> + Send + Sync + 'static,
) -> Store {
    let hooked = Hooked { inner: inner.clone(), hook: Arc::new(hook) };
    Store::over(Arc::new(hooked), Url::parse("test://bucket/run").unwrap())
}

pub fn io(kind: std::io::ErrorKind) -> Cause {
    Cause::Generic { store: "test", source: Box::new(std::io::Error::from(kind)) }
}

/// A store in `inner` whose requests fail by `seed`: what becomes of one depends on what it asks and
/// how often that was asked.
pub fn unreliable(inner: &Arc<InMemory>, seed: u64, probability: f64) -> Store {
    use std::io::ErrorKind::{ConnectionReset, TimedOut};
    let seen: Mutex<HashMap<String, u64>> = Mutex::default();
    hooked(inner, move |operation, path| {
        // Attempts are named anew by each run.
        let parts: Vec<_> = path.parts().map(|part| part.as_ref().to_string()).collect();
        let attempt = parts.iter().position(|part| part == "data").map(|at| at + 1);
        let named = parts.iter().enumerate().filter(|(at, _)| Some(*at) != attempt);
        let name = named.map(|(_, part)| part.as_str()).collect::<Vec<_>>().join("/");
        let name = format!("{operation:?} {name}");
        let turn = {
            let mut seen = seen.lock().unwrap();
            let turn = seen.entry(name.clone()).or_default();
            *turn += 1;
            *turn
        };
        let mut stream = Stream::new(seed, &name, turn);
        let fate = if stream.chance(probability) {
            match (operation, stream.below(5)) {
                (_, 0) => Fate::Fail(ConnectionReset),
                (_, 1) => Fate::Fail(TimedOut),
                (Operation::Put | Operation::PutIf, 2 | 3) => Fate::AnswerLost,
                (Operation::Put | Operation::PutIf, _) => Fate::Repeated,
                (Operation::Get, 2 | 3) => Fate::Cut,
                (Operation::Get, _) => Fate::Flip(stream.next_u64() as usize >> 1),
                _ => Fate::Pass,
            }
        } else {
            Fate::Pass
        };
        Box::pin(async move { fate })
    })
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hooked store")
    }
}

impl std::fmt::Display for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hooked store")
    }
}

#[async_trait]
impl ObjectStore for Hooked {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult, Cause> {
        let operation = match options.mode {
            PutMode::Overwrite => Operation::Put,
            _ => Operation::PutIf,
        };
        let fate = (self.hook)(operation, path.clone()).await;
        match fate {
            Fate::Fail(kind) => return Err(io(kind)),
            Fate::AnswerLost => {
                self.inner.put_opts(path, payload, options).await?;
                return Err(io(std::io::ErrorKind::TimedOut));
            }
            Fate::Repeated => {
                self.inner.put_opts(path, payload.clone(), options.clone()).await?;
            }
            Fate::Pass | Fate::Cut | Fate::Flip(_) => {}
        }
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>, Cause> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult, Cause> {
        let fate = (self.hook)(Operation::Get, path.clone()).await;
        if let Fate::Fail(kind) = fate {
            return Err(io(kind));
        }
        let found = self.inner.get_opts(path, options).await?;
        let (meta, range, attributes) =
            (found.meta.clone(), found.range.clone(), found.attributes.clone());
        let mut bytes = found.bytes().await?.to_vec();
        let mut parts = Vec::new();
        match fate {
            Fate::Flip(bit) if !bytes.is_empty() => {
                let bit = bit % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                parts.push(Ok(bytes.into()));
            }
            Fate::Cut => {
                bytes.truncate(bytes.len() / 2);
                parts.push(Ok(bytes.into()));
                parts.push(Err(io(std::io::ErrorKind::UnexpectedEof)));
            }
            _ => parts.push(Ok(bytes.into())),
        }
        let payload = GetResultPayload::Stream(stream::iter(parts).boxed());
        Ok(GetResult { payload, meta, range, attributes })
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path, Cause>>,
    ) -> BoxStream<'static, Result<Path, Cause>> {
        let (inner, hook) = (self.inner.clone(), self.hook.clone());
        let delete = async move {
            let paths: Vec<Path> = paths.try_collect().await?;
            for path in &paths {
                if let Fate::Fail(kind) = hook(Operation::Delete, path.clone()).await {
                    return Err(io(kind));
                }
            }
            Ok(inner.delete_stream(stream::iter(paths).map(Ok).boxed()))
        };
        stream::once(delete).try_flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta, Cause>> {
        let (inner, hook) = (self.inner.clone(), self.hook.clone());
        let prefix = prefix.cloned();
        let list = async move {
            let fate = hook(Operation::List, prefix.clone().unwrap_or_default()).await;
            match fate {
                Fate::Fail(kind) => Err(io(kind)),
                _ => Ok(inner.list(prefix.as_ref())),
            }
        };
        stream::once(list).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult, Cause> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<(), Cause> {
        self.inner.copy_opts(from, to, options).await
    }
}
