//! Benchmarks in the layouts of their publishers: imported, asked, judged.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use object_store::ObjectStoreExt;
use object_store::aws::AmazonS3Builder;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{command, failure, run, stdout};
use crate::s3_server::Server;

fn import(folder: &Path, name: &str, params: &str) -> std::process::Output {
    let text =
        format!("pipeline: {name}\nstages:\n  tasks: {{job: import-tasks, params: {params}}}\n");
    std::fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
    run(folder, &["run", &format!("{name}.yaml")])
}

fn query(folder: &Path, sql: &str) -> Value {
    serde_json::from_str(&stdout(folder, &["query", sql, "--format", "json"])).unwrap()
}

const MATH500: &str = r#"{"problem": "Simplify $\\frac{6}{8}$.", "solution": "s", "answer": "\\frac{3}{4}", "subject": "Prealgebra", "level": 2, "unique_id": "test/1.json"}
{"problem": "Solve $x^2 = 2$.", "solution": "s", "answer": "\\pm\\sqrt{2}", "subject": "Algebra", "level": 4, "unique_id": "test/2.json"}
{"problem": "Name a proof.", "solution": "s", "answer": "\\frac{", "subject": "Algebra", "level": 5, "unique_id": "test/3.json"}
"#;

const GPQA: &str = "Record ID,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n\
    rec1,\"Which of these,\nand why?\",\"water, mostly\",air,fire,earth\n\
    rec2,Which?,one,two,three,four\n";

#[test]
fn problems_are_imported_and_judged() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    std::fs::write(path.join("test.jsonl"), MATH500).unwrap();
    let done = import(
        path,
        "math",
        "{paths: [test.jsonl], layout: math500, form: {style: paper, chat: true}}",
    );
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let shown = stdout(path, &["show", "math/tasks"]);
    assert!(shown.contains("published") && shown.contains('3'), "{shown}");
    let rows = query(
        path,
        "SELECT level, kind, answer, prompt, certificate, \
         verdict(family, puzzle, 'so it is $\\boxed{0.75}$') AS first, \
         verdict(family, puzzle, '<think>x</think><answer>-\\sqrt2, \\sqrt2</answer>') AS second \
         FROM math.tasks.tasks ORDER BY level",
    );
    assert_eq!(rows[0]["kind"], "reference");
    assert_eq!((&rows[0]["first"], &rows[0]["second"]), (&json!("correct"), &json!("wrong")));
    assert_eq!((&rows[1]["first"], &rows[1]["second"]), (&json!("wrong"), &json!("correct")));
    // A right answer that cannot be read is compared letter for letter.
    assert_eq!(rows[2]["first"], "unparsed");
    assert!(rows[2]["certificate"].as_str().unwrap().contains("letter for letter"));
    assert!(rows[0]["certificate"].as_str().unwrap().contains("test/1.json"));
    let prompt = rows[0]["prompt"].as_str().unwrap();
    assert!(prompt.contains("within \\boxed{}") && !prompt.contains("<think>"), "{prompt}");
    // Who has no solver says so, in one line.
    let text = "pipeline: math\nstages:\n  tasks: {job: import-tasks, params: {paths: [test.jsonl], layout: math500, form: {style: paper, chat: true}}}\n  \
                shown: {job: demonstrate, inputs: {tasks: tasks}}\n";
    std::fs::write(path.join("shown.yaml"), text).unwrap();
    let message = failure(path, &["run", "shown.yaml"]);
    assert!(message.contains("family math has published answers and no solver"), "{message}");
}

