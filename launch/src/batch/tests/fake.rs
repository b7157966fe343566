//! Amazon in the test's process: it throttles, loses answers, and fails jobs as told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aws_sdk_batch::config::SharedHttpClient;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use serde_json::{Value, json};

use super::super::{Batch, Site};
use super::config;

/// What happens to a request instead of its answer.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Refused, nothing done.
    Refused(u16, &'static str),
    /// Done, and the connection lost before the answer.
    Lost,
}

#[derive(Debug, Default)]
pub struct Amazon {
    /// Path without `/v1/`, and body.
    pub calls: Vec<(String, Value)>,
    /// By path, in turn.
    pub faults: VecDeque<(&'static str, Fault)>,
    pub definitions: Vec<Value>,
    /// As DescribeJobs has them; children of arrays among them.
    pub jobs: Vec<Value>,
    pub log: Vec<&'static str>,
}

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
        amazon.calls.push((path.clone(), body.clone()));
        let fault = match amazon.faults.front() {
            Some((on, fault)) if *on == path => Some(*fault),
            _ => None,
        };
        if fault.is_some() {
            amazon.faults.pop_front();
        }
        let (status, answer) = match fault {
            Some(Fault::Refused(status, code)) => {
                (status, json!({"__type": code, "message": code}))
            }
            _ => amazon.answer(&path, &body),
        };
        if let Some(Fault::Lost) = fault {
            return HttpConnectorFuture::ready(Err(ConnectorError::io("connection reset".into())));
        }
        let mut response = HttpResponse::new(status.try_into().unwrap(), answer.to_string().into());
        response.headers_mut().insert("content-type", "application/json");
        HttpConnectorFuture::ready(Ok(response))
    }
}

impl Amazon {
    fn answer(&mut self, path: &str, body: &Value) -> (u16, Value) {
        match path {
            "describejobdefinitions" => {
                let wanted = |one: &&Value| one["jobDefinitionName"] == body["jobDefinitionName"];
                let found: Vec<_> = self.definitions.iter().filter(wanted).collect();
                (200, json!({ "jobDefinitions": found }))
            }
            "registerjobdefinition" => {
                let mut made = body.clone();
                let name = body["jobDefinitionName"].as_str().unwrap();
                let arn = format!("arn:aws:batch:us-east-1:1234:job-definition/{name}:1");
                made["jobDefinitionArn"] = json!(arn);
                self.definitions.push(made);
                (200, json!({"jobDefinitionArn": arn, "jobDefinitionName": name, "revision": 1}))
            }
            "submitjob" => {
                let id = format!("job{}", self.jobs.len());
                let name = &body["jobName"];
                self.jobs.push(json!({
                    "jobId": id, "jobName": name, "jobQueue": body["jobQueue"], "status": "SUBMITTED",
                    "createdAt": 1000 - self.jobs.len(), "startedAt": 0, "jobDefinition": "x",
                    "arrayProperties": body.get("arrayProperties"), "attempts": [],
                }));
                (200, json!({"jobId": id, "jobName": name}))
            }
            "listjobs" => self.list(body),
            "describejobs" => {
                let ids = body["jobs"].as_array().unwrap();
                if ids.len() > 100 {
                    return (400, json!({"__type": "ClientException", "message": "too many"}));
                }
                let found: Vec<_> =
                    self.jobs.iter().filter(|job| ids.contains(&job["jobId"])).collect();
                (200, json!({ "jobs": found }))
            }
            "terminatejob" => {
                let id = &body["jobId"];
                for job in self.jobs.iter_mut().filter(|job| job["jobId"] == *id) {
                    job["status"] = json!("FAILED");
                    job["statusReason"] = body["reason"].clone();
                    job["isTerminated"] = json!(true);
                }
                (200, json!({}))
            }
            "Logs_20140328.GetLogEvents" => {
                let events = self.log.iter().map(|line| json!({"message": line, "timestamp": 0}));
                (200, json!({ "events": events.collect::<Vec<_>>() }))
            }
            other => (404, json!({"message": format!("no {other}")})),
        }
    }

    /// One job a page.
    fn list(&self, body: &Value) -> (u16, Value) {
        let begins = body["filters"][0]["values"][0].as_str().map(|begins| begins.to_lowercase());
        let wanted = |job: &&Value| match (&begins, body["arrayJobId"].as_str()) {
            (Some(begins), _) => {
                let name = job["jobName"].as_str().unwrap().to_lowercase();
                job["jobQueue"] == body["jobQueue"]
                    && name.starts_with(begins.strip_suffix('*').unwrap())
                    && job["arrayProperties"].get("index").is_none()
            }
            (None, Some(array)) => {
                let child = job["jobId"].as_str().unwrap().split_once(':');
                child.is_some_and(|(of, _)| of == array) && job["status"] == body["jobStatus"]
            }
            _ => false,
        };
        let found: Vec<_> = self.jobs.iter().filter(wanted).collect();
        if begins.is_none() {
            return (200, json!({ "jobSummaryList": found }));
        }
        let page: usize = body["nextToken"].as_str().map_or(0, |page| page.parse().unwrap());
        let next = (page + 1 < found.len()).then(|| (page + 1).to_string());
        let shown: Vec<_> = found.into_iter().skip(page).take(1).collect();
        (200, json!({"jobSummaryList": shown, "nextToken": next}))
    }
}
