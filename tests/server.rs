//! `rollout` and `evaluate` by a server: what is asked, what is stored, what a user meets when the
//! server fails.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use triad::checkpoint::{Checkpoint, Tokenizer};
use triad::dataset::{Rollout, decode_parquet};

use crate::completions::{Reply, Seen, Server, text_only, vllm};
use crate::program::{command, stdout};

const KEY: &str = "a-key-that-no-output-shows";
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/seedling");

fn tokenizer() -> Tokenizer {
    Checkpoint::from_folder(Path::new(MODEL)).unwrap().tokenizer
}

/// A server that answers as vLLM does.
fn server() -> Server {
    let tokenizer = tokenizer();
    Server::start(move |seen| vllm(&tokenizer, seen))
}

/// A folder with `small.yaml`: ten tasks, two samples each, in five blocks.
fn folder(server: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = format!(
        "pipeline: small
stages:
  tasks:
    job: generate
    params: {{family: arithmetic, split: train, levels: [{{level: 1, count: 10}}]}}
  base:
    job: import-checkpoint
    params: {{path: {MODEL}}}
  samples:
    job: rollout
    params: {{samples: 2, temperature: 1.0, max_new_tokens: 24, block: 2, seed: 7, server: {server}}}
    inputs: {{checkpoint: base, tasks: tasks}}
  scores:
    job: evaluate
    params: {{samples: 2, max_new_tokens: 24, block: 4, keep: 3, server: {server}}}
    inputs: {{checkpoint: base, tasks: [tasks]}}
"
    );
    std::fs::write(dir.path().join("small.yaml"), pipeline).unwrap();
    dir
}

/// `triad ARGS` with `url` as its server.
fn with(dir: &TempDir, url: &str, args: &[&str]) -> Command {
    let mut command = command(dir.path(), args);
    command.env("TRIAD_SERVER_URL", url).env("TRIAD_SERVER_KEY", KEY).env("NO_PROXY", "*");
    command
}

fn succeed(mut command: Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    format!("{}{stderr}", String::from_utf8_lossy(&output.stdout))
}

fn sample(dir: &TempDir, url: &str) -> String {
    succeed(with(dir, url, &["run", "small.yaml", "--until", "samples"]))
}

/// The exit code and the last line of stderr.
fn told(output: &Output) -> (i32, String) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), stderr.trim_end().lines().last().unwrap_or("").to_string())
}

fn fails(dir: &TempDir, url: &str) -> (i32, String) {
    told(&with(dir, url, &["run", "small.yaml", "--until", "samples"]).output().unwrap())
}

fn manifest(dir: &TempDir, stage: &str) -> Value {
    serde_json::from_str(&stdout(dir.path(), &["show", stage, "--json"])).unwrap()
}

fn rollouts(dir: &TempDir, stage: &str) -> Vec<Rollout> {
    let out = dir.path().join(format!("out-{}", triad::entropy::attempt_name()));
    stdout(dir.path(), &["get", stage, out.to_str().unwrap()]);
    let mut parts: Vec<_> =
        std::fs::read_dir(out.join("rollouts")).unwrap().map(|e| e.unwrap().path()).collect();
    parts.sort();
    let read = |path| decode_parquet::<Rollout>(std::fs::read(path).unwrap().into()).unwrap();
    parts.into_iter().flat_map(read).collect()
}

/// Path, digest and rows of a stage's objects.
fn objects(dir: &TempDir, stage: &str) -> Vec<Value> {
    let manifest = manifest(dir, stage);
    let objects = manifest["objects"].as_array().unwrap().iter();
    objects.map(|o| json!([o["path"], o["digest"], o["rows"]])).collect()
}

