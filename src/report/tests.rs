//! Reports of made-up scores.

use super::samples::{Chosen, Response};
use super::summary::{Accuracy, ORACLE};
use super::versus::{Side, Versus};
use super::*;
use crate::dataset::{Metric, Rollout, Score, Verdict};
use crate::entropy::Stream;
use crate::id::ArtifactId;
use crate::store::Manifest;

const SETS: [&str; 3] = ["deduction", "induction", "arithmetic"];

/// A model that solves each problem of a set with the share given for it.
fn model(name: &str, shares: [f64; 3], problems: usize) -> Model {
    let mut made = Model { name: name.into(), ..Model::default() };
    for (set, share) in SETS.iter().zip(shares) {
        for problem in 0..problems {
            let mut stream = Stream::new(1, &format!("{name}/{set}"), problem as u64);
            let task_id = format!("{set}-{problem:04}");
            let solved = (0..8).filter(|_| stream.chance(share)).count() as u32;
            let score = |mode: &str, samples, correct| Score {
                set: set.to_string(),
                task_id: task_id.clone(),
                family: set.to_string(),
                level: 1 + problem as u32 % 2,
                model: String::new(),
                mode: mode.into(),
                temperature: if samples == 1 { 0.0 } else { 1.0 },
                samples,
                correct,
                format_ok: samples,
                length: 20.0,
                majority: Some(f64::from(u8::from(2 * correct > samples))),
                ..Score::default()
            };
            made.scores.push(score("greedy", 1, u32::from(stream.chance(share))));
            made.scores.push(score("sampled", 8, solved));
        }
    }
    made
}

fn spec() -> Spec {
    Spec {
        title: "Trial & error".into(),
        baseline: Some("base".into()),
        specialists: vec!["deduction".into(), "induction".into()],
        comparisons: vec![Comparison {
            model: "merged".into(),
            against: "base".into(),
            sets: Vec::new(),
        }],
        samples: 1,
        ..Spec::default()
    }
}

fn data() -> Data {
    Data {
        spec: spec(),
        models: vec![
            model("base", [0.3, 0.4, 0.2], 60),
            model("deduction", [0.6, 0.4, 0.2], 60),
            model("induction", [0.3, 0.4, 0.2], 60),
            model("merged", [0.55, 0.55, 0.2], 60),
        ],
        ..Data::default()
    }
}

#[test]
fn tables_hold_every_model_in_the_order_of_the_method() {
    let summary = Summary::new(&data()).unwrap();
    assert_eq!(summary.sets, ["deduction", "induction", "arithmetic"]);
    assert_eq!(summary.families, ["deduction", "induction"]);
    let labels: Vec<_> = summary.modes.iter().map(|mode| mode.label.as_str()).collect();
    assert_eq!(labels, ["avg@8 at temperature 1", "pass@1, greedy"]);
    let columns: Vec<_> = summary.columns.iter().map(|column| &column.label[..]).collect();
    assert_eq!(columns, ["deduction", "induction", "arithmetic", "family mean", "mean"]);
    let names: Vec<_> = summary
        .accuracy
        .iter()
        .filter(|row| row.mode == "sampled")
        .map(|row| row.model.as_str())
        .collect();
    assert_eq!(names, ["base", "deduction", "induction", ORACLE, "merged"]);
    let base = summary.accuracy.iter().find(|row| row.mode == "greedy").unwrap();
    let by_hand = data().models[0]
        .scores
        .iter()
        .filter(|s| s.mode == "greedy" && s.set == "deduction")
        .map(|s| f64::from(s.correct))
        .sum::<f64>()
        / 60.0;
    let value = |at: usize| base.values[at].unwrap().mean;
    assert!((value(0) - by_hand).abs() < 1e-12);
    assert!((value(3) - (value(0) + value(1)) / 2.0).abs() < 1e-12);
}

#[test]
fn differences_are_put_in_words() {
    let summary = Summary::new(&data()).unwrap();
    let verdict = |model: &str| {
        let row = summary.comparisons.iter().find(|c| c.model == model && c.mode == "sampled");
        row.unwrap().verdict.as_str()
    };
    assert_eq!(verdict("deduction"), "better");
    assert_eq!(verdict("induction"), "no difference shown");
    assert_eq!(verdict("merged"), "better");
    let mut swapped = data();
    swapped.spec.comparisons[0] = Comparison {
        model: "base".into(),
        against: "merged".into(),
        sets: vec!["deduction".into()],
    };
    let summary = Summary::new(&swapped).unwrap();
    let of_base = |c: &&compare::Difference| c.model == "base" && c.mode == "sampled";
    assert_eq!(summary.comparisons.iter().find(of_base).unwrap().verdict, "worse");
}

