//! What `squeue`, `scontrol` and `sacct` say of jobs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::command::unknown;
use crate::Result;
use crate::scheduler::{Job, State};

/// Of `squeue`: job, array index, state, reason. No field before the last holds a `|`.
pub const FORMAT: &str = "%F|%K|%T|%r";

/// Of `sacct`: job with array index, state, exit code with signal.
pub const ACCOUNTS: &str = "JobID,State,ExitCode";

/// One task of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// In an array job.
    pub index: Option<u32>,
    pub state: Word,
    pub reason: String,
    pub exit: Option<Exit>,
}

/// How a batch script ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Exit {
    Code(i32),
    /// It was killed itself: a process of its own that is killed makes its exit code 137.
    Signal(i32),
}

impl Exit {
    /// As a shell has it.
    fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Slurm's word for a state.
#[derive(Debug, Clone, PartialEq)]
pub struct Word(String);

impl Word {
    /// In the queue, for the first time or again.
    fn is_waiting(&self) -> bool {
        matches!(
            self.0.as_str(),
            "PENDING"
                | "REQUEUED"
                | "REQUEUE_FED"
                | "REQUEUE_HOLD"
                | "RESV_DEL_HOLD"
                | "SPECIAL_EXIT"
        )
    }

    fn is_done(&self) -> bool {
        self.0 == "COMPLETED"
    }

    pub fn is_failure(&self) -> bool {
        self.is_lost()
            || matches!(
                self.0.as_str(),
                "CANCELLED" | "DEADLINE" | "FAILED" | "LAUNCH_FAILED" | "OUT_OF_MEMORY" | "TIMEOUT"
            )
    }

    /// Ended by what has nothing to do with the job.
    fn is_lost(&self) -> bool {
        matches!(self.0.as_str(), "BOOT_FAIL" | "NODE_FAIL" | "PREEMPTED" | "REVOKED")
    }
}

/// Of a job that waits for one that failed.
const NEVER: &str = "DependencyNeverSatisfied";

/// The state of a job with these tasks; `None`: failed.
pub fn of(rows: &[Row]) -> Option<State> {
    // Taken away by what failed before it, or by the site: it did not run to an end of its own.
    let gone = |row: &Row| row.state.is_lost() || (row.state.is_failure() && row.reason == NEVER);
    if rows.iter().any(|row| row.state.is_failure() && !gone(row)) {
        return None;
    }
    let done = rows.iter().filter(|row| row.state.is_done()).count() as u32;
    Some(if rows.is_empty() || rows.iter().any(gone) {
        State::Gone
    } else if done as usize == rows.len() {
        State::Succeeded
    } else if rows.iter().all(|row| row.state.is_waiting()) {
        State::Waiting(rows[0].reason.clone())
    } else {
        State::Running { done }
    })
}

/// The rows of `squeue`, by job.
pub fn by_job(text: &str) -> Result<BTreeMap<String, Vec<Row>>> {
    let mut found: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.splitn(4, '|').collect();
        let [job, index, state, reason] = fields[..] else { return Err(unknown("squeue", line)) };
        let index = match index {
            "N/A" => None,
            index => Some(index.parse().map_err(|_| unknown("squeue", line))?),
        };
        let row = Row { index, state: Word(state.into()), reason: reason.into(), exit: None };
        found.entry(job.into()).or_default().push(row);
    }
    Ok(found)
}

/// The rows of `sacct`, by job. What it says otherwise is no job.
pub fn by_account(text: &str) -> BTreeMap<String, Vec<Row>> {
    let mut found: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let [name, state, code] = fields[..] else { continue };
        let (job, index) = match name.split_once('_') {
            Some((job, index)) => (job, index.parse().ok()),
            None => (name, None),
        };
        // `CANCELLED by 1000`.
        let state = state.split_whitespace().next().unwrap_or_default();
        let row = Row { index, state: Word(state.into()), reason: String::new(), exit: exit(code) };
        found.entry(job.into()).or_default().push(row);
    }
    found
}

