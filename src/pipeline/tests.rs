//! Toy job kinds, good and bad pipeline files, plans and runs in memory.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::*;
use crate::job::{Arity, Context, Port, ProgressSink, Shard, StopFlag};
use crate::store::Store;

/// Makes `notes` out of any number of `notes`; fails on request.
struct Note;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoteSpec {
    text: String,
    #[serde(default)]
    learning_rate: f64,
    #[serde(default)]
    fail: Option<String>,
    #[serde(default)]
    nested: Nested,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Nested {
    #[serde(default)]
    depth: u32,
}

impl Job for Note {
    fn name(&self) -> &'static str {
        "note"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "notes", accepts: &["notes"], arity: Arity::Many },
            Port { name: "extra", accepts: &["notes"], arity: Arity::Optional },
        ]
    }
    fn output(&self) -> &'static str {
        "notes"
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        let spec: NoteSpec = serde_json::from_value(raw.clone()).map_err(Error::usage)?;
        serde_json::to_value(spec).map_err(Error::defect)
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        write(context)
    }
}

/// As `note`, from nothing.
struct Seed;

impl Job for Seed {
    fn name(&self) -> &'static str {
        "seed"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[]
    }
    fn output(&self) -> &'static str {
        "notes"
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        Note.resolve(raw)
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        write(context)
    }
}

/// Takes one artifact and makes another kind.
struct Model;

impl Job for Model {
    fn name(&self) -> &'static str {
        "model"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[Port { name: "from", accepts: &["notes"], arity: Arity::One }]
    }
    fn output(&self) -> &'static str {
        "checkpoint"
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        Note.resolve(raw)
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        write(context)
    }
}

fn write(context: &mut Context) -> Result<()> {
    let spec: NoteSpec = context.spec()?;
    match spec.fail.as_deref() {
        Some("data") => return Err(Error::data("bad row 3")),
        Some("again") => return Err(Error::try_again("store out of reach")),
        _ => context.check_stop()?,
    }
    context.write_object("note.txt", Bytes::from(spec.text))
}

