//! The object store below: requests are repeated with growing pauses until a deadline, and counted.

use std::fmt::{self, Display, Formatter};
use std::future::{Future, ready};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as Cause, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult,
};
use tokio::time::Instant;

use super::Traffic;
use super::failure::{io_kind, s3_code, status};
use crate::entropy;

/// How long a failing request is repeated.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The first pause; each further one is twice as long.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// After that long a request is given up.
    pub deadline: Duration,
    /// The same for a store that has never answered: its URL is probably wrong.
    pub unanswered: Duration,
}

impl Patience {
    /// A server may restart, or ask for less: a job of many hours should not end for it.
    pub const NETWORK: Self = Self {
        first: Duration::from_millis(100),
        longest: Duration::from_secs(10),
        deadline: Duration::from_secs(150),
        unanswered: Duration::from_secs(6),
    };
    /// What fails on a disk rarely passes by itself.
    pub const LOCAL: Self = Self {
        first: Duration::from_millis(20),
        longest: Duration::from_millis(200),
        deadline: Duration::from_secs(1),
        unanswered: Duration::from_secs(1),
    };
}

/// In the place of a store's name: what failed was a file of this machine.
pub(super) const LOCAL_FILE: &str = "file";

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    retries: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// An object store whose requests are repeated and counted.
#[derive(Clone)]
pub(super) struct Client {
    inner: Arc<dyn ObjectStore>,
    /// Where parts of an upload can be sent in any order, and again.
    pub parts: Option<Arc<dyn MultipartStore>>,
    patience: Patience,
    answered: Arc<AtomicBool>,
    counters: Arc<Counters>,
    /// Writes left to a process that is to die after them.
    life: Option<Arc<AtomicU64>>,
}

