//! Answers to a few small puzzles of each family.
#![no_main]

use triad_fuzz::{fixed, task::AnyPuzzle, timely};

thread_local!(static PUZZLES: Vec<AnyPuzzle> = fixed().iter().map(|task| AnyPuzzle::of(task).unwrap()).collect());

libfuzzer_sys::fuzz_target!(|answer: &str| {
    PUZZLES.with(|puzzles| {
        for puzzle in puzzles {
            let verdict = timely(answer.len(), || puzzle.check(answer));
            for other in [answer.to_ascii_lowercase(), format!(" {answer}\n")] {
                assert_eq!(puzzle.check(&other), verdict, "{other}");
            }
        }
    });
});
