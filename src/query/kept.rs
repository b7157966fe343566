//! Where batches of rows come and go, the allocator would give their memory back to the system and be
//! handed it again at once, cleared anew: half of the time of a large sort.

use std::sync::{Mutex, PoisonError};

use libmimalloc_sys::{mi_collect, mi_option_get, mi_option_set, mi_option_t};

/// `mi_option_purge_delay`: after how many milliseconds freed memory goes back to the system.
const PURGE_DELAY: mi_option_t = 15;
/// Longer than any query.
const NEVER: i64 = 24 * 60 * 60 * 1000;

/// How many there are, and the delay from before the first.
static HOLDERS: Mutex<(usize, i64)> = Mutex::new((0, 0));

/// While one lives, freed memory stays with the process; the last one to go gives it back. Changes
/// nothing in a program that has another allocator.
pub(super) struct Kept(());

impl Kept {
    pub fn new() -> Self {
        let mut holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        if holders.0 == 0 {
            // SAFETY: reads and sets a number, which the allocator reads atomically.
            holders.1 = unsafe { mi_option_get(PURGE_DELAY) };
            unsafe { mi_option_set(PURGE_DELAY, NEVER) };
        }
        holders.0 += 1;
        Self(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        holders.0 -= 1;
        if holders.0 == 0 {
            // SAFETY: as above; collecting may be asked for at any time.
            unsafe {
                mi_option_set(PURGE_DELAY, holders.1);
                mi_collect(true);
            }
        }
    }
}
