//! Amazon: the one of triad-launch's tests behind HTTP, with machines that run the containers of
//! jobs, by their definitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::amazon::Amazon;
use super::container::{Ended, Machines};
use super::http;
use super::{KEYS, PAUSE, Place, array, text};
use crate::s3_server;

const SECRETS: &str = "arn:aws:secretsmanager:us-east-1:1234:secret:";

pub struct Region {
    service: Service,
    endpoint: String,
    s3: String,
    _runtime: Runtime,
}

impl Place for Region {
    const ON: &'static str = "aws-batch";

    fn start(s3: &s3_server::Server) -> Self {
        let (runtime, service) = (Runtime::new().unwrap(), Service::default());
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(service.clone().serve(listener));
        runtime.spawn(service.clone().schedule());
        Self { service, endpoint, s3: s3.endpoint(), _runtime: runtime }
    }

    fn files(&self) -> Vec<(&'static str, String)> {
        let secrets: Vec<String> =
            KEYS.iter().map(|(name, _)| format!("{name}: '{SECRETS}{name}'")).collect();
        let site = format!(
            "aws_batch:\n  queue: cpus\n  images: {{cpu: 'registry.example/triad:cpu'}}\n  \
             execution_role: 'arn:aws:iam::1234:role/triad'\n  secrets: {{{}}}\n  environment: \
             {{AWS_ENDPOINT_URL: '{}', AWS_ALLOW_HTTP: 'true', AWS_REGION: us-east-1}}\n",
            secrets.join(", "),
            self.s3
        );
        vec![("site.yaml", site)]
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![("AWS_ENDPOINT_URL", self.endpoint.clone()), ("AWS_ENDPOINT_URL_S3", self.s3.clone())]
    }

    fn submitted(&self) -> usize {
        self.service.amazon().calls.iter().filter(|(path, _)| path == "submitjob").count()
    }

    fn machines(&self) -> &Machines {
        &self.service.machines
    }
}

#[derive(Clone, Default)]
struct Service {
    amazon: Arc<Mutex<Amazon>>,
    machines: Machines,
}