#[test]
fn the_oracle_counts_what_any_specialist_solves() {
    let mut data = data();
    for model in &mut data.models {
        model.scores.retain(|s| s.set == "deduction" && s.mode == "greedy");
        let half = usize::from(model.name == "induction");
        for (index, score) in model.scores.iter_mut().enumerate() {
            score.correct = u32::from(index % 3 == half);
        }
    }
    data.spec.families = vec!["deduction".into()];
    data.spec.comparisons.clear();
    let summary = Summary::new(&data).unwrap();
    let oracle = summary.accuracy.iter().find(|row| row.model == ORACLE).unwrap();
    assert!((oracle.values[0].unwrap().mean - 2.0 / 3.0).abs() < 1e-12);
}

#[test]
fn mistakes_in_the_settings_are_named() {
    let said = |change: &dyn Fn(&mut Data)| {
        let mut data = data();
        change(&mut data);
        Summary::new(&data).unwrap_err().to_string()
    };
    let wrong = said(&|d| d.spec.baseline = Some("bse".into()));
    assert_eq!(
        wrong,
        "report: no scores of a model `bse`; there are base, deduction, induction, merged"
    );
    let wrong = said(&|d| d.spec.families = vec!["abduction".into()]);
    assert!(wrong.starts_with("report: no task set `abduction`; there are arithmetic"), "{wrong}");
    let wrong = said(&|d| drop(d.models[3].scores.remove(0)));
    assert!(wrong.contains("evaluate both on the same artifact"), "{wrong}");
    let wrong = said(&|d| {
        let twice = d.models[0].scores[0].clone();
        d.models[0].scores.push(twice);
    });
    assert!(wrong.contains("stands twice"), "{wrong}");
}

#[test]
fn cells_are_marked_where_the_baseline_is_left_behind() {
    let summary = Summary::new(&data()).unwrap();
    let marks = |model: &str| {
        let row = |row: &&Accuracy| row.model == model && row.mode == "sampled";
        summary.accuracy.iter().find(row).unwrap().marks.clone()
    };
    assert_eq!(marks("base"), [None; 5]);
    assert_eq!(marks("deduction")[..3], [Some(true), None, None]);
    assert_eq!(marks("induction"), [None; 5]);
    let mut swapped = data();
    swapped.spec.baseline = Some("merged".into());
    let summary = Summary::new(&swapped).unwrap();
    assert_eq!(summary.accuracy[0].model, "merged");
    let base = summary.accuracy.iter().find(|row| row.model == "base").unwrap();
    assert_eq!(base.marks[0], Some(false));
}

#[test]
fn comparisons_are_corrected_for_their_number() {
    let summary = Summary::new(&data()).unwrap();
    let of_mode: Vec<_> = summary.comparisons.iter().filter(|c| c.mode == "greedy").collect();
    assert_eq!(of_mode.len(), 3);
    let least = of_mode.iter().min_by(|a, b| a.p.total_cmp(&b.p)).unwrap();
    assert!((least.p_holm - 3.0 * least.p).abs() < 1e-12);
    assert!(of_mode.iter().all(|row| row.p_holm >= row.p));
}

/// Of the three sets only `induction` is sampled.
fn mixed() -> Data {
    let mut data = data();
    for model in &mut data.models {
        model.scores.retain(|s| s.mode == "greedy" || s.set == "induction");
    }
    data.spec.means = [("both".to_string(), vec!["deduction".into(), "induction".into()])].into();
    data.spec.tables = vec![
        Group { title: "One".into(), models: vec!["base".into(), "merged".into()] },
        Group { title: "Two".into(), models: vec!["deduction".into(), ORACLE.into()] },
    ];
    data
}

#[test]
fn a_table_mixes_greedy_and_sampled_sets_as_the_paper_does() {
    let summary = Summary::new(&mixed()).unwrap();
    let modes: Vec<_> = summary.modes.iter().map(|mode| &mode.name[..]).collect();
    assert_eq!(modes, ["mixed", "sampled", "greedy"]);
    assert_eq!(summary.modes[0].label, "pass@1, greedy; on induction avg@8 at temperature 1");
    let value = |mode: &str, at: usize| {
        let row = summary.accuracy.iter().find(|r| r.model == "merged" && r.mode == mode).unwrap();
        row.values[at].map(|value| value.mean)
    };
    assert_eq!(value("mixed", 0), value("greedy", 0));
    assert_eq!(value("mixed", 1), value("sampled", 1));
    let both = (value("mixed", 0).unwrap() + value("mixed", 1).unwrap()) / 2.0;
    assert!((value("mixed", 3).unwrap() - both).abs() < 1e-12);
    assert_eq!(value("sampled", 3), None);
    let tables = tables::all(&summary);
    assert_eq!(tables[0].title, format!("One: {}", summary.modes[0].label));
    let rows: Vec<_> = tables[3].rows.iter().map(|row| &row.head[..]).collect();
    assert_eq!(rows, ["deduction", ORACLE]);
    let mut wrong = mixed();
    wrong.spec.specialists.clear();
    let said = Summary::new(&wrong).unwrap_err().to_string();
    assert!(said.contains("a table has a row `oracle ensemble`"), "{said}");
}

