//! A process of a machine that is made to try things: stopped like under a debugger, it executes what is put into its registers.
//!
//! So the real worker tries, with its real filters, descriptors and maps, and no hook for tests is in the product. Afterwards its
//! registers and memory are as before, and it goes on.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use syscalls::Sysno;

/// `syscall`.
const SYSCALL: [u8; 2] = [0x0F, 0x05];
/// `mov [rdi], al`.
const STORE: [u8; 2] = [0x88, 0x07];
/// Bytes of the stack that are borrowed for paths and structures.
const SCRATCH: usize = 1024;

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The filter trapped the call with this number.
    Trapped(i32),
    /// The kernel refused it.
    Refused(Errno),
    /// It was carried out, with this result.
    Done(u64),
    /// The processor refused the access.
    Fault,
    /// Something else happened: a child, another program.
    Strange,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            Self::Trapped(number) => match usize::try_from(*number).ok().and_then(Sysno::new) {
                Some(call) => format!("trap {call}"),
                None => format!("trap {number}"),
            },
            Self::Refused(e) => format!("{e:?}"),
            Self::Done(result) => format!("DONE {result:#x}"),
            Self::Fault => "SIGSEGV".to_owned(),
            Self::Strange => "STRANGE".to_owned(),
        };
        f.pad(&text)
    }
}

/// A map of the process.
#[derive(Clone, Debug)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    /// As in `r--s`.
    pub mode: String,
    pub name: String,
}

/// The maps of a process.
pub fn maps(pid: i32) -> Vec<Mapping> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it lives");
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(Mapping {
            start: number(start)?,
            end: number(end)?,
            mode: words.next()?.to_owned(),
            name: words.nth(3).unwrap_or_default().to_owned(),
        })
    };
    text.lines().filter_map(parse).collect()
}

/// A stopped process.
pub struct Captive {
    pid: Pid,
    memory: File,
    registers: libc::user_regs_struct,
    scratch: u64,
    borrowed: Vec<u8>,
    syscall: u64,
    store: u64,
    used: usize,
}

impl Captive {
    /// Stops the main thread of a process. What it may have started before it is let go dies with it.
    pub fn take(pid: i32) -> nix::Result<Self> {
        let pid = Pid::from_raw(pid);
        let newborn = Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(pid, newborn)?;
        ptrace::interrupt(pid)?;
        wait(pid)?;
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(PathBuf::from(format!("/proc/{pid}/mem")))
            .expect("a tracer may");
        let registers = ptrace::getregs(pid)?;
        // Below what a leaf function may use without telling (128 bytes, System V ABI for AMD64).
        let scratch = (registers.rsp - 4096) & !63;
        let mut borrowed = vec![0; SCRATCH];
        memory.read_exact_at(&mut borrowed, scratch).expect("its stack");
        let find = |wanted: [u8; 2]| {
            let code = maps(pid.as_raw()).into_iter().filter(|m| m.mode == "r-xp");
            // The vDSO first: it is small, and has every system call that it may have to make after all.
            let (vdso, others): (Vec<_>, Vec<_>) = code.partition(|m| m.name == "[vdso]");
            vdso.iter().chain(&others).find_map(|m| {
                let mut bytes = vec![0; (m.end - m.start) as usize];
                memory.read_exact_at(&mut bytes, m.start).ok()?;
                let at = bytes.windows(2).position(|two| two == wanted)?;
                Some(m.start + at as u64)
            })
        };
        let (syscall, store) = (find(SYSCALL), find(STORE));
        Ok(Self {
            pid,
            registers,
            scratch,
            borrowed,
            syscall: syscall.expect("some system call"),
            store: store.expect("some store"),
            used: 0,
            memory,
        })
    }

    /// Puts bytes into its memory and answers where they are, until the next attempt.
    pub fn put(&mut self, bytes: &[u8]) -> u64 {
        let at = self.scratch + self.used as u64;
        assert!(self.used + bytes.len() <= SCRATCH, "no room");
        self.memory.write_all_at(bytes, at).expect("its stack");
        self.used += bytes.len().next_multiple_of(16);
        at
    }

    /// Puts a text with its zero byte.
    pub fn text(&mut self, text: &str) -> u64 {
        self.put(&[text.as_bytes(), b"\0"].concat())
    }

    /// Reads its memory.
    pub fn byte(&self, at: u64) -> u8 {
        let mut byte = [0];
        self.memory.read_exact_at(&mut byte, at).expect("mapped");
        byte[0]
    }

