//! Who signs the requests to S3: Amazon's standard chain, asked at the first request.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::profile;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{HttpClient, Region};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_types::os_shim_internal::{Env, Fs};
use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use object_store::aws::AwsCredential;
use object_store::client::{HttpConnector as _, HttpErrorKind, ReqwestConnector};
use object_store::{ClientOptions, CredentialProvider, Error as Cause};
use tokio::sync::Mutex;

use super::failure::one_line;
use crate::{Error, Result, entropy};

/// In the place of a store's name: what failed was to get credentials.
pub(super) const CREDENTIALS: &str = "credentials";

/// No part of the chain is waited for longer.
const LIMIT: Duration = Duration::from_secs(12);
/// That long before they expire, credentials are renewed.
const MARGIN: TimeDelta = TimeDelta::minutes(1);

/// Adds to `settings` the region and the endpoint of the profile where they have none.
///
/// # Errors
/// [`Error::Usage`] for a profile that was asked for and is not there, or files that are none.
pub(super) fn complete(settings: &mut BTreeMap<String, String>) -> Result<()> {
    let environment = Env::from(settings.clone().into_iter().collect::<HashMap<_, _>>());
    let (files, usual) = (Fs::real(), Default::default());
    // It never waits: the files are read at once.
    let profiles = profile::load(&files, &environment, &usual, None).now_or_never();
    let profiles = profiles
        .ok_or_else(|| Error::defect("reading ~/.aws/ waits"))?
        .map_err(|e| Error::usage(one_line(&causes(&e))))?;
    if let Some(name) = settings.get("AWS_PROFILE")
        && profiles.get_profile(name).is_none()
    {
        return Err(Error::usage(format!(
            "AWS_PROFILE: no profile `{name}` in ~/.aws/credentials or ~/.aws/config"
        )));
    }
    let variables = [
        ("region", &["AWS_REGION", "AWS_DEFAULT_REGION"][..]),
        ("endpoint_url", &["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"]),
    ];
    for (key, variables) in variables {
        if let Some(value) = profiles.get(key)
            && !variables.iter().any(|name| settings.contains_key(*name))
        {
            settings.insert(variables[0].into(), value.into());
        }
    }
    Ok(())
}

/// The environment, the profile (keys, role, process), a web identity, the container, the instance:
/// whichever has credentials first. They are kept until they expire.
#[derive(Debug)]
pub(super) struct Chain {
    region: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What has had credentials before remembers how it got them.
    chain: Option<DefaultCredentialsChain>,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    credential: Arc<AwsCredential>,
    expires: Option<DateTime<Utc>>,
}

impl Chain {
    pub fn new(region: String) -> Self {
        Self { region, state: Mutex::default() }
    }

    async fn build(&self) -> DefaultCredentialsChain {
        let config = ProviderConfig::without_region()
            .with_http_client(http_client())
            .with_retry_config(RetryConfig::disabled());
        let region = Region::new(self.region.clone());
        DefaultCredentialsChain::builder().configure(config).region(region).build().await
    }
}

#[async_trait]
impl CredentialProvider for Chain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> Result<Arc<AwsCredential>, Cause> {
        let State { chain, held } = &mut *self.state.lock().await;
        if let Some(Held { credential, expires }) = held
            && expires.is_none_or(|at| entropy::now() + MARGIN < at)
        {
            return Ok(credential.clone());
        }
        let asked = match chain.take() {
            Some(chain) => chain,
            None => self.build().await,
        };
        let found = tokio::time::timeout(LIMIT, asked.provide_credentials()).await;
        let found = found.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(LIMIT)));
        // One that has never had any is of no further use: it does not look again.
        if found.is_ok() || held.is_some() {
            *chain = Some(asked);
        }
        let found = found.map_err(|error| {
            let source = why(&error).into();
            match may_pass(&error) || held.is_some() {
                true => Cause::Generic { store: CREDENTIALS, source },
                false => Cause::Unauthenticated { path: CREDENTIALS.into(), source },
            }
        })?;
        let credential = Arc::new(AwsCredential {
            key_id: found.access_key_id().into(),
            secret_key: found.secret_access_key().into(),
            token: found.session_token().map(Into::into),
        });
        let expires = found.expiry().map(Into::into);
        *held = Some(Held { credential: credential.clone(), expires });
        Ok(credential)
    }
}

/// Whether somebody else has to act: a service is out of reach, or has enough to do.
fn may_pass(error: &CredentialsError) -> bool {
    let text = causes(error);
    let passing = ["dispatch failure", "timed out", "timeout", "Throttling", "ServiceUnavailable"];
    !matches!(error, CredentialsError::CredentialsNotLoaded(_))
        && passing.iter().any(|words| text.contains(words))
}