#[test]
fn majority_votes_stand_beside_pass_at_k() {
    let summary = Summary::new(&data()).unwrap();
    let merged = summary.responses.iter().find(|row| row.model == "merged").unwrap();
    let (k, majority) = merged.majority.unwrap();
    let pass = |k: u32| merged.pass.iter().find(|(own, _)| *own == k).unwrap().1.mean;
    // Right in 55% of samples: more often than not the majority is, too.
    assert!(k == 8 && pass(8) > majority.mean && pass(8) > pass(1) && pass(1) > 0.5);
}

/// The same with responses and a training run.
fn full() -> Data {
    let mut data = data();
    for (model, correct) in [(0, false), (1, true), (2, true)] {
        let rollout = Rollout {
            task_id: "deduction-0000".into(),
            family: "deduction".into(),
            level: 1,
            prompt: "D:~C&B <think>".into(),
            response: format!("<script>alert({model})</script></think>"),
            tokens: vec![1],
            stop: "length".into(),
            temperature: 1.0,
            ..Rollout::default()
        };
        let verdict = Verdict {
            format_ok: true,
            verdict: if correct { "correct" } else { "wrong" }.into(),
            correct,
            extracted: "\"<b>\"".into(),
            place: if correct { "" } else { "formula 3" }.into(),
            ..Verdict::default()
        };
        let set = "deduction".to_string();
        let model = &mut data.models[model];
        model.lengths.insert(set.clone(), vec![(20, correct), (30, false)]);
        model.responses.push(Response { set, rollout, verdict });
    }
    data.chosen =
        vec![Chosen { set: "deduction".into(), task_id: "deduction-0000".into(), disputed: true }];
    let metric =
        |step: u32| Metric { step, level: 0, name: "reward".into(), value: f64::from(step).ln() };
    data.runs = vec![TrainingRun {
        name: "rl <1>".into(),
        metrics: (1..30).map(metric).collect(),
        rewards: [vec![-3.0, -3.0, 3.0], vec![3.0, 3.0]],
        ..TrainingRun::default()
    }];
    data
}

fn page(data: &Data, beyond: &Beyond) -> String {
    render(data, beyond).unwrap().html
}

#[test]
fn the_page_escapes_what_models_and_people_wrote() {
    let page = page(&full(), &Beyond::default());
    assert!(page.contains("<h1>Trial &amp; error</h1>"));
    for model in 0..3 {
        assert!(page.contains(&format!("&lt;script&gt;alert({model})&lt;/script&gt;")), "{model}");
    }
    assert!(!page.contains("<script") && !page.contains("<b>\""));
    assert!(page.contains("rl &lt;1&gt;"));
    assert!(page.contains("first wrong at formula 3; cut off at the limit of tokens"));
}

/// A course of two stages, made one hour apart.
fn course() -> Course {
    let manifest = |job: &str, inputs: serde_json::Value, minutes: i64| {
        let identity =
            serde_json::json!({"job": job, "version": 1, "params": {}, "inputs": inputs});
        let mut made = Manifest {
            format: 1,
            id: ArtifactId::of(&identity),
            identity,
            kind: "x".into(),
            datasets: Default::default(),
            objects: Vec::new(),
            summary: Default::default(),
            producer: Default::default(),
        };
        made.producer.started += chrono::TimeDelta::minutes(minutes);
        made.producer.device = "cuda:0".into();
        made.producer.seconds = 65.2;
        made.producer.timings.insert("sample_tokens_per_second".into(), 1234.5);
        made
    };
    let tasks = manifest("generate", serde_json::json!({}), 0);
    let rl = manifest("rl", serde_json::json!({"tasks": {"tasks": tasks.id}}), 60);
    let also = [(tasks.id.clone(), vec!["another".to_string()])].into();
    let named = [("tasks".to_string(), tasks), ("rl".to_string(), rl)];
    Course::new(&named, &also, Prices(vec![("".into(), 1.0), ("cuda".into(), 3600.0)]))
}

#[test]
fn a_course_tells_times_costs_and_what_was_reused() {
    let course = course();
    assert_eq!(course.sittings, 2);
    assert_eq!(course.stages[1].from, [0].into());
    let reused: Vec<_> = course.stages.iter().map(|stage| course.reused(stage)).collect();
    assert_eq!(reused, [true, false]);
    assert!((course.cost().unwrap() - 130.4).abs() < 1e-9);
    let beyond = Beyond { course: Some(course), ..Beyond::default() };
    let page = page(&full(), &beyond);
    for said in ["1 min 05 s", "1234", "which cost 130.40", "also in another", "65.20", "rl: rl"] {
        assert!(page.contains(said), "{said}");
    }
}

