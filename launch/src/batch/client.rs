//! Amazon's client, and what its failures mean.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_batch::Client;
use aws_sdk_batch::config::Builder;
use aws_sdk_batch::config::retry::RetryConfig;
use aws_sdk_batch::config::timeout::TimeoutConfig;
use aws_sdk_batch::error::{ProvideErrorMetadata, SdkError};

use crate::{Error, Result};

/// Tries of one request, throttled ones among them.
const TRIES: u32 = 8;
/// The longest pause between two of them.
const LONGEST: Duration = Duration::from_secs(20);
/// One try is given up after that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// `pause` is the first between tries, about.
pub(super) fn connect(config: &SdkConfig, pause: Duration) -> Result<Client> {
    if config.region().is_none() {
        return Err(Error::Usage("AWS Batch: no region; set AWS_REGION".into()));
    }
    let retry = RetryConfig::standard().with_max_attempts(TRIES);
    let retry = retry.with_initial_backoff(pause).with_max_backoff(LONGEST);
    let timeout = TimeoutConfig::builder().operation_attempt_timeout(PATIENCE).build();
    let config = Builder::from(config).retry_config(retry).timeout_config(timeout);
    Ok(Client::from_conf(config.build()))
}

pub(super) fn failure<E>(call: &str, error: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let SdkError::ServiceError(answer) = error else {
        let text = format!("AWS Batch: {call}: {}", causes(error));
        // What gives no credentials does not give them later.
        return match text.contains("redential") {
            true => Error::Usage(text),
            false => Error::TryAgain(text),
        };
    };
    let (code, message) = (answer.err().code(), answer.err().message());
    let said = [code, message].into_iter().flatten().collect::<Vec<_>>().join(": ");
    let status = answer.raw().status().as_u16();
    let throttled = status == 429
        || code.is_some_and(|code| {
            code.contains("Throttling")
                || code.contains("TooManyRequests")
                || code.contains("LimitExceeded")
        });
    let text = format!("AWS Batch: {call}: {}", one_line(&said));
    if throttled || status >= 500 { Error::TryAgain(text) } else { Error::Usage(text) }
}

/// An answer that lacks what it has to hold.
pub(super) fn unfinished(call: &str) -> Error {
    Error::Defect(format!("AWS Batch: {call}: no id in the answer"))
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(source) = cause {
        texts.push(source.to_string());
        cause = source.source();
    }
    texts.dedup();
    one_line(&texts.join(": "))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