const KINDS: &[&'static dyn Job] = &[&Note, &Seed, &Model];

const GOOD: &str = "\
pipeline: toy
stages:
  a:
    job: seed
    params: {text: first}
  b:
    job: seed
    params: {text: second}
  both:
    job: note
    params:
      text: third
      learning_rate: 1e-4
    inputs: {notes: [a, b]}
    resources: {gpus: 0, memory: 1G}
  model:
    job: model
    params: {text: fourth}
    inputs: {from: both}
";

fn parse(text: &str, sets: &[&str]) -> Result<Pipeline> {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    Pipeline::parse("toy.yaml", text, &sets, KINDS)
}

fn message(text: &str, sets: &[&str]) -> String {
    match parse(text, sets) {
        Ok(_) => "accepted".into(),
        Err(error) => {
            assert_eq!(error.exit_code(), 64, "{error}");
            error.to_string()
        }
    }
}

#[test]
fn mistakes_are_named_with_their_line() {
    let replaced = |from: &str, to: &str| {
        assert!(GOOD.contains(from));
        message(&GOOD.replacen(from, to, 1), &[])
    };
    let cases = [
        ("pipeline: toy", "pipelin: toy"),
        ("pipeline: toy", "pipeline: to/y"),
        ("pipeline: toy", "pipeline: [toy"),
        ("stages:\n", "stages:\n  a: {job: seed, params: {text: x}}\n"),
        ("    job: model\n", "    jobb: model\n"),
        ("    job: model\n", ""),
        ("job: model", "job: modle"),
        ("learning_rate:", "learning_rat:"),
        ("1e-4", "fast"),
        ("    params: {text: fourth}\n", ""),
        ("{notes: [a, b]}", "{note: [a, b]}"),
        ("{notes: [a, b]}", "{notes: [a, bb]}"),
        ("{notes: [a, b]}", "{notes: [a, a]}"),
        ("{notes: [a, b]}", "{notes: [a, model]}"),
        ("{notes: [a, b]}", "{notes: both}"),
        ("{from: both}", "{from: [both]}"),
        ("    inputs: {from: both}\n", ""),
        ("gpus: 0", "gpu: 0"),
        ("gpus: 0", "gpus: many"),
    ];
    let found: Vec<String> = cases.iter().map(|(from, to)| replaced(from, to)).collect();
    insta::assert_snapshot!(found.join("\n"), @r#"
    toy.yaml:1: unknown key `pipelin`; did you mean `pipeline`?
    toy.yaml:1: `to/y` is no pipeline name; use letters, digits, `-` and `_`
    toy.yaml:2: illegal placement of ':' indicator
    toy.yaml:4: duplicate mapping key: a
    toy.yaml:17: stage `model`: unknown key `jobb`; did you mean `job`?
    toy.yaml:16: stage `model`: missing key `job`; give a job kind
    toy.yaml:17: stage `model`: no job kind `modle`; did you mean `model`?
    toy.yaml:13: stage `both`: params: unknown field `learning_rat`; did you mean `learning_rate`?
    toy.yaml:13: stage `both`: params.learning_rate: invalid type: string "fast", expected f64
    toy.yaml:16: stage `model`: params: missing field `text`; add it
    toy.yaml:14: stage `both`: job `note` has no input `note`; did you mean `notes`?
    toy.yaml:14: stage `both`: input `notes`: no stage `bb`; did you mean `b`?
    toy.yaml:14: stage `both`: input `notes` has `a` twice; remove one
    toy.yaml:14: stage `both`: input `notes` takes notes; stage `model` (job `model`) makes checkpoint
    toy.yaml:9: stage `both`: its inputs lead back to itself: both <- both; remove one of these inputs
    toy.yaml:19: stage `model`: input `from` of job `model` takes one stage, not several
    toy.yaml:16: stage `model`: missing input `from`; job `model` needs a stage that makes notes
    toy.yaml:15: stage `both`: resources: unknown field `gpu`; did you mean `gpus`?
    toy.yaml:15: stage `both`: resources.gpus: invalid type: string "many", expected u32
    "#);
}

#[test]
fn cycles_are_shown() {
    let text = GOOD.replace("{notes: [a, b]}", "{notes: {x: a, y: c}}")
        + "  c: {job: note, params: {text: x}, inputs: {notes: both}}\n";
    insta::assert_snapshot!(message(&text, &[]), @"toy.yaml:9: stage `both`: its inputs lead back to itself: both <- c <- both; remove one of these inputs");
}

#[test]
fn overrides_reach_into_parameters_and_defaults() {
    let pipeline = parse(GOOD, &["a.text=new text", "both.nested.depth=3", "b.learning_rate=2e-3"]);
    let pipeline = pipeline.unwrap();
    assert_eq!(pipeline.stages[0].params["text"], "new text");
    assert_eq!(pipeline.stages[1].params["learning_rate"], 2e-3);
    assert_eq!(pipeline.stages[2].params["nested"]["depth"], 3);
    assert_eq!(pipeline.stages[2].params["text"], "third");
    let bad = [
        "a.text",
        "text=1",
        "aa.text=1",
        "a.txet=1",
        "a.nest.depth=1",
        "a.text.x=1",
        "a.learning_rate=fast",
        "a.text=[1",
    ];
    let found: Vec<String> = bad.iter().map(|set| message(GOOD, &[set])).collect();
    insta::assert_snapshot!(found.join("\n"), @r#"
    --set a.text: no `=`; write stage.key=value
    --set text=1: `text` names no parameter; write stage.key=value
    --set aa.text=1: no stage `aa`; did you mean `a`?
    --set a.txet=1: stage `a`: params: unknown field `txet`; did you mean `text`?
    --set a.nest.depth=1: no parameter `nest`; there are fail, learning_rate, nested, text
    --set a.text.x=1: `"first"` has no parameter `x`
    --set a.learning_rate=fast: stage `a`: params.learning_rate: invalid type: string "fast", expected f64
    --set a.text=[1: unclosed bracket '['
    "#);
}

#[test]
fn names_of_stages_are_outside_identities_where_a_port_takes_one() {
    let before = parse(GOOD, &[]).unwrap();
    let after = parse(&GOOD.replace("both", "joined"), &[]).unwrap();
    assert_eq!(before.stages[3].id, after.stages[3].id);
    let after = parse(&GOOD.replace("[a, b]", "{a: a, c: b}"), &[]).unwrap();
    assert_ne!(before.stages[2].id, after.stages[2].id);
    let after = parse(&GOOD.replace("{gpus: 0, memory: 1G}", "{gpus: 4}"), &[]).unwrap();
    assert_eq!(before.stages[3].id, after.stages[3].id);
}

#[test]
fn a_parameter_may_be_the_text_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("first.sql"), "SELECT 1\n").unwrap();
    let file = folder.path().join("toy.yaml").display().to_string();
    let load = |text: &str| Pipeline::parse(&file, text, &[], KINDS);
    let pipeline = load(&GOOD.replace("text: first", "text: !file first.sql")).unwrap();
    assert_eq!(pipeline.stages[0].params["text"], "SELECT 1\n");
    for (text, expected) in [("!file gone.sql", "gone.sql"), ("!include first.sql", "!include")] {
        let error = load(&GOOD.replace("first", text)).err().unwrap().to_string();
        assert!(error.starts_with(&format!("{file}:5: ")) && error.contains(expected), "{error}");
    }
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl ProgressSink for Log {
    fn update(&self, _: &str, _: &str, _: u64, _: u64, _: &str) {}
}

impl Observer for Log {
    fn started(&self, stage: &str, _: &str) {
        self.0.lock().unwrap().push(stage.into());
    }
    fn ended(&self, _: &str, _: &Ending) {}
}

async fn run_toy(
    store: &Store,
    pipeline: &Pipeline,
    until: Option<&str>,
) -> (Vec<String>, Vec<StageEnd>) {
    let observer = Arc::new(Log::default());
    let options = RunOptions {
        workers: 2,
        device: "cpu".into(),
        server: None,
        until: until.map(str::to_string),
        stop: StopFlag::default(),
        observer: observer.clone(),
    };
    let ends = run(store, pipeline, &options).await.unwrap();
    let mut started = observer.0.lock().unwrap().clone();
    started.sort();
    (started, ends)
}

async fn reasons(store: &Store, pipeline: &Pipeline) -> Vec<String> {
    let plans = plan(store, pipeline).await.unwrap();
    plans
        .into_iter()
        .filter_map(|plan| match plan.state {
            State::Missing { why, .. } => {
                Some(format!("{}: {}", pipeline.stages[plan.stage].name, why.join("; ")))
            }
            State::Committed(_) => None,
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_runs_again() {
    let store = Store::open("memory://").unwrap();
    let pipeline = parse(GOOD, &[]).unwrap();
    assert_eq!(reasons(&store, &pipeline).await[3], "model: never run");
    let (started, ends) = run_toy(&store, &pipeline, Some("both")).await;
    assert_eq!(started, ["a", "b", "both"]);
    assert_eq!(ends.len(), 3);
    let (started, ends) = run_toy(&store, &pipeline, None).await;
    assert_eq!(started, ["model"]);
    assert!(matches!(ends[0].ending, Ending::Found(_)));
    assert!(matches!(ends[3].ending, Ending::Committed(_)));
    assert!(run_toy(&store, &pipeline, None).await.0.is_empty());
    assert!(reasons(&store, &pipeline).await.is_empty());

    let changed = parse(GOOD, &["b.text=other"]).unwrap();
    assert_eq!(
        reasons(&store, &changed).await,
        [
            "b: params.text: second -> other",
            "both: input notes.b: changed",
            "model: input from: changed"
        ]
    );
    assert_eq!(run_toy(&store, &changed, None).await.0, ["b", "both", "model"]);
    // The names point back, without any work.
    assert!(run_toy(&store, &pipeline, None).await.0.is_empty());
    assert_eq!(store.get_ref("toy", "b").await.unwrap().as_ref(), Some(&pipeline.stages[1].id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_names_its_stage_and_stops_what_depends_on_it() {
    let store = Store::open("memory://").unwrap();
    let pipeline = parse(GOOD, &["a.fail=again", "b.fail=data"]).unwrap();
    let (started, ends) = run_toy(&store, &pipeline, None).await;
    assert_eq!(started, ["a", "b"]);
    let error = worst(&ends).unwrap();
    assert_eq!((error.exit_code(), error.to_string()), (65, "stage `b`: bad row 3".into()));
    assert!(matches!(ends[2].ending, Ending::NotStarted));
    assert!(store.artifacts().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stage_alone_needs_its_inputs() {
    let store = Store::open("memory://").unwrap();
    let pipeline = parse(GOOD, &[]).unwrap();
    let options = RunOptions {
        workers: 1,
        device: "cpu".into(),
        server: None,
        until: None,
        stop: StopFlag::default(),
        observer: Arc::new(Log::default()),
    };
    let job = |stage: usize, shard| run_stage(&store, &pipeline, stage, shard, &options);
    let error = job(2, Shard::WHOLE).await.unwrap_err().to_string();
    assert!(error.starts_with("stage `both`: its input `a` ("), "{error}");
    let error = job(0, Shard { index: 0, of: 2 }).await.unwrap_err().to_string();
    assert_eq!(error, "stage `a`: job `seed` takes no shards; leave `--shard` out");
    for stage in [0, 1, 2] {
        assert!(matches!(job(stage, Shard::WHOLE).await.unwrap(), Ending::Committed(_)));
    }
    assert!(matches!(job(2, Shard::WHOLE).await.unwrap(), Ending::Found(_)));
}

/// Stages by name with their ids.
fn ids(pipeline: &Pipeline) -> Vec<(String, ArtifactId, u32)> {
    let id = |stage: &Stage| (stage.name.clone(), stage.id.clone(), stage.shards);
    pipeline.stages.iter().map(id).collect()
}

#[test]
fn a_pipelines_own_text_needs_nothing_beside_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs");
    let kinds = crate::job::kinds();
    for name in ["quickstart", "tiny", "certified", "seedling"] {
        let pipeline = Pipeline::load(&root.join(format!("{name}.yaml")), &[], kinds).unwrap();
        let again = Pipeline::parse("store:0", &pipeline.text, &[], kinds).unwrap();
        assert_eq!(ids(&pipeline), ids(&again), "{name}");
        assert_eq!(pipeline.text, again.text, "{name}");
        // Not even a file that is gone.
        assert!(!pipeline.text.contains("!file"), "{name}");
    }
    let rounds = Pipeline::load(&root.join("tiny.yaml"), &[], kinds).unwrap();
    let shared = |stage: &Stage| stage.shards > 1 && stage.name.contains('.');
    assert!(rounds.stages.iter().any(shared));
    for value in ["1e-5", "1e16", "0.1", "5e-324", "3"] {
        let set = format!("a.learning_rate={value}");
        let text =
            "pipeline: p\nstages:\n  a: {job: seed, params: {text: \"two\\nlines: # ' - é\"}}\n";
        let pipeline = parse(text, &[&set]).unwrap();
        assert_eq!(ids(&pipeline), ids(&parse(&pipeline.text, &[]).unwrap()), "{value}");
    }
}

#[test]
fn resources_and_shards_are_checked_with_the_file() {
    let kinds = crate::job::kinds();
    let text = |extra: &str| {
        format!(
            "pipeline: p\nstages:\n  t:\n    job: generate\n    params: {{family: arithmetic, split: train, \
             levels: [{{level: 1, count: 4}}]}}\n{extra}"
        )
    };
    let parse = |extra: &str| Pipeline::parse("p.yaml", &text(extra), &[], kinds);
    let said = |extra: &str| parse(extra).err().unwrap().to_string();
    let good =
        parse("    resources: {memory: 16G, time: 90m}\n    placement: {shards: 4}\n").unwrap();
    let Stage { resources, shards, .. } = &good.stages[0];
    assert_eq!(resources.memory, Some(16_000_000_000));
    assert_eq!((resources.time, *shards), (Some(std::time::Duration::from_secs(5400)), 4));
    assert_eq!(
        said("    resources:\n      time: soon\n"),
        "p.yaml:7: stage `t`: resources.time: `soon`: give a number and s, m, h or d, such as 90m"
    );
    assert!(said("    resources:\n      memory: lots\n").starts_with("p.yaml:7: "));
    let whole = "  d: {job: demonstrate, inputs: {tasks: [t]}, placement: {shards: 2}}\n";
    let error = said(whole);
    assert!(error.ends_with("placement: job `demonstrate` takes no shards"), "{error}");
}
