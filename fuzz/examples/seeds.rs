//! Writes inputs to start from to `corpus/` beside this crate: tasks of every family in the forms
//! that the targets read.

use std::error::Error;
use std::path::Path;

use serde_json::{Value, json};
use triad_fuzz::dataset::Task;
use triad_fuzz::fixed;
use triad_fuzz::task::{self, AnyPuzzle, Family, Form, Level, Request, Split, Style};

fn main() -> Result<(), Box<dyn Error>> {
    let mut seeds: Vec<(&str, String)> = Vec::new();
    for family in Family::ALL {
        for number in 1..=3 {
            let level = Level { level: number, count: 3, parameters: Default::default() };
            let level = task::resolve(family, &level)?;
            seeds.push(("levels", serde_json::to_string(&level)?));
            for style in [Style::Compact, Style::Paper] {
                let form = Form { style, chat: true };
                let levels = vec![level.clone()];
                let request = Request { family, split: Split::Train, seed: 1, form, levels };
                task::generate(&request, 1, &mut |tasks| {
                    tasks.iter().for_each(|task| add(task, &mut seeds));
                    Ok(())
                })?;
            }
        }
    }
    fixed().iter().for_each(|task| add(task, &mut seeds));
    let cases = include_str!("../../src/task/math/cases.txt");
    let answers = cases.lines().filter_map(|line| line.strip_prefix(['>', '=', '!', '?']));
    seeds.extend(answers.map(|answer| ("formulas", answer.trim_end_matches(" ~").trim().into())));
    for rows in [
        include_str!("../../tests/fixtures/code/humaneval.jsonl"),
        include_str!("../../tests/fixtures/code/livecodebench.jsonl"),
    ] {
        let said = "so</think>```python\nprint(1)\n```";
        seeds.extend(rows.lines().map(|row| ("programs", format!("{row}\n{said}"))));
    }
    // Short ones: a target runs them all before anything else.
    seeds.retain(|(_, seed)| seed.len() <= 4096);
    for (number, (target, seed)) in seeds.iter().enumerate() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("seed-{number}")), seed)?;
    }
    Ok(())
}

fn add(task: &Task, seeds: &mut Vec<(&str, String)>) {
    let Ok(puzzle) = AnyPuzzle::of(task) else { return };
    let messages: Value = serde_json::from_str(&task.messages).unwrap_or_default();
    let last = messages.as_array().and_then(|messages| messages.last()?["content"].as_str());
    let text = last.unwrap_or(&task.prompt);
    let verl = json!({
        "ability": task.family,
        "prompt": messages,
        "reward_model": {"ground_truth": task.answer},
        "extra_info": {"split": "test", "level": 2, "puzzle": task.puzzle},
    });
    let trace = puzzle.trace(task.style.parse().unwrap_or_default());
    seeds.extend([
        (puzzle.family.as_str(), text.into()),
        ("puzzles", task.puzzle.clone()),
        ("answers", task.answer.clone()),
        ("responses", task::response(&trace, &task.answer)),
        ("records", json!({"question": text, "answer": task.answer}).to_string()),
        ("records", verl.to_string()),
    ]);
}
