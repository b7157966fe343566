//! Errors between processes: Ballista carries texts, and a client needs to know what to do.

use triad::Error;
use triad::query::Scheduler;

const OPEN: char = '⟦';
const CLOSE: char = '⟧';

/// An error as a text that [`unpacked`] finds in whatever is written around it.
pub fn packed(error: &Error) -> String {
    format!("{OPEN}{} {error}{CLOSE}", error.exit_code())
}

/// The error that [`packed`] put into a text. Rust's quoting of a text in a text is taken back.
fn unpacked(text: &str) -> Option<Error> {
    let (_, rest) = text.split_once(OPEN)?;
    let (said, _) = rest.rsplit_once(CLOSE)?;
    let (code, said) = said.split_once(' ')?;
    let said = said.replace("\\\"", "\"").replace("\\\\", "\\");
    Some(match code {
        "64" => Error::Usage(said),
        "65" => Error::Data(said),
        "75" => Error::TryAgain(said),
        _ => Error::Defect(said),
    })
}

/// What Ballista says when something is gone rather than wrong.
const LOST: [&str; 4] = ["executors were lost", "IO error", "FetchFailed", "cancelled"];

/// What a client makes of the text of a failure.
pub fn explained(text: &str, on: &Scheduler) -> Error {
    if let Some(error) = unpacked(text) {
        return error;
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((_, said)) = line.split_once(" failed: ") else {
        // What is no answer about the job is a connection that broke.
        return Error::try_again(format!("{on}: a process of the cluster is lost: {line}"));
    };
    if LOST.iter().any(|sign| said.contains(sign)) {
        return Error::try_again(format!("{on}: {said}"));
    }
    match said.contains("not implemented") {
        true => Error::usage(format!("{on}: {said}; leave out --on")),
        false => Error::defect(format!("{on}: {said}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_comes_through_as_it_was() {
        let on: Scheduler = "ballista://localhost:1".parse().unwrap();
        let error = Error::data("a.parquet: \"x\" in C:\\y");
        for text in [packed(&error), format!("Job 7 failed: General({:?})", packed(&error))] {
            let found = explained(&text, &on);
            assert_eq!((found.exit_code(), found.to_string()), (65, error.to_string()));
        }
        let lost = "Job 7 failed: all executors were lost and none came back";
        assert_eq!(explained(lost, &on).exit_code(), 75);
        assert_eq!(explained("transport error", &on).exit_code(), 75);
        assert_eq!(explained("Job 7 failed: it is odd", &on).exit_code(), 70);
    }
}
