//! Reports of made-up scores.

use super::summary::ORACLE;
use super::*;
use crate::dataset::{Metric, Rollout, Score, Verdict};
use crate::entropy::Stream;

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
    assert_eq!(labels, ["pass@1, greedy", "avg@8 at temperature 1"]);
    let names: Vec<_> = summary
        .accuracy
        .iter()
        .filter(|row| row.mode == "sampled")
        .map(|row| row.model.as_str())
        .collect();
    assert_eq!(names, ["base", "deduction", "induction", ORACLE, "merged"]);
    let base = &summary.accuracy[0];
    let by_hand = data().models[0]
        .scores
        .iter()
        .filter(|s| s.mode == "greedy" && s.set == "deduction")
        .map(|s| f64::from(s.correct))
        .sum::<f64>()
        / 60.0;
    assert!((base.sets[0].unwrap().mean - by_hand).abs() < 1e-12);
    let families = (base.sets[0].unwrap().mean + base.sets[1].unwrap().mean) / 2.0;
    assert!((base.families.unwrap().mean - families).abs() < 1e-12);
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
    assert_eq!(summary.comparisons.last().unwrap().verdict, "worse");
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
    assert!((oracle.sets[0].unwrap().mean - 2.0 / 3.0).abs() < 1e-12);
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

/// The same with responses and a training run.
fn full() -> Data {
    let mut data = data();
    for (sample, correct) in [(0, false), (1, true), (2, true)] {
        let task_id = format!("deduction-{sample:04}");
        data.models[0].rollouts.push(Rollout {
            task_id: task_id.clone(),
            family: "deduction".into(),
            level: 1,
            sample,
            step: 0,
            policy: String::new(),
            prompt: "D:~C&B <think>".into(),
            response: format!("<script>alert({sample})</script></think>"),
            tokens: vec![1],
            logprobs: vec![0.0],
            stop: "end".into(),
            temperature: 1.0,
            model_logprobs: None,
        });
        data.models[0].verdicts.push(Verdict {
            task_id,
            family: "deduction".into(),
            level: 1,
            sample,
            step: 0,
            format_ok: true,
            format: "ok".into(),
            verdict: if correct { "correct" } else { "wrong" }.into(),
            correct,
            reward: 0.0,
            extracted: "\"<b>\"".into(),
            place: String::new(),
        });
    }
    let metric =
        |step: u32| Metric { step, level: 0, name: "reward".into(), value: f64::from(step).ln() };
    data.runs = vec![TrainingRun {
        name: "rl <1>".into(),
        metrics: (1..30).map(metric).collect(),
        ..TrainingRun::default()
    }];
    data
}

#[test]
fn the_page_escapes_what_models_and_people_wrote() {
    let page = render(&full(), None).unwrap().html;
    assert!(page.contains("<h1>Trial &amp; error</h1>"));
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "the first right one is shown");
    assert!(page.contains("&lt;script&gt;alert(0)"), "the first wrong one is shown");
    assert!(!page.contains("alert(2)"), "one right response is enough");
    assert!(!page.contains("<script") && !page.contains("<b>\""));
    assert!(page.contains("rl &lt;1&gt;"));
}

#[test]
fn the_page_is_self_contained_and_the_same_each_time() {
    let page = render(&full(), None).unwrap().html;
    assert_eq!(render(&full(), None).unwrap().html, page);
    for foreign in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(!page.contains("Timings"));
    let timing = StageTiming {
        stage: "base-scores".into(),
        job: "evaluate".into(),
        device: "cpu".into(),
        seconds: 65.2,
        rates: [("sample_tokens_per_second".to_string(), 1234.5)].into(),
    };
    let timed = render(&full(), Some(&[timing])).unwrap().html;
    assert!(timed.contains("1 min 05 s") && timed.contains("1234"), "timings are shown on demand");
}

#[test]
fn the_terminal_gets_the_same_numbers() {
    let report = render(&data(), None).unwrap();
    let text = super::text::text(&report.summary);
    let merged = report.summary.accuracy.last().unwrap().sets[0].unwrap();
    assert!(text.contains(&format!("{:.1} ±", 100.0 * merged.mean)), "{text}");
    assert!(text.contains("no difference shown") && text.contains(ORACLE), "{text}");
}