/// `65:0` is exit code 65, `0:9` signal 9.
fn exit(text: &str) -> Option<Exit> {
    let (code, signal) = text.split_once(':')?;
    Some(match (code.parse().ok()?, signal.parse().ok()?) {
        (code, 0) => Exit::Code(code),
        (_, signal) => Exit::Signal(signal),
    })
}

/// Whether somebody killed a task as a whole, script and all, which says nothing about it.
pub fn is_killed(row: Option<&Row>, exit: Option<Exit>) -> bool {
    row.is_some_and(|row| row.state.0 == "FAILED") && exit == Some(Exit::Signal(9))
}

/// What `scontrol` adds.
#[derive(Debug, Default, PartialEq)]
pub struct Detail {
    pub exit: Option<Exit>,
    pub log: Option<PathBuf>,
}

/// By array index, out of `scontrol --oneliner show job`.
pub fn details(text: &str) -> BTreeMap<Option<u32>, Detail> {
    let detail = |line: &str| {
        let after = |key: &str| line.split_once(key).map(|(_, rest)| rest);
        let word = |key: &str| after(key).and_then(|rest| rest.split_whitespace().next());
        let index = word(" ArrayTaskId=").and_then(|index| index.parse().ok());
        // A path may hold blanks; ours ends in `.log`, and has its `%` as `sbatch` got them.
        let log = after(" StdOut=").and_then(|rest| Some(rest.split_once(".log")?.0));
        let log = log.map(|log| PathBuf::from(format!("{}.log", log.replace("%%", "%"))));
        (index, Detail { exit: word(" ExitCode=").and_then(exit), log })
    };
    text.lines().filter(|line| line.starts_with("JobId=")).map(detail).collect()
}

