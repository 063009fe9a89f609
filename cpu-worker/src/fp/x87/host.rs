#![allow(
    unsafe_code,
    reason = "executes the host's x87 instructions through inline assembly"
)]
//! One x87 instruction on the host's own unit, under the guest's control word.
//!
//! The unit does not trap when an exception is unmasked: it waits for the next *waiting* instruction. Each
//! kernel therefore runs under the guest's real masks and reads the status with FNSTSW and clears it
//! with FNCLEX, which do not wait: what an unmasked exception does to the destination (nothing, or a
//! bias-adjusted result) is then the hardware's answer and not ours. Running with all exceptions masked and
//! working out the unmasked response afterwards was rejected as the same result with more code.
//!
//! Every kernel returns the status word as the instruction left it. Its exception flags contain those the
//! guest had already (see [`Env::new`]); condition codes that the instruction does not define are
//! noise. Each leaves the host's unit as compiled code wants it: an empty stack, the default control
//! word, nothing pending that is unmasked.

use super::Env;
use crate::fp::F80;
use core::arch::asm;

/// Clears flags that the guest does not have, then loads the guest's control word if it is not the default.
macro_rules! enter {
    () => {
        "fnstsw ax
         test al, byte ptr [{env} + 4]
         jz 2f
         fnclex
         2:
         cmp byte ptr [{env} + 5], 0
         je 3f
         fldcw word ptr [{env}]
         3:"
    };
}

/// Takes the status word and disarms an unmasked exception, after the instruction and before the results
/// are stored.
macro_rules! capture {
    () => {
        "fnstsw ax
         test al, al
         jns 4f
         fnclex
         4:"
    };
}

/// Back to the host's control word.
macro_rules! leave {
    () => {
        "cmp byte ptr [{env} + 5], 0
         je 5f
         fldcw word ptr [{env} + 2]
         5:"
    };
}

/// The whole of a kernel: what to execute, what to store, the operands.
macro_rules! execute {
    ($env:ident, [$($op:expr),+], [$($store:expr),*], $($operand:tt)*) => {{
        let status: u16;
        // SAFETY: the operands are live references of the size that the instructions access, the stack is
        // as empty at the end as at the start, the control word is restored, and every x87 register is
        // declared clobbered.
        unsafe {
            asm!(
                enter!(), $($op,)+ capture!(), $($store,)* leave!(),
                env = in(reg) $env,
                $($operand)*
                out("ax") status,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            );
        }
        status
    }};
}

/// `dst op src`, both registers.
macro_rules! binary {
    ($($name:ident = $insn:literal;)*) => {$(
        #[doc = concat!("`", $insn, " dst, src`: the result is left in `out`, which is `dst` if nothing was to be stored.")]
        pub fn $name(env: &Env, dst: &F80, src: &F80, out: &mut F80) -> u16 {
            execute!(
                env,
                ["fld tbyte ptr [{src}]", "fld tbyte ptr [{dst}]", concat!($insn, " st(0), st(1)")],
                ["fstp tbyte ptr [{out}]", "fstp st(0)"],
                dst = in(reg) dst, src = in(reg) src, out = in(reg) out,
            )
        }
    )*};
}

binary! {
    add = "fadd"; sub = "fsub"; subr = "fsubr"; mul = "fmul"; div = "fdiv"; divr = "fdivr";
}

/// `dst op memory`, the memory operand converted by the same instruction.
macro_rules! binary_memory {
    ($($name:ident = $insn:literal $size:literal $ty:ty;)*) => {$(
        #[doc = concat!("`", $insn, " ", $size, " src`: the result is left in `out`, which is `dst` if nothing was to be stored.")]
        pub fn $name(env: &Env, dst: &F80, src: &$ty, out: &mut F80) -> u16 {
            execute!(
                env,
                ["fld tbyte ptr [{dst}]", concat!($insn, " ", $size, " ptr [{src}]")],
                ["fstp tbyte ptr [{out}]"],
                dst = in(reg) dst, src = in(reg) src, out = in(reg) out,
            )
        }
    )*};
}

binary_memory! {
    add_m32 = "fadd" "dword" u32; sub_m32 = "fsub" "dword" u32; subr_m32 = "fsubr" "dword" u32;
    mul_m32 = "fmul" "dword" u32; div_m32 = "fdiv" "dword" u32; divr_m32 = "fdivr" "dword" u32;
    add_m64 = "fadd" "qword" u64; sub_m64 = "fsub" "qword" u64; subr_m64 = "fsubr" "qword" u64;
    mul_m64 = "fmul" "qword" u64; div_m64 = "fdiv" "qword" u64; divr_m64 = "fdivr" "qword" u64;
    add_i16 = "fiadd" "word" u16; sub_i16 = "fisub" "word" u16; subr_i16 = "fisubr" "word" u16;
    mul_i16 = "fimul" "word" u16; div_i16 = "fidiv" "word" u16; divr_i16 = "fidivr" "word" u16;
    add_i32 = "fiadd" "dword" u32; sub_i32 = "fisub" "dword" u32; subr_i32 = "fisubr" "dword" u32;
    mul_i32 = "fimul" "dword" u32; div_i32 = "fidiv" "dword" u32; divr_i32 = "fidivr" "dword" u32;
}

