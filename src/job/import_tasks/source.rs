//! Files on this machine, on the web and in buckets.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value};

use crate::dataset::{read_csv, read_objects};
use crate::store::Files;
use crate::{Error, Result};

/// Bytes of one file.
const LARGEST: u64 = 4 << 30;

/// A file's contents. `path` is relative to the current directory, or a URL of `https`, `http` or
/// `s3`.
pub fn read(path: &str) -> Result<Bytes> {
    let Some((scheme, rest)) = path.split_once("://") else {
        let bytes = std::fs::read(path).map_err(|e| {
            Error::usage(format!("{path}: {e}; `paths` are relative to the current directory"))
        })?;
        return Ok(bytes.into());
    };
    match scheme {
        "https" | "http" => apart(get(path)),
        "s3" => apart(async {
            let (folder, name) = rest.rsplit_once('/').unwrap_or((rest, ""));
            let files = Files::open(&format!("s3://{folder}"))?;
            let size = files.size(name).await?;
            let size = size.ok_or_else(|| Error::usage(format!("{path} does not exist")))?;
            files.read_range(name, size, 0..size).await
        }),
        other => Err(Error::usage(format!(
            "{path}: `{other}` is none of https, http, s3; a file on this machine has no scheme"
        ))),
    }
}

/// Plans are made within a runtime as well as outside of one.
fn apart<F>(work: F) -> Result<Bytes>
where
    F: Future<Output = Result<Bytes>> + Send,
{
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(Error::defect)?.block_on(work)
        });
        thread.join().map_err(|_| Error::defect("a download's thread died"))?
    })
}

async fn get(url: &str) -> Result<Bytes> {
    let fail = |e: reqwest::Error| Error::try_again(format!("{url}: {}", e.without_url()));
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(60))
        .build()
        .map_err(|e| Error::defect(format!("HTTP client: {e}")))?;
    let mut response = client.get(url).send().await.map_err(fail)?;
    let status = response.status();
    if !status.is_success() {
        let what = format!("{url}: the server answers {status}");
        let later = status.is_server_error() || status.as_u16() == 429;
        return Err(if later { Error::try_again(what) } else { Error::usage(what) });
    }
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(fail)? {
        body.extend_from_slice(&piece);
        if body.len() as u64 > LARGEST {
            return Err(Error::usage(format!("{url} has more than {LARGEST} bytes")));
        }
    }
    Ok(body.into())
}

/// The rows of a file, which gzip may have packed: CSV by its name, anything else by its first
/// bytes.
pub fn rows(path: &str, mut bytes: Bytes) -> Result<Vec<Map<String, Value>>> {
    let name = path.split(['?', '#']).next().unwrap_or(path);
    let name = name.strip_suffix(".gz").unwrap_or(name);
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = Vec::new();
        let read = MultiGzDecoder::new(&bytes[..]).take(LARGEST + 1).read_to_end(&mut unpacked);
        read.map_err(|e| Error::data(format!("{path}: gzip: {e}")))?;
        if unpacked.len() as u64 > LARGEST {
            return Err(Error::usage(format!("{path} has more than {LARGEST} bytes, unpacked")));
        }
        bytes = unpacked.into();
    }
    let csv = Path::new(name).extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
    let rows = if csv { read_csv(&bytes) } else { read_objects(bytes) };
    rows.map_err(|e| e.at(path))
}
