//! What a server's refusal means: who has to act, and how.

use std::time::Duration;

use chrono::DateTime;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use serde_json::Value;

use super::Endpoint;
use crate::{Error, entropy};

/// Most characters of a server's own words in a message.
const QUOTED: usize = 300;

/// Whether the same request may succeed later.
pub(super) fn passing(status: StatusCode) -> bool {
    let lasting = matches!(status.as_u16(), 501 | 505);
    matches!(status.as_u16(), 408 | 425 | 429) || (status.is_server_error() && !lasting)
}

/// How long the server asks to wait: seconds or a date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    Some((date.to_utc() - entropy::now()).to_std().unwrap_or_default())
}

/// A status that no repetition changes.
pub(super) fn refusal(
    endpoint: &Endpoint,
    model: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Error {
    let place = &endpoint.url;
    if status.is_redirection() {
        let to = headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("another place");
        let to = endpoint.masked(to);
        return Error::usage(format!(
            "{place}: redirected to {to}; set TRIAD_SERVER_URL to where the server is"
        ));
    }
    let advice = match (status.as_u16(), &endpoint.key) {
        (401 | 403, None) => "set TRIAD_SERVER_KEY".to_string(),
        (401 | 403, Some(_)) => "check TRIAD_SERVER_KEY".to_string(),
        (404, _) => format!(
            "check that TRIAD_SERVER_URL is the API's base URL (it mostly ends in /v1) and that \
             the server calls a model `{model}`"
        ),
        (400 | 422, _) => "change the stage's parameters; `server: {fields: openai}` sends no \
                           extensions, `server: {prompt: text}` no token ids"
            .to_string(),
        _ => "check TRIAD_SERVER_URL".to_string(),
    };
    let said = said(endpoint, body);
    Error::usage(format!("{place}: refused ({}){said}; {advice}", status.as_u16()))
}

/// The server's own words, `: ` before them; empty if it said nothing.
pub(super) fn said(endpoint: &Endpoint, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let parsed: Value = serde_json::from_str(&text).unwrap_or_default();
    let places = ["/error/message", "/message", "/detail", "/error"];
    let message = places.iter().find_map(|place| parsed.pointer(place)?.as_str());
    let words: Vec<_> = message.unwrap_or(&text).split_whitespace().collect();
    let mut line = endpoint.masked(&words.join(" "));
    if let Some((end, _)) = line.char_indices().nth(QUOTED) {
        line.truncate(end);
        line.push('…');
    }
    if line.is_empty() { line } else { format!(": {line}") }
}

/// Why no answer came: `Connection refused (os error 111)`.
pub(super) fn unreachable(endpoint: &Endpoint, error: &reqwest::Error) -> String {
    if error.is_timeout() && !error.is_connect() {
        let seconds = endpoint.limits.timeout.as_secs();
        return format!("no answer within {seconds} s (TRIAD_SERVER_TIMEOUT)");
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let what = if error.is_connect() { "not reachable" } else { "connection lost" };
    format!("{what}: {cause}")
}
