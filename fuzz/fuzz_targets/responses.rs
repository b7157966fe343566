//! Whole responses, under each rule, to prompts with the tag `<think>` and without.
#![no_main]

use triad_fuzz::reward::{Format, Judge, Rule};
use triad_fuzz::task::Verdict;
use triad_fuzz::{fixed, timely};

thread_local!(static JUDGES: Vec<Judge> = {
    let mut tasks = fixed();
    tasks.iter_mut().step_by(2).for_each(|task| task.prompt.clear());
    tasks.iter().map(|task| Judge::new(task).unwrap()).collect()
});

libfuzzer_sys::fuzz_target!(|response: &str| {
    JUDGES.with(|judges| {
        for judge in judges {
            let [paper, released, correct] = [Rule::Paper, Rule::Released, Rule::Correct]
                .map(|rule| timely(response.len(), || judge.judge(response, rule)));
            assert!(response.contains(paper.extracted));
            assert_eq!((paper.format, &paper.verdict), (correct.format, &correct.verdict));
            let right = paper.verdict == Some(Verdict::Correct);
            let sound = paper.format == Format::Ok;
            assert_eq!(correct.reward, f32::from(u8::from(right)));
            assert_eq!(paper.reward == 3.0, right && sound);
            assert_eq!(paper.reward == -3.0, !sound);
            assert!(released.reward >= paper.reward);
        }
    });
});
