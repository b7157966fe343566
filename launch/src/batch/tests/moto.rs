//! The client against moto's server, and what is rendered against Amazon's own model of the calls.

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use aws_config::SdkConfig;
use aws_sdk_batch::Client;
use aws_sdk_batch::types::{CeType, ComputeEnvironmentOrder, JqState};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::Batch;
use super::{config, order, rendered, site};
use crate::order::Order;
use crate::scheduler::{Job, Scheduler, State};

/// Plain HTTP to loopback, a connection each.
#[derive(Debug, Clone)]
struct Plain;

impl HttpConnector for Plain {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(async move {
            exchange(request).await.map_err(|e| ConnectorError::io(e.into()))
        })
    }
}

async fn exchange(request: HttpRequest) -> std::io::Result<HttpResponse> {
    let rest = request.uri().strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let body = request.body().bytes().unwrap_or_default();
    let mut text = format!("{} /{path} HTTP/1.1\r\nhost: {host}\r\n", request.method());
    for (name, value) in request.headers().iter() {
        if !["host", "content-length"].contains(&name) {
            text += &format!("{name}: {value}\r\n");
        }
    }
    text += &format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let mut stream = TcpStream::connect(host).await?;
    stream.write_all(&[text.as_bytes(), body].concat()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut response = HttpResponse::new(status.try_into().unwrap(), body.to_owned().into());
    for line in head.lines().skip(1) {
        let (name, value) = line.split_once(": ").unwrap();
        response.headers_mut().insert(name.to_lowercase(), value.to_owned());
    }
    Ok(response)
}

struct Moto {
    process: Child,
    url: String,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn python() -> Command {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let modules = root.parent().unwrap().join(".tools/moto");
    assert!(modules.is_dir(), "{} is missing; run infra/tools.sh", modules.display());
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", modules)
        .env("AWS_ACCESS_KEY_ID", "x")
        .env("AWS_SECRET_ACCESS_KEY", "x");
    command.env("AWS_REGION", "us-east-1").env("AWS_DEFAULT_REGION", "us-east-1");
    command
}

impl Moto {
    /// With queues `cpu` and `gpu`. Jobs end at once, all of them alike, unless `runs`: then they
    /// would run in containers.
    async fn start(fails: bool, runs: bool) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let program = "import sys; from moto.server import main; main(sys.argv[1:])";
        let mut command = python();
        command.args(["-c", program, "-H", "127.0.0.1", "-p", &port.to_string()]);
        if fails {
            command.env("MOTO_SIMPLE_BATCH_FAIL_AFTER", "0");
        }
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let moto = Self { process, url: format!("http://127.0.0.1:{port}") };
        let mut tries = 0;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tries += 1;
            assert!(tries < 600, "moto does not start");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let body = json!({"batch": {"use_docker": runs}}).to_string();
        moto.call("POST", "/moto-api/config", &[], &body).await;
        let role =
            "Action=CreateRole&Version=2010-05-08&RoleName=batch&AssumeRolePolicyDocument=%7B%7D";
        let form = [("content-type", "application/x-www-form-urlencoded"), signed("iam")];
        moto.call("POST", "/", &form, role).await;
        let client = Client::new(&moto.config());
        let made = client.create_compute_environment().compute_environment_name("machines");
        let made = made.r#type(CeType::Unmanaged);
        made.service_role("arn:aws:iam::123456789012:role/batch").send().await.unwrap();
        for name in ["cpu", "gpu"] {
            let on = ComputeEnvironmentOrder::builder().order(1).compute_environment("machines");
            let queue = client.create_job_queue().job_queue_name(name).priority(1);
            let queue = queue.state(JqState::Enabled);
            queue.compute_environment_order(on.build()).send().await.unwrap();
        }
        moto
    }

    fn config(&self) -> SdkConfig {
        let connector = SharedHttpConnector::new(Plain);
        config(http_client_fn(move |_, _| connector.clone()), &self.url)
    }

    fn batch(&self) -> Batch {
        Batch::with_pause(site(), &self.config(), Duration::from_millis(10)).unwrap()
    }

    /// What Amazon's client does not do for us.
    async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&'static str, &'static str)],
        body: &str,
    ) -> Value {
        let mut request = HttpRequest::new(body.into());
        request.set_method(method).unwrap();
        request.set_uri(format!("{}{path}", self.url)).unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, *value);
        }
        let answer = exchange(request).await.unwrap();
        let text = String::from_utf8_lossy(answer.body().bytes().unwrap()).into_owned();
        assert!(answer.status().is_success(), "{path}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    async fn batch_call(&self, path: &str, body: Value) -> Value {
        self.call("POST", &format!("/v1/{path}"), &[signed("batch")], &body.to_string()).await
    }

    /// Writes a log, as a container's.
    async fn log(&self, group: &str, stream: &str, lines: &[&str]) {
        // What is weeks old is not taken.
        let now = u64::try_from(UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
        let events: Vec<_> =
            lines.iter().map(|line| json!({"timestamp": now, "message": line})).collect();
        for (action, body) in [
            ("Logs_20140328.CreateLogGroup", json!({"logGroupName": group})),
            (
                "Logs_20140328.CreateLogStream",
                json!({"logGroupName": group, "logStreamName": stream}),
            ),
            (
                "Logs_20140328.PutLogEvents",
                json!({"logGroupName": group, "logStreamName": stream, "logEvents": events}),
            ),
        ] {
            let headers = [
                ("content-type", "application/x-amz-json-1.1"),
                ("x-amz-target", action),
                signed("logs"),
            ];
            let _ = self.call("POST", "/", &headers, &body.to_string()).await;
        }
    }
}

