//! Certified tasks per second and verdicts per second on one core: `cargo bench --bench tasks`.
//! `python3 benches/released.py` times the paper's released rules for deduction beside it.

use std::time::Instant;

use triad::reward::{Judge, Rule};
use triad::task::{Family, Form, Level, Request, Split, Style, generate, response};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs of each figure; the median is printed with the extremes.
const RUNS: usize = 5;

fn main() -> triad::Result<()> {
    let form = Form { style: Style::Paper, chat: false };
    for (family, mode, levels) in [
        (Family::Deduction, "unsatisfiable", [1, 2, 3, 4, 5]),
        (Family::Induction, "", [1, 2, 3, 4, 5]),
        (Family::Abduction, "", [1, 2, 3, 4, 5]),
    ] {
        for number in levels {
            let mut level = Level { level: number, count: 20_000, parameters: Default::default() };
            if !mode.is_empty() {
                // One solution, as the released generator has it.
                level.parameters.insert(mode.into(), 0.0.into());
            }
            let request = |seed| Request {
                family,
                split: Split::Train,
                seed,
                form,
                levels: vec![level.clone()],
            };
            let mut tasks = Vec::new();
            let rates = median(|run| {
                tasks.clear();
                let clock = Instant::now();
                generate(&request(run as u64), 1, &mut |rows| {
                    tasks.extend(rows);
                    Ok(())
                })?;
                Ok(tasks.len() as f64 / clock.elapsed().as_secs_f64())
            })?;
            println!("{family} level {number}: {rates} tasks/s");
            // Eight responses to a task, of 1.5 KB.
            let texts: Vec<String> = tasks[..5000]
                .iter()
                .map(|task| response(&"thinking about it ".repeat(80), &task.answer))
                .collect();
            let verdicts = |count_reading: bool| {
                median(|_| {
                    let mut clock = Instant::now();
                    let judges =
                        tasks[..5000].iter().map(Judge::new).collect::<triad::Result<Vec<_>>>()?;
                    if !count_reading {
                        clock = Instant::now();
                    }
                    let mut correct = 0;
                    for (judge, text) in judges.iter().zip(&texts) {
                        for _ in 0..8 {
                            let judged = judge.judge(text, Rule::Released);
                            correct += usize::from(judged.reward == 3.0);
                        }
                    }
                    assert_eq!(correct, 8 * judges.len());
                    Ok(correct as f64 / clock.elapsed().as_secs_f64())
                })
            };
            println!("{family} level {number}: {} verdicts/s", verdicts(false)?);
            println!("{family} level {number}: {} with reading the tasks", verdicts(true)?);
        }
    }
    Ok(())
}

/// The median of some runs, with the least and the greatest.
fn median(mut run: impl FnMut(usize) -> triad::Result<f64>) -> triad::Result<String> {
    let mut rates = (0..RUNS).map(&mut run).collect::<triad::Result<Vec<_>>>()?;
    rates.sort_by(f64::total_cmp);
    Ok(format!("{:.0} ({:.0} to {:.0})", rates[RUNS / 2], rates[0], rates[RUNS - 1]))
}
