//! Running the `triad` binary.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// `triad ARGS` in folder `dir`, with its store there and no setting from outside.
pub fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_triad"));
    command.args(args).current_dir(dir).stdin(Stdio::null());
    for name in ["STORE", "DEVICE", "THREADS", "MEMORY", "LOG", "LOG_FORMAT", "SITE"] {
        command.env_remove(format!("TRIAD_{name}"));
    }
    for name in ["URL", "KEY", "CONCURRENCY", "PATIENCE", "TIMEOUT"] {
        command.env_remove(format!("TRIAD_SERVER_{name}"));
    }
    command
}

pub fn run(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

/// stdout of a command that must succeed.
pub fn stdout(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "triad {args:?}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The exit code and the last line of stderr, which says why.
pub fn failure(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.trim_end().lines().last().unwrap_or_default();
    let text = last.replace(&dir.display().to_string(), "[dir]");
    format!("{}: {text}", output.status.code().map_or("killed".into(), |code| code.to_string()))
}

/// A pipeline that needs no model: tasks, and five of them.
pub const TASKS: &str = "\
pipeline: small
stages:
  tasks:
    job: generate
    params:
      family: arithmetic
      split: train
      levels:
        - {level: 1, count: 40}
  few:
    job: filter
    params:
      sql: SELECT * FROM tasks ORDER BY task_id LIMIT 5
      output: tasks
    inputs: {tables: [tasks]}
";
