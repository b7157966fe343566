//! Amazon in the test's process: it throttles, loses answers, and fails jobs as told.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

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
    /// Lines by log stream.
    pub logs: BTreeMap<String, Vec<String>>,
}

impl Amazon {
    /// What the next request to `path` meets.
    pub fn fault(&mut self, path: &str) -> Option<Fault> {
        let (_, fault) = self.faults.pop_front_if(|(on, _)| *on == path)?;
        Some(fault)
    }

    pub fn answer(&mut self, path: &str, body: &Value, fault: Option<Fault>) -> (u16, Value) {
        self.calls.push((path.into(), body.clone()));
        if let Some(Fault::Refused(status, code)) = fault {
            return (status, json!({"__type": code, "message": code}));
        }
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
                    "createdAt": 1000 - self.jobs.len(), "startedAt": 0,
                    "jobDefinition": body["jobDefinition"], "dependsOn": body.get("dependsOn"),
                    "container": body.get("containerOverrides"),
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
                let lines = self.logs.get(body["logStreamName"].as_str().unwrap());
                let events = lines.into_iter().flatten();
                let events = events.map(|line| json!({"message": line, "timestamp": 0}));
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
