//! Where a server is, and how hard it may be worked: no part of what is asked.

use std::time::Duration;

use reqwest::header::HeaderValue;
use url::Url;

use crate::{Error, Result};

/// How a server may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests in flight at a time.
    pub concurrency: usize,
    /// How long a request is tried again while the server completes nothing.
    pub patience: Duration,
    /// How long one completion may take.
    pub timeout: Duration,
}

impl Default for Limits {
    /// Patience for a server's restart with a large model; time for a long chain of thought on a
    /// busy server.
    fn default() -> Self {
        Self {
            concurrency: 32,
            patience: Duration::from_secs(300),
            timeout: Duration::from_secs(1800),
        }
    }
}

/// A server's address and key. The key shows in no message, nor in `Debug`.
#[derive(Clone)]
pub struct Endpoint {
    /// Of the completions.
    pub(super) url: Url,
    pub(super) key: Option<String>,
    pub limits: Limits,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({}, {:?})", self.url, self.limits)
    }
}

impl Endpoint {
    /// `base` is the API's base URL, `http://127.0.0.1:8000/v1`; `key` its bearer token.
    ///
    /// # Errors
    /// [`Error::Usage`] for a URL or key that cannot work.
    pub fn new(base: &str, key: Option<&str>, limits: Limits) -> Result<Self> {
        let unfit = |what: &str| {
            Error::usage(format!(
                "server `{base}`: {what}; give the API's base URL, such as http://127.0.0.1:8000/v1"
            ))
        };
        let mut url = Url::parse(base).map_err(|e| unfit(&format!("no URL: {e}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::usage(
                "the server's URL holds credentials; give the key as TRIAD_SERVER_KEY instead",
            ));
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(unfit("neither http nor https"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(unfit("`?` and `#` have no place in it"));
        }
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("completions");
        }
        let key = key.map(str::trim).filter(|key| !key.is_empty()).map(str::to_string);
        let endpoint = Self { url, key, limits };
        endpoint.authorization()?;
        Ok(endpoint)
    }

    pub(super) fn authorization(&self) -> Result<Option<HeaderValue>> {
        let Some(key) = &self.key else { return Ok(None) };
        let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
            Error::usage("TRIAD_SERVER_KEY holds characters that no HTTP header may hold")
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// `text` without the key, which a server may have sent back.
    pub(super) fn masked(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(key.as_str(), "[key]"),
            None => text.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(base: &str, key: Option<&str>) -> Result<Endpoint> {
        Endpoint::new(base, key, Limits::default())
    }

    #[test]
    fn completions_lie_below_the_base_url() {
        for base in ["http://h:8000/v1", "http://h:8000/v1/"] {
            assert_eq!(endpoint(base, None).unwrap().url.as_str(), "http://h:8000/v1/completions");
        }
        assert_eq!(endpoint("https://h", None).unwrap().url.as_str(), "https://h/completions");
    }

    #[test]
    fn what_cannot_work_is_refused_and_the_key_never_shown() {
        let refusal = |base: &str, key| endpoint(base, key).unwrap_err().to_string();
        assert!(refusal("nowhere", None).contains("no URL"));
        assert!(refusal("ftp://h/v1", None).contains("neither http nor https"));
        assert!(refusal("http://h/v1?key=1", None).contains("`?`"));
        let said = refusal("https://me:hush@h/v1", None);
        assert!(said.contains("TRIAD_SERVER_KEY") && !said.contains("hush"), "{said}");
        let said = refusal("http://h/v1", Some("hu\nsh"));
        assert!(said.contains("TRIAD_SERVER_KEY") && !said.contains("sh,"), "{said}");
        let endpoint = endpoint("http://h/v1", Some("hush\n")).unwrap();
        let shown = format!("{endpoint:?} {:?}", endpoint.authorization().unwrap().unwrap());
        assert!(!shown.contains("hush"), "{shown}");
        assert_eq!(endpoint.masked("wrong key hush."), "wrong key [key].");
    }
}