/// Every file of the folder that holds `text`.
fn holding(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[test]
fn a_rollout_holds_the_ids_and_log_probabilities_that_the_server_gives() {
    let (server, dir) = (server(), folder("{model: seedling}"));
    let mut run = with(&dir, &server.url, &["run", "small.yaml", "--until", "samples"]);
    run.env("TRIAD_LOG", "trace");
    let said = succeed(run);
    assert!(!said.contains(KEY), "{said}");
    assert_eq!(holding(dir.path(), KEY), [""; 0]);
    assert_eq!(holding(dir.path(), &server.url), [""; 0]);

    let (tokenizer, seen) = (tokenizer(), server.seen());
    let rows = rollouts(&dir, "samples");
    assert_eq!((rows.len(), seen.len()), (20, 20));
    let mut seeds: Vec<u64> = seen.iter().map(|s| s.body["seed"].as_u64().unwrap()).collect();
    seeds.sort();
    seeds.dedup();
    assert_eq!(seeds.len(), 20);
    assert!(seeds.iter().all(|&seed| seed < 1 << 31));
    for Seen { path, authorization, body, .. } in &seen {
        assert_eq!(path, "/v1/completions");
        assert_eq!(authorization.as_deref(), Some(format!("Bearer {KEY}").as_str()));
        assert_eq!(body["model"], "seedling");
        assert_eq!(body["temperature"], 1.0);
        assert_eq!(body["top_p"], 1.0);
        assert_eq!(body["max_tokens"], 24);
        assert_eq!(body["stop_token_ids"], json!([tokenizer.eos()]));
        let asked = |row: &&Rollout| json!(tokenizer.encode(&row.prompt).unwrap());
        assert_eq!(rows.iter().filter(|row| asked(row) == body["prompt"]).count(), 2);
    }
    for (row, sample) in rows.iter().zip([0, 1].into_iter().cycle()) {
        assert_eq!((row.sample, row.step, row.stop.as_str()), (sample, 0, "end"));
        assert_eq!(row.tokens.last(), Some(&tokenizer.eos()));
        assert_eq!(row.response, tokenizer.decode(&row.tokens).unwrap());
        assert_eq!(row.response.len(), 4);
        let expected = row.tokens.iter().map(|&id| -0.125 * (id % 16) as f32);
        assert_eq!(row.logprobs, expected.collect::<Vec<_>>());
        assert_eq!(row.model_logprobs.as_ref(), Some(&row.logprobs));
        assert_eq!(row.policy, manifest(&dir, "base")["id"]);
    }
    let manifest = manifest(&dir, "samples");
    assert_eq!(manifest["identity"]["version"], 2);
    assert_eq!(manifest["summary"], json!({"retokenized": 0, "without logprobs": 0}));
    assert_eq!(manifest["producer"]["device"], "server");
    assert_eq!(manifest["producer"]["timings"]["server_requests"], 20.0);
    assert_eq!(manifest["producer"]["timings"]["server_retries"], 0.0);
    assert!(manifest["producer"]["timings"]["sample_tokens_per_second"].as_f64() > Some(0.0));
}

#[test]
fn text_without_ids_is_tokenized_and_says_so() {
    let (server, dir) =
        (Server::start(text_only), folder("{model: m, prompt: text, fields: openai}"));
    sample(&dir, &server.url);
    let tokenizer = tokenizer();
    let rows = rollouts(&dir, "samples");
    for row in &rows {
        assert_eq!(row.tokens, tokenizer.encode(&row.response).unwrap());
        assert_eq!((row.logprobs.len(), row.stop.as_str()), (0, "length"));
        assert_eq!(row.model_logprobs, None);
    }
    for Seen { body, .. } in server.seen() {
        assert!(rows.iter().any(|row| body["prompt"] == row.prompt.as_str()), "{body}");
        assert_eq!((body.get("top_k"), body.get("return_token_ids")), (None, None));
    }
    let summary = &manifest(&dir, "samples")["summary"];
    assert_eq!(*summary, json!({"retokenized": 20, "without logprobs": 20}));
}

#[test]
fn an_end_token_is_added_only_where_no_stop_text_may_have_been_taken_out() {
    let server = Server::start(|seen| {
        let mut answer: Value = serde_json::from_str(&text_only(seen).body).unwrap();
        answer["choices"][0]["finish_reason"] = json!("stop");
        Reply::new(200, answer)
    });
    let eos = tokenizer().eos();
    for (stop, said, ended) in [("[]", "end", true), ("['zz']", "text", false)] {
        let dir = folder("{model: m}");
        let set = format!("samples.stop={stop}");
        succeed(with(
            &dir,
            &server.url,
            &["run", "small.yaml", "--until", "samples", "--set", &set],
        ));
        for row in rollouts(&dir, "samples") {
            assert_eq!((row.stop.as_str(), row.tokens.last() == Some(&eos)), (said, ended));
        }
    }
}

#[test]
fn log_probabilities_stand_in_the_column_of_their_distribution_only() {
    let server = server();
    for (logprobs, set, drawn, model) in [
        ("raw", "temperature=0.5", false, true),
        ("tempered", "temperature=0.5", true, false),
        ("raw", "top_p=0.9", false, true),
        ("tempered", "top_p=0.9", false, true),
        ("raw", "temperature=0", true, true),
    ] {
        let dir = folder(&format!("{{model: m, logprobs: {logprobs}}}"));
        let set = format!("samples.{set}");
        succeed(with(
            &dir,
            &server.url,
            &["run", "small.yaml", "--until", "samples", "--set", &set],
        ));
        let without = if drawn { 0 } else { 20 };
        assert_eq!(manifest(&dir, "samples")["summary"]["without logprobs"], without, "{set}");
        for row in rollouts(&dir, "samples") {
            assert_eq!(row.logprobs.len(), if drawn { row.tokens.len() } else { 0 }, "{set}");
            assert_eq!(row.model_logprobs.is_some(), model, "{logprobs} {set}");
        }
    }
}

#[test]
fn shards_and_retries_change_nothing() {
    let (tokenizer, whole) = (tokenizer(), folder("{model: m}"));
    sample(&whole, &server().url);
    // Every second request is refused at first, in every way that passes.
    let flaky = Server::start(move |seen| match seen.number % 8 {
        1 => Reply { headers: "retry-after: 1\r\n", ..Reply::new(429, "slow down") },
        3 => Reply::new(500, json!({"error": {"message": "engine hiccup"}})),
        5 => Reply::new(503, ""),
        7 => Reply::new(200, json!({"choices": [{"text": "ab", "finish_reason": "abort"}]})),
        _ => vllm(&tokenizer, seen),
    });
    let dir = folder("{model: m}");
    let until = ["run", "small.yaml", "--until"];
    for stage in ["tasks", "base"] {
        succeed(with(&dir, &flaky.url, &[&until[..], &[stage]].concat()));
    }
    for shard in ["1/3", "2/3", "3/3"] {
        let said =
            succeed(with(&dir, &flaky.url, &["job", "small.yaml", "samples", "--shard", shard]));
        assert!(shard == "3/3" || said.contains("trying again"), "{said}");
    }
    assert_eq!(objects(&dir, "samples"), objects(&whole, "samples"));
    assert_eq!(manifest(&dir, "samples")["summary"], manifest(&whole, "samples")["summary"]);
    assert!(
        manifest(&dir, "samples")["producer"]["timings"]["server_retries"].as_f64() > Some(0.0)
    );
}

#[test]
fn a_broken_server_is_given_up_with_75_and_the_next_run_goes_on() {
    let broken = Server::start(|_| Reply::new(500, json!({"error": {"message": "no GPU left"}})));
    let dir = folder("{model: m}");
    let good = server();
    for stage in ["tasks", "base"] {
        succeed(with(&dir, &good.url, &["run", "small.yaml", "--until", stage]));
    }
    succeed(with(&dir, &good.url, &["job", "small.yaml", "samples", "--shard", "1/2"]));
    let asked = good.seen().len();
    let mut second = with(&dir, &broken.url, &["job", "small.yaml", "samples", "--shard", "2/2"]);
    let (code, line) = told(&second.env("TRIAD_SERVER_PATIENCE", "1").output().unwrap());
    assert_eq!(code, 75, "{line}");
    assert!(line.contains("/v1/completions: status 500: no GPU left; given up after"), "{line}");
    assert!(line.contains("run the same command again"), "{line}");
    assert!(broken.seen().len() > 8);
    succeed(with(&dir, &good.url, &["job", "small.yaml", "samples", "--shard", "2/2"]));
    assert_eq!((asked, good.seen().len()), (12, 20));
    assert_eq!(rollouts(&dir, "samples").len(), 20);
}

#[test]
fn a_rollout_without_shards_keeps_what_was_drawn_before_the_server_broke() {
    let (tokenizer, whole) = (tokenizer(), folder("{model: m}"));
    sample(&whole, &server().url);
    let breaking = Server::start(move |seen| match seen.number {
        0..12 => vllm(&tokenizer, seen),
        _ => Reply::new(502, ""),
    });
    let dir = folder("{model: m}");
    let mut run = with(&dir, &breaking.url, &["run", "small.yaml", "--until", "samples"]);
    let limits = [("TRIAD_SERVER_PATIENCE", "1"), ("TRIAD_SERVER_CONCURRENCY", "2")];
    let (code, line) = told(&run.envs(limits).output().unwrap());
    assert_eq!(code, 75, "{line}");
    let plan = stdout(dir.path(), &["plan", "small.yaml"]);
    assert!(plan.contains("continues from step 3"), "{plan}");
    let good = server();
    sample(&dir, &good.url);
    assert_eq!(good.seen().len(), 8);
    assert_eq!(objects(&dir, "samples"), objects(&whole, "samples"));
    assert_eq!(manifest(&dir, "samples")["summary"], manifest(&whole, "samples")["summary"]);
}

#[test]
fn an_unreachable_server_is_named() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dir = folder("{model: m}");
    let url = format!("http://{nobody}/v1");
    let mut run = with(&dir, &url, &["run", "small.yaml", "--until", "samples"]);
    let (code, line) = told(&run.env("TRIAD_SERVER_PATIENCE", "1").output().unwrap());
    assert_eq!(code, 75, "{line}");
    assert!(
        line.contains(&format!("{url}/completions: not reachable: Connection refused")),
        "{line}"
    );
}