/// Comparisons: only the status word matters.
macro_rules! compare {
    ($($name:ident = $insn:literal;)*) => {$(
        #[doc = concat!("`", $insn, "` of `a`, as ST(0), with `b`: C3, C2 and C0 of the status word.")]
        pub fn $name(env: &Env, a: &F80, b: &F80) -> u16 {
            execute!(
                env,
                ["fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]", concat!($insn, " st(1)")],
                ["fstp st(0)", "fstp st(0)"],
                a = in(reg) a, b = in(reg) b,
            )
        }
    )*};
}

compare! { com = "fcom"; ucom = "fucom"; }

macro_rules! compare_memory {
    ($($name:ident = $insn:literal $size:literal $ty:ty;)*) => {$(
        #[doc = concat!("`", $insn, " ", $size, "` of `a`, as ST(0), with `b`: C3, C2 and C0 of the status word.")]
        pub fn $name(env: &Env, a: &F80, b: &$ty) -> u16 {
            execute!(
                env,
                ["fld tbyte ptr [{a}]", concat!($insn, " ", $size, " ptr [{b}]")],
                ["fstp st(0)"],
                a = in(reg) a, b = in(reg) b,
            )
        }
    )*};
}

compare_memory! {
    com_m32 = "fcom" "dword" u32; com_m64 = "fcom" "qword" u64;
    com_i16 = "ficom" "word" u16; com_i32 = "ficom" "dword" u32;
}

macro_rules! compare_flags {
    ($($name:ident = $insn:literal;)*) => {$(
        #[doc = concat!("`", $insn, "` of `a`, as ST(0), with `b`.")]
        ///
        /// The second value holds ZF, PF and CF at their places in EFLAGS.
        pub fn $name(env: &Env, a: &F80, b: &F80) -> (u16, u32) {
            let flags: u64;
            let status = execute!(
                env,
                ["fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]", concat!($insn, " st(0), st(1)"), "pushfq", "pop {flags}"],
                ["fstp st(0)", "fstp st(0)"],
                a = in(reg) a, b = in(reg) b, flags = out(reg) flags,
            );
            (status, flags as u32 & 0x45)
        }
    )*};
}

compare_flags! { comi = "fcomi"; ucomi = "fucomi"; }

/// FTST of `a`: C3, C2 and C0 of the status word.
pub fn tst(env: &Env, a: &F80) -> u16 {
    execute!(env, ["fld tbyte ptr [{a}]", "ftst"], ["fstp st(0)"], a = in(reg) a,)
}

macro_rules! unary {
    ($($name:ident = $insn:literal;)*) => {$(
        #[doc = concat!("`", $insn, "` of `a`.")]
        pub fn $name(env: &Env, a: &F80, out: &mut F80) -> u16 {
            execute!(
                env,
                ["fld tbyte ptr [{a}]", $insn],
                ["fstp tbyte ptr [{out}]"],
                a = in(reg) a, out = in(reg) out,
            )
        }
    )*};
}

unary! { sqrt = "fsqrt"; rndint = "frndint"; f2xm1 = "f2xm1"; sin = "fsin"; cos = "fcos"; }

/// Two operands, one result in ST(0), ST(1) unchanged.
macro_rules! top_two {
    ($($name:ident = $insn:literal;)*) => {$(
        #[doc = concat!("`", $insn, "` with `a` as ST(0) and `b` as ST(1).")]
        pub fn $name(env: &Env, a: &F80, b: &F80, out: &mut F80) -> u16 {
            execute!(
                env,
                ["fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]", $insn],
                ["fstp tbyte ptr [{out}]", "fstp st(0)"],
                a = in(reg) a, b = in(reg) b, out = in(reg) out,
            )
        }
    )*};
}

top_two! { scale = "fscale"; prem = "fprem"; prem1 = "fprem1"; }