    /// Has it make a system call.
    pub fn call(&mut self, call: Sysno, arguments: &[u64]) -> Outcome {
        let outcome = self.attempt(call, arguments);
        self.used = 0;
        // What is still pending belongs to this attempt: a call that every worker may make comes through when nothing is.
        for _ in 0..8 {
            match self.once(Sysno::gettid, &[]) {
                Seen::Returned(tid) if tid == self.pid.as_raw() as u64 => return outcome,
                Seen::Signal(Signal::SIGSYS) => return Outcome::Trapped(call.id()),
                Seen::Other => return Outcome::Strange,
                Seen::Returned(_) | Seen::Signal(_) => {}
            }
        }
        panic!("{call} leaves it in disorder");
    }

    fn attempt(&mut self, call: Sysno, arguments: &[u64]) -> Outcome {
        for _ in 0..8 {
            return match self.once(call, arguments) {
                Seen::Returned(result) => match (result as i64).checked_neg() {
                    Some(e @ 1..4096) => Outcome::Refused(Errno::from_raw(e as i32)),
                    _ => Outcome::Done(result),
                },
                Seen::Signal(Signal::SIGSYS) => {
                    let number = ptrace::getregs(self.pid).expect("stopped").orig_rax;
                    Outcome::Trapped(number as i32)
                }
                // Not executed yet.
                Seen::Signal(Signal::SIGTRAP) => continue,
                Seen::Signal(_) | Seen::Other => Outcome::Strange,
            };
        }
        Outcome::Strange
    }

    /// Has it store a byte.
    pub fn store(&mut self, at: u64, byte: u8) -> Outcome {
        let registers = libc::user_regs_struct {
            rip: self.store,
            rdi: at,
            rax: u64::from(byte),
            orig_rax: u64::MAX,
            ..self.registers
        };
        match self.step(registers) {
            Seen::Signal(Signal::SIGSEGV) => Outcome::Fault,
            Seen::Signal(Signal::SIGTRAP) => Outcome::Done(0),
            _ => Outcome::Strange,
        }
    }

    fn once(&mut self, call: Sysno, arguments: &[u64]) -> Seen {
        let argument = |n: usize| arguments.get(n).copied().unwrap_or(0);
        let registers = libc::user_regs_struct {
            rip: self.syscall,
            rax: call.id() as u64,
            orig_rax: u64::MAX,
            rdi: argument(0),
            rsi: argument(1),
            rdx: argument(2),
            r10: argument(3),
            r8: argument(4),
            r9: argument(5),
            ..self.registers
        };
        let seen = self.step(registers);
        let behind = self.syscall + SYSCALL.len() as u64;
        match seen {
            Seen::Signal(Signal::SIGTRAP) => {
                let now = ptrace::getregs(self.pid).expect("stopped");
                if now.rip == behind {
                    Seen::Returned(now.rax)
                } else {
                    seen
                }
            }
            seen => seen,
        }
    }

    fn step(&mut self, registers: libc::user_regs_struct) -> Seen {
        ptrace::setregs(self.pid, registers).expect("stopped");
        ptrace::step(self.pid, None).expect("stopped");
        match wait(self.pid) {
            Ok(WaitStatus::Stopped(_, signal)) => Seen::Signal(signal),
            Ok(_) | Err(_) => Seen::Other,
        }
    }

    /// Makes a system call and does not save it from what follows.
    pub fn fall(self, call: Sysno) {
        let registers = libc::user_regs_struct {
            rip: self.syscall,
            rax: call.id() as u64,
            orig_rax: u64::MAX,
            ..self.registers
        };
        ptrace::setregs(self.pid, registers).expect("stopped");
        // Its own handler is to run.
        ptrace::detach(self.pid, None).expect("stopped");
    }

    /// Puts everything back and lets it go on.
    pub fn release(self) {
        self.memory
            .write_all_at(&self.borrowed, self.scratch)
            .expect("its stack");
        ptrace::setregs(self.pid, self.registers).expect("stopped");
        ptrace::detach(self.pid, None).expect("stopped");
    }
}

/// What happened at a step.
enum Seen {
    Returned(u64),
    Signal(Signal),
    Other,
}

fn wait(pid: Pid) -> nix::Result<WaitStatus> {
    loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL)) {
            Err(Errno::EINTR) => {}
            status => return status,
        }
    }
}
