//! Amazon in the place of the client's HTTP.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aws_sdk_batch::config::SharedHttpClient;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use serde_json::Value;

use super::super::{Batch, Site};
use super::amazon::{Amazon, Fault};
use super::config;

#[derive(Debug, Clone, Default)]
pub struct Fake(Arc<Mutex<Amazon>>);

impl Fake {
    pub fn batch(&self, site: Site) -> Batch {
        let config = config(self.client(), "https://fake.example");
        Batch::with_pause(site, &config, Duration::from_millis(1)).unwrap()
    }

    fn client(&self) -> SharedHttpClient {
        let connector = SharedHttpConnector::new(self.clone());
        http_client_fn(move |_, _| connector.clone())
    }

    pub fn amazon(&self) -> MutexGuard<'_, Amazon> {
        self.0.lock().unwrap()
    }

    /// Bodies of the calls to `path`.
    pub fn calls(&self, path: &str) -> Vec<Value> {
        let calls = &self.amazon().calls;
        calls.iter().filter(|(to, _)| to == path).map(|(_, body)| body.clone()).collect()
    }

    /// Lays `change` over a job.
    pub fn change(&self, id: &str, change: Value) {
        let mut amazon = self.amazon();
        let job = amazon.jobs.iter_mut().find(|job| job["jobId"] == id).unwrap();
        for (key, value) in change.as_object().unwrap() {
            job[key] = value.clone();
        }
    }
}

impl HttpConnector for Fake {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = serde_json::from_slice(request.body().bytes().unwrap_or_default());
        let body = body.unwrap_or(Value::Null);
        let path = match request.headers().get("x-amz-target") {
            Some(target) => {
                let signed = request.headers().get("authorization").unwrap_or_default();
                assert!(signed.contains("/us-east-1/logs/aws4_request"), "{signed}");
                target.to_owned()
            }
            None => request.uri().rsplit('/').next().unwrap_or_default().to_owned(),
        };
        let mut amazon = self.amazon();
        let fault = amazon.fault(&path);
        let (status, answer) = amazon.answer(&path, &body, fault);
        if let Some(Fault::Lost) = fault {
            return HttpConnectorFuture::ready(Err(ConnectorError::io("connection reset".into())));
        }
        let mut response = HttpResponse::new(status.try_into().unwrap(), answer.to_string().into());
        response.headers_mut().insert("content-type", "application/json");
        HttpConnectorFuture::ready(Ok(response))
    }
}