/// By which moto tells services apart.
fn signed(service: &str) -> (&'static str, &'static str) {
    let value = match service {
        "iam" => "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/iam/aws4_request",
        "logs" => "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/logs/aws4_request",
        _ => "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/batch/aws4_request",
    };
    ("authorization", value)
}

async fn submit_all(batch: &Batch, order: &Order) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    for (position, task) in order.tasks.iter().enumerate() {
        let after: Vec<_> = task.after.iter().map(|&from| jobs[from].clone()).collect();
        jobs.push(batch.submit(order, position, &after).await.unwrap());
    }
    jobs
}

/// All that `part` says stands in `whole` too.
fn within(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|other| within(value, other)))
        }
        (Value::Array(part), Value::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(a, b)| within(a, b))
        }
        // moto writes actions in lower case.
        (Value::String(part), Value::String(whole)) => part.eq_ignore_ascii_case(whole),
        _ => part == whole,
    }
}

#[tokio::test]
async fn jobs_are_submitted_and_end_well() {
    let moto = Moto::start(false, false).await;
    let (batch, order) = (moto.batch(), order());
    let jobs = submit_all(&batch, &order).await;
    assert_eq!(batch.states(&jobs).await.unwrap(), vec![State::Succeeded; 3]);
    // Nothing that has ended is found; of ids that nobody knows nothing is known.
    assert_eq!(batch.find(&order).await.unwrap(), [None, None, None]);
    let gone = Job { name: "7d1c9c44-0000-4000-8000-000000000000".into() };
    assert_eq!(batch.states(&[gone]).await.unwrap(), [State::Gone]);

    let expected = rendered(&order, &site());
    let registered = moto.batch_call("describejobdefinitions", json!({"status": "ACTIVE"})).await;
    let registered = registered["jobDefinitions"].as_array().unwrap();
    let definitions = expected["jobDefinitions"].as_array().unwrap();
    assert_eq!(registered.len(), definitions.len());
    for definition in definitions {
        let found = registered.iter().find(|one| within(definition, one));
        assert!(found.is_some(), "{definition:#}\nin {registered:#?}");
    }
    let told = moto.batch_call("describejobs", json!({"jobs": [jobs[1].name, jobs[2].name]})).await;
    let told = told["jobs"].as_array().unwrap();
    let [verify, update] = [1, 2]
        .map(|at| told.iter().find(|job| job["jobId"] == *jobs[at].name).unwrap_or(&Value::Null));
    assert_eq!(verify["arrayProperties"]["size"], 2);
    assert_eq!(verify["dependsOn"], json!([{"jobId": jobs[0].name}]));
    for (job, at) in [(verify, 1), (update, 2)] {
        let submission = &expected["submissions"][at];
        assert_eq!(job["jobName"], submission["jobName"]);
        assert_eq!(job["container"]["command"], submission["containerOverrides"]["command"]);
        assert!(within(&submission["tags"], &job["tags"]), "{job:#}");
    }

    // A second run of all of it: other jobs, the same definitions.
    let again = submit_all(&moto.batch(), &order).await;
    assert!(again.iter().all(|job| !jobs.contains(job)));
    let registered = moto.batch_call("describejobdefinitions", json!({})).await;
    assert_eq!(registered["jobDefinitions"].as_array().unwrap().len(), definitions.len());
}

