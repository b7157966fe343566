//! An API server in this process: Jobs with watches, pods, logs, events, and faults on demand.
//!
//! It keeps what clients see of the real one: resource versions that grow, 409 for names and
//! preconditions, watches that begin at a version and expire, deletion that waits for pods. Tests
//! are the controller.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::http::{Request, chunk, plain, read, status};
use super::rules;

pub const NAMESPACE: &str = "team";
const JOBS: &str = "/apis/batch/v1/namespaces/team/jobs";
const PODS: &str = "/api/v1/namespaces/team/pods";
const EVENTS: &str = "/api/v1/namespaces/team/events";

/// What a request gets instead of an answer.
#[derive(Debug, Clone)]
pub enum Fault {
    Status(u16, &'static str, &'static str),
    /// With a header.
    Later(u16, &'static str),
    /// No answer at all.
    Cut,
    /// It is done, and the answer is lost.
    CutAfter,
}

#[derive(Default)]
pub struct Cluster {
    version: u64,
    pub jobs: BTreeMap<String, Value>,
    pub pods: Vec<Value>,
    pub events: Vec<Value>,
    pub logs: BTreeMap<String, String>,
    changes: Vec<(u64, &'static str, Value)>,
    /// Watches from before it have expired.
    oldest: u64,
    /// For requests whose method and path these are.
    pub faults: Vec<(&'static str, &'static str, Fault)>,
    pub requests: Vec<Request>,
    /// How long a job that is deleted in the foreground waits for its pods.
    pub lingering: Duration,
}

#[derive(Clone)]
pub struct Server {
    pub cluster: Arc<Mutex<Cluster>>,
    changed: Arc<watch::Sender<u64>>,
    address: std::net::SocketAddr,
    running: Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>,
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            cluster: Arc::default(),
            changed: Arc::new(watch::channel(0).0),
            address: listener.local_addr().unwrap(),
            running: Arc::default(),
        };
        server.serve(listener);
        server
    }

