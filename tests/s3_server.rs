//! An S3 server inside the test's process: objects in memory, faults by seed.
//!
//! It knows what triad's client asks: conditional puts, ranges, multipart uploads, listings and
//! bulk deletion. A listing comes in an order of its own, which is not that of the keys. Bodies
//! are checked against the digest that the request was signed with; signatures are not (SeaweedFS
//! is asked about those).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Error, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use triad::entropy::{self, Stream};
use triad::id::digest;
use triad::store::{Patience, Store};
use url::Url;

/// What may happen to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// 500, nothing done.
    InternalError,
    /// 503 SlowDown, nothing done.
    Throttled,
    /// No answer before the client gives up, nothing done.
    TimeOut,
    /// Done, and the connection breaks before the answer.
    AnswerLost,
    /// The connection breaks, nothing done.
    RequestLost,
    /// The answer's body ends early.
    CutBody,
    /// The answer's body pauses half-way.
    SlowBody,
    /// A bit of the answer's body changes.
    FlippedAnswer,
    /// A bit of the request's body changes.
    FlippedRequest,
    /// No request passes for a while.
    Partition,
}

pub const FAULTS: [Fault; 10] = [
    Fault::InternalError,
    Fault::Throttled,
    Fault::TimeOut,
    Fault::AnswerLost,
    Fault::RequestLost,
    Fault::CutBody,
    Fault::SlowBody,
    Fault::FlippedAnswer,
    Fault::FlippedRequest,
    Fault::Partition,
];

/// The credentials that it hands out.
pub const ISSUED: &str = "ISSUED";
pub const ISSUED_SECRET: &str = "an-issued-secret-that-no-message-shows";

/// How long a connection is silent before it breaks, where the client does not give up before.
const SILENCE: Duration = Duration::from_millis(300);
/// How many requests a partition swallows.
const PARTITION: usize = 12;

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    etag: String,
    modified: DateTime<Utc>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    /// Parts by number, of each upload.
    uploads: HashMap<String, BTreeMap<u32, Object>>,
}

/// Which faults happen, and what has happened.
#[derive(Default)]
pub struct Faults {
    pub seed: u64,
    /// Of each request.
    pub probability: f64,
    pub kinds: Vec<Fault>,
    /// How often each request was made: a fault depends on that and the seed alone.
    seen: Mutex<HashMap<String, u64>>,
    /// Requests that the partition still swallows.
    cut: AtomicUsize,
}

pub struct Server {
    address: SocketAddr,
    state: Mutex<State>,
    faults: Mutex<Arc<Faults>>,
    etags: AtomicU64,
    /// Seconds by which its clock goes wrong.
    skew: AtomicI64,
    requests: Mutex<BTreeMap<&'static str, u64>>,
    signers: Mutex<BTreeSet<String>>,
    happened: Mutex<HashMap<Fault, u64>>,
}

impl Drop for Server {
    /// Wakes the thread that accepts, which then finds nobody to serve for.
    fn drop(&mut self) {
        let _ = TcpStream::connect(self.address);
    }
}

