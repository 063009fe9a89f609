//! Signals as something to read.
//!
//! Blocked in every thread of the coordinator and read from a signalfd in the main loop: nothing happens in a
//! handler, and a terminal in raw mode is put right on every way out.
#![allow(unsafe_code, reason = "signal masks and signalfd have no safe interface")]

use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};

/// The signals that end a machine in good order.
const ENDING: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

fn ending() -> libc::sigset_t {
    // SAFETY: the set is initialised before use, and all pointers are to a local.
    unsafe {
        let mut set = core::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in ENDING {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

/// Lets the signals come as they do to any process: in a child between fork and exec, for it makes one system call and nothing else. A
/// debugger's Ctrl-C is SIGINT to what it debugs, and `kill PID` is to end a worker.
///
/// # Errors
/// The host's.
pub fn unblock() -> std::io::Result<()> {
    let set = ending();
    // SAFETY: the pointer is to a local.
    match unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, core::ptr::null_mut()) } {
        0 => Ok(()),
        e => Err(std::io::Error::from_raw_os_error(e)),
    }
}

/// Signals that have come.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks the signals in this thread and, if called before others are made, in all. Children inherit that; workers undo it
    /// ([`unblock`]). SIGXFSZ is ignored, in children too: a file that may not grow is a full disk for the guest, and kills
    /// nobody.
    ///
    /// # Errors
    /// The host's.
    pub fn block() -> std::io::Result<Self> {
        // SAFETY: all pointers are to locals.
        let fd = unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            let set = ending();
            let e = libc::pthread_sigmask(libc::SIG_BLOCK, &set, core::ptr::null_mut());
            if e != 0 {
                return Err(std::io::Error::from_raw_os_error(e));
            }
            libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that has come, by number.
    pub fn take(&self) -> Option<i32> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut info) {
            Ok(n) if n == info.len() => {
                // `ssi_signo` is the first field (signalfd(2)).
                let (number, _) = info.split_first_chunk::<4>()?;
                Some(u32::from_ne_bytes(*number) as i32)
            }
            _ => None,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
