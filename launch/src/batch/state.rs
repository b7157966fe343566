//! What Batch says of a job, in the words of every scheduler.

use aws_sdk_batch::types::{JobDetail, JobStatus};

use crate::scheduler::State;

/// Of one that has not failed; `None` where it has.
pub(super) fn progress(job: &JobDetail) -> Option<State> {
    let ended = job.array_properties().and_then(|array| array.status_summary());
    let counted = |name: &str| {
        let count = ended.and_then(|summary| summary.get(name)).copied();
        u32::try_from(count.unwrap_or(0)).unwrap_or(0)
    };
    // An array waits, as Batch has it, while its jobs run.
    if counted("RUNNING") + counted("SUCCEEDED") + counted("FAILED") > 0
        && !matches!(job.status(), Some(JobStatus::Succeeded | JobStatus::Failed))
    {
        return Some(State::Running { done: counted("SUCCEEDED") });
    }
    Some(match job.status()? {
        JobStatus::Succeeded => State::Succeeded,
        JobStatus::Failed => return None,
        JobStatus::Running => State::Running { done: 0 },
        status => State::Waiting(waiting(job, status, counted("RUNNABLE") > 0)),
    })
}

fn waiting(job: &JobDetail, status: &JobStatus, runnable: bool) -> String {
    let what = match status {
        JobStatus::Runnable => "for a machine",
        JobStatus::Pending if runnable => "for a machine",
        JobStatus::Starting => "for its container",
        _ => "for other jobs",
    };
    let mut text = what.to_owned();
    if let Some(said) = job.status_reason().filter(|said| !said.is_empty()) {
        text += &format!(": {said}");
    }
    if let Some(last) = job.attempts().last() {
        let why = last.container().and_then(|container| container.exit_code());
        let why = why.map_or_else(
            || last.status_reason().unwrap_or("lost").to_owned(),
            |code| format!("exit code {code}"),
        );
        text += &format!("; attempt {} after {why}", job.attempts().len() + 1);
    }
    text
}

/// The exit code, where the process ran to its end, and why the job failed.
pub(super) fn reason(job: &JobDetail) -> (Option<i32>, String) {
    let container = job.container();
    let code = container.and_then(|container| container.exit_code());
    let told = container.and_then(|container| container.reason());
    let status = job.status_reason();
    let told_of = |text: &str| [told, status].iter().flatten().any(|said| said.contains(text));
    let said = [told, status].into_iter().flatten().filter(|said| !said.is_empty());
    let said = said.collect::<Vec<_>>().join("; ");
    let attempts = job.attempts().len();

    // Batch kills it in these: its exit code says nothing.
    let (code, what) = if told_of("OutOfMemory") {
        (None, "out of memory; raise `memory` under `resources`".to_owned())
    } else if told_of("timeout") {
        let limit = job.timeout().and_then(|timeout| timeout.attempt_duration_seconds());
        let limit = limit.map(|seconds| format!(" of {seconds} s")).unwrap_or_default();
        (None, format!("over its time{limit}; raise `time` under `resources`"))
    } else if told_of("Host EC2") {
        (None, format!("its machine was lost in the last of {attempts} attempts"))
    } else if told_of("Dependent") {
        (None, "a job that it waits for failed".to_owned())
    } else if cancelled(job) {
        (None, "cancelled".to_owned())
    } else {
        let again =
            if attempts > 1 { format!(" after {attempts} attempts") } else { String::new() };
        match code {
            Some(code) => (Some(code), format!("exit code {code}{again}")),
            None => (None, format!("did not start{again}")),
        }
    };
    (code, if said.is_empty() { what } else { format!("{what} ({said})") })
}

/// Whether somebody ended it, or took it back before it began.
pub(super) fn cancelled(job: &JobDetail) -> bool {
    job.is_terminated() == Some(true) || job.is_cancelled() == Some(true)
}

/// Where the last attempt wrote what it had to say.
pub(super) fn stream(job: &JobDetail) -> Option<&str> {
    let last = job.attempts().iter().rev().filter_map(|attempt| attempt.container());
    let mut named = last.filter_map(|container| container.log_stream_name());
    named.next().or_else(|| job.container()?.log_stream_name())
}