#[test]
fn refusals_are_one_clear_line_without_the_key() {
    let refusing = |status: u16| {
        Server::start(move |seen| {
            let sent = seen.authorization.clone().unwrap();
            let message = format!("you sent\n {sent}{}", "!".repeat(500));
            Reply::new(status, json!({"error": {"message": message}}))
        })
    };
    let dir = folder("{model: m}");
    for (status, code, advice) in [
        (401, 64, "check TRIAD_SERVER_KEY"),
        (403, 64, "check TRIAD_SERVER_KEY"),
        (404, 64, "calls a model `m`"),
        (400, 64, "`server: {prompt: text}`"),
        (307, 64, "set TRIAD_SERVER_URL"),
    ] {
        let server = refusing(status);
        let output = with(&dir, &server.url, &["run", "small.yaml", "--until", "samples"])
            .env("TRIAD_LOG", "trace")
            .output()
            .unwrap();
        let (found, line) = told(&output);
        assert_eq!(found, code, "{line}");
        assert!(line.contains(&format!("{}/completions", server.url)), "{line}");
        assert!(line.ends_with(advice) || line.contains(advice), "{line}");
        assert!(status == 307 || line.contains(": you sent Bearer [key]!!"), "{line}");
        assert!(line.len() < 800, "{line}");
        let all = format!("{output:?}");
        assert!(!all.contains(KEY), "{all}");
    }
    assert_eq!(holding(dir.path(), KEY), [""; 0]);
}

