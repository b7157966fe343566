//! Containers without images: the binary with the arguments and variables that a scheduler was
//! given for it, in an empty folder, and nothing else of the tests' surroundings.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};

use tempfile::TempDir;

use super::PAUSE;

/// How a process ended.
pub struct Ended {
    /// Of a killed one as shells have it: 128 and the signal.
    pub code: i32,
    pub log: String,
    /// Whether its machine was taken away under it.
    pub lost: bool,
}

struct Process {
    stage: String,
    child: Child,
    folder: TempDir,
    lost: bool,
    running: bool,
}

/// All machines of a scheduler; processes that ended too.
#[derive(Clone, Default)]
pub struct Machines(Arc<Mutex<Vec<Process>>>);

impl Machines {
    /// Runs a container to its end. `gone` says when nobody wants it any more.
    pub async fn run(
        &self,
        arguments: &[String],
        variables: &BTreeMap<String, String>,
        gone: impl Fn() -> bool,
    ) -> Ended {
        let at = self.start(arguments, variables);
        loop {
            tokio::time::sleep(PAUSE).await;
            if gone() {
                self.processes()[at].signal(libc::SIGTERM);
            }
            let mut processes = self.processes();
            let process = &mut processes[at];
            let Some(status) = process.child.try_wait().unwrap() else { continue };
            process.running = false;
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
            let log = std::fs::read_to_string(process.folder.path().join("log")).unwrap();
            return Ended { code, log, lost: process.lost };
        }
    }

    fn start(&self, arguments: &[String], variables: &BTreeMap<String, String>) -> usize {
        let folder = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_triad"));
        command.args(arguments).env_clear().envs(variables).env("TMPDIR", folder.path());
        command.current_dir(folder.path()).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let stage = arguments[2].clone();
        let mut processes = self.processes();
        processes.push(Process { stage, child, folder, lost: false, running: true });
        processes.len() - 1
    }

    /// How often a process of a stage began.
    pub fn begun(&self, stage: &str) -> usize {
        self.processes().iter().filter(|process| process.stage == stage).count()
    }

    pub fn running(&self, stage: &str) -> usize {
        let processes = self.processes();
        processes.iter().filter(|process| process.running && process.stage == stage).count()
    }

    /// Takes the machine of one process of a stage away: SIGTERM, as in a drain.
    pub fn take_away(&self, stage: &str) {
        let mut processes = self.processes();
        let running = |process: &&mut Process| process.running && process.stage == stage;
        let process = processes.iter_mut().find(running).unwrap();
        process.lost = true;
        process.signal(libc::SIGTERM);
    }

    fn processes(&self) -> MutexGuard<'_, Vec<Process>> {
        self.0.lock().unwrap()
    }
}

impl Process {
    fn signal(&self, signal: i32) {
        if self.running {
            // SAFETY: a signal to a child that is not waited for yet.
            unsafe { libc::kill(self.child.id() as i32, signal) };
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.running {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
