//! A system call that the policy forbids ends the process with a line that names it.
#![allow(
    unsafe_code,
    reason = "installs a signal handler, which may only make system calls"
)]

use syscalls::Sysno;

/// Exit status of a worker that called what its policy forbids: 128 + SIGSYS.
pub const EXIT_TRAPPED: i32 = 128 + 31;

/// A line made without allocating; what does not fit is left out.
struct Line {
    bytes: [u8; 128],
    len: usize,
}

impl Line {
    fn about(number: i32) -> Self {
        let mut line = Self {
            bytes: [0; 128],
            len: 0,
        };
        line.put(b"system call ");
        line.put_number(number.unsigned_abs());
        if let Some(call) = usize::try_from(number).ok().and_then(Sysno::new) {
            line.put(b" (");
            line.put(call.name().as_bytes());
            line.put(b")");
        }
        line.put(b" is not allowed by the sandbox\n");
        line
    }

    fn put(&mut self, text: &[u8]) {
        for (place, byte) in self.bytes[self.len..].iter_mut().zip(text) {
            *place = *byte;
            self.len += 1;
        }
    }

    fn put_number(&mut self, number: u32) {
        let mut divisor = 1_000_000_000;
        while divisor > 1 && number < divisor {
            divisor /= 10;
        }
        while divisor > 0 {
            self.put(&[b'0' + (number / divisor % 10) as u8]);
            divisor /= 10;
        }
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Installs the handler.
pub(super) fn report_forbidden_calls() {
    extern "C" fn trapped(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
        // SAFETY: the kernel hands a valid siginfo of SIGSYS; its field `si_syscall` lies 8 bytes into the union,
        // which starts at 16 on every 64-bit Linux (asm-generic/siginfo.h).
        let number = unsafe { info.cast::<u8>().add(24).cast::<i32>().read() };
        let line = Line::about(number);
        let text = line.text();
        // SAFETY: both calls are async-signal-safe and allowed by every policy; the buffer is ours.
        unsafe {
            libc::write(2, text.as_ptr().cast(), text.len());
            libc::_exit(EXIT_TRAPPED);
        }
    }
    // SAFETY: the action is fully initialised and its handler calls only async-signal-safe functions.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = trapped as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, &action, core::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_and_an_unknown_one_has_its_number() {
        let text = |number| String::from_utf8(Line::about(number).text().to_vec()).expect("text");
        let known = libc::SYS_socket as i32;
        assert_eq!(
            text(known),
            format!("system call {known} (socket) is not allowed by the sandbox\n")
        );
        assert_eq!(text(0), "system call 0 (read) is not allowed by the sandbox\n");
        assert_eq!(
            text(i32::MAX),
            "system call 2147483647 is not allowed by the sandbox\n"
        );
    }
}