#[test]
fn answers_that_do_not_fit_are_bad_data() {
    let tokenizer = tokenizer();
    let dir = folder("{model: m}");
    let meet = |answer: Box<dyn Fn(&Seen) -> Reply + Send + Sync>| {
        let (code, line) = fails(&dir, &Server::start(answer).url);
        assert_eq!(code, 65, "{line}");
        line
    };
    let line = meet(Box::new(|_| Reply::new(200, "<html>Welcome to nginx</html>")));
    assert!(line.contains("the answer is no completion") && line.contains("nginx"), "{line}");
    let line = meet(Box::new(|_| {
        Reply::new(
            200,
            json!({"choices": [{"text": "a", "finish_reason": "stop", "token_ids": [99999]}]}),
        )
    }));
    assert!(line.contains("token id 99999; the checkpoint has"), "{line}");
    let line = meet(Box::new(move |seen| {
        let mut answer: Value = serde_json::from_str(&vllm(&tokenizer, seen).body).unwrap();
        answer["choices"][0]["prompt_token_ids"] = json!([1, 2, 3]);
        Reply::new(200, answer)
    }));
    assert!(line.contains("made other tokens (3) of the prompt"), "{line}");
}

#[test]
fn requests_in_flight_stay_within_the_limit_and_use_it() {
    let tokenizer = tokenizer();
    let slow = Server::start(move |seen| {
        std::thread::sleep(Duration::from_millis(150));
        vllm(&tokenizer, seen)
    });
    let dir = folder("{model: m}");
    let mut run = with(&dir, &slow.url, &["run", "small.yaml", "--until", "samples"]);
    succeed({
        run.env("TRIAD_SERVER_CONCURRENCY", "6");
        run
    });
    // A block has four requests: the next ones are begun while its last are drawn.
    assert_eq!(slow.most_at_a_time(), 6);
    let (code, line) = told(
        &with(&dir, &slow.url, &["run", "small.yaml"])
            .env("TRIAD_SERVER_CONCURRENCY", "none")
            .output()
            .unwrap(),
    );
    assert_eq!(code, 64, "{line}");
    assert!(line.contains("TRIAD_SERVER_CONCURRENCY=`none`: a whole number above 0"), "{line}");
}