    fn serve(&self, listener: TcpListener) {
        let server = self.clone();
        let task = tokio::spawn(async move {
            // Ends with this task: a server that stops cuts its connections.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = server.clone();
                connections.spawn(async move {
                    let _ = server.answer(stream).await;
                });
            }
        });
        *self.running.lock().unwrap() = Some(task);
    }

    /// Objects stay, as they do in etcd.
    pub async fn stop(&self) {
        let task = self.running.lock().unwrap().take().unwrap();
        task.abort();
        let _ = task.await;
    }

    pub async fn again(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(err) if Instant::now() > end => panic!("{err}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        self.serve(listener);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// As a controller does: changes a job, if it is still there, and tells those who watch.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut cluster = self.cluster.lock().unwrap();
        let Some(mut job) = cluster.jobs.get(name).cloned() else { return };
        change(&mut job);
        cluster.put("MODIFIED", job);
        self.tell(&cluster);
    }

    pub fn status(&self, name: &str, status: Value) {
        self.change(name, |job| job["status"] = status);
    }

    /// Compacts what watches could go on from, and ends those that are open.
    pub async fn forget(&self) {
        {
            let mut cluster = self.cluster.lock().unwrap();
            cluster.version += 1;
            cluster.oldest = cluster.version;
            cluster.changes.clear();
        }
        self.stop().await;
        self.again().await;
    }

    pub fn fault(&self, method: &'static str, path: &'static str, fault: Fault) {
        self.cluster.lock().unwrap().faults.push((method, path, fault));
    }

    /// The requests of a method whose path ends so.
    pub fn asked(&self, method: &str, end: &str) -> Vec<Request> {
        let cluster = self.cluster.lock().unwrap();
        let fits = |request: &&Request| request.method == method && request.path.ends_with(end);
        cluster.requests.iter().filter(fits).cloned().collect()
    }

    fn tell(&self, cluster: &Cluster) {
        self.changed.send_replace(cluster.version);
    }

    async fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let Some(request) = read(&mut reader).await? else { return Ok(()) };
        assert!(request.body.is_null() || request.headers["content-type"] == "application/json");
        let fault = {
            let mut cluster = self.cluster.lock().unwrap();
            cluster.requests.push(request.clone());
            let wanted = |(method, path, _): &(&str, &str, Fault)| {
                let watch = request.query.contains_key("watch");
                let method = if watch { *method == "WATCH" } else { *method == request.method };
                method && request.path.contains(path)
            };
            cluster.faults.iter().position(wanted).map(|at| cluster.faults.remove(at).2)
        };
        match fault {
            Some(Fault::Cut) => return Ok(()),
            Some(Fault::CutAfter) => {
                self.result(&request);
                return Ok(());
            }
            Some(Fault::Status(code, reason, message)) => {
                return plain(&mut writer, code, "", &status(code, reason, message)).await;
            }
            Some(Fault::Later(code, header)) => {
                return plain(&mut writer, code, header, "too many requests").await;
            }
            None => {}
        }
        if request.path == JOBS && request.query.contains_key("watch") {
            return self.watch(&request, &mut writer).await;
        }
        let (code, body) = self.result(&request);
        plain(&mut writer, code, "", &body).await
    }

    fn result(&self, request: &Request) -> (u16, String) {
        let mut cluster = self.cluster.lock().unwrap();
        let answer = cluster.result(request);
        self.tell(&cluster);
        if answer.0 == 200 && request.method == "DELETE" {
            self.collect(&request.path, cluster.lingering);
        }
        answer
    }

    /// What the garbage collector does with a job that waits for its pods.
    fn collect(&self, path: &str, after: Duration) {
        let (server, name) = (self.clone(), path.rsplit('/').next().unwrap().to_string());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let mut cluster = server.cluster.lock().unwrap();
            let job = cluster.jobs.get(&name);
            if job.is_some_and(|job| job["metadata"]["deletionTimestamp"].is_string()) {
                let job = cluster.jobs.remove(&name).unwrap();
                cluster.put("DELETED", job);
                server.tell(&cluster);
            }
        });
    }

    async fn watch<W: AsyncWriteExt + Unpin>(
        &self,
        request: &Request,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer
            .write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
            )
            .await?;
        let mut since: u64 = request.query["resourceVersion"].parse().unwrap();
        let mut changed = self.changed.subscribe();
        let seconds = request.query.get("timeoutSeconds").map_or(60, |text| text.parse().unwrap());
        let end = tokio::time::sleep(Duration::from_secs(seconds));
        tokio::pin!(end);
        loop {
            changed.borrow_and_update();
            let (lines, expired) = {
                let cluster = self.cluster.lock().unwrap();
                let new: Vec<_> =
                    cluster.changes.iter().filter(|change| change.0 > since).collect();
                let lines: String = new
                    .iter()
                    .filter(|change| selected(&change.2, &request.query))
                    .map(|change| {
                        json!({ "type": change.1, "object": change.2 }).to_string() + "\n"
                    })
                    .collect();
                since = new.last().map_or(since, |change| change.0);
                (lines, since < cluster.oldest)
            };
            if expired {
                let gone: Value =
                    serde_json::from_str(&status(410, "Expired", "too old resource version"))
                        .unwrap();
                let line = json!({ "type": "ERROR", "object": gone }).to_string() + "\n";
                chunk(writer, &line).await?;
                break;
            }
            if !lines.is_empty() {
                chunk(writer, &lines).await?;
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = &mut end => break,
            }
        }
        writer.write_all(b"0\r\n\r\n").await
    }
}

impl Cluster {
    /// A change of a job, as watches see it.
    fn put(&mut self, kind: &'static str, mut job: Value) {
        self.version += 1;
        job["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if kind != "DELETED" {
            let name = job["metadata"]["name"].as_str().unwrap().to_string();
            self.jobs.insert(name, job.clone());
        }
        self.changes.push((self.version, kind, job));
    }

