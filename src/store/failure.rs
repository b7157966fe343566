//! What a storage error means: who has to act, and how.

use std::error::Error as _;
use std::io::ErrorKind;

use object_store::Error as Cause;

use super::Store;
use super::client::LOCAL_FILE;
use super::credentials::CREDENTIALS;
use crate::Error;

/// An error's text in one line of at most 300 characters.
pub(super) fn one_line(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let words: Vec<_> = text.split_whitespace().collect();
    let mut line = words.join(" ");
    if let Some((end, _)) = line.char_indices().nth(300) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// The innermost cause: `Connection refused (os error 111)`.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The kind of the operating system's error among the causes.
pub(super) fn io_kind(error: &Cause) -> Option<ErrorKind> {
    let mut cause = error.source();
    while let Some(source) = cause {
        if let Some(io) = source.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = source.source();
    }
    None
}

/// The text of `<Code>` in an S3 error.
pub(super) fn s3_code(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<Code>")?;
    rest.split_once("</Code>").map(|(code, _)| code)
}

/// The HTTP status that the client's error text names.
pub(super) fn status(text: &str) -> Option<u16> {
    if text.contains("Server returned error response") {
        return Some(200);
    }
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

impl Store {
    /// Sorts `error`, met at `key`, by who has to act.
    pub(super) fn failure(&self, key: &dyn std::fmt::Display, error: &Cause) -> Error {
        let place = self.place(key);
        if let Cause::Generic { store: LOCAL_FILE, source } = error {
            return Error::try_again(format!("{place}: {source}"));
        }
        let keyless = |why: &dyn std::fmt::Display| {
            format!(
                "{place}: no credentials: {why}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                 or AWS_PROFILE to a profile that has some"
            )
        };
        match error {
            Cause::Generic { store: CREDENTIALS, source } => {
                return Error::try_again(keyless(source));
            }
            Cause::Unauthenticated { path, source } if path == CREDENTIALS => {
                return Error::usage(keyless(source));
            }
            _ => {}
        }
        let text = error.to_string();
        let code = s3_code(&text);
        match code {
            Some("NoSuchBucket") => {
                let bucket = self.url().host_str().unwrap_or_default();
                return Error::usage(format!(
                    "{}: no bucket `{bucket}`{}; create it (`triad bucket init`) or check \
                     the name and AWS_ENDPOINT_URL",
                    self.url(),
                    self.at_endpoint(),
                ));
            }
            Some(
                "AuthorizationHeaderMalformed"
                | "PermanentRedirect"
                | "IllegalLocationConstraintException",
            ) => {
                return Error::usage(format!(
                    "{place}: the bucket is in another region; set AWS_REGION to it"
                ));
            }
            Some("RequestTimeTooSkewed") => {
                return Error::usage(format!(
                    "{place}: access denied (RequestTimeTooSkewed); set this machine's clock"
                ));
            }
            _ => {}
        }
        let denied = matches!(
            code,
            Some(
                "AccessDenied"
                    | "SignatureDoesNotMatch"
                    | "InvalidAccessKeyId"
                    | "InvalidToken"
                    | "ExpiredToken"
            )
        );
        match error {
            Cause::NotFound { .. } => return Error::data(format!("{place}: no such object")),
            Cause::PermissionDenied { .. } | Cause::Unauthenticated { .. } => {
                return self.denied(&place, code);
            }
            _ if denied => return self.denied(&place, code),
            _ => {}
        }
        if text.contains("redirect without LOCATION") {
            return Error::usage(format!(
                "{place}: the bucket is in another region; set AWS_REGION to it"
            ));
        }
        match io_kind(error) {
            Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                return Error::try_again(format!(
                    "{place}: the disk is full; free some space and run the same command again"
                ));
            }
            Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
                return Error::usage(format!(
                    "{place}: {}; check who owns the store's folder, or choose another one",
                    innermost(error)
                ));
            }
            Some(ErrorKind::NotADirectory) => {
                return Error::usage(format!("{place}: a file stands where a folder should be"));
            }
            _ => {}
        }
        let replied = self.client.answered() || status(&text).is_some();
        if replied || self.url().scheme() != "s3" {
            return Error::try_again(format!("{place}: {}", one_line(error)));
        }
        Error::try_again(format!(
            "{place}: not reachable{}: {}; check the network and AWS_ENDPOINT_URL, then run the \
             same command again",
            self.at_endpoint(),
            innermost(error)
        ))
    }

    fn denied(&self, place: &str, code: Option<&str>) -> Error {
        Error::usage(format!(
            "{place}: access denied{}{}; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, \
             AWS_SESSION_TOKEN or AWS_PROFILE, and what they may do in this bucket (`triad bucket \
             check`)",
            code.map(|code| format!(" ({code})")).unwrap_or_default(),
            self.at_endpoint(),
        ))
    }
}