/// Two operands, popped, one result. On an unmasked fault both operands are still there: told by the parity
/// of TOP against that at the start.
macro_rules! popping {
    ($($name:ident = $insn:literal;)*) => {$(
        #[doc = concat!("`", $insn, "` with `a` as ST(0) and `b` as ST(1).")]
        ///
        /// The result, which replaces ST(1) once ST(0) is popped, is left in `out`; it has no meaning if the
        /// instruction met an unmasked fault.
        pub fn $name(env: &Env, a: &F80, b: &F80, out: &mut F80) -> u16 {
            execute!(
                env,
                ["mov {top:e}, eax", "fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]", $insn],
                [
                    "fstp tbyte ptr [{out}]",
                    "xor {top:e}, eax",
                    "bt {top:e}, 11",
                    "jc 6f",
                    "fstp st(0)",
                    "6:"
                ],
                a = in(reg) a, b = in(reg) b, out = in(reg) out, top = out(reg) _,
            )
        }
    )*};
}

popping! { patan = "fpatan"; yl2x = "fyl2x"; yl2xp1 = "fyl2xp1"; }

/// One operand, one more result pushed, unless a fault or an operand out of range prevents it.
macro_rules! pushing {
    ($($name:ident = $insn:literal;)*) => {$(
        #[doc = concat!("`", $insn, "` of `a`.")]
        ///
        /// `out` becomes ST(0) and ST(1). If nothing was pushed, because of an unmasked fault or an operand out
        /// of range (C2), only the first is written.
        pub fn $name(env: &Env, a: &F80, out: &mut [F80; 2]) -> u16 {
            execute!(
                env,
                ["mov {top:e}, eax", "fld tbyte ptr [{a}]", $insn],
                [
                    "fstp tbyte ptr [{out}]",
                    "xor {top:e}, eax",
                    "bt {top:e}, 11",
                    "jc 6f",
                    "fstp tbyte ptr [{out} + 16]",
                    "6:"
                ],
                a = in(reg) a, out = in(reg) out, top = out(reg) _,
            )
        }
    )*};
}

pushing! { tan = "fptan"; sincos = "fsincos"; xtract = "fxtract"; }

/// Loads that can raise or that convert.
macro_rules! load {
    ($($name:ident = $insn:literal $size:literal $ty:ty;)*) => {$(
        #[doc = concat!("`", $insn, " ", $size, "`. `out` is written only if something was pushed.")]
        pub fn $name(env: &Env, src: &$ty, out: &mut F80) -> u16 {
            execute!(
                env,
                ["mov {top:e}, eax", concat!($insn, " ", $size, " ptr [{src}]")],
                [
                    "xor {top:e}, eax",
                    "bt {top:e}, 11",
                    "jnc 6f",
                    "fstp tbyte ptr [{out}]",
                    "6:"
                ],
                src = in(reg) src, out = in(reg) out, top = out(reg) _,
            )
        }
    )*};
}

load! {
    load_m32 = "fld" "dword" u32; load_m64 = "fld" "qword" u64;
    load_i16 = "fild" "word" u16; load_i32 = "fild" "dword" u32; load_i64 = "fild" "qword" u64;
    load_bcd = "fbld" "tbyte" [u8; 10];
}

/// Stores that round. The popping forms are used where no other exists; what is popped here is the copy.
macro_rules! store {
    ($($name:ident = $insn:literal $size:literal $ty:ty;)*) => {$(
        #[doc = concat!("`", $insn, " ", $size, "` of `a`. `out` is written only if the instruction wrote.")]
        pub fn $name(env: &Env, a: &F80, out: &mut $ty) -> u16 {
            execute!(
                env,
                ["mov {top:e}, eax", "fld tbyte ptr [{a}]", concat!($insn, " ", $size, " ptr [{out}]")],
                [
                    "xor {top:e}, eax",
                    "bt {top:e}, 11",
                    "jnc 6f",
                    "fstp st(0)",
                    "6:"
                ],
                a = in(reg) a, out = in(reg) out, top = out(reg) _,
            )
        }
    )*};
}

store! {
    store_m32 = "fstp" "dword" u32; store_m64 = "fstp" "qword" u64;
    store_i16 = "fistp" "word" u16; store_i32 = "fistp" "dword" u32; store_i64 = "fistp" "qword" u64;
    truncate_i16 = "fisttp" "word" u16; truncate_i32 = "fisttp" "dword" u32; truncate_i64 = "fisttp" "qword" u64;
    store_bcd = "fbstp" "tbyte" [u8; 10];
}

macro_rules! constant {
    ($($name:ident = $insn:literal;)*) => {$(
        #[doc = concat!("`", $insn, "`, rounded as the control word says.")]
        pub fn $name(env: &Env, out: &mut F80) -> u16 {
            execute!(env, [$insn], ["fstp tbyte ptr [{out}]"], out = in(reg) out,)
        }
    )*};
}

constant! {
    one = "fld1"; log2_10 = "fldl2t"; log2_e = "fldl2e"; pi = "fldpi"; log10_2 = "fldlg2"; ln_2 = "fldln2"; zero = "fldz";
}