    fn result(&mut self, request: &Request) -> (u16, String) {
        let named = request.path.strip_prefix(JOBS).and_then(|rest| rest.strip_prefix('/'));
        let missing = |what: &str| (404, status(404, "NotFound", &format!("{what} not found")));
        match (&*request.method, &*request.path, named) {
            ("POST", JOBS, _) => self.create(request.body.clone()),
            ("GET", JOBS, _) => {
                let all: Vec<Value> = self.jobs.values().cloned().collect();
                self.list("JobList", "batch/v1", all, &request.query)
            }
            ("GET", _, Some(name)) => match self.jobs.get(name) {
                Some(job) => (200, job.to_string()),
                None => missing(&format!("jobs.batch \"{name}\"")),
            },
            ("DELETE", _, Some(name)) => match self.jobs.get(name).cloned() {
                Some(job) => self.delete(job, &request.body),
                None => missing(&format!("jobs.batch \"{name}\"")),
            },
            ("GET", PODS, _) => self.list("PodList", "v1", self.pods.clone(), &request.query),
            ("GET", EVENTS, _) => self.list("EventList", "v1", self.events.clone(), &request.query),
            ("GET", path, _) if path.starts_with(PODS) && path.ends_with("/log") => {
                let pod = path.strip_prefix(PODS).unwrap().trim_matches('/');
                match self.logs.get(pod.strip_suffix("/log").unwrap()) {
                    Some(log) => {
                        let lines: Vec<&str> = log.lines().collect();
                        let tail: usize = request.query["tailLines"].parse().unwrap();
                        (200, lines[lines.len().saturating_sub(tail)..].join("\n"))
                    }
                    None => missing("the pod's node"),
                }
            }
            (method, path, _) => panic!("the client has no business with {method} {path}"),
        }
    }

    fn create(&mut self, mut job: Value) -> (u16, String) {
        let broken = rules::job(&job);
        if !broken.is_empty() {
            return (422, status(422, "Invalid", &broken.join("; ")));
        }
        let name = job["metadata"]["name"].as_str().unwrap().to_string();
        if self.jobs.contains_key(&name) {
            let said = format!("jobs.batch \"{name}\" already exists");
            return (409, status(409, "AlreadyExists", &said));
        }
        job["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        job["metadata"]["namespace"] = json!(NAMESPACE);
        job["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        job["status"] = json!({});
        self.put("ADDED", job);
        (201, self.jobs[&name].to_string())
    }

    fn delete(&mut self, mut job: Value, options: &Value) -> (u16, String) {
        let wanted = &options["preconditions"]["uid"];
        if !wanted.is_null() && *wanted != job["metadata"]["uid"] {
            return (409, status(409, "Conflict", "the UID in the precondition is another"));
        }
        if options["propagationPolicy"] == "Foreground" {
            job["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:01Z");
            self.put("MODIFIED", job.clone());
            return (200, job.to_string());
        }
        assert_eq!(options["propagationPolicy"], "Background", "pods would be orphaned");
        self.jobs.remove(job["metadata"]["name"].as_str().unwrap());
        self.put("DELETED", job);
        (200, json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }).to_string())
    }

    fn list(
        &self,
        kind: &str,
        version: &str,
        all: Vec<Value>,
        query: &BTreeMap<String, String>,
    ) -> (u16, String) {
        let fits: Vec<Value> = all.into_iter().filter(|object| selected(object, query)).collect();
        // As continue tokens do, ours says where to go on.
        let start: usize = query.get("continue").map_or(0, |token| token.parse().unwrap());
        let limit = query.get("limit").map_or(usize::MAX, |limit| limit.parse().unwrap());
        let end = fits.len().min(start.saturating_add(limit));
        let mut metadata = json!({ "resourceVersion": self.version.max(1).to_string() });
        if end < fits.len() {
            metadata["continue"] = json!(end.to_string());
        }
        let page = &fits[start.min(end)..end];
        let list =
            json!({ "kind": kind, "apiVersion": version, "metadata": metadata, "items": page });
        (200, list.to_string())
    }
}

/// Whether labels and fields are as the query selects.
fn selected(object: &Value, query: &BTreeMap<String, String>) -> bool {
    let pairs = |key: &str| {
        let text = query.get(key).cloned().unwrap_or_default();
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_string(), value.to_string())).collect::<Vec<_>>()
    };
    let label = |(key, value): (String, String)| object["metadata"]["labels"][key] == *value;
    let field = |(path, value): (String, String)| {
        path.split('.').fold(object, |object, key| &object[key]) == &json!(value)
    };
    pairs("labelSelector").into_iter().all(label) && pairs("fieldSelector").into_iter().all(field)
}
