//! What a user sees of the commands: output, errors, exit codes.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::program::{TASKS, failure, run, stdout};

/// A folder with `small.yaml`.
fn folder(pipeline: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("small.yaml"), pipeline).unwrap();
    dir
}

/// Ids replaced: they change with the version of a job.
fn redacted(text: &str) -> String {
    text.lines()
        .map(|line| {
            line.split(' ')
                .map(|word| {
                    let bare = word.trim_matches(['(', ')']);
                    let hex = bare.len() >= 12 && bare.bytes().all(|b| b.is_ascii_hexdigit());
                    if hex { word.replace(bare, "[id]") } else { word.to_string() }
                })
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// The texts between `before` and `after`.
fn between<'a>(text: &'a str, before: &'a str, after: char) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(move |rest| rest.split(after).next())
}

#[test]
fn every_pipeline_of_the_project_plans() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Models and files that they name, which the project does not have.
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    let mut planned = 0;
    for entry in std::fs::read_dir(root.join("jobs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            for model in between(&text, "path: ", '}').map(|name| place(name.trim())) {
                let _ = std::os::unix::fs::symlink(root.join("models/seedling"), model);
            }
            for file in between(&text, "paths: [", ']').map(place) {
                std::fs::write(file, "{}\n").unwrap();
            }
            let file = path.display().to_string();
            let plan = stdout(dir.path(), &["plan", &file, "--store", "memory://"]);
            assert!(plan.contains("never run"), "{plan}");
            planned += 1;
        }
    }
    assert!(planned > 5);
}

/// The rows of the paper's tables come from these settings.
#[test]
fn the_jobs_of_the_paper_have_its_settings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (size, tasks) in [("7b", "200"), ("32b", "2000")] {
        let text = std::fs::read_to_string(root.join(format!("jobs/paper-{size}.yaml"))).unwrap();
        let stage = |name: &str| {
            let rest = text.split(&format!("\n  {name}:\n")).nth(1).unwrap();
            rest.split("\n  ").take_while(|line| line.starts_with(' ')).collect::<String>()
        };
        let has = |name: &str, settings: &[&str]| {
            let stage = stage(name);
            settings
                .iter()
                .for_each(|s| assert!(stage.contains(s), "{size} {name}: {s} in {stage}"));
        };
        for family in ["deduction", "induction", "abduction"] {
            let count =
                format!("levels: [{{level: 1, count: {tasks}}}, {{level: 2, count: {tasks}}}]");
            has(&format!("tasks-{family}"), &[&count, "style: paper"]);
            let batch = if family == "induction" { "prompts: 16" } else { "prompts: 32" };
            let settings = ["reward: released", "samples: 4", "temperature: 0.7", "8192", "5.0e-7"];
            has(family, &settings);
            has(family, &[batch, "kl: {kind: k3, coefficient: 0.001}", "recompute: true"]);
        }
        for (name, base) in [("domain-meta", "merged"), ("domain-ins", "base")] {
            let settings = ["algorithm: grpo", "reward: correct", "prompts: 256", "samples: 8"];
            has(name, &settings);
            has(
                name,
                &["3072", "5.0e-7", "temperature: 1.0", "entropy: 0.001", "coefficient: 0.001"],
            );
            has(name, &[&format!("base: {base},")]);
        }
        has(
            "evaluate-merged",
            &["samples: {aime24: 32, amc23: 32}", "temperature: 1.0, top_p: 0.95"],
        );
    }
}

#[test]
fn what_a_filter_may_hold_is_a_flag() {
    let dir = folder(TASKS);
    let said = failure(dir.path(), &["run", "small.yaml", "--memory", "1KiB"]);
    assert!(said.starts_with("75: ") && said.contains("more than 1024 bytes"), "{said}");
    let said = failure(dir.path(), &["query", "SELECT 1", "--memory", "much"]);
    assert!(said.starts_with("64: "), "{said}");
    stdout(dir.path(), &["run", "small.yaml"]);
}

