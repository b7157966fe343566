//! The server that samples, as flags and environment give it.

use std::time::Duration;

use super::{Globals, environment};
use crate::server::{Endpoint, Limits};
use crate::{Error, Result};

/// None: none is given.
pub(super) fn endpoint(globals: &Globals) -> Result<Option<Endpoint>> {
    let Some(url) = globals.server.as_deref().filter(|url| !url.is_empty()) else {
        return Ok(None);
    };
    let mut limits = Limits::default();
    if let Some(number) = number(environment::SERVER_CONCURRENCY)? {
        limits.concurrency = number as usize;
    }
    if let Some(seconds) = number(environment::SERVER_PATIENCE)? {
        limits.patience = Duration::from_secs(seconds.into());
    }
    if let Some(seconds) = number(environment::SERVER_TIMEOUT)? {
        limits.timeout = Duration::from_secs(seconds.into());
    }
    let key = match std::env::var(environment::SERVER_KEY) {
        Ok(key) => Some(key),
        Err(std::env::VarError::NotPresent) => None,
        Err(_) => return Err(Error::usage(format!("{} is no text", environment::SERVER_KEY))),
    };
    Endpoint::new(url, key.as_deref(), limits).map(Some)
}

/// A whole number above 0.
fn number(name: &str) -> Result<Option<u32>> {
    let Some(text) = std::env::var_os(name).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let text = text.to_string_lossy();
    match text.trim().parse() {
        Ok(number) if number > 0 => Ok(Some(number)),
        _ => Err(Error::usage(format!("{name}=`{text}`: a whole number above 0 is needed"))),
    }
}