impl Client {
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        parts: Option<Arc<dyn MultipartStore>>,
        patience: Patience,
    ) -> Self {
        Self {
            inner,
            parts,
            patience,
            answered: Arc::default(),
            counters: Arc::default(),
            life: None,
        }
    }

    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The same store, for a process that dies after that many writes.
    pub fn dying_after(self, writes: u64) -> Self {
        Self { life: Some(Arc::new(AtomicU64::new(writes))), ..self }
    }

    /// The same store, counting from zero.
    pub fn counting_anew(&self) -> Self {
        Self { counters: Arc::default(), ..self.clone() }
    }

    pub fn traffic(&self) -> Traffic {
        let Counters { requests, retries, bytes_read, bytes_written } = &*self.counters;
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            requests: value(requests),
            retries: value(retries),
            bytes_read: value(bytes_read),
            bytes_written: value(bytes_written),
        }
    }

    /// Whether the store ever answered, be it with a refusal.
    pub fn answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Makes a request until it succeeds, fails for good or the deadline passes.
    pub async fn repeat<T, F>(&self, mut request: impl FnMut() -> F) -> Result<T, Cause>
    where
        F: Future<Output = Result<T, Cause>>,
    {
        let started = Instant::now();
        let mut pause = self.patience.first;
        loop {
            add(&self.counters.requests, 1);
            let error = match request().await {
                Ok(value) => {
                    self.answered.store(true, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(error) => error,
            };
            if is_answer(&error) {
                self.answered.store(true, Ordering::Relaxed);
            }
            let limit =
                if self.answered() { self.patience.deadline } else { self.patience.unanswered };
            // Half of it by chance: many clients should not come back at once.
            let wait = pause.mul_f64(0.5 + 0.5 * entropy::jitter());
            if !may_pass(&error) || started.elapsed() + wait > limit {
                return Err(error);
            }
            tracing::debug!("trying again in {wait:?}: {error}");
            tokio::time::sleep(wait).await;
            add(&self.counters.retries, 1);
            pause = (pause * 2).min(self.patience.longest);
        }
    }

    /// An object or a range of it, with what is known of the whole. Its body is part of the
    /// request: when it breaks off, all is asked again. Bodies above `limit` are not read.
    pub async fn fetch(
        &self,
        path: &Path,
        options: GetOptions,
        limit: u64,
    ) -> Result<(GetResult, Bytes), Cause> {
        let keep = |mut kept: Vec<Bytes>, piece| {
            kept.push(piece);
            ready(Ok(kept))
        };
        let (found, mut pieces) = self.fetch_into(path, options, limit, Vec::new, keep).await?;
        let bytes = if pieces.len() == 1 { pieces.remove(0) } else { pieces.concat().into() };
        Ok((found, bytes))
    }

    /// [`Client::fetch`] that gives the body to `take` piece by piece as it comes, beginning anew
    /// with what `begin` makes when it broke off.
    pub async fn fetch_into<T, F>(
        &self,
        path: &Path,
        options: GetOptions,
        limit: u64,
        begin: impl Fn() -> T,
        take: impl Fn(T, Bytes) -> F,
    ) -> Result<(GetResult, T), Cause>
    where
        F: Future<Output = Result<T, Cause>>,
    {
        self.repeat(|| async {
            let GetResult { payload, meta, range, attributes } =
                self.inner.get_opts(path, options.clone()).await?;
            let length = range.end - range.start;
            let found = GetResult {
                payload: GetResultPayload::Stream(stream::empty().boxed()),
                meta: meta.clone(),
                range: range.clone(),
                attributes: attributes.clone(),
            };
            let mut taken = begin();
            if length > limit || options.head {
                return Ok((found, taken));
            }
            let body = GetResult { payload, meta, range, attributes };
            let mut pieces = match body.payload {
                // Its stream would read files in small pieces.
                GetResultPayload::File(..) => stream::once(body.bytes()).boxed(),
                GetResultPayload::Stream(pieces) => pieces,
            };
            let mut arrived = 0;
            while let Some(piece) = pieces.try_next().await? {
                arrived += piece.len() as u64;
                taken = take(taken, piece).await?;
            }
            if arrived != length {
                return Err(cut(arrived, length));
            }
            add(&self.counters.bytes_read, length);
            Ok((found, taken))
        })
        .await
    }

    /// Sends part `index` of multipart upload `id`.
    pub async fn put_part(
        &self,
        parts: &dyn MultipartStore,
        path: &Path,
        id: &String,
        index: usize,
        bytes: Bytes,
    ) -> Result<object_store::multipart::PartId, Cause> {
        let part = self.repeat(|| parts.put_part(path, id, index, bytes.clone().into())).await?;
        self.wrote(bytes.len() as u64);
        Ok(part)
    }

    /// Takes note of a write that is done.
    pub fn wrote(&self, bytes: u64) {
        add(&self.counters.bytes_written, bytes);
        if let Some(life) = &self.life
            && life.fetch_sub(1, Ordering::SeqCst) == 1
        {
            // As by SIGKILL: nothing is flushed, closed or released.
            std::process::abort();
        }
    }
}

fn cut(found: u64, expected: u64) -> Cause {
    let what = format!("{found} of {expected} bytes arrived");
    let source = std::io::Error::new(ErrorKind::UnexpectedEof, what);
    Cause::Generic { store: "store", source: Box::new(source) }
}

/// Whether `error` shows that there is a store which answers.
fn is_answer(error: &Cause) -> bool {
    use Cause::{AlreadyExists, NotFound, NotModified, Precondition};
    matches!(
        error,
        NotFound { .. } | AlreadyExists { .. } | Precondition { .. } | NotModified { .. }
    ) || status(&error.to_string()).is_some_and(|status| status >= 500)
}

/// Whether the same request may succeed in a while.
fn may_pass(error: &Cause) -> bool {
    use ErrorKind::{
        FileTooLarge, InvalidInput, IsADirectory, NotADirectory, PermissionDenied, QuotaExceeded,
        ReadOnlyFilesystem, StorageFull,
    };
    let Cause::Generic { store, .. } = error else { return false };
    if *store == LOCAL_FILE {
        return false;
    }
    let text = error.to_string();
    if let Some(status) = status(&text) {
        // Amazon calls a body that came late or damaged a wrong request.
        let in_transit = matches!(
            s3_code(&text),
            Some("RequestTimeout" | "IncompleteBody" | "BadDigest" | "XAmzContentSHA256Mismatch")
        );
        return in_transit || matches!(status, 200 | 408 | 429 | 500..);
    }
    if text.contains("redirect without LOCATION") {
        return false;
    }
    !matches!(
        io_kind(error),
        Some(
            FileTooLarge
                | InvalidInput
                | IsADirectory
                | NotADirectory
                | PermissionDenied
                | QuotaExceeded
                | ReadOnlyFilesystem
                | StorageFull
        )
    )
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.inner)
    }
}

