//! The report job over committed scores, and the page that the command line writes.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::dataset::{Metric, Score};
use crate::job::{self, Inputs, Outcome, Progress, ProgressSink, Run, Shard, StopFlag};
use crate::report::{self, Request, Written};
use crate::store::{Manifest, Store};

struct Quiet;

impl ProgressSink for Quiet {
    fn update(&self, _: &str, _: &str, _: u64, _: u64, _: &str) {}
}

/// Writes scores of which every `solved`-th is right, or the metrics of a run.
struct Toy(&'static str);

impl Job for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[]
    }
    fn output(&self) -> &'static str {
        self.0
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        Ok(raw.clone())
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        let solved = context.params["solved"].as_u64().unwrap_or(1) as u32;
        context.timings.insert("sample_tokens_per_second".into(), 4321.0);
        if self.0 == "checkpoint" {
            let metric =
                |step| Metric { step, level: 0, name: "kl".into(), value: f64::from(step) };
            return context.write(0, &(1..5).map(metric).collect::<Vec<_>>());
        }
        let score = |task: u32| Score {
            set: "deduction".into(),
            task_id: format!("{task:03}"),
            family: "deduction".into(),
            level: 1,
            model: String::new(),
            mode: "sampled".into(),
            temperature: 1.0,
            samples: 2,
            correct: if task.is_multiple_of(solved) { 2 } else { 0 },
            format_ok: 2,
            length: 9.0,
            ..Score::default()
        };
        context.write(0, &(0..60).map(score).collect::<Vec<_>>())
    }
}

async fn run(
    store: &Store,
    stage: &str,
    job: &'static dyn Job,
    params: Value,
    inputs: Inputs,
) -> Result<Manifest> {
    let progress = Progress { stage: stage.into(), sink: Arc::new(Quiet) };
    let (shard, stop) = (Shard::WHOLE, StopFlag::default());
    let params = job.resolve(&params)?;
    let device = "cpu".into();
    let run = Run { job, params, inputs, shard, device, server: None, stop, progress };
    let (Outcome::Committed(manifest) | Outcome::Found(manifest)) = job::run(store, run).await?
    else {
        panic!("not committed")
    };
    store.set_ref("trial", stage, &manifest.id).await?;
    Ok(*manifest)
}

async fn input(store: &Store, name: &str, manifest: Manifest) -> Input {
    let artifact = Artifact::open(store, &manifest.id).await.unwrap().unwrap();
    Input { name: name.into(), artifact }
}

/// Scores of two models, one run, and their report.
async fn trial(store: &Store, spec: Value) -> Result<Manifest> {
    let mut inputs = Inputs::new();
    for (name, solved) in [("base", 3), ("better", 2)] {
        let scores = run(
            store,
            &format!("{name}-scores"),
            &Toy("scores"),
            json!({"solved": solved}),
            Inputs::new(),
        )
        .await?;
        inputs.entry("scores".into()).or_default().push(input(store, name, scores).await);
    }
    let checkpoint = run(store, "rl", &Toy("checkpoint"), json!({}), Inputs::new()).await?;
    inputs.insert("runs".into(), vec![input(store, "rl", checkpoint).await]);
    run(store, "report", &Report, spec, inputs).await
}

async fn written(store: &Store, run: &str) -> Result<Written> {
    report::write(store, Request { run: run.into(), ..Request::default() }, |_| None).await
}

fn spec() -> Value {
    json!({"title": "Trial", "baseline": "base", "comparisons": [{"model": "better", "against": "base"}]})
}

#[tokio::test]
async fn the_report_is_an_artifact_that_does_not_depend_on_the_clock() {
    let (one, two) = (Store::open("memory://").unwrap(), Store::open("memory://").unwrap());
    let manifest = trial(&one, spec()).await.unwrap();
    assert_eq!(
        (manifest.kind.as_str(), manifest.summary["better"].as_f64()),
        ("report", Some(0.5))
    );
    let paths: Vec<_> =
        manifest.objects.iter().map(|o| (o.path.clone(), o.digest.clone())).collect();
    assert_eq!(paths[0].0, "report.html");
    let again = trial(&two, spec()).await.unwrap();
    let digests: Vec<_> =
        again.objects.iter().map(|o| (o.path.clone(), o.digest.clone())).collect();
    assert_eq!(digests, paths);
    let artifact = Artifact::open(&one, &manifest.id).await.unwrap().unwrap();
    let summary: Value =
        serde_json::from_slice(&artifact.read("summary.json").await.unwrap()).unwrap();
    assert_eq!(summary["accuracy"][0]["model"], "base");
    assert!(
        (summary["comparisons"][0]["difference"]["mean"].as_f64().unwrap() - 1.0 / 6.0).abs()
            < 1e-9
    );
}

#[tokio::test]
async fn the_written_page_adds_the_timings() {
    let store = Store::open("memory://").unwrap();
    trial(&store, spec()).await.unwrap();
    let Written { content, text } = written(&store, "trial").await.unwrap();
    assert!(text.contains("50.0 ±") && text.contains("33.3 ±"), "{text}");
    assert!(content.contains("Pipeline</h2>") && content.contains("4321"), "{content}");
    let error = written(&store, "trail").await.unwrap_err();
    assert_eq!(error.exit_code(), 64);
    assert!(error.to_string().starts_with("run `trail` has no scores"), "{error}");
}

#[tokio::test]
async fn a_run_without_a_report_stage_is_reported_as_far_as_it_is() {
    let store = Store::open("memory://").unwrap();
    run(&store, "base-scores", &Toy("scores"), json!({"solved": 4}), Inputs::new()).await.unwrap();
    let text = written(&store, "trial").await.unwrap().text;
    assert!(text.contains("base-scores") && text.contains("25.0 ±"), "{text}");
}

#[tokio::test]
async fn a_wrong_name_in_the_settings_commits_nothing() {
    let store = Store::open("memory://").unwrap();
    let said = trial(&store, json!({"baseline": "bass"})).await.unwrap_err();
    assert_eq!(said.to_string(), "report: no scores of a model `bass`; there are base, better");
    assert!(store.get_ref("trial", "report").await.unwrap().is_none());
    assert!(trial(&store, json!({"titel": "x"})).await.unwrap_err().to_string().contains("titel"));
}
