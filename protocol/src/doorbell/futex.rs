//! The two futex calls, on words of shared maps: without `FUTEX_PRIVATE_FLAG`, always with a timeout. Where the
//! memory belongs to the portable back end, its events take their place.

use rustix::thread::futex::{self, Flags};

use crate::shm::{View, portable};
use crate::time::NANOS_PER_SEC;

/// Sleeps at most `nanos` nanoseconds while the word at `offset` holds `expected`. Every return (woken, changed,
/// interrupted, timed out, refused) means the same: look again.
pub(super) fn wait(view: &View, offset: usize, expected: u32, nanos: u64) {
    if view.is_portable() {
        return portable::wait(view, nanos);
    }
    let timeout = futex::Timespec {
        tv_sec: (nanos / NANOS_PER_SEC) as i64,
        tv_nsec: (nanos % NANOS_PER_SEC) as _,
    };
    let _ = futex::wait(view.futex_word(offset), Flags::empty(), expected, Some(&timeout));
}

/// Wakes every sleeper on the word at `offset`; there is one, unless a hostile peer sleeps there too.
pub(super) fn wake(view: &View, offset: usize) {
    if view.is_portable() {
        return portable::wake(view);
    }
    let _ = futex::wake(view.futex_word(offset), Flags::empty(), i32::MAX as u32);
}
