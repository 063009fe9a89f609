//! Execution on the host's CPU.
#![allow(unsafe_code, reason = "executes generated code and handles its signals")]

use super::{End, General, Machine, OPERAND, OPERAND_LEN};
use core::arch::asm;
use core::mem::offset_of;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use std::cell::Cell;
use std::sync::{Mutex, Once, PoisonError};

/// What the assembly works on.
#[repr(C, align(64))]
struct Frame {
    fx: [u8; 512],
    host_fx: [u8; 512],
    general: General,
    flags: u64,
    entry: u64,
    landing: u64,
    stack: u64,
    signal: u64,
}

thread_local! {
    static FRAME: Cell<*mut Frame> = const { Cell::new(core::ptr::null_mut()) };
}

/// A mapped snippet of host code.
pub struct Snippet {
    code: *mut u8,
}

const PAGE: usize = 4096;

impl Snippet {
    /// Maps `bytes` and a return after them, executable.
    pub fn new(bytes: &[u8]) -> Self {
        static SETUP: Once = Once::new();
        SETUP.call_once(setup);
        // SAFETY: a fresh anonymous map, written before it becomes executable.
        unsafe {
            let code = rustix::mm::mmap_anonymous(
                core::ptr::null_mut(),
                PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
            .expect("map")
            .cast::<u8>();
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), code, bytes.len());
            code.add(bytes.len()).write(0xc3);
            rustix::mm::mprotect(code.cast(), PAGE, MprotectFlags::READ | MprotectFlags::EXEC)
                .expect("protect");
            Self { code }
        }
    }

    /// Executes the snippet from `machine` and gives the state after it. The operand's page is shared by all
    /// snippets, which take turns.
    pub fn run(&self, machine: &Machine) -> (Machine, End) {
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut frame = Frame {
            fx: machine.fx,
            host_fx: [0; 512],
            general: machine.general,
            flags: machine.flags & 0x8d5 | 0x202,
            entry: self.code as u64,
            landing: 0,
            stack: 0,
            signal: 0,
        };
        let mut after = machine.clone();
        // SAFETY: the operand's page is mapped by `setup` and nobody else's.
        unsafe {
            core::ptr::copy_nonoverlapping(machine.memory.as_ptr(), OPERAND as *mut u8, OPERAND_LEN);
        }
        FRAME.set(&raw mut frame);
        // SAFETY: all registers that the snippet may touch are saved or declared; a signal comes back at the
        // landing with the stack as it was.
        unsafe {
            asm!(
                "push rbx",
                "push rbp",
                "fxsave64 [r15 + {host_fx}]",
                "lea rax, [rip + 2f]",
                "mov [r15 + {landing}], rax",
                "mov [r15 + {stack}], rsp",
                "fxrstor64 [r15 + {fx}]",
                "push qword ptr [r15 + {flags}]",
                "mov rax, [r15 + {general}]",
                "mov rcx, [r15 + {general} + 8]",
                "mov rdx, [r15 + {general} + 16]",
                "mov rbx, [r15 + {general} + 24]",
                "mov rsi, [r15 + {general} + 32]",
                "mov rdi, [r15 + {general} + 40]",
                "popfq",
                "call [r15 + {entry}]",
                "pushfq",
                "pop [r15 + {flags}]",
                "mov [r15 + {general}], rax",
                "mov [r15 + {general} + 8], rcx",
                "mov [r15 + {general} + 16], rdx",
                "mov [r15 + {general} + 24], rbx",
                "mov [r15 + {general} + 32], rsi",
                "mov [r15 + {general} + 40], rdi",
                "fxsave64 [r15 + {fx}]",
                "2:",
                "cld",
                "fxrstor64 [r15 + {host_fx}]",
                "pop rbp",
                "pop rbx",
                in("r15") &raw mut frame,
                fx = const offset_of!(Frame, fx),
                host_fx = const offset_of!(Frame, host_fx),
                general = const offset_of!(Frame, general),
                flags = const offset_of!(Frame, flags),
                entry = const offset_of!(Frame, entry),
                landing = const offset_of!(Frame, landing),
                stack = const offset_of!(Frame, stack),
                out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        FRAME.set(core::ptr::null_mut());
        // SAFETY: as above.
        unsafe {
            core::ptr::copy_nonoverlapping(OPERAND as *const u8, after.memory.as_mut_ptr(), OPERAND_LEN);
        }
        after.fx = frame.fx;
        after.general = frame.general;
        after.flags = frame.flags;
        let end = match frame.signal as i32 {
            0 => End::Completed,
            libc::SIGILL => End::Undefined,
            libc::SIGFPE => End::Numeric,
            _ => End::Fault,
        };
        (after, end)
    }
}

impl Drop for Snippet {
    fn drop(&mut self) {
        // SAFETY: the map of `new`, which nobody executes any more.
        unsafe {
            rustix::mm::munmap(self.code.cast(), PAGE).expect("unmap");
        }
    }
}

/// Maps the operand's page and installs the signal handlers.
fn setup() {
    // SAFETY: the address is refused if it is in use; the handlers only touch the frame of their own thread.
    unsafe {
        rustix::mm::mmap_anonymous(
            OPERAND as *mut _,
            PAGE,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE,
        )
        .expect("the operand's address is free");
        for signal in [libc::SIGFPE, libc::SIGILL, libc::SIGSEGV, libc::SIGBUS] {
            let mut action: libc::sigaction = core::mem::zeroed();
            action.sa_sigaction = faulted as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(
                libc::sigaction(signal, &raw const action, core::ptr::null_mut()),
                0
            );
        }
    }
}

/// Takes the state at the fault from the signal frame and goes on at the landing.
extern "C" fn faulted(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let frame = FRAME.get();
    if frame.is_null() {
        std::process::abort();
    }
    // SAFETY: the kernel's frame is valid during the handler; `frame` is that of the interrupted `run`.
    unsafe {
        let context = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext;
        core::ptr::copy_nonoverlapping(context.fpregs.cast::<u8>(), (&raw mut (*frame).fx).cast(), 512);
        (*frame).signal = signal as u64;
        (*frame).flags = context.gregs[libc::REG_EFL as usize] as u64;
        context.gregs[libc::REG_RIP as usize] = (*frame).landing as i64;
        context.gregs[libc::REG_RSP as usize] = (*frame).stack as i64;
    }
}