impl Display for Client {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Client {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult, Cause> {
        let length = payload.content_length() as u64;
        let put =
            self.repeat(|| self.inner.put_opts(path, payload.clone(), options.clone())).await?;
        self.wrote(length);
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>, Cause> {
        self.repeat(|| self.inner.put_multipart_opts(path, options.clone())).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult, Cause> {
        let (found, bytes) = self.fetch(path, options, u64::MAX).await?;
        let payload = GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed());
        Ok(GetResult { payload, ..found })
    }

    /// Objects that are gone already count as deleted.
    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path, Cause>>,
    ) -> BoxStream<'static, Result<Path, Cause>> {
        let client = self.clone();
        let delete = async move {
            let paths: Vec<Path> = paths.try_collect().await?;
            client
                .repeat(|| async {
                    let all = stream::iter(paths.clone()).map(Ok).boxed();
                    let mut deleted = client.inner.delete_stream(all);
                    while let Some(result) = deleted.next().await {
                        match result {
                            Ok(_) | Err(Cause::NotFound { .. }) => {}
                            Err(error) => return Err(error),
                        }
                    }
                    Ok(())
                })
                .await?;
            client.wrote(0);
            Ok::<_, Cause>(stream::iter(paths).map(Ok))
        };
        stream::once(delete).try_flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta, Cause>> {
        let (client, prefix) = (self.clone(), prefix.cloned());
        let list = async move {
            let all = || client.inner.list(prefix.as_ref()).try_collect::<Vec<_>>();
            client.repeat(all).await.map(|found| stream::iter(found).map(Ok))
        };
        stream::once(list).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult, Cause> {
        self.repeat(|| self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<(), Cause> {
        self.repeat(|| self.inner.copy_opts(from, to, options.clone())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Cause {
        Cause::Generic { store: "S3", source: text.into() }
    }

    fn io(kind: ErrorKind) -> Cause {
        Cause::Generic { store: "disk", source: Box::new(std::io::Error::from(kind)) }
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let code = |status: &str, code: &str| {
            generic(&format!("Server returned non-2xx status code: {status}: <Code>{code}</Code>"))
        };
        for error in [
            code("503 Service Unavailable", "SlowDown"),
            code("429 Too Many Requests", "TooManyRequests"),
            code("400 Bad Request", "RequestTimeout"),
            io(ErrorKind::ConnectionReset),
            io(ErrorKind::TimedOut),
            cut(3, 4),
        ] {
            assert!(may_pass(&error), "{error}");
        }
        for error in [
            code("400 Bad Request", "InvalidArgument"),
            code("416 Range Not Satisfiable", "InvalidRange"),
            io(ErrorKind::StorageFull),
            io(ErrorKind::PermissionDenied),
            Cause::NotFound { path: "x".into(), source: "gone".into() },
        ] {
            assert!(!may_pass(&error), "{error}");
        }
    }

    #[tokio::test]
    async fn a_request_is_given_up_at_its_deadline() {
        let millis = Duration::from_millis;
        let patience = Patience {
            first: millis(1),
            longest: millis(5),
            deadline: millis(300),
            unanswered: Duration::ZERO,
        };
        let inner = Arc::new(object_store::memory::InMemory::new());
        let client = Client::new(inner, None, patience);
        let fail = || async { Err::<(), _>(io(ErrorKind::ConnectionRefused)) };
        client.repeat(fail).await.unwrap_err();
        assert_eq!(client.traffic(), Traffic { requests: 1, ..Default::default() });
        client.repeat(|| async { Ok(()) }).await.unwrap();
        client.repeat(fail).await.unwrap_err();
        let traffic = client.traffic();
        assert!(traffic.retries > 0);
        assert_eq!(traffic.requests, traffic.retries + 3);
        assert_eq!(client.counting_anew().traffic(), Traffic::default());
    }
}