fn why(error: &CredentialsError) -> String {
    if let CredentialsError::CredentialsNotLoaded(_) = error {
        return "AWS_ACCESS_KEY_ID is not set, ~/.aws/ has no profile with any, and neither a web \
                identity nor this machine has a role"
            .into();
    }
    let text = one_line(&causes(error));
    let advice = match () {
        () if text.contains("SSO token") => " (run `aws sso login`)",
        () if text.contains("credentials-login") => {
            " (run eval \"$(aws configure export-credentials --format env)\")"
        }
        () => "",
    };
    text + advice
}

/// What lies below an error that itself says nothing.
fn causes(error: &dyn std::error::Error) -> String {
    let mut texts = Vec::new();
    let mut cause = error.source();
    while let Some(source) = cause {
        if !source.is::<CredentialsError>() {
            texts.push(source.to_string());
        }
        cause = source.source();
    }
    if texts.is_empty() { error.to_string() } else { texts.join(": ") }
}

/// What Amazon's other services are asked with: region, credentials and endpoint by its standard rules.
pub async fn amazon() -> SdkConfig {
    let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client());
    loader.load().await
}

/// The SDK's requests, sent by the client that sends object_store's.
pub(super) fn http_client() -> impl HttpClient + 'static {
    http_client_fn(|settings, _| {
        let options = ClientOptions::new()
            // The services of containers and instances have nothing else.
            .with_allow_http(true)
            .with_connect_timeout(settings.connect_timeout().unwrap_or(Duration::from_secs(3)))
            .with_timeout(settings.read_timeout().unwrap_or(Duration::from_secs(30)));
        SharedHttpConnector::new(Connector(options))
    })
}

#[derive(Debug)]
struct Connector(ClientOptions);

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let options = self.0.clone();
        HttpConnectorFuture::new(async move {
            let client = ReqwestConnector::default()
                .connect(&options)
                .map_err(|e| ConnectorError::other(e.into(), None))?;
            let request = request.try_into_http1x().map_err(|e| ConnectorError::user(e.into()))?;
            let request = request.map(|body| body.bytes().unwrap_or_default().to_vec().into());
            let answer = client.execute(request).await.map_err(|e| match e.kind() {
                HttpErrorKind::Timeout => ConnectorError::timeout(e.into()),
                _ => ConnectorError::io(e.into()),
            })?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|e| ConnectorError::other(e.into(), None))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(given: &[(&str, &str)], files: [&str; 2]) -> Result<BTreeMap<String, String>> {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        for (name, text) in ["config", "credentials"].into_iter().zip(files) {
            std::fs::write(home.path().join(".aws").join(name), text).unwrap();
        }
        let mut settings: BTreeMap<_, _> =
            given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        settings.insert("HOME".into(), home.path().display().to_string());
        complete(&mut settings)?;
        settings.remove("HOME");
        Ok(settings)
    }

    const CONFIG: &str = "[default]\nregion = eu-west-1\n[profile work]\nregion=eu-north-1\n\
                          endpoint_url = https://s3.work\n";
    const CREDENTIALS: &str =
        "# mine\n[default]\naws_access_key_id = D\naws_secret_access_key=d/+=\n";

    #[test]
    fn region_and_endpoint_come_from_the_environment_then_from_the_profile() {
        let files = [CONFIG, CREDENTIALS];
        let set = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
        };
        // The keys are left to the chain.
        assert_eq!(completed(&[], files).unwrap(), set(&[("AWS_REGION", "eu-west-1")]));
        for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
            let given = [(name, "us-east-2")];
            assert_eq!(completed(&given, files).unwrap(), set(&given));
        }
        let work = [("AWS_PROFILE", "work"), ("AWS_REGION", "eu-north-1")];
        let there = ("AWS_ENDPOINT_URL", "https://s3.work");
        assert_eq!(completed(&work[..1], files).unwrap(), set(&[work[0], work[1], there]));
        let given = [work[0], work[1], ("AWS_ENDPOINT_URL_S3", "https://elsewhere")];
        assert_eq!(completed(&given, files).unwrap(), set(&given));
        assert!(completed(&[], ["", ""]).unwrap().is_empty());
    }

    #[test]
    fn a_profile_that_is_asked_for_must_be_there_and_the_files_profiles() {
        let error = completed(&[("AWS_PROFILE", "none")], [CONFIG, CREDENTIALS]).unwrap_err();
        assert!(error.to_string().contains("no profile `none`"), "{error}");
        let error = completed(&[], ["[default\nregion = x", ""]).unwrap_err();
        assert_eq!(error.exit_code(), 64);
        let text = error.to_string();
        assert!(text.contains("/.aws/config on line 1") && !text.contains('\n'), "{text}");
    }
}
