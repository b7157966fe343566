//! The last lines of a log in CloudWatch Logs.
//!
//! One signed request. *Rejected*: Amazon's crate for it, another hundred operations to build for
//! this one.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_batch::config::{BehaviorVersion, ProvideCredentials};
use aws_sdk_batch::error::SdkError;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use serde_json::{Value, json};

const LINES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(10);
const TYPE: (&str, &str) = ("content-type", "application/x-amz-json-1.1");
const TARGET: (&str, &str) = ("x-amz-target", "Logs_20140328.GetLogEvents");

/// Why there are no lines.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Missing(String);

impl Missing {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// The log's last lines, or how to read them where this client may not.
pub(super) async fn tail(config: &SdkConfig, group: &str, stream: &str) -> String {
    let asked = tokio::time::timeout(PATIENCE, events(config, group, stream)).await;
    match asked.unwrap_or_else(|_| Err(Missing::of("no answer"))) {
        Ok(lines) => lines.join("\n"),
        Err(error) => format!(
            "cannot read the log ({error}); aws logs get-log-events --log-group-name '{group}' \
             --log-stream-name '{stream}' --limit {LINES}"
        ),
    }
}

async fn events(config: &SdkConfig, group: &str, stream: &str) -> Result<Vec<String>, Missing> {
    let region = config.region().map(ToString::to_string).unwrap_or_default();
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let usual = format!("https://logs.{region}.{domain}");
    let endpoint = config.endpoint_url().unwrap_or(&usual).trim_end_matches('/').to_owned();
    let body = json!({
        "logGroupName": group, "logStreamName": stream, "limit": LINES, "startFromHead": false
    });
    let body = body.to_string();

    let provider = config.credentials_provider().ok_or_else(|| Missing::of("no credentials"))?;
    let identity = provider.provide_credentials().await.map_err(Missing::of)?.into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&region)
        .name("logs")
        .time(config.time_source().unwrap_or_default().now())
        .settings(SigningSettings::default())
        .build()
        .map_err(Missing::of)?
        .into();
    let url = format!("{endpoint}/");
    let signable = SignableBody::Bytes(body.as_bytes());
    let signable = SignableRequest::new("POST", &url, [TYPE, TARGET].into_iter(), signable);
    let signed = sign(signable.map_err(Missing::of)?, &params).map_err(Missing::of)?;
    let mut headers: Vec<(String, String)> =
        [TYPE, TARGET].map(|(name, value)| (name.into(), value.into())).into();
    let added = signed.output().headers();
    headers.extend(added.map(|(name, value)| (name.to_owned(), value.to_owned())));

    let client = config.http_client().ok_or_else(|| Missing::of("no HTTP client"))?;
    let operation = Operation::builder()
        .service_name("CloudWatch Logs")
        .operation_name("GetLogEvents")
        .behavior_version(BehaviorVersion::latest())
        .http_client(client)
        .endpoint_url(&endpoint)
        .no_auth()
        .no_retry()
        .serializer(|(headers, body): (Vec<(String, String)>, String)| {
            let mut request = HttpRequest::new(body.into());
            request.set_method("POST")?;
            request.set_uri("/")?;
            for (name, value) in headers {
                request.headers_mut().try_insert(name, value)?;
            }
            Ok(request)
        })
        .deserializer(|answer: &HttpResponse| read(answer).map_err(OrchestratorError::operation))
        .build();
    operation.invoke((headers, body)).await.map_err(|error| match error {
        SdkError::ServiceError(answer) => answer.into_err(),
        other => Missing::of(other),
    })
}

fn read(answer: &HttpResponse) -> Result<Vec<String>, Missing> {
    let bytes = answer.body().bytes().unwrap_or_default();
    let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
    if !answer.status().is_success() {
        let code = value["__type"].as_str().unwrap_or("unknown failure");
        return Err(Missing(format!("{}: {code}", answer.status().as_u16())));
    }
    let events = value["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lines = events.iter().filter_map(|event| event["message"].as_str());
    Ok(lines.map(|line| line.trim_end().to_owned()).collect())
}
