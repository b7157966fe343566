//! Programs judged per second on one core: `cargo bench --bench code`. Needs bubblewrap.

use std::time::{Duration, Instant};

use triad::sandbox::{Crowd, Limits, Sandbox, Worker};
use triad::task::code::{Case, Code, Outcome, Tests};

/// Runs of each figure; the median is printed with the extremes.
const RUNS: usize = 5;

const CHECK: &str = "def check(candidate):\n    for n in range(10):\n        \
                     assert candidate(list(range(n))) == n * (n - 1) // 2\n";

fn main() -> triad::Result<()> {
    let starts = median(|| {
        let clock = Instant::now();
        Sandbox::open()?;
        Ok(clock.elapsed())
    })?;
    println!(
        "a sandbox starts and ends: {:.1} ms ({:.1} to {:.1})",
        starts[1] * 1e3,
        starts[0] * 1e3,
        starts[2] * 1e3
    );
    let sandbox = Sandbox::open()?;
    let check = Tests::Humaneval { entry: "total".into(), check: CHECK.into() };
    let case = |n: u32| Case { input: format!("{n} {n}\n"), output: format!("{}\n", 2 * n) };
    let stdin = Tests::Stdin { cases: (0..20).map(case).collect() };
    let case = |n: u32| Case { input: format!("{n}\n{n}"), output: format!("{}", 2 * n) };
    let call = Tests::Call { entry: "total".into(), cases: (0..20).map(case).collect() };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (name, tests, program) in [
        ("HumanEval's layout, 10 calls", check, "    return sum(numbers)\n"),
        ("standard input, 20 tests", stdin, "print(sum(map(int, input().split())))"),
        (
            "function, 20 tests",
            call,
            "class Solution:\n    def total(self, a, b):\n        return a + b",
        ),
    ] {
        let problem = "def total(numbers):\n    \"\"\"Their sum.\"\"\"\n".into();
        let code = Code { problem, tests, solution: String::new(), limits: Limits::default() };
        for workers in [1, cores] {
            let crowd = Crowd::new(&sandbox, Some(workers));
            let programs = vec![program; 100];
            let rates = median(|| {
                let clock = Instant::now();
                let work = |worker: &mut Worker, program: &&str| {
                    code.judge(program, |request, limits| worker.run(request, limits))
                };
                let outcomes = crowd.map(&programs, work, |_| Ok(()))?;
                assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Passed));
                Ok(clock.elapsed())
            })?;
            let [fast, middle, slow] = rates.map(|seconds| programs.len() as f64 / seconds);
            println!("{name}, {workers} workers: {middle:.0} programs/s ({slow:.0} to {fast:.0})");
        }
    }
    Ok(())
}

/// Seconds: least, median, most.
fn median(mut run: impl FnMut() -> triad::Result<Duration>) -> triad::Result<[f64; 3]> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        times.push(run()?.as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok([times[0], times[RUNS / 2], times[RUNS - 1]])
}