/// The exit code that counts, and the reason in words.
pub fn explain(
    row: Option<&Row>,
    exit: Option<Exit>,
    job: &Job,
    index: Option<u32>,
) -> (Option<i32>, String) {
    let place = match index {
        Some(index) => format!("Slurm job {}_{index}", job.name),
        None => format!("Slurm job {}", job.name),
    };
    let code = exit.map(Exit::code);
    let (code, what) = match (row.map_or("", |row| row.state.0.as_str()), code) {
        ("OUT_OF_MEMORY", _) => (Some(137), "out of memory: give it more, resources.memory".into()),
        ("TIMEOUT", _) => {
            (None, "over its time without leaving: resources.time, slurm.grace".into())
        }
        ("CANCELLED", _) => (None, "cancelled".into()),
        ("FAILED", Some(137)) => {
            (Some(137), "killed by signal 9, as for want of memory: resources.memory".into())
        }
        ("FAILED", Some(code)) if code > 128 => {
            (Some(code), format!("ended by signal {}", code - 128))
        }
        ("FAILED", Some(127)) => {
            (Some(127), "no such program on the node: slurm.program of the site file".into())
        }
        ("FAILED", Some(code)) if code != 0 => (Some(code), format!("left with exit code {code}")),
        (state, code) => (code.filter(|code| *code != 0), state.to_lowercase()),
    };
    let reason = row.map(|row| row.reason.as_str()).unwrap_or_default();
    match reason {
        "" | "None" | "NonZeroExitCode" | "OutOfMemory" | "TimeLimit" => {
            (code, format!("{place}: {what}"))
        }
        reason => (code, format!("{place}: {what} ({reason})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str) -> Option<State> {
        of(by_job(text).unwrap().get("6").map_or(&[][..], Vec::as_slice))
    }

    #[test]
    fn an_arrays_tasks_make_one_state() {
        let waiting = |reason: &str| Some(State::Waiting(reason.into()));
        assert_eq!(state("6|N/A|PENDING|Dependency\n"), waiting("Dependency"));
        assert_eq!(state("6|0|PENDING|BeginTime\n6|1|PENDING|BeginTime"), waiting("BeginTime"));
        assert_eq!(state("6|0|RUNNING|None\n6|1|PENDING|None"), Some(State::Running { done: 0 }));
        assert_eq!(state("6|0|COMPLETED|None\n6|1|PENDING|x"), Some(State::Running { done: 1 }));
        assert_eq!(state("6|0|COMPLETED|None\n6|1|COMPLETING|x"), Some(State::Running { done: 1 }));
        assert_eq!(state("6|0|COMPLETED|None\n6|1|COMPLETED|None"), Some(State::Succeeded));
        assert_eq!(state("6|0|COMPLETED|None\n6|1|FAILED|NonZeroExitCode"), None);
        assert_eq!(state("6|N/A|OUT_OF_MEMORY|OutOfMemory"), None);
        assert_eq!(state("7|N/A|RUNNING|None"), Some(State::Gone));
        assert_eq!(state("6|N/A|CANCELLED|DependencyNeverSatisfied"), Some(State::Gone));
        assert_eq!(state("6|N/A|CANCELLED|None"), None);
        assert_eq!(state("6|0|RUNNING|None\n6|1|NODE_FAIL|None"), Some(State::Gone));
        assert!(by_job("slurm is sorry").is_err());
    }

    #[test]
    fn the_accounting_is_read_where_the_queue_has_forgotten() {
        let text = "12_0|COMPLETED|0:0\n12_1|CANCELLED by 1000|0:15\n13|FAILED|65:0\nnonsense\n";
        let found = by_account(text);
        assert_eq!(of(&found["12"]), None);
        let failed = &found["12"][1];
        assert_eq!((failed.index, failed.exit), (Some(1), Some(Exit::Signal(15))));
        assert_eq!(found["13"][0].exit, Some(Exit::Code(65)));
        assert_eq!(of(&by_account("13|COMPLETED|0:0\n")["13"]), Some(State::Succeeded));
    }

    /// As 22.05 has it.
    const SHOWN: &str = "JobId=1 ArrayJobId=1 ArrayTaskId=2 JobName=triad:x:y UserId=root(0) JobState=COMPLETED Reason=None Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:00:01 Command=(null) WorkDir=/tmp/a b Comment=abc def  StdErr=/tmp/a b/1_2.log StdIn=/dev/null StdOut=/tmp/a b/1_2.log Power= \n\
        JobId=5 ArrayJobId=1 ArrayTaskId=1 JobName=triad:x:y JobState=FAILED Reason=NonZeroExitCode Restarts=0 ExitCode=65:0 StdOut=/tmp/50%% b/1_1.log Power= \n";

    #[test]
    fn exit_codes_and_logs_are_found() {
        let found = details(SHOWN);
        assert_eq!(found.len(), 2);
        let failed = &found[&Some(1)];
        assert_eq!(failed.exit, Some(Exit::Code(65)));
        assert_eq!(failed.log.as_deref(), Some(std::path::Path::new("/tmp/50% b/1_1.log")));
        assert_eq!(details("Invalid job id specified"), BTreeMap::new());
    }

    #[test]
    fn reasons_name_the_job_and_what_to_do() {
        let said = |text: &str, code| {
            let rows = by_job(text).unwrap().remove("6").unwrap();
            explain(rows.first(), Some(Exit::Code(code)), &Job { name: "6".into() }, rows[0].index)
        };
        assert_eq!(
            said("6|3|FAILED|NonZeroExitCode", 65),
            (Some(65), "Slurm job 6_3: left with exit code 65".into())
        );
        let (code, why) = said("6|N/A|OUT_OF_MEMORY|OutOfMemory", 125);
        assert_eq!((code, why.contains("resources.memory")), (Some(137), true), "{why}");
        assert_eq!(said("6|N/A|CANCELLED|None", 0), (None, "Slurm job 6: cancelled".into()));
        assert_eq!(
            said("6|N/A|FAILED|JobLaunchFailure", 0),
            (None, "Slurm job 6: failed (JobLaunchFailure)".into())
        );
    }
}
