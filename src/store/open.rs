//! From a URL to an object store: settings and timeouts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ClientConfigKey, RetryConfig};
use url::Url;

use super::bucket::Amazon;
use super::client::Client;
use super::credentials::{self, Chain};
use super::{Patience, Store};
use crate::{Error, Result};

impl Store {
    /// Opens `file:///…`, `s3://bucket/prefix`, `memory://` or a plain local path. Nothing is
    /// read or written yet.
    ///
    /// S3 is set up by the `AWS_*` environment variables: `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, and for servers other than
    /// Amazon's `AWS_ENDPOINT_URL` and `AWS_ALLOW_HTTP`. Region and endpoint may come from the
    /// profile (`AWS_PROFILE`) in `~/.aws/` as well, and credentials from all of Amazon's standard
    /// chain, at the first request. Every `memory://` store is a new, empty one.
    ///
    /// # Errors
    /// [`Error::Usage`] for a URL or settings that cannot work.
    pub fn open(text: &str) -> Result<Self> {
        let settings = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self::open_with(text, settings)
    }

    /// [`Store::open`] with `AWS_*` settings other than the environment's. Without keys among them,
    /// credentials come from where the environment says.
    pub fn open_with(
        text: &str,
        settings: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self> {
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(url::ParseError::RelativeUrlWithoutBase) => directory_url(text)?,
            Err(e) => return Err(Error::usage(format!("store `{text}` is no URL: {e}"))),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::usage(
                "the store's URL holds credentials; give them as AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY instead",
            ));
        }
        match url.scheme() {
            "file" => local(url),
            "memory" => Ok(Self::over(Arc::new(InMemory::new()), url)),
            "s3" => s3(url, settings.into_iter().collect()),
            other => {
                Err(Error::usage(format!("store `{text}`: `{other}` is none of file, s3, memory")))
            }
        }
    }
}

fn directory_url(text: &str) -> Result<Url> {
    let path =
        std::path::absolute(text).map_err(|e| Error::usage(format!("store `{text}`: {e}")))?;
    Url::from_directory_path(&path)
        .map_err(|()| Error::usage(format!("store `{text}` is no path or URL")))
}

fn local(url: Url) -> Result<Store> {
    let unfit = |what: &str| Error::usage(format!("store `{url}`: {what}"));
    let folder = url.to_file_path().map_err(|()| unfit("no local path"))?;
    // Without the final slash, which would make a file look absent.
    let folder: PathBuf = folder.components().collect();
    if folder.exists() && !folder.is_dir() {
        return Err(unfit("a file stands where the store's folder should be"));
    }
    let prefix = Path::from_absolute_path(&folder).map_err(|e| unfit(&e.to_string()))?;
    let disk = Arc::new(LocalFileSystem::new().with_automatic_cleanup(true));
    Ok(Store::new(Client::new(disk, None, Patience::LOCAL), prefix, url, None))
}

fn s3(url: Url, mut settings: BTreeMap<String, String>) -> Result<Store> {
    settings.retain(|_, value| !value.is_empty());
    credentials::complete(&mut settings)?;
    let unfit = |what: String| Error::usage(format!("store `{url}`: {what}"));
    let bucket = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| unfit("no bucket; write s3://BUCKET/PREFIX".into()))?;
    let prefix = Path::from_url_path(url.path()).map_err(|e| unfit(e.to_string()))?;
    let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    let keyless = !keys.iter().all(|name| settings.contains_key(*name));
    let mut builder = AmazonS3Builder::new()
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ConnectTimeout), "3 seconds")
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), "120 seconds");
    for (name, value) in settings {
        if name.starts_with("AWS_")
            && let Ok(key) = name.to_ascii_lowercase().parse()
        {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_bucket_name(bucket);
    let get = |key| builder.get_config_value(&key);
    let endpoint = get(AmazonS3ConfigKey::S3Endpoint).or_else(|| get(AmazonS3ConfigKey::Endpoint));
    let region = get(AmazonS3ConfigKey::Region).unwrap_or_else(|| "us-east-1".into());
    let allow_http = get(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp))
        .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "true" | "1" | "yes"));
    if let Some(address) = &endpoint {
        let parsed = Url::parse(address)
            .map_err(|e| unfit(format!("AWS_ENDPOINT_URL `{address}` is no URL: {e}")))?;
        if parsed.scheme() == "http" && !allow_http {
            return Err(unfit(format!(
                "{address} is not encrypted; set AWS_ALLOW_HTTP=true to use it anyway"
            )));
        }
    }
    if keyless {
        builder = builder.with_credentials(Arc::new(Chain::new(region.clone())));
    }
    // Repeating is the store's own business: it counts the tries, and a broken body is one too.
    let once = RetryConfig { max_retries: 0, ..Default::default() };
    let server = builder.with_retry(once).with_checksum_algorithm(Checksum::SHA256).build();
    let server = Arc::new(server.map_err(|e| {
        unfit(format!("the AWS_* settings do not fit: {}", super::failure::one_line(&e)))
    })?);
    let client = Client::new(server.clone(), Some(server.clone()), Patience::NETWORK);
    let amazon = Amazon { server, bucket: bucket.into(), region, endpoint };
    Ok(Store::new(client, prefix, url.clone(), Some(amazon)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str, settings: &[(&str, &str)]) -> String {
        let settings = settings.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        let error = Store::open_with(text, settings).unwrap_err();
        assert_eq!(error.exit_code(), 64, "{error}");
        error.to_string()
    }

    #[test]
    fn urls_that_cannot_work_are_refused_with_the_reason() {
        assert!(refusal("gs://bucket", &[]).contains("`gs` is none of file, s3, memory"));
        assert!(refusal("s3:///prefix", &[]).contains("no bucket"));
        let said = refusal("s3://AKIA:topsecret@bucket/", &[]);
        assert!(said.contains("AWS_SECRET_ACCESS_KEY") && !said.contains("topsecret"), "{said}");
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(refusal(file.path().to_str().unwrap(), &[]).contains("a file stands where"));
        let http = [("AWS_ENDPOINT_URL", "http://127.0.0.1:1")];
        assert!(refusal("s3://bucket/", &http).contains("AWS_ALLOW_HTTP=true"));
        assert!(refusal("s3://bucket/", &[("AWS_ENDPOINT", "nowhere")]).contains("`nowhere`"));
    }

    #[test]
    fn opening_a_local_store_creates_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store with space");
        let store = Store::open(path.to_str().unwrap()).unwrap();
        assert_eq!(store.url().scheme(), "file");
        assert!(!path.exists());
    }
}
