//! Work for the threads of libtorch.
//!
//! A kernel of ours runs between libtorch's operations, hundreds of times a token. Threads of our
//! own would have to be woken each time and would fight libtorch's for the cores: those spin for a
//! while after an operation. So its OpenMP runtime is asked for the same team.

use std::ffi::{CStr, c_char, c_uint, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

type Body = unsafe extern "C" fn(*mut c_void);
type Parallel = unsafe extern "C" fn(Body, *mut c_void, c_uint, c_uint);

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
}

/// What compilers call for `omp parallel`; GNU's and LLVM's runtimes both have it.
const ENTRY: &CStr = c"GOMP_parallel";

fn parallel() -> Option<Parallel> {
    static FOUND: OnceLock<Option<Parallel>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: a null handle searches the libraries that the program started with; the function
        // of that name has this signature.
        unsafe {
            let entry = dlsym(std::ptr::null_mut(), ENTRY.as_ptr());
            (!entry.is_null()).then(|| std::mem::transmute::<*mut c_void, Parallel>(entry))
        }
    })
}

/// How many threads a tensor operation of this thread may use.
pub(super) fn available() -> usize {
    tch::get_num_threads().max(1) as usize
}

/// Runs `work` once for each number below `tasks`, on up to `threads` threads, in any order.
pub(super) fn share(tasks: usize, threads: usize, work: impl Fn(usize) + Sync) {
    let threads = threads.min(tasks);
    if threads <= 1 {
        return (0..tasks).for_each(work);
    }
    let next = AtomicUsize::new(0);
    let take = || {
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            work(task);
        }
    };
    match parallel() {
        // SAFETY: `call` gets the address of `take`, which outlives the call: the team is done when
        // it returns.
        Some(parallel) => unsafe {
            let (body, data) = erased(&take);
            parallel(body, data, threads as c_uint, 0);
        },
        None => std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(take);
            }
            take();
        }),
    }
}

/// A closure as a C function and its argument.
fn erased<F: Fn() + Sync>(work: &F) -> (Body, *mut c_void) {
    unsafe extern "C" fn call<F: Fn()>(data: *mut c_void) {
        // SAFETY: `data` is the address of an F, see below.
        unsafe { (*data.cast::<F>())() }
    }
    (call::<F>, std::ptr::from_ref(work).cast_mut().cast())
}

/// A mutable slice whose disjoint parts several threads write.
pub(super) struct Parts<T> {
    start: *mut T,
    length: usize,
}

// SAFETY: whoever calls `part` answers for the parts being disjoint.
unsafe impl<T: Send> Sync for Parts<T> {}

impl<T> Parts<T> {
    pub fn new(whole: &mut [T]) -> Self {
        Self { start: whole.as_mut_ptr(), length: whole.len() }
    }

    /// The `count` items from `first` on, or none if there are not so many.
    ///
    /// # Safety
    /// The whole is still borrowed, and no two threads hold overlapping parts.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, first: usize, count: usize) -> &mut [T] {
        if first.checked_add(count).is_none_or(|end| end > self.length) {
            return &mut [];
        }
        // SAFETY: in bounds; the caller answers for the rest.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 5] {
            let counts: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
            share(counts.len(), threads, |task| {
                counts[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
        share(0, 2, |_| panic!("no task"));
    }

    #[test]
    fn libtorchs_team_is_found() {
        tch::set_num_threads(2);
        assert!(parallel().is_some());
    }
}