#[tokio::test]
async fn a_job_that_failed_shows_its_log() {
    let moto = Moto::start(true, false).await;
    let (batch, order) = (moto.batch(), order());
    let one = batch.submit(&order, 2, &[]).await.unwrap();
    let told = moto.batch_call("describejobs", json!({"jobs": [one.name]})).await;
    let stream = told["jobs"][0]["attempts"][0]["container"]["logStreamName"].as_str().unwrap();
    moto.log("/aws/batch/job", stream, &["first", "last"]).await;
    let states = batch.states(std::slice::from_ref(&one)).await.unwrap();
    let State::Failed(failure) = &states[0] else { panic!("{states:?}") };
    assert_eq!(failure.log, "first\nlast");
    assert_eq!(batch.find(&order).await.unwrap(), [None, None, None]);
}

#[tokio::test]
async fn what_waits_is_found_again_and_cancelled() {
    let moto = Moto::start(false, true).await;
    let (batch, order) = (moto.batch(), order());
    // moto knows no such job, and waits for it.
    let upstream = Job { name: "7d1c9c44-0000-4000-8000-000000000000".into() };
    let waiting = batch.submit(&order, 2, &[upstream]).await.unwrap();
    let again = moto.batch();
    assert_eq!(again.find(&order).await.unwrap(), [None, None, Some(waiting.clone())]);
    assert_eq!(again.submit(&order, 2, &[]).await.unwrap(), waiting);
    let states = again.states(std::slice::from_ref(&waiting)).await.unwrap();
    assert!(matches!(&states[0], State::Waiting(_)), "{states:?}");

    again.cancel(std::slice::from_ref(&waiting)).await.unwrap();
    for _ in 0..100 {
        let states = batch.states(std::slice::from_ref(&waiting)).await.unwrap();
        if let State::Failed(failure) = &states[0] {
            assert!(failure.reason.contains("triad cancel"), "{failure:?}");
            assert_eq!(again.find(&order).await.unwrap(), [None, None, None]);
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("still waits");
}

/// Amazon's own client knows every key and type of these calls, and refuses what it does not know.
#[tokio::test]
async fn what_is_rendered_is_what_amazons_own_client_takes() {
    let moto = Moto::start(false, false).await;
    let program = "
import boto3, json, sys
batch = boto3.client('batch', endpoint_url=sys.argv[1])
rendered = json.load(sys.stdin)
for definition in rendered['jobDefinitions']:
    batch.register_job_definition(**definition)
ids = {}
for job in rendered['submissions']:
    for one in job.get('dependsOn', []):
        one['jobId'] = ids[one['jobId']]
    ids['${%s}' % job['jobName']] = batch.submit_job(**job)['jobId']
print(json.dumps(list(ids.values())))
";
    let mut child = python()
        .args(["-c", program, &moto.url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut order = order();
    order.tasks[0].resources.time = Some(Duration::from_secs(60));
    let site = super::Site { log_group: "triad".into(), ..site() };
    let text = rendered(&order, &site).to_string();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let ended = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    let ids: Vec<String> = serde_json::from_slice(&ended.stdout).unwrap();
    let jobs: Vec<_> = ids.into_iter().map(|name| Job { name }).collect();
    assert_eq!(moto.batch().states(&jobs).await.unwrap(), vec![State::Succeeded; 3]);
}