#[test]
fn a_run_is_found_again_listed_shown_and_downloaded() {
    let dir = folder(TASKS);
    let triad = |args: &[&str]| stdout(dir.path(), args);
    insta::assert_snapshot!(redacted(&triad(&["plan", "small.yaml"])), @r#"
    stage  job       state      id            why
    tasks  generate  would run  [id]  never run
    few    filter    would run  [id]  never run
    2 of 2 stages would run
    "#);
    let table = triad(&["run", "small.yaml"]);
    assert_eq!(table.matches("committed").count(), 2, "{table}");
    assert_eq!(
        triad(&["run", "small.yaml"]),
        "Nothing to do: all 2 stages of `small` are committed\n"
    );
    assert_eq!(
        triad(&["run", "small.yaml", "--until", "tasks"]),
        "Nothing to do: the one stage of `small` up to `tasks` is committed\n"
    );
    insta::assert_snapshot!(
        redacted(&triad(&["plan", "small.yaml", "--set", "tasks.seed=2"])), @r#"
    stage  job       state      id            why
    tasks  generate  would run  [id]  params.seed: 0 -> 2
    few    filter    would run  [id]  input tables.tasks: changed
    2 of 2 stages would run
    "#);

    let status: serde_json::Value =
        serde_json::from_str(&triad(&["status", "small.yaml", "--json"])).unwrap();
    assert_eq!(status[0]["stage"], "tasks");
    assert_eq!(status[0]["rows"], 40);
    assert_eq!(status[1]["rows"], 5);
    assert!(triad(&["status"]).contains("small     few"));
    let list: serde_json::Value = serde_json::from_str(&triad(&["ls", "--json"])).unwrap();
    let id = list[0]["id"].as_str().unwrap();
    assert_eq!(list[0]["names"], "small/tasks");

    let shown = triad(&["show", &id[..8]]);
    for part in ["job       generate version 5", "param     split: \"train\"", "prompt Utf8"] {
        assert!(shown.contains(part), "no `{part}` in\n{shown}");
    }
    assert_eq!(shown, triad(&["show", "tasks"]));
    assert_eq!(shown, triad(&["show", "small/tasks"]));
    let manifest: serde_json::Value =
        serde_json::from_str(&triad(&["show", "few", "--json"])).unwrap();
    assert_eq!(manifest["identity"]["inputs"]["tables"]["tasks"], id);

    triad(&["get", "few", "out"]);
    assert!(dir.path().join("out/tasks/00000.parquet").is_file());
    assert_eq!(
        failure(dir.path(), &["get", "few", "out"]),
        "64: error: folder `out` is not empty; give a new one"
    );
    let count = triad(&["query", "SELECT count(*) AS n FROM small.tasks", "--format", "csv"]);
    assert_eq!(count, "n\n40\n");
}

#[test]
fn a_query_writes_files_and_says_what_it_took() {
    let dir = folder(TASKS);
    stdout(dir.path(), &["run", "small.yaml"]);
    let sql = "SELECT task_id, verdict(family, puzzle, '<answer>' || answer || '</answer>') AS v, \
               answer FROM tasks";
    let output = run(dir.path(), &["query", sql, "--output", "rows.parquet", "--stats"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("40 rows, ") && said.contains(" requests (0 repeated), "), "{said}");
    let bytes: u64 = said.split(", ").nth(2).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(bytes > 1000, "{said}");
    let sql = "SELECT v, count(*) AS n FROM 'rows.parquet' GROUP BY v";
    assert_eq!(stdout(dir.path(), &["query", sql, "--format", "csv"]), "v,n\ncorrect,40\n");
    let inputs = "SELECT f.stage, t.stage AS input FROM triad.lineage l \
                  JOIN triad.stages f ON f.id = l.id JOIN triad.stages t ON t.id = l.input";
    let inputs = stdout(dir.path(), &["query", inputs, "--format", "csv"]);
    assert_eq!(inputs, "stage,input\nfew,tasks\n");
}

#[test]
fn mistakes_on_the_command_line_exit_with_64() {
    let dir = folder(TASKS);
    stdout(dir.path(), &["run", "small.yaml", "--until", "tasks"]);
    let cases: &[&[&str]] = &[
        &["run", "gone.yaml"],
        &["run", "small.yaml", "--until", "task"],
        &["run", "small.yaml", "--set", "tasks.sede=2"],
        &["job", "small.yaml", "few", "--shard", "1/2"],
        &["status", "smal"],
        &["show", "task"],
        &["show", "small/task"],
        &["show", "abcdef"],
        &["show", "tasks", "--dataset", "task"],
        &["report", "smal", "--out", "x.html"],
        &["sample", "tasks"],
        &["--store", "ftp://host/x", "ls"],
    ];
    let found = cases.iter().map(|args| redacted(&failure(dir.path(), args)));
    let found: Vec<String> = found.collect();
    insta::assert_snapshot!(found.join("\n"), @r#"
    64: error: pipeline file `gone.yaml`: No such file or directory (os error 2)
    64: error: no stage `task` in small.yaml; did you mean `tasks`?
    64: error: --set tasks.sede=2: stage `tasks`: params: unknown field `sede`; did you mean `seed`?
    64: error: stage `few`: job `filter` takes no shards; leave `--shard` out
    64: error: no run of a pipeline `smal`; did you mean `small`?
    64: error: no artifact `task`: neither a stage nor 6 or more digits of an id; did you mean `tasks`?
    64: error: no artifact `small/task`; did you mean `small/tasks`?
    64: error: no artifact id begins with `abcdef`; `triad ls` lists them
    64: error: no dataset `task`; did you mean `tasks`?
    64: error: run `smal` has no scores to report; `triad status` lists its stages
    64: error: `tasks` ([id]) is no checkpoint but tasks; `triad ls` lists the checkpoints
    64: error: store `ftp://host/x`: `ftp` is none of file, s3, memory
    "#);
    for args in [
        &["run"][..],
        &["run", "small.yaml", "--workers", "0"],
        &["job", "small.yaml", "few", "--shard", "0/2"],
    ] {
        assert_eq!(run(dir.path(), args).status.code(), Some(64), "{args:?}");
    }
    assert_eq!(run(dir.path(), &["--help"]).status.code(), Some(0));
}

#[test]
fn mistakes_in_the_file_commit_nothing() {
    let cases = [
        ("split: train", "splits: train"),
        ("split: train", "split: training"),
        ("count: 40", "count: many"),
        ("level: 1, count: 40", "level: 4.5, count: 4.5"),
        ("count: 40", "count: [40]"),
        ("    inputs: {tables: [tasks]}\n", ""),
        ("tables: [tasks]", "tables: [few]"),
        ("tables: [tasks]", "table: tasks"),
        ("ORDER BY task_id ", ""),
        ("job: filter", "job: merge"),
    ];
    let mut found = Vec::new();
    for (from, to) in cases {
        assert!(TASKS.contains(from));
        let dir = folder(&TASKS.replace(from, to));
        found.push(failure(dir.path(), &["run", "small.yaml"]));
        assert!(!dir.path().join("triad-store/artifacts").exists(), "{from} -> {to}");
    }
    insta::assert_snapshot!(found.join("\n"), @r#"
    64: error: small.yaml:7: stage `tasks`: params: unknown field `splits`; did you mean `split`?
    64: error: small.yaml:7: stage `tasks`: params.split: unknown variant `training`; there are train, validation, heldout
    64: error: small.yaml:9: stage `tasks`: params.levels.0.count: invalid type: string "many", expected usize
    64: error: small.yaml:9: stage `tasks`: params.levels.0.count: invalid type: floating point `4.5`, expected usize
    64: error: small.yaml:9: stage `tasks`: params.levels.0.count: invalid type: sequence, expected usize
    64: error: small.yaml:10: stage `few`: missing input `tables`; job `filter` needs a stage that makes tasks or examples or rollouts or verdicts or scores or checkpoint
    64: error: small.yaml:10: stage `few`: its inputs lead back to itself: few <- few; remove one of these inputs
    64: error: small.yaml:15: stage `few`: job `filter` has no input `table`; did you mean `tables`?
    64: error: small.yaml:13: stage `few`: params.sql: no ORDER BY at the query's end; the rows' order must not be left open
    64: error: small.yaml:14: stage `few`: params: unknown field `output`; there are merge_method, models, slices, base_model, parameters, dtype, out_dtype, tokenizer_source, tokenizer, chat_template, seed, allow_non_finite
    "#);
}

#[test]
fn shards_make_the_same_artifact_as_one_process() {
    // Two lots each: short puzzles come again in the second, long ones don't.
    for (family, level, count) in [("deduction", 1, 66_000), ("induction", 5, 66_000)] {
        let pipeline = format!(
            "pipeline: small\nstages:\n  tasks:\n    job: generate\n    params:\n      \
             family: {family}\n      split: train\n      levels: [{{level: {level}, \
             count: {count}}}]\n"
        );
        let whole = folder(&pipeline);
        stdout(whole.path(), &["job", "small.yaml", "tasks"]);
        let parts = folder(&pipeline);
        for shard in ["2/3", "3/3"] {
            let said = stdout(parts.path(), &["job", "small.yaml", "tasks", "--shard", shard]);
            assert!(said.ends_with("shard committed, others are missing\n"), "{said}");
        }
        assert!(failure(parts.path(), &["show", "tasks"]).starts_with("64: "));
        let said = stdout(parts.path(), &["job", "small.yaml", "tasks", "--shard", "1/3"]);
        assert!(said.ends_with(" committed\n"), "{said}");
        let made = |dir: &Path| {
            let shown = stdout(dir, &["show", "tasks", "--json"]);
            let manifest: serde_json::Value = serde_json::from_str(&shown).unwrap();
            let objects = manifest["objects"].as_array().unwrap().clone();
            let objects = objects.iter().map(|o| (o["path"].clone(), o["digest"].clone()));
            (objects.collect::<Vec<_>>(), manifest["summary"].clone())
        };
        assert_eq!(made(whole.path()), made(parts.path()), "{family}");
    }
}

#[test]
fn a_damaged_object_is_named_and_nothing_is_made_from_it() {
    let dir = folder(TASKS);
    stdout(dir.path(), &["run", "small.yaml", "--until", "tasks"]);
    let shown = stdout(dir.path(), &["show", "tasks", "--json"]);
    let manifest: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let object = &manifest["objects"][0];
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_string();
    let path = dir.path().join(format!(
        "triad-store/artifacts/{}/data/{}/{}",
        text(&manifest["id"]),
        text(&object["attempt"]),
        text(&object["path"])
    ));
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    for args in [&["run", "small.yaml"][..], &["get", "tasks", "out"]] {
        let error = failure(dir.path(), args);
        assert!(error.starts_with("65: ") && error.contains("digest"), "{error}");
        assert!(error.contains(&text(&object["path"])), "{error}");
    }
    bytes.truncate(10);
    std::fs::write(&path, bytes).unwrap();
    let error = failure(dir.path(), &["run", "small.yaml"]);
    assert!(error.starts_with("65: ") && error.contains("10 bytes"), "{error}");
    let list: serde_json::Value =
        serde_json::from_str(&stdout(dir.path(), &["ls", "--json"])).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 1);
}

#[test]
fn a_store_out_of_reach_is_worth_another_try() {
    let dir = folder(TASKS);
    let output = crate::program::command(dir.path(), &["ls", "--store", "s3://bucket/x"])
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_REGION", "us-east-1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(75));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("127.0.0.1:9"), "{error}");
}

/// A model of random weights whose tokenizer has a token for each byte.
fn checkpoint(folder: &Path) {
    use triad::checkpoint::{Checkpoint, ModelConfig, Tokenizer, init_weights};
    let tokenizer = Tokenizer::train(["abc".to_string()].into_iter(), 263).unwrap();
    let config = serde_json::json!({"model_type": "qwen2", "vocab_size": tokenizer.size(), "hidden_size": 16,
        "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 64, "tie_word_embeddings": true});
    let config = ModelConfig::from_json(config.to_string().as_bytes()).unwrap();
    let weights = init_weights(&config, 1, 0.02).unwrap();
    Checkpoint::fresh(config, tokenizer, weights).unwrap().to_folder(folder).unwrap();
}

#[test]
fn a_local_checkpoint_can_be_sampled_and_a_broken_one_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    checkpoint(&folder);
    let sample = |seed: &str| {
        let more = ["--temperature", "1", "--max-new-tokens", "8", "--seed", seed];
        stdout(dir.path(), &[&["sample", "model", "--prompt", "ab"][..], &more].concat())
    };
    assert_eq!(sample("1"), sample("1"));
    assert_ne!(sample("1"), sample("2"));

    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let broken = |config: &str| {
        std::fs::write(folder.join("config.json"), config).unwrap();
        failure(dir.path(), &["sample", "model", "--prompt", "ab"])
    };
    let disagree = broken(&config.replace("263", "100"));
    assert!(disagree.starts_with("65: error: model: "), "{disagree}");
    let unreadable = broken(&config[..20]);
    assert!(unreadable.starts_with("65: error: model: config.json"), "{unreadable}");
    broken(&config);
    let weights = std::fs::read(folder.join("model.safetensors")).unwrap();
    std::fs::write(folder.join("model.safetensors"), &weights[..weights.len() - 1]).unwrap();
    let truncated = failure(dir.path(), &["sample", "model", "--prompt", "ab"]);
    assert!(truncated.starts_with("65: error: model: model.safetensors"), "{truncated}");
}

#[test]
fn a_cache_without_room_for_one_response_names_the_least_that_would_do() {
    let seedling = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/seedling");
    let dir = folder(&format!(
        "\
pipeline: small
stages:
  base: {{job: import-checkpoint, params: {{path: {seedling:?}}}}}
  tasks:
    job: generate
    params: {{family: deduction, split: heldout, levels: [{{level: 1, count: 8}}]}}
  rollouts:
    job: rollout
    params: {{samples: 2, temperature: 1.0, max_new_tokens: 8, block: 1, cache_bytes: 1KiB}}
    inputs: {{checkpoint: base, tasks: tasks}}
"
    ));
    let set = |bytes: &str| {
        let set = format!("rollouts.cache_bytes={bytes}");
        ["run", "small.yaml", "--set", &set].map(String::from)
    };
    let refused =
        |args: &[String]| failure(dir.path(), &args.iter().map(String::as_str).collect::<Vec<_>>());
    let said = failure(dir.path(), &["run", "small.yaml"]);
    assert!(said.starts_with("64: error: ") && said.contains("cache_bytes 1024: "), "{said}");
    let least: usize = said.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(refused(&set(&(least - 1).to_string())).ends_with(&least.to_string()));
    let args = set(&format!("{least} B"));
    stdout(dir.path(), &args.iter().map(String::as_str).collect::<Vec<_>>());
    let args = set("2 gigs");
    assert_eq!(
        refused(&args),
        "64: error: --set rollouts.cache_bytes=2 gigs: stage `rollouts`: params.cache_bytes: give a \
         number of bytes, or a text such as 512MiB or 2GB"
    );
}

#[test]
fn stored_responses_are_judged_by_another_rule_without_sampling() {
    let seedling = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/seedling");
    let pipeline = format!(
        "\
pipeline: small
stages:
  base: {{job: import-checkpoint, params: {{path: {seedling:?}}}}}
  tasks:
    job: generate
    params: {{family: arithmetic, split: heldout, levels: [{{level: 1, count: 40}}]}}
  rollouts:
    job: rollout
    params: {{samples: 2, temperature: 1.0, max_new_tokens: 40}}
    inputs: {{checkpoint: base, tasks: tasks}}
  released:
    job: verify
    params: {{reward: released}}
    inputs: {{tasks: tasks, rollouts: rollouts}}
"
    );
    let dir = folder(&pipeline);
    stdout(dir.path(), &["run", "small.yaml"]);
    let again = "  plain:
    job: verify
    params: {reward: correct}
    inputs: {tasks: tasks, rollouts: rollouts}
";
    std::fs::write(dir.path().join("small.yaml"), pipeline + again).unwrap();
    let table = stdout(dir.path(), &["run", "small.yaml"]);
    assert_eq!(table.matches("committed").count(), 1, "{table}");
    let sql = "SELECT a.reward AS released, b.reward AS plain, count(*) AS n \
               FROM small.released a JOIN small.plain b USING (task_id, sample) \
               GROUP BY a.reward, b.reward ORDER BY a.reward, b.reward";
    let rows = stdout(dir.path(), &["query", sql, "--format", "csv"]);
    let rows: Vec<Vec<f64>> = rows
        .lines()
        .skip(1)
        .map(|row| row.split(',').map(|cell| cell.parse().unwrap()).collect())
        .collect();
    assert!(rows.len() > 1, "{rows:?}");
    assert_eq!(rows.iter().map(|row| row[2]).sum::<f64>(), 80.0);
    assert!(rows.iter().all(|row| (row[0] == 3.0) == (row[1] == 1.0)), "{rows:?}");
}

#[test]
fn without_libtorch_everything_but_computing_works() {
    let program = env!("CARGO_BIN_EXE_triad");
    let bytes = std::fs::read(program).unwrap();
    let linked = bytes.windows(12).any(|window| window == b"libtorch_cpu");
    assert!(!linked, "{program} is linked to libtorch");

    let seedling = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/seedling");
    let dir = folder(&format!(
        "\
pipeline: small
stages:
  base: {{job: import-checkpoint, params: {{path: {seedling:?}}}}}
  tasks:
    job: generate
    params: {{family: deduction, split: heldout, levels: [{{level: 1, count: 8}}]}}
  rollouts:
    job: rollout
    params: {{samples: 1, temperature: 0.0, max_new_tokens: 8}}
    inputs: {{checkpoint: base, tasks: tasks}}
"
    ));
    let alone = dir.path().join("triad");
    // Copied by a child: what this process has open for writing, another test's child may still hold
    // when it is to run.
    let copy = |from: &Path, to: &Path| {
        assert!(Command::new("cp").args([from, to]).status().unwrap().success());
    };
    copy(Path::new(program), &alone);
    let run = |args: &[&str]| {
        let mut command = Command::new(&alone);
        let output = command.args(args).current_dir(dir.path()).env_clear().output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, why) = run(&["run", "small.yaml"]);
    assert_eq!(code, Some(64), "{why}");
    assert!(why.contains("stage `rollouts`") && why.contains("triad-torch"), "{why}");
    assert!(!dir.path().join("triad-store").exists(), "something was begun");
    for stage in ["base", "tasks"] {
        let (code, why) = run(&["job", "small.yaml", stage]);
        assert_eq!(code, Some(0), "{why}");
    }
    // A SIGTERM while the other program is loaded ends it once it is there, and not before.
    let torch = Path::new(program).with_file_name("triad-torch");
    // Not by `sh`: dash lets all signals in again.
    let script = format!("#!/bin/bash\nkill -TERM $$\ntouch loaded\nexec {torch:?} \"$@\"\n");
    let written = dir.path().join("script");
    std::fs::write(&written, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&written, mode).unwrap();
    copy(&written, &dir.path().join("triad-torch"));
    let mut command = Command::new(&alone);
    let status = command.args(["run", "small.yaml"]).current_dir(dir.path()).status().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGTERM));
    assert!(dir.path().join("loaded").exists());
    // With libtorch beside it the same command goes on where that one stopped.
    stdout(dir.path(), &["run", "small.yaml"]);
    let (code, why) = run(&["run", "small.yaml"]);
    assert_eq!(code, Some(0), "nothing is left to compute: {why}");
}