impl Service {
    async fn serve(self, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = self.clone();
            tokio::spawn(async move { service.answer(stream).await.ok() });
        }
    }

    async fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let Some(request) = http::read(&mut BufReader::new(reader)).await? else { return Ok(()) };
        let last = request.path.rsplit('/').next().unwrap();
        let path = request.headers.get("x-amz-target").map_or(last, String::as_str);
        let (status, body) = self.amazon().answer(path, &request.body, None);
        http::plain(&mut writer, status, "", &body.to_string()).await
    }

    /// Starts what waits for nothing any more.
    async fn schedule(self) {
        let mut begun = BTreeSet::new();
        loop {
            tokio::time::sleep(PAUSE).await;
            let jobs: Vec<Value> = self.amazon().jobs.clone();
            for job in jobs.iter().filter(|job| job["status"] == "SUBMITTED") {
                let states: Vec<&str> = array(&job["dependsOn"])
                    .map(|on| {
                        let other = jobs.iter().find(|other| other["jobId"] == on["jobId"]);
                        other.unwrap()["status"].as_str().unwrap()
                    })
                    .collect();
                let id = text(&job["jobId"]);
                if states.contains(&"FAILED") {
                    let why = "Dependent Job failed";
                    self.change(&id, json!({ "status": "FAILED", "statusReason": why }));
                } else if states.iter().all(|state| *state == "SUCCEEDED") && begun.insert(id) {
                    tokio::spawn(self.clone().run(job.clone()));
                }
            }
        }
    }

    async fn run(self, job: Value) {
        let id = text(&job["jobId"]);
        let Some(size) = job["arrayProperties"]["size"].as_i64() else {
            return self.attempts(id, None, job).await;
        };
        for index in 0..size {
            let mut child = job.clone();
            child["jobId"] = json!(format!("{id}:{index}"));
            child["arrayProperties"] = json!({ "index": index });
            self.amazon().jobs.push(child);
        }
        let mut children = JoinSet::new();
        for index in 0..size {
            let child = format!("{id}:{index}");
            children.spawn(self.clone().attempts(child, Some(index), job.clone()));
        }
        self.change(&id, json!({ "status": "PENDING" }));
        while children.join_next().await.is_some() {}
        let failed = self.amazon().jobs.iter().any(|child| {
            text(&child["jobId"]).starts_with(&format!("{id}:")) && child["status"] == "FAILED"
        });
        self.change(&id, json!({ "status": if failed { "FAILED" } else { "SUCCEEDED" } }));
    }

    /// Attempts at a job, or at one of an array, by the definition's rules.
    async fn attempts(self, id: String, index: Option<i64>, job: Value) {
        let of = id.split(':').next().unwrap().to_string();
        let definition = {
            let amazon = self.amazon();
            let mut all = amazon.definitions.iter();
            all.find(|one| one["jobDefinitionArn"] == job["jobDefinition"]).unwrap().clone()
        };
        let container = &definition["containerProperties"];
        let mut variables: BTreeMap<String, String> = array(&container["environment"])
            .map(|variable| (text(&variable["name"]), text(&variable["value"])))
            .collect();
        for secret in array(&container["secrets"]) {
            let (name, from) = (text(&secret["name"]), text(&secret["valueFrom"]));
            let named = from.strip_prefix(SECRETS).unwrap();
            let (_, value) = KEYS.iter().find(|(name, _)| *name == named).unwrap();
            variables.insert(name, value.to_string());
        }
        if let Some(index) = index {
            variables.insert("AWS_BATCH_JOB_ARRAY_INDEX".into(), index.to_string());
        }
        let arguments: Vec<String> = array(&job["container"]["command"]).map(text).collect();
        let mut attempts = Vec::new();
        loop {
            self.change(&id, json!({ "status": "RUNNING" }));
            let ended = self.machines.run(&arguments, &variables, || self.is_over(&of)).await;
            let stream = format!("triad/{id}/{}", attempts.len());
            let lines = ended.log.lines().map(String::from).collect();
            self.amazon().logs.insert(stream.clone(), lines);
            let container = json!({ "exitCode": ended.code, "logStreamName": stream });
            attempts.push(json!({ "container": container }));
            self.change(&id, json!({ "container": container, "attempts": attempts }));
            if ended.code == 0 {
                return self.change(&id, json!({ "status": "SUCCEEDED" }));
            }
            let retry = &definition["retryStrategy"];
            let again = attempts.len() < retry["attempts"].as_u64().unwrap() as usize
                && again(&retry["evaluateOnExit"], &ended);
            if self.is_over(&of) || !again {
                let why = "Essential container in task exited";
                return self.change(&id, json!({ "status": "FAILED", "statusReason": why }));
            }
            self.change(&id, json!({ "status": "RUNNABLE" }));
        }
    }

    fn is_over(&self, id: &str) -> bool {
        self.amazon().jobs.iter().any(|job| job["jobId"] == id && job["isTerminated"] == true)
    }

    /// Lays `change` over a job that has not ended.
    fn change(&self, id: &str, change: Value) {
        let mut amazon = self.amazon();
        let job = amazon.jobs.iter_mut().find(|job| job["jobId"] == id).unwrap();
        if job["status"] != "FAILED" {
            job.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        }
    }

    fn amazon(&self) -> MutexGuard<'_, Amazon> {
        self.amazon.lock().unwrap()
    }
}

/// By the first rule of which all that it names fits.
fn again(rules: &Value, ended: &Ended) -> bool {
    let code = ended.code.to_string();
    let status = if ended.lost { "Host EC2 (instance i-1) terminated." } else { "Task exited" };
    let told = [("onExitCode", &*code), ("onStatusReason", status), ("onReason", "")];
    let mut rules = array(rules).filter(|rule| {
        told.iter().all(|(key, said)| match rule[key].as_str() {
            None => true,
            Some(pattern) => match pattern.strip_suffix('*') {
                Some(begins) => said.starts_with(begins),
                None => *said == pattern,
            },
        })
    });
    rules.next().is_none_or(|rule| rule["action"] == "RETRY")
}
