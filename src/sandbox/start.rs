//! What this machine has to make sandboxes of.

use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::{Session, filter};
use crate::{Error, Result};

const HARNESS: &str = include_str!("harness.py");

/// The first of the users that root becomes, one for each worker, so that none shares the limit of
/// threads with another: systemd keeps these numbers for users that come and go.
const USER: u32 = 61_184;

/// Why no program can be run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// Not Linux, or a processor without a filter of system calls.
    Platform(String),
    Bubblewrap,
    Python,
    /// bubblewrap or the harness gave up: what it said last.
    Refused(String),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("code tasks run programs in a sandbox, and ")?;
        match self {
            Self::Platform(what) => write!(f, "there is none for this machine: {what}"),
            Self::Bubblewrap => f.write_str(
                "bwrap is not installed; on Debian and Ubuntu: apt-get install bubblewrap",
            ),
            Self::Python => f.write_str(
                "neither /usr/bin/python3 nor /usr/local/bin/python3 is there; on Debian and \
                 Ubuntu: apt-get install python3",
            ),
            Self::Refused(said) => write!(
                f,
                "bwrap starts none here ({said}); run as root, or allow unprivileged user \
                 namespaces, as a container's security profile has to"
            ),
        }
    }
}

impl From<Unavailable> for Error {
    fn from(reason: Unavailable) -> Self {
        Self::usage(reason)
    }
}

/// How sandboxes are started on this machine.
#[derive(Debug, Clone)]
pub struct Sandbox {
    bubblewrap: PathBuf,
    python: &'static str,
    pub(super) way: Way,
    filters: [String; 2],
    /// Of Python: `3.11.2`.
    pub version: String,
}

/// Whose privileges make the namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    user: User,
    /// Addresses are the same in every run.
    pub(super) fixed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum User {
    /// An ordinary user's, in a user namespace.
    Own,
    /// Root turns into an ordinary user first.
    Dropped,
    /// Root's own, dropped inside: where ordinary users may not make user namespaces.
    Root,
}

impl Sandbox {
    /// Of this process: found out once.
    ///
    /// # Errors
    /// What is missing.
    pub fn shared() -> Result<&'static Self, Unavailable> {
        static SHARED: OnceLock<Result<Sandbox, Unavailable>> = OnceLock::new();
        SHARED.get_or_init(Self::open).as_ref().map_err(Unavailable::clone)
    }

    /// Finds out by starting one.
    ///
    /// # Errors
    /// What is missing.
    pub fn open() -> Result<Self, Unavailable> {
        // SAFETY: reads a number.
        let root = unsafe { libc::geteuid() } == 0;
        let users: &[User] = if root { &[User::Dropped, User::Root] } else { &[User::Own] };
        Self::find(&std::env::var_os("PATH").unwrap_or_default(), users)
    }

    /// The first of `users` with whose privileges one starts.
    pub(super) fn find(path: &OsStr, users: &[User]) -> Result<Self, Unavailable> {
        let filters = filter::filters().map_err(|e| Unavailable::Platform(e.to_string()))?;
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut folders = std::env::split_paths(path);
        let bubblewrap = folders
            .find_map(|folder| Some(folder.join("bwrap")).filter(|file| file.is_file()))
            .ok_or(Unavailable::Bubblewrap)?;
        let python = ["/usr/bin/python3", "/usr/local/bin/python3"]
            .into_iter()
            .find(|file| Path::new(file).exists())
            .ok_or(Unavailable::Python)?;
        let ways = users.iter().flat_map(|&user| [true, false].map(|fixed| Way { user, fixed }));
        let mut said = String::new();
        for way in ways {
            let filters = filters.clone().map(hex);
            let version = String::new();
            let mut sandbox =
                Self { bubblewrap: bubblewrap.clone(), python, way, filters, version };
            match Session::start(&sandbox, 0) {
                Ok(session) => {
                    sandbox.version = session.version.clone();
                    return Ok(sandbox);
                }
                // The first refusal is that of the best way.
                Err(reason) if said.is_empty() => said = reason,
                Err(_) => {}
            }
        }
        Err(Unavailable::Refused(said))
    }

    /// Starts one, and gives the end of the socket that its harness talks over.
    pub(super) fn spawn(&self, slot: u32) -> std::io::Result<(Child, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let user = USER + slot % 4000;
        let mut command = Command::new(&self.bubblewrap);
        command
            .args(self.arguments(user))
            .env_clear()
            .envs([
                ("HOME", "/"),
                ("LANG", "C.UTF-8"),
                ("OMP_NUM_THREADS", "1"),
                ("OPENBLAS_NUM_THREADS", "1"),
                ("PATH", "/usr/bin:/usr/local/bin"),
                ("PYTHONHASHSEED", "0"),
            ])
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A terminal's interrupt is for triad, which then closes the socket.
            .process_group(0);
        if self.way.user == User::Dropped {
            // Drops the groups as well.
            command.uid(user).gid(user);
        }
        Ok((command.spawn()?, ours))
    }

    fn arguments(&self, user: u32) -> Vec<String> {
        let mut arguments: Vec<String> = words(
            "--unshare-ipc --unshare-pid --unshare-net --unshare-uts --unshare-cgroup-try \
             --as-pid-1 --die-with-parent --new-session --hostname sandbox --ro-bind /usr /usr",
        );
        if self.way.user != User::Root {
            arguments.push("--unshare-user".into());
        }
        // Links where /usr holds everything, folders elsewhere.
        for folder in ["/bin", "/lib", "/lib32", "/lib64"] {
            match std::fs::read_link(folder) {
                Ok(target) => {
                    let target = target.to_string_lossy();
                    arguments.extend(words(&format!("--symlink {target} {folder}")));
                }
                Err(_) => arguments.extend(words(&format!("--ro-bind-try {folder} {folder}"))),
            }
        }
        arguments.extend(words(
            "--dir /dev --dir /etc --ro-bind-try /etc/ld.so.cache /etc/ld.so.cache --dev-bind /dev/null /dev/null \
             --dev-bind /dev/urandom /dev/urandom --dir /tmp --remount-ro / --chdir / \
             --cap-drop ALL",
        ));
        if self.way.user == User::Root {
            arguments.extend(words(&format!(
                "--cap-add CAP_SETUID --cap-add CAP_SETGID --cap-add CAP_SETPCAP -- \
                 /usr/bin/setpriv --reuid={user} --regid={user} --clear-groups --inh-caps=-all \
                 --bounding-set=-all --no-new-privs"
            )));
        } else {
            arguments.push("--".into());
        }
        if self.way.fixed {
            arguments.extend(words("/usr/bin/setarch -R"));
        }
        arguments.extend(words(&format!("{} -s -B -X utf8 -c", self.python)));
        arguments.push(HARNESS.into());
        arguments.extend(self.filters.clone());
        arguments
    }

    /// Whether threads are counted for each sandbox, and not for a user's whole machine: root gives
    /// each a user, and Linux counts by user namespace since 5.14.
    pub(super) fn counts_threads(&self) -> bool {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        self.way.user != User::Own || version >= (5, 14)
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(String::from).collect()
}

/// The first line that a sandbox that did not start has left.
pub(super) fn last_words(child: &mut Child) -> String {
    let _ = child.kill();
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(4096).read_to_end(&mut said);
    }
    let _ = child.wait();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or("it ended without a word").trim().to_string()
}
