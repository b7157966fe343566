//! Programs that nobody trusts, run where they can only compute.
//!
//! ```text
//! Sandbox (what this machine offers) -> Session (one bubblewrap, one Python)
//!   -> a child for each run -> Reply -> Failure
//! ```
//!
//! A session serves many runs: starting bubblewrap and Python takes fifty times as long as a small
//! program. What runs are kept apart by, and what a hostile program can and cannot do, stands in
//! docs/graders.md.

mod crowd;
mod filter;
mod session;
mod start;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use crowd::{Crowd, Worker};
pub use session::Session;
pub use start::{Sandbox, Unavailable};

/// What a run may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// CPU seconds of one test, or of one call of a function.
    pub cpu_seconds: u32,
    /// The same on the clock, for programs that wait.
    pub wall_seconds: u32,
    /// MiB of address space, Python's own 60 included.
    pub memory_mib: u32,
    /// KiB of standard output, or of what a function returns.
    pub output_kib: u32,
    /// Threads. A program is one process.
    pub threads: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cpu_seconds: 6, wall_seconds: 20, memory_mib: 1024, output_kib: 4096, threads: 32 }
    }
}

/// One run of a program in Python.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub program: &'a str,
    /// The program finds the names of the standard library that LiveCodeBench gives it.
    pub library: bool,
    pub test: Test<'a>,
}

#[derive(Debug, Clone, Copy)]
pub enum Test<'a> {
    /// A whole program: standard input to standard output.
    Stdin(&'a str),
    /// A function of the program, called from another process.
    Check {
        /// The function: of the class `Solution` where there is one that has it.
        entry: &'a str,
        /// Python that the test may use; may end in an unfinished function.
        prompt: &'a str,
        /// Defines `check(candidate)`, which raises an exception where the function is wrong.
        source: &'a str,
        /// Bytes that the source finds as `DATA`.
        data: &'a str,
        /// How often the function will be called, roughly: what it may take in all.
        calls: u32,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The run is over: as it should be, or with an exception.
    Finished,
    Signal(i32),
    Wall,
    /// The process ended itself before its function was judged.
    Left,
    /// It took its sandbox with it, again and again.
    Lost,
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub(crate) end: End,
    /// What the harness says: a letter, and what belongs to it.
    pub(crate) report: Vec<u8>,
    /// Standard output, up to the limit.
    pub output: Vec<u8>,
    /// How often a check has called the function.
    pub calls: u32,
}

/// Why a run came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Not Python.
    Syntax,
    /// An exception that the program did not catch: its type.
    Exception(String),
    /// CPU time.
    Time,
    /// Time on the clock, twice.
    Wall,
    Memory,
    Output,
    /// Processes or threads.
    Processes,
    /// A system call that the sandbox denies: a socket, a signal to another process.
    Denied,
    Killed(Signal),
    /// The program has no function of that name.
    NoFunction,
    /// The function returned what is no plain value: its type.
    NoValue(String),
    /// The program ended itself before its function was judged.
    Left,
    /// The check says that the function is wrong.
    Check,
    /// The check itself cannot be run.
    BrokenCheck,
}

/// A signal's number, written as its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub i32);

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            libc::SIGABRT => "SIGABRT",
            libc::SIGBUS => "SIGBUS",
            libc::SIGFPE => "SIGFPE",
            libc::SIGILL => "SIGILL",
            libc::SIGKILL => "SIGKILL",
            libc::SIGSEGV => "SIGSEGV",
            libc::SIGTERM => "SIGTERM",
            number => return write!(f, "signal {number}"),
        };
        f.write_str(name)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => f.write_str("syntax error"),
            Self::Exception(kind) => write!(f, "exception {kind}"),
            Self::Time => f.write_str("time limit"),
            Self::Wall => f.write_str("wall-clock limit"),
            Self::Memory => f.write_str("memory limit"),
            Self::Output => f.write_str("output limit"),
            Self::Processes => f.write_str("process limit"),
            Self::Denied => f.write_str("denied system call"),
            Self::Killed(signal) => write!(f, "killed by {signal}"),
            Self::NoFunction => f.write_str("no such function"),
            Self::NoValue(kind) => write!(f, "returned a {kind}, no plain value"),
            Self::Left => f.write_str("ended itself"),
            Self::Check => f.write_str("wrong answer"),
            Self::BrokenCheck => f.write_str("broken check"),
        }
    }
}

impl Reply {
    /// What went wrong, `None` where the run came to its end: with an output to compare, or with a
    /// check that holds.
    pub fn failure(&self, limits: &Limits) -> Option<Failure> {
        let full = self.output.len() as u64 >= limits.output();
        let (letter, rest) = match self.report.split_first() {
            Some((letter, rest)) => (*letter, rest),
            None => (b' ', &[][..]),
        };
        Some(match (self.end, letter) {
            (End::Signal(libc::SIGXCPU), _) | (End::Finished, b'T') => Failure::Time,
            (End::Signal(libc::SIGXFSZ), _) => Failure::Output,
            (End::Signal(number), _) => Failure::Killed(Signal(number)),
            (End::Wall, _) | (End::Finished, b'W') => Failure::Wall,
            (End::Lost, _) => Failure::Killed(Signal(libc::SIGKILL)),
            _ if full => Failure::Output,
            (_, b'S') => Failure::Syntax,
            (_, b'M') => Failure::NoFunction,
            (_, b'E') => exception(rest),
            (End::Left, _) => Failure::Left,
            // A whole program may end itself: what it printed counts.
            (_, b' ' | b'D') => return None,
            (_, b'V') => Failure::NoValue(word(rest)),
            (_, b'L') => Failure::Output,
            (_, b'B') => Failure::BrokenCheck,
            _ => Failure::Check,
        })
    }
}

/// `number;type`: the exception, or the limit behind it.
fn exception(text: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(text);
    let (number, kind) = text.split_once(';').unwrap_or(("", &text));
    match number.parse().unwrap_or(0) {
        _ if kind == "MemoryError" => Failure::Memory,
        libc::ENOMEM => Failure::Memory,
        libc::EAGAIN => Failure::Processes,
        libc::EFBIG => Failure::Output,
        libc::ENOSYS => Failure::Denied,
        _ => Failure::Exception(word(kind.as_bytes())),
    }
}

/// A name that a program chose, short and printable.
fn word(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().filter(|c| c.is_alphanumeric() || "_.".contains(*c)).take(60).collect()
}

impl Limits {
    /// Bytes.
    fn output(&self) -> u64 {
        u64::from(self.output_kib) << 10
    }
}

#[cfg(test)]
mod tests;
