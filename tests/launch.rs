//! Handing stages to schedulers: what is refused before anything is asked of one, and what is written
//! for people who ask themselves.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::program::{TASKS, command, failure};
use crate::s3_server::Server;

const SITE: &str = "\
kubernetes:
  namespace: team
  images: {cpu: 'registry.example/triad:cpu', torch: 'registry.example/triad:torch'}
aws_batch:
  queue: cpus
  images: {cpu: 'registry.example/triad:cpu', torch: 'registry.example/triad:torch'}
";

/// [`TASKS`] with shards, a file's text, and a stage that reads a file of this machine.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text =
        TASKS.replace("  few:", "    placement: {shards: 2}\n    resources: {memory: 1G}\n  few:");
    let text =
        text.replace("sql: SELECT * FROM tasks ORDER BY task_id LIMIT 5", "sql: !file few.sql");
    assert!(text.contains("shards: 2") && text.contains("few.sql"));
    let theirs = "  theirs:\n    job: import-tasks\n    params: {paths: [theirs.jsonl]}\n";
    for (name, text) in [
        ("small.yaml", text.clone()),
        ("local.yaml", text + theirs),
        (
            "few.sql",
            "SELECT * FROM tasks -- a \"quoted\" one: it's\nORDER BY task_id LIMIT 5".into(),
        ),
        ("theirs.jsonl", "{}\n".into()),
        ("site.yaml", SITE.into()),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn on_s3(server: &Server, dir: &Path, args: &[&str]) -> Output {
    let mut command = command(dir, args);
    command.args(["--store", "s3://bucket/x"]).env("AWS_ENDPOINT_URL", server.endpoint());
    command.env("AWS_ALLOW_HTTP", "true").env("AWS_ACCESS_KEY_ID", "k");
    command.env("AWS_SECRET_ACCESS_KEY", "never-shown").env("AWS_REGION", "eu-west-1");
    command.output().unwrap()
}

#[test]
fn what_no_job_could_do_is_refused_in_one_line() {
    let dir = folder();
    let said = |args: &[&str]| failure(dir.path(), args);
    assert_eq!(
        said(&["run", "small.yaml", "--on", "slurm", "--store", "memory://"]),
        "64: error: store memory:// is on this machine, where jobs on slurm do not see it; give an s3:// \
         one by --store"
    );
    for args in [
        &["run", "small.yaml", "--on", "kubernetes"][..],
        &["run", "small.yaml", "--on", "aws-batch"],
        &["cancel", "small.yaml", "--on", "kubernetes"],
        &["render", "kubernetes", "small.yaml"],
        &["render", "aws-batch", "small.yaml"],
    ] {
        let said = said(args);
        assert!(
            said.starts_with("64: ") && said.contains("give an s3:// one by --store"),
            "{said}"
        );
    }
    assert!(!dir.path().join("triad-store").exists());
    assert!(said(&["run", "small.yaml", "--on", "slurm", "--workers", "2"]).contains("--workers"));
    assert!(said(&["cancel", "small.yaml"]).contains("--on local starts no jobs"));
    assert!(
        said(&["render", "slurm", "small.yaml"]).contains("there are kubernetes and aws-batch")
    );
    let unknown = said(&["run", "small.yaml", "--on", "slurm", "--site", "nowhere.yaml"]);
    assert!(unknown.starts_with("64: error: site file `nowhere.yaml`: "), "{unknown}");
    let shards = said(&["job", "small.yaml", "tasks", "--shards", "2"]);
    assert!(shards.contains("none of JOB_COMPLETION_INDEX, SLURM_ARRAY_TASK_ID"), "{shards}");
    let absent = said(&["job", &format!("store:{}", "0".repeat(64)), "tasks"]);
    assert!(
        absent.starts_with("64: error: no file://") && absent.contains("pipelines/0000"),
        "{absent}"
    );
    let late = said(&["job", "small.yaml", "few", "--wait", "1s"]);
    assert!(
        late.starts_with("75: ") && late.contains("its input `tasks` is not committed"),
        "{late}"
    );
}

#[test]
fn manifests_and_submissions_are_written_for_what_is_missing() {
    let (server, dir) = (Server::start(), folder());
    let render = |args: &[&str]| {
        let args = [&["render"], args, &["--site", "site.yaml"]].concat();
        let output = on_s3(&server, dir.path(), &args);
        let (said, text) = (String::from_utf8_lossy(&output.stderr), output.stdout);
        assert!(output.status.success(), "{args:?}: {said}");
        let text = String::from_utf8(text).unwrap();
        assert!(!text.contains("never-shown") && !text.contains("ORDER BY"), "{text}");
        text
    };
    let jobs = |text: &str| -> Vec<Value> {
        let documents = serde_saphyr::from_multiple::<Value>(text).unwrap();
        documents.into_iter().filter(|one| one["kind"] == "Job").collect()
    };
    let text = render(&["kubernetes", "small.yaml"]);
    let found = jobs(&text);
    assert_eq!(found.len(), 2, "{text}");
    assert_eq!(found[0]["spec"]["completions"], 2, "{text}");
    let container = &found[0]["spec"]["template"]["spec"]["containers"][0];
    let arguments: Vec<&str> =
        container["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(arguments[0], "job");
    let source = arguments[1].strip_prefix("store:").unwrap();
    assert_eq!(arguments[2..5], ["tasks", "--store", "s3://bucket/x"]);
    // The pipeline that they name is where they look for it, and a job can do what it says.
    let mut job =
        command(dir.path(), &["job", &format!("store:{source}"), "tasks", "--shards", "2"]);
    job.args(["--store", "s3://bucket/x"]).env("AWS_ENDPOINT_URL", server.endpoint());
    job.env("AWS_ALLOW_HTTP", "true").env("AWS_ACCESS_KEY_ID", "k");
    job.env("AWS_SECRET_ACCESS_KEY", "never-shown").env("AWS_REGION", "eu-west-1");
    std::fs::remove_file(dir.path().join("few.sql")).unwrap();
    for index in ["0", "1"] {
        let output = job.env("JOB_COMPLETION_INDEX", index).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let outside = job.env("JOB_COMPLETION_INDEX", "2").output().unwrap();
    assert_eq!(outside.status.code(), Some(64));
    let few =
        on_s3(&server, dir.path(), &["job", &format!("store:{source}"), "few", "--wait", "1m"]);
    assert!(few.status.success(), "{}", String::from_utf8_lossy(&few.stderr));
    drop(dir);

    // What is committed is not among them.
    let dir = folder();
    let render = |args: &[&str]| {
        let args = [&["render"], args, &["--site", "site.yaml"]].concat();
        let output = on_s3(&server, dir.path(), &args);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), output.stderr)
    };
    let (code, _, said) = render(&["kubernetes", "small.yaml"]);
    let said = String::from_utf8_lossy(&said);
    assert_eq!((code, said.contains("all of `small` is committed")), (Some(64), true), "{said}");
    let changed = &[
        "kubernetes",
        "small.yaml",
        "--set",
        "few.sql=SELECT * FROM tasks ORDER BY task_id LIMIT 4",
    ];
    let (_, text, _) = render(changed);
    assert_eq!(jobs(&text).len(), 1, "{text}");
    let (_, text, said) = render(&[changed, &["--workflow", "argo"][..]].concat());
    let workflow: Value = serde_saphyr::from_str(text.trim_start_matches("---\n"))
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&said)));
    assert_eq!(workflow["kind"], "Workflow");
    let (_, text, said) = render(&[&["aws-batch"], &changed[1..]].concat());
    let batch: Value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&said)));
    assert_eq!(batch["submissions"].as_array().unwrap().len(), 1, "{text}");
    // A file of this machine, which no pod sees.
    let (code, _, said) = render(&["kubernetes", "local.yaml"]);
    let said = String::from_utf8_lossy(&said);
    assert_eq!(code, Some(64), "{said}");
    assert!(
        said.contains("stage `theirs`: `theirs.jsonl` is on this machine")
            && said.contains("`triad run local.yaml --until theirs --store s3://bucket/x`"),
        "{said}"
    );
    let said = on_s3(&server, dir.path(), &["fsck"]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("no damage"), "{said:?}");
}

