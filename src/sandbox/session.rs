//! One bubblewrap with one Python in it, and the runs that it serves.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

use super::start::last_words;
use super::{End, Limits, Reply, Request, Sandbox, Test};

/// How long a sandbox may take to start, and beyond a run's own limit to answer.
const GRACE: Duration = Duration::from_secs(15);

/// bytes of a reply's head: how it ended, code, CPU time in µs, sizes of report and output.
const HEAD: usize = 1 + 4 + 8 + 4 + 4;

/// A running sandbox. The thread that starts it must outlive it: Linux ends the sandbox with the
/// thread.
pub struct Session {
    pub(super) child: Child,
    socket: UnixStream,
    threads: bool,
    pub(super) version: String,
}

impl Session {
    /// The error is what the sandbox said.
    pub(super) fn start(sandbox: &Sandbox, slot: u32) -> Result<Self, String> {
        let (child, socket) = sandbox.spawn(slot).map_err(|e| e.to_string())?;
        let threads = sandbox.counts_threads();
        let mut session = Self { child, socket, threads, version: String::new() };
        match session.hello() {
            Ok(version) => session.version = version,
            Err(_) => return Err(last_words(&mut session.child)),
        }
        // The limits and the filters hold, or nothing runs.
        let request = Request { program: "print(1)", library: false, test: Test::Stdin("") };
        match session.run(&request, &Limits::default()) {
            Ok(reply) if reply.output == b"1\n" => Ok(session),
            Ok(reply) => Err(format!("its first program came to {:?}", reply.end)),
            Err(_) => Err("it cannot limit a program, or filter its system calls".into()),
        }
    }

    fn hello(&mut self) -> io::Result<String> {
        self.socket.set_read_timeout(Some(GRACE))?;
        let mut size = [0; 4];
        self.socket.read_exact(&mut size)?;
        let mut version = vec![0; u32::from_le_bytes(size).min(64) as usize];
        self.socket.read_exact(&mut version)?;
        Ok(String::from_utf8_lossy(&version).into())
    }

    /// Runs one program.
    ///
    /// # Errors
    /// The sandbox is gone, or does not answer: it is to be dropped.
    pub fn run(&mut self, request: &Request, limits: &Limits) -> io::Result<Reply> {
        let tests = match request.test {
            Test::Stdin(_) => 1,
            Test::Check { calls, .. } => calls.saturating_add(1),
        };
        let patience = Duration::from_secs(limits.wall_seconds.into()) * tests + GRACE;
        self.socket.set_read_timeout(Some(patience))?;
        self.socket.set_write_timeout(Some(patience))?;
        self.socket.write_all(&self.message(request, limits))?;
        let mut head = [0; HEAD];
        self.socket.read_exact(&mut head)?;
        let mut head = Fields(&head);
        let (how, code, cpu) = (head.byte(), head.u32().cast_signed(), head.u64());
        let (report, output) = (head.u32(), head.u32());
        let mut bytes = |size: u32| {
            let mut bytes = vec![0; size as usize];
            self.socket.read_exact(&mut bytes).map(|()| bytes)
        };
        let (mut report, output) = (bytes(report)?, bytes(output)?);
        let cpu = Duration::from_micros(cpu);
        let spent = cpu >= Duration::from_secs(limits.cpu_seconds.into());
        let end = match how {
            0..=2 if spent && matches!(request.test, Test::Stdin(_)) => End::Signal(libc::SIGXCPU),
            0 => End::Finished,
            1 => End::Signal(code),
            2 => End::Wall,
            3 => End::Left,
            _ => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        let mut calls = 0;
        if matches!(request.test, Test::Check { .. })
            && let Some(at) = report.iter().rposition(|&byte| byte == 0)
        {
            calls = String::from_utf8_lossy(&report[at + 1..]).parse().unwrap_or(0);
            report.truncate(at);
        }
        Ok(Reply { end, report, output, calls })
    }

    fn message(&self, request: &Request, limits: &Limits) -> Vec<u8> {
        let (mode, calls) = match request.test {
            Test::Stdin(_) => (0, 1),
            Test::Check { calls, .. } => (1, calls),
        };
        let mut message = vec![mode, u8::from(request.library)];
        message.extend(limits.cpu_seconds.to_le_bytes());
        message.extend(limits.wall_seconds.saturating_mul(1000).to_le_bytes());
        message.extend(calls.to_le_bytes());
        message.extend((u64::from(limits.memory_mib) << 20).to_le_bytes());
        message.extend(limits.output().to_le_bytes());
        message.extend(if self.threads { limits.threads } else { 0 }.to_le_bytes());
        let test: &[&str] = match &request.test {
            Test::Stdin(input) => &[input],
            Test::Check { entry, prompt, source, data, .. } => {
                &[entry, prompt, source, entry, data]
            }
        };
        for part in [request.program].iter().chain(test) {
            // A part of 4 GiB would not fit a program's memory either.
            let size = u32::try_from(part.len()).unwrap_or(u32::MAX);
            message.extend(size.to_le_bytes());
            message.extend(part.as_bytes());
        }
        message
    }
}

/// Ends the sandbox: the harness leaves when its socket closes, and all its processes with it.
impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        let until = Instant::now() + Duration::from_secs(1);
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Numbers, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut field = [0; N];
        let (head, rest) = self.0.split_at(N.min(self.0.len()));
        field[..head.len()].copy_from_slice(head);
        self.0 = rest;
        field
    }
    fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}
