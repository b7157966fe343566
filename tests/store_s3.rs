//! The store contract on a real S3 server, and what a user meets when the server says no.

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use triad::store::{Artifact, Attempt, Store, check};

use crate::program::command;
use crate::s3_faults::TINY;
use crate::store::{conformance, data_key, id, manifest};

const SECRET: &str = "a-secret-that-no-message-shows";

/// SeaweedFS on loopback. It lives as long as its standard input is open, so it ends with this
/// process however that ends.
struct Server {
    port: u16,
    access_key: String,
    _shell: Child,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        // Another process may take a port between our look and the server's start.
        for _ in 0..3 {
            if let Some(server) = Server::start() {
                return server;
            }
        }
        panic!("SeaweedFS did not start in three tries");
    })
}

const SCRIPT: &str = r#"
"$WEED" -logtostderr=true mini -dir="$DIR" -ip=127.0.0.1 -ip.bind=127.0.0.1 \
  -master.telemetry=false -webdav=false -admin.ui=false \
  -s3.config="$DIR/s3.json" -bucket=triad -s3.autoCreateBucket=false \
  -s3.port=$1 -s3.port.grpc=$2 -s3.port.iceberg=0 -s3.port.lance=0 \
  -master.port=$3 -master.port.grpc=$4 -volume.port=$5 -volume.port.grpc=$6 \
  -filer.port=$7 -filer.port.grpc=$8 -admin.port=$9 -admin.port.grpc=${10} \
  >"$DIR/log" 2>&1 &
server=$!
read -r _
kill -9 $server
wait $server
for port in "$@"; do rm -f /tmp/seaweedfs-*-$port.sock; done
rm -rf "$DIR"
"#;