struct Request {
    method: String,
    path: String,
    query: HashMap<String, String>,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Server {
    /// A server with an empty bucket.
    pub fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            state: Mutex::default(),
            faults: Mutex::default(),
            etags: AtomicU64::default(),
            skew: AtomicI64::default(),
            requests: Mutex::default(),
            signers: Mutex::default(),
            happened: Mutex::default(),
        });
        let accepting = Arc::downgrade(&server);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let Some(server) = accepting.upgrade() else { break };
                // An error ends the connection, which is what it stands for.
                std::thread::spawn(move || server.serve(connection).ok());
            }
        });
        server
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The store in its bucket, by a client that waits that long for an answer and soon repeats
    /// what failed.
    pub fn store(&self, timeout: Duration) -> Store {
        let settings = [
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", "key".into()),
            ("AWS_SECRET_ACCESS_KEY", "secret".into()),
            ("AWS_TIMEOUT", format!("{}ms", timeout.as_millis())),
        ];
        let settings = settings.map(|(name, value)| (name.to_string(), value));
        let patience = Patience {
            first: Duration::from_millis(1),
            longest: Duration::from_millis(20),
            deadline: Duration::from_secs(20),
            unanswered: Duration::from_secs(20),
        };
        Store::open_with("s3://bucket/some%20prefix", settings).unwrap().with_patience(patience)
    }

    /// From now on each request meets one of `kinds` with this probability.
    pub fn inject(&self, seed: u64, probability: f64, kinds: &[Fault]) {
        let faults = Faults { seed, probability, kinds: kinds.to_vec(), ..Default::default() };
        *self.faults.lock().unwrap() = Arc::new(faults);
    }

    /// Sets its clock that many seconds ahead of ours.
    pub fn set_clock(&self, seconds: i64) {
        self.skew.store(seconds, Ordering::Relaxed);
    }

    /// Requests since the last call, by kind.
    pub fn requests(&self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }

    /// The access keys that requests were signed with, and `+` where a token came along, since the
    /// last call.
    pub fn signers(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.signers.lock().unwrap())
    }

    /// How often each fault has happened.
    pub fn happened(&self) -> HashMap<Fault, u64> {
        self.happened.lock().unwrap().clone()
    }

    /// Uploads that are neither complete nor aborted.
    pub fn uploads(&self) -> usize {
        self.state.lock().unwrap().uploads.len()
    }

    fn serve(&self, connection: TcpStream) -> Result<(), Error> {
        connection.set_nodelay(true)?;
        let mut reader = BufReader::with_capacity(1 << 16, connection.try_clone()?);
        let mut writer = connection;
        while let Some(mut request) = read(&mut reader)? {
            let (fault, mut stream) = self.fault(&request);
            match fault {
                Some(Fault::RequestLost | Fault::Partition) => return Ok(()),
                Some(Fault::TimeOut) => {
                    std::thread::sleep(SILENCE);
                    return Ok(());
                }
                Some(Fault::InternalError) => {
                    error(500, "InternalError").write(&mut writer, true)?;
                    continue;
                }
                Some(Fault::Throttled) => {
                    error(503, "SlowDown").write(&mut writer, true)?;
                    continue;
                }
                Some(Fault::FlippedRequest) => flip(&mut request.body, &mut stream),
                _ => {}
            }
            let head = request.method == "HEAD";
            let mut answer = self.answer(request);
            match fault {
                Some(Fault::AnswerLost) => return Ok(()),
                Some(Fault::FlippedAnswer) => {
                    let mut body = answer.body.to_vec();
                    flip(&mut body, &mut stream);
                    answer.body = body.into();
                }
                Some(Fault::CutBody | Fault::SlowBody) if !answer.body.is_empty() && !head => {
                    let bytes = answer.bytes(true);
                    let half = bytes.len() - answer.body.len() / 2 - 1;
                    writer.write_all(&bytes[..half])?;
                    if fault == Some(Fault::CutBody) {
                        return Ok(());
                    }
                    writer.flush()?;
                    std::thread::sleep(Duration::from_millis(10));
                    writer.write_all(&bytes[half..])?;
                    continue;
                }
                _ => {}
            }
            answer.write(&mut writer, !head)?;
        }
        Ok(())
    }

    /// What happens to this request, and a stream for what it needs to draw.
    fn fault(&self, request: &Request) -> (Option<Fault>, Stream) {
        let faults = self.faults.lock().unwrap().clone();
        // Attempts are named anew by each run: their names say nothing.
        let mut name = format!("{} ", request.method);
        for (i, part) in request.path.split('/').enumerate() {
            let attempt = i > 1 && request.path.split('/').nth(i - 1) == Some("data");
            name.push_str(if attempt { "attempt" } else { part });
            name.push('/');
        }
        name.push_str(request.query.get("partNumber").map_or("", String::as_str));
        let mut seen = faults.seen.lock().unwrap();
        let turn = seen.entry(name.clone()).or_default();
        *turn += 1;
        let mut stream = Stream::new(faults.seed, &name, *turn);
        drop(seen);
        let left = |cut: usize| cut.checked_sub(1);
        if faults.cut.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok() {
            return (Some(Fault::Partition), stream);
        }
        if faults.kinds.is_empty() || !stream.chance(faults.probability) {
            return (None, stream);
        }
        let fault = *stream.choose(&faults.kinds);
        // Of records, a change on the way is found only by their own digest: a listing has none.
        let listing = request.query.contains_key("list-type");
        if fault == Fault::FlippedAnswer && (listing || request.method != "GET") {
            return (None, stream);
        }
        if fault == Fault::Partition {
            faults.cut.store(PARTITION, Ordering::SeqCst);
        }
        *self.happened.lock().unwrap().entry(fault).or_default() += 1;
        (Some(fault), stream)
    }

    fn answer(&self, request: Request) -> Answer {
        if let Some(signed) = request.headers.get("x-amz-content-sha256") {
            let found = ring::digest::digest(&ring::digest::SHA256, &request.body);
            let found: String = found.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            if *signed != found && !signed.starts_with("UNSIGNED") {
                return error(400, "XAmzContentSHA256Mismatch");
            }
        }
        let signed = request.headers.get("authorization").map_or("", String::as_str);
        for key in between(signed, "Credential=", "/") {
            let token = request.headers.contains_key("x-amz-security-token");
            let key = if token { format!("{key}+") } else { key.into() };
            self.signers.lock().unwrap().insert(key);
        }
        let key = match request.path.strip_prefix("/bucket") {
            Some(path) => path.trim_start_matches('/').to_string(),
            None => return issue(&request),
        };
        let has = |name: &str| request.query.contains_key(name);
        let upload = request.query.get("uploadId").cloned();
        let (kind, answer) = match (request.method.as_str(), upload) {
            ("PUT", Some(id)) => ("part", self.put_part(&id, &request)),
            ("PUT", None) if key.is_empty() => ("bucket", xml(String::new())),
            ("PUT", None) => ("put", self.put(key, &request)),
            ("POST", Some(id)) => ("complete", self.complete(key, &id, &request)),
            ("POST", None) if has("uploads") => ("begin", self.begin()),
            ("POST", None) if has("delete") => ("delete", self.delete(&request)),
            ("DELETE", Some(id)) => ("abort", self.abort(&id)),
            ("GET", None) if has("list-type") => ("list", self.list(&request)),
            ("GET", None) => ("get", self.get(&key, &request)),
            ("HEAD", None) => ("head", self.get(&key, &request)),
            _ => ("other", error(501, "NotImplemented")),
        };
        *self.requests.lock().unwrap().entry(kind).or_default() += 1;
        answer
    }

    fn object(&self, bytes: Bytes) -> Object {
        let etag = format!("\"{:x}\"", self.etags.fetch_add(1, Ordering::Relaxed));
        let skew = TimeDelta::seconds(self.skew.load(Ordering::Relaxed));
        Object { bytes, etag, modified: entropy::now() + skew }
    }

    fn put(&self, key: String, request: &Request) -> Answer {
        let mut state = self.state.lock().unwrap();
        let there = state.objects.get(&key).map(|object| object.etag.as_str());
        if request.headers.contains_key("if-none-match") && there.is_some() {
            return error(412, "PreconditionFailed");
        }
        if let Some(etag) = request.headers.get("if-match")
            && there != Some(etag)
        {
            return error(412, "PreconditionFailed");
        }
        let object = self.object(request.body.clone().into());
        let etag = object.etag.clone();
        state.objects.insert(key, object);
        Answer { status: 200, headers: vec![("ETag", etag)], body: Bytes::new() }
    }

    fn begin(&self) -> Answer {
        let id = format!("upload-{}", self.etags.fetch_add(1, Ordering::Relaxed));
        self.state.lock().unwrap().uploads.insert(id.clone(), BTreeMap::new());
        xml(format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId>\
             </InitiateMultipartUploadResult>"
        ))
    }

    fn put_part(&self, id: &str, request: &Request) -> Answer {
        let number = request.query["partNumber"].parse().unwrap();
        let part = self.object(request.body.clone().into());
        let etag = part.etag.clone();
        let mut state = self.state.lock().unwrap();
        let Some(parts) = state.uploads.get_mut(id) else { return error(404, "NoSuchUpload") };
        parts.insert(number, part);
        Answer { status: 200, headers: vec![("ETag", etag)], body: Bytes::new() }
    }

    fn complete(&self, key: String, id: &str, request: &Request) -> Answer {
        let mut state = self.state.lock().unwrap();
        let Some(parts) = state.uploads.get(id) else { return error(404, "NoSuchUpload") };
        let text = String::from_utf8_lossy(&request.body).replace("&quot;", "\"");
        let listed: Vec<_> = between(&text, "<ETag>", "</ETag>");
        let known: Vec<_> = parts.values().map(|part| part.etag.as_str()).collect();
        if listed != known {
            return error(400, "InvalidPart");
        }
        let bytes: Vec<u8> = parts.values().flat_map(|part| part.bytes.to_vec()).collect();
        let object = self.object(bytes.into());
        let etag = object.etag.replace('"', "&quot;");
        state.uploads.remove(id);
        state.objects.insert(key, object);
        xml(format!(
            "<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
        ))
    }

    fn abort(&self, id: &str) -> Answer {
        match self.state.lock().unwrap().uploads.remove(id) {
            Some(_) => Answer { status: 204, headers: Vec::new(), body: Bytes::new() },
            None => error(404, "NoSuchUpload"),
        }
    }

    fn get(&self, key: &str, request: &Request) -> Answer {
        let found = self.state.lock().unwrap().objects.get(key).cloned();
        let Some(Object { bytes, etag, modified }) = found else {
            return error(404, "NoSuchKey");
        };
        let mut headers = vec![
            ("ETag", etag),
            ("Last-Modified", modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string()),
        ];
        let size = bytes.len();
        let Some(range) = request.headers.get("range") else {
            return Answer { status: 200, headers, body: bytes };
        };
        let (from, to) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (from, to) = match (from.parse::<usize>(), to.parse::<usize>()) {
            (Ok(from), Ok(to)) => (from, (to + 1).min(size)),
            (Ok(from), Err(_)) => (from, size),
            (Err(_), Ok(last)) => (size.saturating_sub(last), size),
            _ => return error(400, "InvalidArgument"),
        };
        if from >= size {
            return error(416, "InvalidRange");
        }
        headers.push(("Content-Range", format!("bytes {from}-{}/{size}", to - 1)));
        Answer { status: 206, headers, body: bytes.slice(from..to) }
    }

    /// Pages of 1,000, in the order of the keys' digests.
    fn list(&self, request: &Request) -> Answer {
        let prefix = request.query.get("prefix").cloned().unwrap_or_default();
        let after = request.query.get("continuation-token").cloned().unwrap_or_default();
        let state = self.state.lock().unwrap();
        let mut found: Vec<_> = state
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix))
            .map(|(key, object)| (digest(key.as_bytes()), key, object))
            .filter(|(order, ..)| *order > after)
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let more = found.len() > 1000;
        found.truncate(1000);
        let mut text = "<ListBucketResult>".to_string();
        for (_, key, object) in &found {
            let key = key.replace('&', "&amp;").replace('<', "&lt;");
            let modified = object.modified.format("%Y-%m-%dT%H:%M:%S%.3fZ");
            let (size, etag) = (object.bytes.len(), object.etag.replace('"', "&quot;"));
            text += &format!(
                "<Contents><Key>{key}</Key><LastModified>{modified}</LastModified>\
                 <ETag>{etag}</ETag><Size>{size}</Size></Contents>"
            );
        }
        if let (true, Some((order, ..))) = (more, found.last()) {
            text += &format!("<NextContinuationToken>{order}</NextContinuationToken>");
        }
        xml(text + "</ListBucketResult>")
    }

    fn delete(&self, request: &Request) -> Answer {
        let text = String::from_utf8_lossy(&request.body).into_owned();
        let mut state = self.state.lock().unwrap();
        let mut answer = "<DeleteResult>".to_string();
        for key in between(&text, "<Key>", "</Key>") {
            state.objects.remove(&key.replace("&lt;", "<").replace("&amp;", "&"));
            answer += &format!("<Deleted><Key>{key}</Key></Deleted>");
        }
        xml(answer + "</DeleteResult>")
    }
}

