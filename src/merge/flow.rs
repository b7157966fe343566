//! A merge into a store: what several threads write goes out in order, in parts, as it is made.

use std::future::Future;
use std::sync::{Condvar, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;

use super::plan::Plan;
use super::run::{Limits, Output, Watch, run};
use super::workers::lock;
use crate::checkpoint::Layout;
use crate::store::{PIECE, Source};
use crate::{Error, Result};

/// Puts the threads' bytes in order.
struct Ordered {
    state: Mutex<State>,
    turn: Condvar,
    sender: Sender<Bytes>,
}

struct State {
    /// The place that is written next.
    next: u64,
    part: BytesMut,
    over: bool,
}

impl Ordered {
    fn send(&self, state: &mut State, part: Bytes) -> Result<()> {
        self.sender.blocking_send(part).map_err(|_| {
            state.over = true;
            Error::try_again("the upload ended early")
        })
    }

    /// Sends what is left.
    fn finish(&self) -> Result<()> {
        let mut state = lock(&self.state);
        let rest = state.part.split().freeze();
        if rest.is_empty() { Ok(()) } else { self.send(&mut state, rest) }
    }
}

impl Output for Ordered {
    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let mut state = lock(&self.state);
        while state.next != at && !state.over {
            state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.over {
            return Err(Error::try_again("the merge ended early"));
        }
        state.next += bytes.len() as u64;
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = rest.len().min(PIECE - state.part.len());
            state.part.extend_from_slice(&rest[..count]);
            rest = &rest[count..];
            if state.part.len() == PIECE {
                let part = state.part.split().freeze();
                self.send(&mut state, part)?;
            }
        }
        drop(state);
        self.turn.notify_all();
        Ok(())
    }

    fn give_up(&self) {
        lock(&self.state).over = true;
        self.turn.notify_all();
    }
}

/// Merges the file of `layout` into the source that `put` uploads. Blocks: `put` runs on `runtime`.
pub fn upload<F: Future<Output = Result<()>>>(
    plan: &Plan,
    layout: &Layout,
    limits: Limits,
    watch: &dyn Watch,
    runtime: &Handle,
    put: impl FnOnce(Source) -> F,
) -> Result<()> {
    let (sender, source) = Source::flow(layout.size);
    let state = Mutex::new(State { next: 0, part: BytesMut::new(), over: false });
    let ordered = Ordered { state, turn: Condvar::new(), sender };
    std::thread::scope(|scope| {
        let merged = scope.spawn(move || {
            run(plan, layout, limits, &ordered, watch).and_then(|()| ordered.finish())
        });
        let uploaded = runtime.block_on(put(source));
        let merged = merged.join().map_err(|_| Error::defect("the merge died"))?;
        // Of two failures one follows from the other: a merge that fails cuts the upload short with
        // an error of its own, an upload that fails only says to try again.
        match (merged, uploaded) {
            (Err(Error::TryAgain(_)), Err(uploaded)) => Err(uploaded),
            (Err(merged), _) => Err(merged),
            (Ok(()), uploaded) => uploaded,
        }
    })
}