#[test]
fn a_damaged_pipeline_is_found_and_written_again() {
    let dir = folder();
    crate::program::stdout(dir.path(), &["run", "small.yaml"]);
    // As a client of Slurm leaves one.
    let store =
        triad::store::Store::open(dir.path().join("triad-store").to_str().unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let digest = runtime.block_on(store.put_pipeline("pipeline: x\n".into())).unwrap();
    let path = dir.path().join(format!("triad-store/pipelines/{digest}.yaml"));
    assert_eq!(runtime.block_on(store.get_pipeline(&digest)).unwrap(), "pipeline: x\n");
    std::fs::write(&path, "pipeline: y\n").unwrap();
    assert_eq!(runtime.block_on(store.get_pipeline(&digest)).unwrap_err().exit_code(), 65);
    let said = failure(dir.path(), &["fsck"]);
    assert!(said.starts_with("65: error: 1 damages"), "{said}");
    crate::program::stdout(dir.path(), &["fsck", "--repair"]);
    assert!(!path.exists());
    // Old ones go when no job can be waiting for them.
    runtime.block_on(store.put_pipeline("pipeline: x\n".into())).unwrap();
    let kept = crate::program::stdout(dir.path(), &["gc", "--apply", "--grace", "0s"]);
    assert!(path.exists(), "{kept}");
    let old = std::time::Duration::from_secs(61 * 86400);
    let file = std::fs::File::options().append(true).open(&path).unwrap();
    file.set_modified(file.metadata().unwrap().modified().unwrap() - old).unwrap();
    let said = crate::program::stdout(dir.path(), &["gc", "--apply", "--grace", "0s"]);
    assert!(said.contains("pipelines for jobs") && !path.exists(), "{said}");
}
