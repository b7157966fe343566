//! Many runs side by side.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::{End, Failure, Limits, Reply, Request, Sandbox, Session, Signal};
use crate::{Error, Result};

/// How often a waiting batch asks whether it is to stop.
const TICK: Duration = Duration::from_millis(100);

/// Workers with a sandbox each.
pub struct Crowd<'a> {
    sandbox: &'a Sandbox,
    workers: usize,
}

/// A worker's sandbox, started when it is first needed and anew after it broke.
pub struct Worker<'a> {
    sandbox: &'a Sandbox,
    slot: u32,
    session: Option<Session>,
}

impl<'a> Crowd<'a> {
    /// As many workers as there are cores, where `workers` is `None`.
    pub fn new(sandbox: &'a Sandbox, workers: Option<usize>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { sandbox, workers: workers.unwrap_or(cores).max(1) }
    }

    /// `work` for each of `items`, in their order. `tick` is told how many are done, on this thread,
    /// and ends it with an error.
    pub fn map<T: Sync, R: Send>(
        &self,
        items: &[T],
        work: impl Fn(&mut Worker, &T) -> Result<R> + Sync,
        mut tick: impl FnMut(usize) -> Result<()>,
    ) -> Result<Vec<R>> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            for slot in 0..self.workers.min(items.len()) {
                let (sender, next, stop, work) = (sender.clone(), &next, &stop, &work);
                let sandbox = self.sandbox;
                scope.spawn(move || {
                    let slot = u32::try_from(slot).unwrap_or(0);
                    let mut worker = Worker { sandbox, slot, session: None };
                    while !stop.load(Ordering::Relaxed)
                        && let at = next.fetch_add(1, Ordering::Relaxed)
                        && let Some(item) = items.get(at)
                        && sender.send((at, work(&mut worker, item))).is_ok()
                    {}
                });
            }
            drop(sender);
            let mut done = 0;
            let ended = loop {
                match receiver.recv_timeout(TICK) {
                    Ok((at, Ok(result))) => {
                        results[at] = Some(result);
                        done += 1;
                    }
                    Ok((_, Err(error))) => break Err(error),
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => break Ok(()),
                }
                if let Err(error) = tick(done) {
                    break Err(error);
                }
            };
            stop.store(true, Ordering::Relaxed);
            ended
        })?;
        results
            .into_iter()
            .collect::<Option<_>>()
            .ok_or_else(|| Error::defect("a worker with a sandbox died"))
    }
}

impl Worker<'_> {
    /// Runs one program, again where the clock ran out and the CPU time did not, where it was
    /// killed, or where the sandbox broke: a machine that is short of time or memory must not decide
    /// a verdict.
    ///
    /// # Errors
    /// No sandbox can be started any more.
    pub fn run(&mut self, request: &Request, limits: &Limits) -> Result<Reply> {
        let mut last = None;
        for _ in 0..2 {
            match self.session()?.run(request, limits) {
                Ok(reply) => match reply.failure(limits) {
                    Some(Failure::Wall | Failure::Killed(Signal(libc::SIGKILL))) => {
                        last = Some(reply);
                    }
                    _ => return Ok(reply),
                },
                Err(_) => self.session = None,
            }
        }
        // The program is to blame only where another still runs.
        self.session()?;
        let (report, output) = (Vec::new(), Vec::new());
        let lost = || Reply { end: End::Lost, report, output, calls: 0 };
        Ok(last.unwrap_or_else(lost))
    }

    fn session(&mut self) -> Result<&mut Session> {
        Ok(match &mut self.session {
            Some(session) => session,
            empty => empty.insert(Session::start(self.sandbox, self.slot).map_err(|said| {
                Error::try_again(format!("no further sandbox can be started ({said})"))
            })?),
        })
    }
}