#[test]
fn questions_come_from_csv_with_their_options_shuffled() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    std::fs::write(path.join("gpqa.csv"), GPQA).unwrap();
    let mut answers = Vec::new();
    for seed in 0..6 {
        let name = format!("gpqa{seed}");
        let done =
            import(path, &name, &format!("{{paths: [gpqa.csv], layout: gpqa, seed: {seed}}}"));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let sql = format!(
            "SELECT task_id, answer, prompt, verdict(family, puzzle, 'Answer: (' || answer || ')') AS said \
             FROM {name}.tasks.tasks ORDER BY task_id"
        );
        let rows = query(path, &sql);
        assert_eq!(rows.as_array().unwrap().len(), 2);
        assert_eq!(rows[0]["said"], "correct");
        answers.push((rows[0]["task_id"].clone(), rows[0]["answer"].clone()));
    }
    assert!(answers.iter().all(|(id, _)| *id == answers[0].0), "{answers:?}");
    assert!(answers.iter().any(|(_, answer)| *answer != answers[0].1), "{answers:?}");
}

/// Answers `count` requests with `body`, whatever is asked.
fn serve(body: &'static str, status: &'static str, count: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/data/test.jsonl?download=true", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for _ in 0..count {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).unwrap();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body.as_bytes()).unwrap();
        }
    });
    url
}

#[test]
fn files_are_read_from_the_web() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    let url = serve(MATH500, "200 OK", 8);
    let done = import(path, "web", &format!("{{paths: [\"{url}\"], layout: math500}}"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(query(path, "SELECT count(*) AS n FROM web.tasks.tasks")[0]["n"], 3);
    for (status, code, says) in [
        ("404 Not Found", 64, "the server answers 404"),
        ("503 Service Unavailable", 75, "the server answers 503"),
    ] {
        let url = serve("", status, 4);
        let failed = import(path, "gone", &format!("{{paths: [\"{url}\"], layout: math500}}"));
        let message = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert_eq!(failed.status.code(), Some(code), "{message}");
        assert!(message.contains(says), "{message}");
    }
    let failed = import(path, "odd", "{paths: [\"ftp://there/file\"], layout: math500}");
    assert_eq!(failed.status.code(), Some(64));
}

#[test]
fn what_does_not_fit_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    std::fs::write(path.join("rows.jsonl"), "{\"text\": \"1+1?\", \"gold\": \"2\"}\n").unwrap();
    for (params, says) in [
        ("{paths: [rows.jsonl], layout: gsm8k}", "rows.jsonl: row 1: no problem"),
        ("{paths: [rows.jsonl], layout: math}", "math500"),
        ("{paths: [rows.jsonl], mapping: {problm: text}}", "problm"),
        ("{paths: [rows.jsonl], mapping: {problem: text}}", "no answer"),
    ] {
        let failed = import(path, "odd", params);
        let message = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(!failed.status.success() && message.contains(says), "{params}: {message}");
    }
    let done = import(path, "own", "{paths: [rows.jsonl], mapping: {problem: text, answer: gold}}");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(query(path, "SELECT answer FROM own.tasks.tasks")[0]["answer"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_from_a_bucket() {
    let server = Server::start();
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    let bucket = AmazonS3Builder::new()
        .with_bucket_name("bucket")
        .with_region("us-east-1")
        .with_endpoint(server.endpoint())
        .with_allow_http(true)
        .with_access_key_id("key")
        .with_secret_access_key("secret")
        .build()
        .unwrap();
    bucket.put(&"sets/gpqa.csv".into(), GPQA.into()).await.unwrap();
    let text = "pipeline: far\nstages:\n  tasks: {job: import-tasks, params: {paths: [\"s3://bucket/sets/NAME\"], layout: gpqa}}\n";
    let run = |name: &str| {
        std::fs::write(path.join("far.yaml"), text.replace("NAME", name)).unwrap();
        command(path, &["run", "far.yaml"])
            .env("AWS_ENDPOINT_URL", server.endpoint())
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .output()
            .unwrap()
    };
    let done = tokio::task::block_in_place(|| run("gpqa.csv"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(query(path, "SELECT count(*) AS n FROM far.tasks.tasks")[0]["n"], 2);
    let gone = tokio::task::block_in_place(|| run("none.csv"));
    let message = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert_eq!(gone.status.code(), Some(64), "{message}");
    assert!(message.contains("s3://bucket/sets/none.csv does not exist"), "{message}");
}