impl Answer {
    fn bytes(&self, with_body: bool) -> Vec<u8> {
        let mut bytes = format!("HTTP/1.1 {} X\r\n", self.status).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", self.body.len()).as_bytes());
        if with_body {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }

    fn write(&self, writer: &mut impl Write, with_body: bool) -> Result<(), Error> {
        writer.write_all(&self.bytes(with_body))?;
        writer.flush()
    }
}

fn xml(body: String) -> Answer {
    Answer {
        status: 200,
        headers: vec![("Content-Type", "application/xml".into())],
        body: body.into(),
    }
}

fn error(status: u16, code: &str) -> Answer {
    Answer { status, ..xml(format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>")) }
}

/// What the services say that hand out credentials: STS, single sign-on, a container's and an
/// instance's.
fn issue(request: &Request) -> Answer {
    let (key, secret, token) = (ISSUED, ISSUED_SECRET, "token");
    let until = "2100-01-01T00:00:00Z";
    let body = match request.path.as_str() {
        "/" => {
            let asked = String::from_utf8_lossy(&request.body).into_owned();
            if asked.contains("forbidden") {
                let body =
                    "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>";
                return Answer { status: 403, ..xml(body.into()) };
            }
            let action = between(&asked, "Action=", "&")[0];
            format!(
                "<{action}Response><{action}Result><AssumedRoleUser><AssumedRoleId>a</AssumedRoleId>\
                 <Arn>arn:aws:sts::1:assumed-role/a/b</Arn></AssumedRoleUser><Credentials>\
                 <AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
                 <SessionToken>{token}</SessionToken><Expiration>{until}</Expiration></Credentials>\
                 </{action}Result></{action}Response>"
            )
        }
        "/federation/credentials" => serde_json::json!({"roleCredentials": {
            "accessKeyId": key, "secretAccessKey": secret, "sessionToken": token,
            "expiration": 4_102_444_800_000_u64,
        }})
        .to_string(),
        "/latest/api/token" => "instance".into(),
        "/latest/meta-data/iam/security-credentials/" => "role".into(),
        "/latest/meta-data/iam/security-credentials/role" | "/container" => serde_json::json!({
            "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
            "AccessKeyId": key, "SecretAccessKey": secret, "Token": token, "Expiration": until,
        })
        .to_string(),
        _ => return error(404, "NoSuchBucket"),
    };
    let life = ("x-aws-ec2-metadata-token-ttl-seconds", "21600".into());
    Answer { status: 200, headers: vec![life], body: body.into() }
}

fn flip(body: &mut [u8], stream: &mut Stream) {
    if !body.is_empty() {
        let bit = stream.below(body.len() * 8);
        body[bit / 8] ^= 1 << (bit % 8);
    }
}

/// The texts between each `open` and the next `close`.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    text.split(open).skip(1).filter_map(|rest| rest.split(close).next()).collect()
}

/// The next request of a connection; `None` at its end.
fn read(reader: &mut impl BufRead) -> Result<Option<Request>, Error> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(Error::from(ErrorKind::InvalidData));
    };
    let url = Url::parse(&format!("http://localhost{target}")).map_err(Error::other)?;
    let path = target.split('?').next().unwrap_or_default();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
    }
    let length = headers.get("content-length").map_or(Ok(0), |length| length.parse::<usize>());
    let mut body = vec![0; length.map_err(Error::other)?];
    reader.read_exact(&mut body)?;
    Ok(Some(Request {
        method: method.into(),
        path: decoded(path),
        query: url.query_pairs().into_owned().collect(),
        headers,
        body,
    }))
}

fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
