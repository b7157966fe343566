//! Slurm's commands, and what their complaints mean.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::process::Command;

use crate::{Error, Result};

/// Longest that a command is waited for: slurmctld may be busy for a minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// Of a log: lines and bytes that are shown.
const LINES: usize = 20;
const BYTES: u64 = 8 << 10;

/// What a command says on stdout.
///
/// # Errors
/// `TryAgain` where the controller does not answer, `Usage` for whatever it refuses.
pub async fn run(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let spoken = tokio::time::timeout(PATIENCE, speak(program, arguments, input)).await;
    let output = match spoken {
        Ok(Ok(output)) => output,
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Usage(format!(
                "no `{program}` on this machine; start triad where Slurm's commands are"
            )));
        }
        Ok(Err(e)) => return Err(Error::TryAgain(format!("{program}: {e}"))),
        Err(_) => {
            let seconds = PATIENCE.as_secs();
            return Err(Error::TryAgain(format!("{program}: no answer within {seconds} s")));
        }
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(refusal(program, &String::from_utf8_lossy(&output.stderr)))
}

async fn speak(
    program: &str,
    arguments: &[&str],
    input: &str,
) -> std::io::Result<std::process::Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Times and numbers as they are parsed here, whatever the user prefers to see.
        .env_remove("SLURM_TIME_FORMAT")
        .env_remove("SQUEUE_FORMAT2")
        .env("LC_ALL", "C")
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may have refused its arguments without reading: its status says so.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    child.wait_with_output().await
}

/// What passes by itself.
const PASSING: &[&str] = &[
    "authentication",
    "Communication connection failure",
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    // What it waits for has left the queue since.
    "Job dependency problem",
    "Message receive failure",
    "Munge",
    "Resource temporarily unavailable",
    "Socket timed out",
    "standby mode",
    "submit limit",
    "temporarily unable to accept job",
    "Transport endpoint",
    "Unable to contact slurm controller",
    "Zero Bytes were transmitted",
];

fn refusal(program: &str, stderr: &str) -> Error {
    let prefix = format!("{program}: error: ");
    let lines = stderr.lines().map(|line| line.trim().trim_start_matches(&prefix));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let said = if lines.is_empty() { "failed without a word".into() } else { lines.join("; ") };
    let message = format!("{program}: {said}");
    if PASSING.iter().any(|text| stderr.contains(text)) {
        Error::TryAgain(message)
    } else {
        Error::Usage(message)
    }
}

/// An answer that Slurm is not known to give.
pub fn unknown(program: &str, said: &str) -> Error {
    Error::Defect(format!("{program} says `{}`, which no known Slurm does", said.trim()))
}

/// A log's last lines; nothing where it cannot be read.
pub async fn tail(log: &Path) -> String {
    let read = async {
        let mut file = tokio::fs::File::open(log).await?;
        let size = file.metadata().await?.len();
        file.seek(std::io::SeekFrom::Start(size.saturating_sub(BYTES))).await?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes).await?;
        Ok::<_, std::io::Error>(bytes)
    };
    let bytes = read.await.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        let timeout =
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n";
        assert!(matches!(refusal("sbatch", timeout), Error::TryAgain(_)));
        let down = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)";
        assert!(matches!(refusal("squeue", down), Error::TryAgain(_)));
        let wrong = "sbatch: error: invalid partition specified: gpu\nsbatch: error: Batch job submission failed: Invalid partition name specified\n";
        let Error::Usage(said) = refusal("sbatch", wrong) else { panic!() };
        assert_eq!(
            said,
            "sbatch: invalid partition specified: gpu; Batch job submission failed: Invalid partition \
             name specified"
        );
    }

    #[tokio::test]
    async fn a_machine_without_slurm_is_told_where_to_go() {
        let said = run("sbatch-that-is-nowhere", &[], "").await.unwrap_err();
        assert!(matches!(&said, Error::Usage(_)), "{said}");
        assert!(said.to_string().contains("where Slurm's commands are"), "{said}");
    }

    #[tokio::test]
    async fn a_logs_last_lines_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("1.log");
        assert_eq!(tail(&log).await, "");
        let text: String = (0..1000).map(|line| format!("line {line} ü\n")).collect();
        std::fs::write(&log, text).unwrap();
        let shown = tail(&log).await;
        assert_eq!(shown.lines().count(), LINES);
        assert!(shown.starts_with("line 980 ü\n") && shown.ends_with("line 999 ü"), "{shown}");
    }
}