#[test]
fn sigterm_ends_the_requests_in_flight() {
    let hanging = Server::start(|_| {
        std::thread::sleep(Duration::from_secs(60));
        Reply::new(500, "")
    });
    let dir = folder("{model: m}");
    let mut run = with(&dir, &hanging.url, &["run", "small.yaml", "--until", "samples"]);
    let mut child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while hanging.seen().is_empty() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    let asked = Instant::now();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert!(asked.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_server_scores_a_checkpoint() {
    let (server, dir) = (server(), folder("{model: m}"));
    succeed(with(&dir, &server.url, &["run", "small.yaml", "--until", "scores"]));
    let count = "SELECT mode, count(*) AS n, sum(samples) AS drawn FROM small.scores \
                 GROUP BY mode ORDER BY mode";
    let counts = stdout(dir.path(), &["query", count, "--format", "csv"]);
    assert_eq!(counts, "mode,n,drawn\ngreedy,10,10\nsampled,10,20\n");
    assert_eq!(rollouts(&dir, "scores").len(), 3 * (2 + 1));
    let greedy: Vec<_> =
        server.seen().into_iter().filter(|s| s.body["temperature"] == 0.0).collect();
    assert_eq!((greedy.len(), server.seen().len()), (10, 30));
}

#[test]
fn who_answers_is_in_the_identity_and_where_is_not() {
    let params = json!({"samples": 1, "temperature": 1.0, "max_new_tokens": 4});
    let resolved = |params: &Value| triad::job::kind("rollout").unwrap().resolve(params).unwrap();
    let keys = [
        "block",
        "cache_bytes",
        "max_new_tokens",
        "min_p",
        "precision",
        "samples",
        "seed",
        "stop",
        "temperature",
        "top_k",
        "top_p",
    ];
    assert!(resolved(&params).as_object().unwrap().keys().eq(keys));
    let mut served = params.clone();
    served["server"] = json!({"model": "m"});
    let expected = json!({"model": "m", "prompt": "ids", "fields": "extended", "logprobs": "raw"});
    assert_eq!(resolved(&served)["server"], expected);

    let dir = folder("{model: m}");
    let ids = |args: &[&str], url: Option<&str>| {
        let mut plan = command(dir.path(), &[&["plan", "small.yaml", "--json"], args].concat());
        if let Some(url) = url {
            plan.env("TRIAD_SERVER_URL", url);
        }
        let plan: Vec<Value> = serde_json::from_slice(&plan.output().unwrap().stdout).unwrap();
        plan.iter().find(|line| line["stage"] == "samples").unwrap()["id"].clone()
    };
    let plain = ids(&[], None);
    assert_eq!(ids(&[], Some("http://elsewhere/v1")), plain);
    assert_ne!(ids(&["--set", "samples.server.model=n"], None), plain);
    let run = command(dir.path(), &["run", "small.yaml", "--until", "samples"]).output().unwrap();
    let (code, line) = told(&run);
    assert_eq!(code, 64);
    assert!(
        line.contains("a server is to sample from `m`; say where it is: --server URL"),
        "{line}"
    );
}
