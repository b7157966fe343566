//! `triad serve`, asked by ADBC's Flight SQL driver.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::program::{TASKS, command, failure, stdout};

struct Server {
    child: Child,
    out: BufReader<ChildStdout>,
    uri: String,
}

impl Server {
    fn start(dir: &Path, token: Option<&str>) -> Self {
        let mut command = command(dir, &["serve", "--listen", "127.0.0.1:0"]);
        command.env_remove("TRIAD_SERVE_TOKEN");
        if let Some(token) = token {
            command.env("TRIAD_SERVE_TOKEN", token);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let uri = line.split([' ', ',']).find(|word| word.starts_with("grpc://"));
        Self { uri: uri.unwrap_or_else(|| panic!("{line}")).into(), child, out }
    }

    /// What the client got for each statement.
    fn ask(&self, token: &str, statements: &[&str]) -> Vec<Value> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let modules = root.join(".tools/adbc");
        assert!(modules.exists(), "{} is missing; run `make setup`", modules.display());
        let output = Command::new("python3")
            .arg(root.join("tests/flight_client.py"))
            .args([&self.uri, token])
            .args(statements)
            .env("PYTHONPATH", modules)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Its exit code after a SIGTERM.
    fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        let mut rest = String::new();
        self.out.read_line(&mut rest).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_flight_sql_client_reads_what_a_query_reads() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("small.yaml"), TASKS).unwrap();
    stdout(dir.path(), &["run", "small.yaml", "--until", "tasks"]);
    let server = Server::start(dir.path(), None);
    let sql = "SELECT task_id, level, puzzle, canonical(family, puzzle) AS hash \
               FROM small.tasks ORDER BY task_id";
    let answers = server.ask("", &[sql, "SELECT count(*) AS n FROM triad.stages", "\\d"]);
    let ours = stdout(dir.path(), &["query", sql, "--format", "json"]);
    assert_eq!(answers[0]["rows"], serde_json::from_str::<Value>(&ours).unwrap());
    assert_eq!(answers[0]["rows"].as_array().unwrap().len(), 40);
    assert_eq!(answers[1], json!({"rows": [{"n": 1}]}));
    assert_eq!(answers[2], json!({"rows": ["small.tasks.tasks"]}));

    // What is committed meanwhile is there, if not within the second.
    stdout(dir.path(), &["run", "small.yaml"]);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let answers = server.ask("", &["SELECT count(*) AS n FROM few"]);
    assert_eq!(answers[0], json!({"rows": [{"n": 5}]}));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn nothing_is_written_and_no_file_is_read_for_a_client() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("small.yaml"), TASKS).unwrap();
    stdout(dir.path(), &["run", "small.yaml"]);
    let secret = dir.path().join("secret.csv");
    std::fs::write(&secret, "a\n1\n").unwrap();
    let server = Server::start(dir.path(), None);
    let file = format!("SELECT * FROM '{}'", secret.display());
    let copied = dir.path().join("copy.csv");
    let copy = format!("COPY (SELECT 1) TO '{}'", copied.display());
    let table = format!("CREATE EXTERNAL TABLE f STORED AS CSV LOCATION '{}'", secret.display());
    let statements = [
        &file[..],
        &copy,
        &table,
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "DROP TABLE few",
        "SET datafusion.execution.batch_size = 1",
        "SELECT task_ids FROM few",
        "SELECT 1 AS one",
    ];
    let answers = server.ask("", &statements);
    for (sql, answer) in statements.iter().zip(&answers[..8]) {
        let error = answer["error"].as_str().unwrap_or_else(|| panic!("{sql}: {answer}"));
        assert!(error.contains("INVALID_ARGUMENT"), "{sql}: {error}");
    }
    assert!(answers[7]["error"].as_str().unwrap().contains("task_id"), "{}", answers[7]);
    assert_eq!(answers[8], json!({"rows": [{"one": 1}]}));
    assert!(!copied.exists());
}

#[test]
fn beyond_loopback_a_token_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let refused = failure(dir.path(), &["serve", "--listen", "0.0.0.0:0"]);
    assert!(refused.starts_with("64: error: --listen 0.0.0.0:0: "), "{refused}");
    assert!(refused.contains("TRIAD_SERVE_TOKEN"), "{refused}");
    let server = Server::start(dir.path(), Some("open sesame"));
    let one = json!({"rows": [{"one": 1}]});
    assert_eq!(server.ask("open sesame", &["SELECT 1 AS one"]), std::slice::from_ref(&one));
    for token in ["", "open", "open sesame!"] {
        let answer = &server.ask(token, &["SELECT 1 AS one"])[0];
        let error = answer["error"].as_str().unwrap_or_else(|| panic!("{token}: {answer}"));
        assert!(error.contains("UNAUTHENTICATED"), "{error}");
        assert!(!error.contains("sesame"), "{error}");
    }
}
