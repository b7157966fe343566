use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use serde_json::json;

use crate::checkpoint::{Checkpoint, ModelConfig, Tokenizer, init_weights};
use crate::dataset::{Row, Task};
use crate::id::ArtifactId;
use crate::query::{query, select};
use crate::reward::{Judge, Rule};
use crate::statistics::bootstrap_mean;
use crate::store::{Attempt, Manifest, Producer, Store};
use crate::task::{Family, Form, Level, Request, Split, generate};
use crate::{Error, Result};

fn run(sql: &str, tasks: &[Task]) -> Result<String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tables: Vec<(&str, Vec<RecordBatch>)> = vec![("tasks", vec![Task::encode(tasks)?])];
    let found = select(sql, tables, runtime.handle())?;
    Ok(pretty_format_batches(&found).unwrap().to_string())
}

fn said(sql: &str) -> String {
    let error: Error = run(sql, &[]).unwrap_err();
    assert!(matches!(error.exit_code(), 64 | 65), "{} {error}", error.exit_code());
    error.to_string()
}

/// The only cell of a table's text.
fn cell(text: &str) -> &str {
    text.lines().nth(3).unwrap().trim_matches(['|', ' '])
}

fn value(sql: &str) -> String {
    cell(&run(&format!("SELECT {sql} AS v"), &[]).unwrap()).to_string()
}

fn tasks(family: Family) -> Vec<Task> {
    let request = Request {
        family,
        split: Split::Train,
        seed: 7,
        form: Form::default(),
        levels: vec![Level { level: 1, count: 3, parameters: Default::default() }],
    };
    let mut tasks = Vec::new();
    generate(&request, 1, &mut |rows| {
        tasks.extend(rows);
        Ok(())
    })
    .unwrap();
    tasks
}

#[test]
fn pass_at_k_is_the_unbiased_estimate_or_null() {
    // 1 - C(6, 2)/C(8, 2) = 13/28.
    assert!(value("pass_at_k(2, 8, 2)").starts_with("0.46428571428571"));
    assert_eq!(value("pass_at_k(8, 8, 8)"), "1.0");
    assert_eq!(value("avg_at_k(3, 8)"), "0.375");
    for null in ["pass_at_k(1, 2, 3)", "pass_at_k(NULL, 2, 1)", "avg_at_k(0, 0)"] {
        assert_eq!(value(&format!("{null} IS NULL")), "true", "{null}");
    }
    // From columns, of several integer types.
    let sql =
        "SELECT sum(pass_at_k(size, size, level)) + pass_at_k(0, count(*), 1) AS v FROM tasks";
    assert_eq!(cell(&run(sql, &tasks(Family::Arithmetic)).unwrap()), "3.0");
    assert_eq!(said("SELECT pass_at_k(3, 2, 1)"), "pass_at_k: 3 of 2 cannot be correct");
    assert_eq!(said("SELECT pass_at_k(1, 2, 0)"), "pass_at_k: k is 0; it must be at least 1");
    assert_eq!(said("SELECT pass_at_k(1, 2)"), "1:8: pass_at_k: it takes (correct, n, k); 2 given");
    let text = said("SELECT pass_at_k('a', 2, 1)");
    assert_eq!(text, "1:8: pass_at_k: correct must be a whole number, not Utf8");
}

#[test]
fn lists_are_counted() {
    assert_eq!(value("token_count([5, 6, 7])"), "3");
    assert_eq!(value("token_count(make_array())"), "0");
    assert!(said("SELECT token_count(3)").contains("tokens must be a list"));
}

#[test]
fn the_interval_is_that_of_the_report_whatever_the_order() {
    let values: Vec<f64> = (0..60).map(|i| f64::from(i % 3 == 0)).collect();
    let mut sorted = values.clone();
    sorted.sort_by(f64::total_cmp);
    let wanted = bootstrap_mean(&[sorted], "bootstrap_ci").unwrap();
    let rows = |values: &mut dyn Iterator<Item = &f64>| {
        values.map(|v| format!("({v})")).collect::<Vec<_>>().join(", ")
    };
    for rows in [rows(&mut values.iter()), rows(&mut values.iter().rev())] {
        for (field, value) in [("mean", wanted.mean), ("low", wanted.low), ("high", wanted.high)] {
            for column in ["column1", "column1 > 0.5"] {
                let sql =
                    format!("SELECT bootstrap_ci({column})['{field}'] AS v FROM (VALUES {rows})");
                assert_eq!(cell(&run(&sql, &[]).unwrap()), format!("{value:?}"), "{sql}");
            }
        }
    }
    assert!(wanted.low < wanted.mean && wanted.mean < wanted.high);
    let none = "SELECT bootstrap_ci(level) IS NULL AS v FROM tasks";
    assert_eq!(cell(&run(none, &[]).unwrap()), "true");
    let text = said("SELECT bootstrap_ci('a')");
    assert_eq!(text, "1:8: bootstrap_ci: value must be a number or a boolean, not Utf8");
}