#[test]
fn the_page_is_self_contained_well_formed_and_the_same_each_time() {
    let again = Again { pipeline: "pipeline: <x>".into(), commands: "triad run x.yaml".into() };
    let course = Some(course());
    let beyond = Beyond { course, again: Some(again), versus: None };
    let first = page(&full(), &beyond);
    assert_eq!(page(&full(), &beyond), first);
    for foreign in ["src=", "@import", "url(", "http://", "https://", "<script", "<link"] {
        assert!(!first.contains(foreign), "{foreign}");
    }
    let ids: Vec<_> =
        first.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(ids.len(), ids.iter().collect::<std::collections::BTreeSet<_>>().len());
    for target in first.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(target.starts_with('#') && ids.contains(&&target[1..]), "{target}");
    }
    assert_eq!(unclosed(&first), [""; 0]);
    assert!(!page(&full(), &Beyond::default()).contains("Pipeline</h2>"), "none in the artifact");
}

/// Elements that are closed out of turn or not at all.
fn unclosed(page: &str) -> Vec<String> {
    let mut open: Vec<&str> = Vec::new();
    for part in page.split('<').skip(1) {
        let tag = part.split('>').next().unwrap_or("");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or("");
        match name {
            "!DOCTYPE" | "meta" => {}
            _ if tag.ends_with('/') => {}
            _ if tag.starts_with('/') => {
                if open.pop() != Some(name) {
                    return vec![format!("</{name}>")];
                }
            }
            _ => open.push(name),
        }
    }
    open.into_iter().map(String::from).collect()
}

#[test]
fn runs_are_set_side_by_side_problem_by_problem() {
    let (this, mut other) = (full(), data());
    other.models.iter_mut().for_each(|model| {
        model.scores.retain(|s| s.set != "arithmetic" || s.task_id.as_str() < "arithmetic-0030")
    });
    let params =
        |rate: f64| [("rl".to_string(), serde_json::json!({"learning_rate": rate}))].into();
    let (a, b) = (params(0.5), params(0.25));
    let course = course();
    let versus = Versus::new(
        &Side { name: "now", data: &this, course: &course, params: &a },
        &Side { name: "then", data: &other, course: &course, params: &b },
    )
    .unwrap();
    let of = |model: &str, set: &str| {
        let found = |p: &&versus::Pair| p.model == model && p.set == set && p.mode == "sampled";
        versus.pairs.iter().find(found).unwrap()
    };
    assert!(of("base", "deduction").paired && of("base", "deduction").difference.mean == 0.0);
    assert!(!of("base", "arithmetic").paired && of("base", "arithmetic").difference.n == 90);
    assert!(
        versus.note().contains("8 of 24 were scored on different problems"),
        "{}",
        versus.note()
    );
    let page = page(&this, &Beyond { versus: Some(versus), ..Beyond::default() });
    assert!(page.contains("What differs") && page.contains("the same artifact"));
    assert_eq!(unclosed(&page), [""; 0]);
}

#[test]
fn tasks_are_chosen_by_how_far_models_are_apart() {
    let score = |model: &str, task: &str, correct| Score {
        set: "x".into(),
        task_id: task.into(),
        mode: model.into(),
        samples: 4,
        correct,
        ..Score::default()
    };
    let of = |name: &str, correct: [u32; 3]| Model {
        name: name.into(),
        scores: ["a", "b", "c"].iter().zip(correct).map(|(t, c)| score(name, t, c)).collect(),
        ..Model::default()
    };
    let chosen = samples::choose(&[of("p", [4, 0, 0]), of("q", [3, 4, 0])], 1);
    let found: Vec<_> = chosen.iter().map(|c| (&c.task_id[..], c.disputed)).collect();
    assert_eq!(found, [("b", true), ("c", false)]);
}

#[test]
fn every_format_has_the_same_numbers() {
    let summary = Summary::new(&data()).unwrap();
    let merged = summary.accuracy.iter().find(|row| row.model == "merged").unwrap();
    let number = format!("{:.1}", 100.0 * merged.values[0].unwrap().mean);
    let table = &tables::all(&summary)[0];
    assert!(table.text().contains(&format!("{number} ±")), "{}", table.text());
    assert!(table.markdown().contains(&number) && table.latex().contains(&number));
    assert!(table.html().0.contains(&number));
    let difference = tables::comparisons(&summary, &summary.modes[0]).text();
    assert!(difference.contains("no difference shown"), "{difference}");
}
