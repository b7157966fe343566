//! A Slurm of one node, as `infra/slurm-dev.sh` starts it. Included by the tests of `triad` too.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// Ends when its process does: the script runs until its stdin is closed.
pub struct Cluster {
    pub config: PathBuf,
    script: Child,
    waiting: Mutex<BTreeSet<String>>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    /// `root` is the repository. Two clusters at a time need ports two apart.
    pub fn start(root: &Path, port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut script = Command::new(root.join("infra/slurm-dev.sh"))
            .arg(folder.path())
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "no Slurm to test with: apt-get install slurm-wlm munge");
        let config = folder.path().join("slurm.conf");
        Self { config, script, waiting: Mutex::default(), _folder: folder }
    }

    /// What one of Slurm's commands says.
    pub fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let output =
            Command::new(program).args(arguments).env("SLURM_CONF", &self.config).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What went back into the queue before the last call begins at once: Slurm lets it wait for two
    /// minutes. Not before the node has cleaned up after it.
    pub fn hurry(&self) {
        let mut before = self.waiting.lock().unwrap();
        let queue = self.ask("squeue", &["--noheader", "--array", "--format=%i|%r"]);
        let waiting = queue.lines().filter_map(|line| line.strip_suffix("|BeginTime"));
        let waiting: BTreeSet<String> = waiting.map(String::from).collect();
        for id in waiting.intersection(&before) {
            // It may have begun meanwhile.
            let _ = Command::new("scontrol")
                .args(["update", &format!("jobid={id}"), "starttime=now"])
                .env("SLURM_CONF", &self.config)
                .output();
        }
        *before = waiting;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
        if std::thread::panicking() {
            for log in ["slurmctld.log", "slurmd.log"] {
                let text = std::fs::read_to_string(self.config.with_file_name("log").join(log));
                eprintln!("{log}:\n{}", text.unwrap_or_default());
            }
        }
    }
}