#[test]
fn responses_are_judged_as_the_verify_job_does() {
    for family in Family::ALL {
        let tasks = tasks(family);
        let rule = Rule::Released;
        for response in ["'x</think><answer>' || answer || '</answer>'", "'x</think>'", "answer"] {
            let sql = format!(
                "SELECT family, verdict(family, puzzle, {response}) AS v, \
                 reward(family, puzzle, prompt, {response}, 'released') AS r, \
                 canonical(family, puzzle) = canonical AS same FROM tasks ORDER BY task_id"
            );
            let mut sorted = tasks.clone();
            sorted.sort_by(|a, b| a.task_id.cmp(&b.task_id));
            let text = run(&sql, &tasks).unwrap();
            for (task, line) in sorted.iter().zip(text.lines().skip(3)) {
                let said = match response {
                    "answer" => task.answer.clone(),
                    "'x</think>'" => "x</think>".into(),
                    _ => format!("x</think><answer>{}</answer>", task.answer),
                };
                let judged = Judge::new(task).unwrap();
                let judged = judged.judge(&said, rule);
                let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
                let reward = format!("{:?}", judged.reward);
                assert_eq!(cells, [family.as_str(), judged.word(), &reward, "true"], "{response}");
            }
            if response.contains("<answer>") {
                assert!(text.contains("| correct | 3.0 "), "{text}");
            }
        }
    }
}

#[test]
fn what_cannot_be_judged_is_one_line() {
    let with = |family: &str, rule: &str| {
        said(&format!("SELECT reward('{family}', '{{}}', 'p', 't', '{rule}')"))
    };
    let wrong = with("deduction", "papr");
    assert_eq!(wrong, "1:8: reward: no reward rule `papr`; did you mean `paper`?");
    assert!(with("chess", "paper").contains("no task family `chess`"));
    assert!(with("deduction", "paper").starts_with("reward: column puzzle: "));
    assert_eq!(value("verdict(NULL, 'x', 'y') IS NULL"), "true");
}

#[tokio::test]
async fn tokens_are_decoded_by_a_checkpoints_tokenizer() {
    let store = Store::open("memory://").unwrap();
    let identity = json!({"job": "toy", "version": 1, "params": {}, "inputs": {}});
    let id = ArtifactId::of(&identity);
    let mut attempt = Attempt::new(&store, &id);
    let config = json!({
        "model_type": "qwen2", "vocab_size": 320, "hidden_size": 8, "intermediate_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
        "max_position_embeddings": 16, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "hidden_act": "silu",
    });
    let config = ModelConfig::from_json(config.to_string().as_bytes()).unwrap();
    let tokenizer = Tokenizer::train(["so 7 is".to_string()].into_iter(), 263).unwrap();
    let ids = tokenizer.encode("so 7 is").unwrap();
    let weights = init_weights(&config, 1, 0.02).unwrap();
    let checkpoint = Checkpoint::fresh(config, tokenizer, weights).unwrap();
    for (path, bytes) in checkpoint.objects().unwrap() {
        attempt.write(&path, bytes, None).await.unwrap();
    }
    let manifest = Manifest {
        format: Manifest::FORMAT,
        id: id.clone(),
        identity,
        kind: "checkpoint".into(),
        datasets: Default::default(),
        objects: Vec::new(),
        summary: Default::default(),
        producer: Producer::default(),
    };
    attempt.commit(manifest).await.unwrap();
    store.set_ref("p", "sft", &id).await.unwrap();
    for name in ["p/sft", "sft", id.as_str()] {
        let sql = format!("SELECT decode({ids:?}, '{name}') AS v");
        let (_, found) = query(&store, &sql).await.unwrap();
        let text = pretty_format_batches(&found).unwrap().to_string();
        assert_eq!(cell(&text), "so 7 is", "{name}");
    }
    let error = query(&store, "SELECT decode([1], 'stf')").await.unwrap_err().to_string();
    assert!(error.contains("no artifact `stf`") && error.contains("`sft`"), "{error}");
}