impl Server {
    fn start() -> Option<Self> {
        let weed = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/seaweedfs/bin/weed");
        assert!(weed.exists(), "{} is missing; run `make setup`", weed.display());
        let access_key = triad::entropy::attempt_name();
        let dir = tempfile::tempdir().unwrap().keep();
        let config = serde_json::json!({"identities": [{
            "name": "test",
            "credentials": [{"accessKey": access_key, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        std::fs::write(dir.join("s3.json"), config.to_string()).unwrap();
        let held: Vec<_> = (0..10).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<_> = held.iter().map(|l| l.local_addr().unwrap().port()).collect();
        drop(held);
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "s3-server"])
            .args(ports.iter().map(u16::to_string))
            .env("WEED", &weed)
            .env("DIR", &dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = |shell| Self { port: ports[0], access_key, _shell: shell };
        let deadline = Instant::now() + Duration::from_secs(60);
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], ports[0]));
        while Instant::now() < deadline {
            // The bucket is made after the port opens: the log tells.
            let up = std::net::TcpStream::connect(address).is_ok();
            let mut log = String::new();
            if let Ok(mut file) = std::fs::File::open(dir.join("log")) {
                file.read_to_string(&mut log).ok();
            }
            if up && log.contains("created bucket triad") {
                return Some(server(shell));
            }
            if shell.try_wait().unwrap().is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(shell.stdin.take());
        shell.wait().unwrap();
        None
    }

    fn settings(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", self.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .to_vec()
    }

    /// The store at `url` with some settings changed.
    fn store(&self, url: &str, changes: &[(&str, &str)]) -> Store {
        let mut settings = self.settings();
        settings.extend(changes.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        Store::open_with(url, settings).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_store() {
    conformance(&server().store("s3://triad/some/prefix", &[]), 1_500).await;
    conformance(&server().store("s3://triad/other%20prefix/", &[]), 100).await;
    crate::query::conformance(&server().store("s3://triad/query", &[])).await;
}

#[tokio::test]
async fn a_bucket_is_made_proven_and_shared() {
    let server = server();
    let store = server.store("s3://fresh-bucket/some/prefix", &[]);
    // Twice: what is there already stays.
    for _ in 0..2 {
        let proofs = store.init_bucket().await.unwrap();
        assert!(proofs.iter().all(|proof| proof.fine), "{proofs:?}");
        assert_eq!(proofs.len(), 5);
    }
    let proofs = store.check_bucket().await;
    assert!(proofs.iter().all(|proof| proof.fine), "{proofs:?}");
    assert_eq!(proofs.len(), 8);
    assert!(check(&store, true, &|_| true).await.unwrap().findings.is_empty());

    let stranger = server.store("s3://fresh-bucket/", &[("AWS_ACCESS_KEY_ID", "nobody")]);
    let proofs = stranger.check_bucket().await;
    assert!(proofs.len() == 1 && proofs[0].said.ends_with("it takes s3:PutObject"), "{proofs:?}");
    let proofs = stranger.init_bucket().await.unwrap();
    assert!(proofs.len() == 1 && proofs[0].said.contains("s3:CreateBucket"), "{proofs:?}");

    let mut attempt = Attempt::new(&store, &id("shared"));
    attempt.write("größe 1", Bytes::from_static(b"for anybody"), None).await.unwrap();
    attempt.commit(manifest("shared")).await.unwrap();
    let made = Artifact::open(&store, &id("shared")).await.unwrap().unwrap().manifest;
    let link = store.share(&made.id, &made.objects[0], Duration::from_secs(60)).await.unwrap();
    assert!(!link.contains(SECRET));
    let found = reqwest::get(&link).await.unwrap();
    assert_eq!(found.bytes().await.unwrap(), Bytes::from_static(b"for anybody"));
    let unsigned = link.split('?').next().unwrap();
    assert_eq!(reqwest::get(unsigned).await.unwrap().status().as_u16(), 403);
}

/// Every command on S3 with all logs: what the user configures as secret stands nowhere.
#[test]
fn a_run_on_s3_keeps_the_secret() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tiny.yaml"), TINY).unwrap();
    let triad = |args: &[&str]| {
        let mut command = command(dir.path(), args);
        command.args(["-vv", "--store", "s3://triad/secrets"]).envs(server().settings());
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(!text.contains(SECRET), "triad {args:?} shows the secret");
        assert!(output.status.success(), "triad {args:?}: {text}");
        text
    };
    triad(&["run", "tiny.yaml"]);
    assert!(triad(&["run", "tiny.yaml"]).contains("Nothing to do"));
    triad(&["plan", "tiny.yaml"]);
    triad(&["status"]);
    triad(&["show", "few"]);
    triad(&["query", "SELECT count(*) FROM few"]);
    triad(&["get", "few", "out"]);
    triad(&["pin", "few"]);
    triad(&["gc", "--grace", "0s", "--apply"]);
    triad(&["bucket", "check"]);
    assert!(triad(&["fsck"]).contains("4 artifacts"));
    let link = triad(&["show", "few", "--share"]);
    assert!(link.contains("X-Amz-Signature="), "{link}");

    let store = server().store("s3://triad/secrets", &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (raw, _) = store.raw(&data_key("x"));
        let listed: Vec<_> = raw.list(Some(&"secrets".into())).collect().await;
        assert!(listed.len() >= 4 * 3, "{listed:?}");
        for object in listed {
            let location = object.unwrap().location;
            let bytes = raw.get(&location).await.unwrap().bytes().await.unwrap();
            let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
            assert!(!found, "{location} holds the secret");
        }
    });
}

#[tokio::test]
async fn wrong_credentials_are_a_usage_error_that_keeps_the_secret() {
    for (name, value) in [
        ("AWS_SECRET_ACCESS_KEY", "another-secret-that-no-message-shows"),
        ("AWS_ACCESS_KEY_ID", "nobody"),
    ] {
        let store = server().store("s3://triad/run", &[(name, value)]);
        let read = Artifact::open(&store, &id("x")).await.map(drop).unwrap_err();
        let written = store.put(&data_key("x"), Bytes::from_static(b"x")).await.unwrap_err();
        let created = store.create(&data_key("x"), Bytes::from_static(b"x")).await.unwrap_err();
        let listed = store.artifacts().await.unwrap_err();
        for error in [read, written, created, listed] {
            let text = error.to_string();
            assert_eq!(error.exit_code(), 64, "{text}");
            assert!(text.starts_with("s3://triad/run/"), "{text}");
            assert!(text.contains("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"), "{text}");
            assert!(!text.contains("no-message-shows") && !text.contains('\n'), "{text}");
        }
    }
}

#[tokio::test]
async fn a_missing_bucket_is_a_usage_error() {
    let store = server().store("s3://no-such-bucket/run", &[]);
    let read = Artifact::open(&store, &id("x")).await.map(drop).unwrap_err();
    let written = store.put(&data_key("x"), Bytes::from_static(b"x")).await.unwrap_err();
    let created = store.create(&data_key("x"), Bytes::from_static(b"x")).await.unwrap_err();
    for error in [read, written, created] {
        let text = error.to_string();
        assert_eq!(error.exit_code(), 64, "{text}");
        assert!(text.contains("no bucket `no-such-bucket`"), "{text}");
        assert!(text.contains("triad bucket init"), "{text}");
    }
}

#[tokio::test]
async fn an_unreachable_server_is_named_and_tried_again_later() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{nobody}");
    let settings = [("AWS_ENDPOINT", endpoint.as_str()), ("AWS_ALLOW_HTTP", "true")]
        .into_iter()
        .chain([("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", SECRET)])
        .map(|(k, v)| (k.to_string(), v.to_string()));
    let store = Store::open_with("s3://bucket/run", settings).unwrap();
    let error = Artifact::open(&store, &id("x")).await.map(drop).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.exit_code(), 75, "{text}");
    assert!(text.starts_with("s3://bucket/run/artifacts/"), "{text}");
    assert!(text.contains(&format!("not reachable at {endpoint}: Connection refused")), "{text}");
}
