//! GDB's interface for translated code ("JIT Compilation Interface" of GDB's manual): names and the way out of it for a gdb or lldb that knows nothing
//! of us.
//!
//! A debugger that lets a process run has a breakpoint on `__jit_debug_register_code`. So nobody has to say that one is attached: at each
//! heartbeat the vCPU looks at that function's first byte, and makes the object file only when it finds a breakpoint there. Without a
//! debugger this costs one load, four times a second. For a debugger that `quintet debug` announces, the file is made when it is let
//! in and at each heartbeat until it listens, so that it finds the names when it attaches. Making the file with each translation was rejected, since nobody looks; making it when
//! the coordinator sees a tracer was, since the process may be stopped for good then.
//!
//! The file ([`object`]) has no contents but names and one rule for unwinding. It is made anew when translations came or went, at most once a
//! second: gdb takes in the whole of it each time. A worker that does not get to its next heartbeat tells nothing; its translations can be looked
//! up all the same ([`super::shown`]).
#![allow(
    unsafe_code,
    reason = "symbols that debuggers know by name, one of which is read as bytes"
)]

use core::ops::Range;
use core::ptr;
use std::time::{Duration, Instant};

use quintet_protocol::sync::{AtomicU32, AtomicUsize, Ordering};

use super::{Jit, object};

/// What a debugger overwrites an instruction with (INT3, Intel SDM volume 2).
const BREAKPOINT: u8 = 0xCC;
/// How often the file is made anew at most.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one who was announced may take to attach. gdb reads this program's symbols first.
const ON_ITS_WAY: Duration = Duration::from_secs(10);
/// How long a file is kept that nobody listened to.
const KEPT: Duration = Duration::from_mins(1);

/// `struct jit_code_entry`.
#[derive(Debug)]
#[repr(C)]
struct Entry {
    next: *const Entry,
    previous: *const Entry,
    file: *const u8,
    len: u64,
}

/// `struct jit_descriptor`.
#[derive(Debug)]
#[repr(C)]
struct Descriptor {
    version: AtomicU32,
    action: AtomicU32,
    /// Addresses of entries, or 0.
    relevant: AtomicUsize,
    first: AtomicUsize,
}

const REGISTER: u32 = 1;
const UNREGISTER: u32 = 2;

// SAFETY: the name is this one's in every program that has translated code; wasmtime's support for it is not compiled in.
#[unsafe(no_mangle)]
static __jit_debug_descriptor: Descriptor = Descriptor {
    version: AtomicU32::new(1),
    action: AtomicU32::new(0),
    relevant: AtomicUsize::new(0),
    first: AtomicUsize::new(0),
};

/// A debugger stops here, reads the descriptor, and goes on.
// SAFETY: as for the descriptor.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn __jit_debug_register_code() {
    // Not to be taken for a function without an effect.
    core::hint::black_box(&__jit_debug_descriptor);
}

/// Whether a debugger listens.
fn is_heard() -> bool {
    let code: *const u8 = __jit_debug_register_code as *const () as *const u8;
    // SAFETY: the function's first byte, in this program's code, which only a debugger writes.
    unsafe { code.read_volatile() == BREAKPOINT }
}

/// Where this program's own code is.
pub(super) fn own_code() -> Range<u64> {
    // Symbols of the linker's, whose addresses are what they mean.
    // SAFETY: they are defined for every executable; nothing is read of them.
    unsafe extern "C" {
        safe static __executable_start: u8;
        safe static etext: u8;
    }
    &raw const __executable_start as u64..&raw const etext as u64
}

/// What debuggers were told of one translator. When it is dropped, they are told nothing more.
#[derive(Debug, Default)]
pub(crate) struct Told {
    file: Vec<u8>,
    entry: Option<Box<Entry>>,
    /// What the book had then, and when that was.
    stamp: Option<((u64, usize, usize), Instant)>,
    /// When a debugger was announced that does not listen yet.
    announced: Option<Instant>,
}

// SAFETY: the pointers in the entry are to the file beside it, and to nothing.
unsafe impl Send for Told {}

impl Told {
    /// A debugger is on its way.
    pub(crate) fn expect(&mut self) {
        self.announced = Some(Instant::now());
    }

    /// Tells a debugger what is translated, if one listens or is on its way, and there is news.
    pub(crate) fn tell(&mut self, jit: &Jit) {
        let heard = is_heard();
        self.announced = self.announced.filter(|at| !heard && at.elapsed() < ON_ITS_WAY);
        let coming = self.announced.is_some();
        if !heard && !coming {
            // Who attaches later reads the list, and is not to find what is long gone.
            if self.stamp.is_some_and(|(_, at)| at.elapsed() >= KEPT) {
                self.forget(false);
            }
            return;
        }
        let (count, bytes) = jit.book.extent();
        let now = (jit.book.evictions, count, bytes);
        if let Some((then, at)) = self.stamp
            && (then == now || (heard && at.elapsed() < PAUSE))
        {
            return;
        }
        self.forget(true);
        self.file = object::make(jit);
        let entry = self.entry.insert(Box::new(Entry {
            next: ptr::null(),
            previous: ptr::null(),
            file: self.file.as_ptr(),
            len: self.file.len() as u64,
        }));
        let entry = ptr::from_mut(&mut **entry);
        __jit_debug_descriptor
            .first
            .store(entry.expose_provenance(), Ordering::Release);
        announce(REGISTER, entry);
        self.stamp = Some((now, Instant::now()));
    }

    /// Takes back what was told.
    fn forget(&mut self, aloud: bool) {
        let Some(mut entry) = self.entry.take() else {
            return;
        };
        __jit_debug_descriptor.first.store(0, Ordering::Release);
        if aloud {
            announce(UNREGISTER, ptr::from_mut(&mut *entry));
        }
        __jit_debug_descriptor.relevant.store(0, Ordering::Release);
        self.stamp = None;
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.forget(is_heard());
    }
}

fn announce(action: u32, entry: *mut Entry) {
    __jit_debug_descriptor
        .relevant
        .store(entry.expose_provenance(), Ordering::Release);
    __jit_debug_descriptor.action.store(action, Ordering::Release);
    __jit_debug_register_code();
    __jit_debug_descriptor.action.store(0, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_is_laid_out_as_debuggers_expect_and_nobody_listens() {
        use core::mem::offset_of;
        assert_eq!(size_of::<Entry>(), 32);
        let at = [
            offset_of!(Descriptor, version),
            offset_of!(Descriptor, action),
            offset_of!(Descriptor, relevant),
            offset_of!(Descriptor, first),
        ];
        assert_eq!(at, [0, 4, 8, 16]);
        assert!(!is_heard());
        assert!(own_code().contains(&(is_heard as *const () as u64)));
        // What calls it without a debugger goes on.
        __jit_debug_register_code();
    }
}
