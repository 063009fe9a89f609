#![allow(
    unsafe_code,
    reason = "executes the host's SSE instructions through inline assembly"
)]
//! Floating-point instructions: MXCSR in, flags out, #XM if one is unmasked.
//!
//! A kernel loads the guest's MXCSR with everything masked, executes, takes the flags and restores the
//! host's. Two LDMXCSR and two STMXCSR were measured to cost nothing beside the instruction's own latency on
//! a renaming core, so there is no second path for a guest whose MXCSR is the default.

use super::Xmm;
use super::host::{load, store, table};
use super::unmasked::{Kind::*, Shape};
use core::arch::asm;

/// Bits of MXCSR (SDM volume 1, 10.2.3).
pub mod mxcsr {
    /// The value after reset: all exceptions masked, round to nearest.
    pub const DEFAULT: u32 = 0x1f80;
    /// The six sticky flags.
    pub const FLAGS: u32 = 0x3f;
    /// The six masks; bit n + 7 masks flag n.
    pub const MASKS: u32 = 0x1f80;
    /// Invalid operation.
    pub const IE: u32 = 0x01;
    /// Denormal operand.
    pub const DE: u32 = 0x02;
    /// Division by zero.
    pub const ZE: u32 = 0x04;
    /// Overflow.
    pub const OE: u32 = 0x08;
    /// Underflow.
    pub const UE: u32 = 0x10;
    /// Precision.
    pub const PE: u32 = 0x20;
    /// Denormals are zeros.
    pub const DAZ: u32 = 0x40;
    /// Mask of the overflow exception.
    pub const OM: u32 = 0x0400;
    /// Mask of the underflow exception.
    pub const UM: u32 = 0x0800;
    /// Flush to zero.
    pub const FZ: u32 = 0x8000;
    /// Bits that may be set: MXCSR_MASK of FXSAVE. Setting another raises #GP.
    pub const VALID: u32 = 0xffff;
}

/// An unmasked SIMD exception: the destination is unchanged, MXCSR holds the flags, #XM (or #UD without
/// CR4.OSXMMEXCPT) is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Unmasked SIMD floating-point exception, flags {flags:#04x}")]
pub struct SimdException {
    /// The flags that this instruction raised.
    pub flags: u32,
}

/// The two control words of a kernel: the guest's, replaced by what it became, and a place for the host's.
#[repr(C)]
#[derive(Debug)]
struct Control {
    guest: u32,
    host: u32,
}

/// Executes under the guest's MXCSR with everything masked: the common frame of all kernels here.
macro_rules! under_mxcsr {
    ($control:ident, $($op:expr),+; $($operand:tt)*) => {
        // SAFETY: the instruction works on registers, the control words are live, and MXCSR is restored.
        unsafe {
            asm!(
                "stmxcsr dword ptr [{c} + 4]",
                "ldmxcsr dword ptr [{c}]",
                $($op,)+
                "stmxcsr dword ptr [{c}]",
                "ldmxcsr dword ptr [{c} + 4]",
                c = in(reg) $control,
                $($operand)*
            );
        }
    };
}

/// A floating-point instruction on XMM registers.
#[derive(Clone, Copy, Debug)]
pub struct Float {
    run: fn(&mut Xmm, &Xmm, &mut Control),
    shape: Shape,
}

impl Float {
    /// Executes on `dst` and `src` and adds the flags raised to `mxcsr`.
    ///
    /// # Errors
    ///
    /// [`SimdException`] if one of them is unmasked: `dst` is then unchanged.
    #[inline]
    pub fn execute(&self, dst: &mut Xmm, src: &Xmm, mxcsr: &mut u32) -> Result<(), SimdException> {
        if *mxcsr & mxcsr::MASKS == mxcsr::MASKS {
            let mut control = Control {
                guest: *mxcsr,
                host: 0,
            };
            (self.run)(dst, src, &mut control);
            *mxcsr = control.guest;
            return Ok(());
        }
        self.execute_unmasked(dst, src, mxcsr)
    }

    #[cold]
    fn execute_unmasked(&self, dst: &mut Xmm, src: &Xmm, mxcsr: &mut u32) -> Result<(), SimdException> {
        let guest = *mxcsr;
        let mut out = *dst;
        if let Shape::DotSingle(imm) | Shape::DotDouble(imm) = self.shape {
            // Several operations, each of which may end the instruction: these settle the flags, and the
            // result is the instruction's own.
            self.shape.dot_product(imm, dst, src, mxcsr)?;
            (self.run)(
                &mut out,
                src,
                &mut Control {
                    guest: guest | mxcsr::MASKS,
                    host: 0,
                },
            );
            *dst = out;
            return Ok(());
        }
        let flags = raised(guest, |control| {
            (self.run)(&mut out, src, control);
            self.shape.any_denormal(&out)
        });
        conclude(
            self.shape.without_spurious_precision(flags, guest, dst, src),
            mxcsr,
        )?;
        *dst = out;
        Ok(())
    }
}

/// The flags that an execution raises with some exception unmasked. `run` says if a result is denormal: with
/// underflow unmasked that raises it even if it is exact, which no masked execution shows.
fn raised(guest: u32, run: impl FnOnce(&mut Control) -> bool) -> u32 {
    let mut initial = (guest | mxcsr::MASKS) & !mxcsr::FLAGS;
    if guest & mxcsr::UM == 0 {
        // Flushing needs the masked response.
        initial &= !mxcsr::FZ;
    }
    let mut control = Control {
        guest: initial,
        host: 0,
    };
    let denormal = run(&mut control);
    let mut flags = control.guest & mxcsr::FLAGS;
    if denormal && guest & mxcsr::UM == 0 {
        flags |= mxcsr::UE;
    }
    // An unmasked exception found before the operation keeps the later ones from being looked for.
    let before = mxcsr::IE | mxcsr::DE | mxcsr::ZE;
    if flags & !(guest >> 7) & before != 0 {
        flags & before
    } else {
        flags
    }
}

/// Adds flags to MXCSR and says whether one of them is unmasked.
fn conclude(flags: u32, mxcsr: &mut u32) -> Result<(), SimdException> {
    let unmasked = flags & !(*mxcsr >> 7);
    *mxcsr |= flags;
    if unmasked == 0 {
        Ok(())
    } else {
        Err(SimdException { flags })
    }
}

macro_rules! float {
    ($($name:ident = $insn:literal $shape:expr;)*) => {$(
        #[doc = concat!("`", $insn, "`.")]
        pub static $name: Float = Float {
            run: |dst, src, control| {
                let mut d = load(dst);
                under_mxcsr!(
                    control, concat!($insn, " {d}, {s}");
                    d = inout(xmm_reg) d, s = in(xmm_reg) load(src),
                );
                *dst = store(d);
            },
            shape: $shape,
        };
    )*};
}

float! {
    ADDPS = "addps" Shape::Single(Add, 4);
    ADDPD = "addpd" Shape::Double(Add, 2);
    ADDSS = "addss" Shape::Single(Add, 1);
    ADDSD = "addsd" Shape::Double(Add, 1);
    SUBPS = "subps" Shape::Single(Subtract, 4);
    SUBPD = "subpd" Shape::Double(Subtract, 2);
    SUBSS = "subss" Shape::Single(Subtract, 1);
    SUBSD = "subsd" Shape::Double(Subtract, 1);
    MULPS = "mulps" Shape::Single(Multiply, 4);
    MULPD = "mulpd" Shape::Double(Multiply, 2);
    MULSS = "mulss" Shape::Single(Multiply, 1);
    MULSD = "mulsd" Shape::Double(Multiply, 1);
    DIVPS = "divps" Shape::Single(Divide, 4);
    DIVPD = "divpd" Shape::Double(Divide, 2);
    DIVSS = "divss" Shape::Single(Divide, 1);
    DIVSD = "divsd" Shape::Double(Divide, 1);
    ADDSUBPS = "addsubps" Shape::Single(AddSubtract, 4);
    ADDSUBPD = "addsubpd" Shape::Double(AddSubtract, 2);
    HADDPS = "haddps" Shape::Single(HorizontalAdd, 4);
    HADDPD = "haddpd" Shape::Double(HorizontalAdd, 2);
    HSUBPS = "hsubps" Shape::Single(HorizontalSubtract, 4);
    HSUBPD = "hsubpd" Shape::Double(HorizontalSubtract, 2);
    CVTPD2PS = "cvtpd2ps" Shape::Single(Narrow, 2);
    CVTSD2SS = "cvtsd2ss" Shape::Single(Narrow, 1);
}

// These round to integers or not at all: no result is tiny.
float! {
    SQRTPS = "sqrtps" Shape::Other;
    SQRTPD = "sqrtpd" Shape::Other;
    SQRTSS = "sqrtss" Shape::Other;
    SQRTSD = "sqrtsd" Shape::Other;
    MINPS = "minps" Shape::Other;
    MINPD = "minpd" Shape::Other;
    MINSS = "minss" Shape::Other;
    MINSD = "minsd" Shape::Other;
    MAXPS = "maxps" Shape::Other;
    MAXPD = "maxpd" Shape::Other;
    MAXSS = "maxss" Shape::Other;
    MAXSD = "maxsd" Shape::Other;
    CVTPS2PD = "cvtps2pd" Shape::Other;
    CVTSS2SD = "cvtss2sd" Shape::Other;
    CVTDQ2PS = "cvtdq2ps" Shape::Other;
    CVTPS2DQ = "cvtps2dq" Shape::Other;
    CVTTPS2DQ = "cvttps2dq" Shape::Other;
    CVTPD2DQ = "cvtpd2dq" Shape::Other;
    CVTTPD2DQ = "cvttpd2dq" Shape::Other;
}

/// `cvtpi2ps`: the two integers of the low quadword of `src` become the low singles of `dst`.
pub static CVTPI2PS: Float = Float {
    run: |dst, src, control| {
        let mut d = load(dst);
        let low = Xmm::new(src.quads[0], 0);
        under_mxcsr!(
            control, "cvtdq2ps {s}, {s}", "movsd {d}, {s}";
            d = inout(xmm_reg) d, s = inout(xmm_reg) load(&low) => _,
        );
        *dst = store(d);
    },
    shape: Shape::Other,
};

macro_rules! from_integer {
    ($($name:ident = $insn:literal $source:literal;)*) => {$(
        #[doc = concat!("`", $insn, "` from a general register, passed as the low quadword of `src`.")]
        pub static $name: Float = Float {
            run: |dst, src, control| {
                let mut d = load(dst);
                under_mxcsr!(
                    control, concat!($insn, " {d}, ", $source);
                    d = inout(xmm_reg) d, s = in(reg) src.quads[0],
                );
                *dst = store(d);
            },
            shape: Shape::Other,
        };
    )*};
}

from_integer! {
    CVTSI2SS_32 = "cvtsi2ss" "{s:e}"; CVTSI2SS_64 = "cvtsi2ss" "{s}";
    CVTSI2SD_32 = "cvtsi2sd" "{s:e}"; CVTSI2SD_64 = "cvtsi2sd" "{s}";
}

/// A conversion to a general register.
#[derive(Clone, Copy, Debug)]
pub struct ToInteger {
    run: fn(&Xmm, &mut Control) -> u64,
}

impl ToInteger {
    /// Converts and adds the flags raised to `mxcsr`; 32-bit forms are zero-extended.
    ///
    /// # Errors
    ///
    /// [`SimdException`] if one of them is unmasked.
    pub fn execute(&self, src: &Xmm, mxcsr: &mut u32) -> Result<u64, SimdException> {
        let mut value = 0;
        let raised = raised(*mxcsr, |control| {
            value = (self.run)(src, control);
            false
        });
        conclude(raised, mxcsr)?;
        Ok(value)
    }
}

macro_rules! to_integer {
    ($($name:ident = $insn:literal $destination:literal;)*) => {$(
        #[doc = concat!("`", $insn, "`.")]
        pub static $name: ToInteger = ToInteger {
            run: |src, control| {
                let value: u64;
                under_mxcsr!(
                    control, concat!($insn, " ", $destination, ", {s}");
                    v = out(reg) value, s = in(xmm_reg) load(src),
                );
                value
            },
        };
    )*};
}

to_integer! {
    CVTSS2SI_32 = "cvtss2si" "{v:e}"; CVTSS2SI_64 = "cvtss2si" "{v}";
    CVTSD2SI_32 = "cvtsd2si" "{v:e}"; CVTSD2SI_64 = "cvtsd2si" "{v}";
    CVTTSS2SI_32 = "cvttss2si" "{v:e}"; CVTTSS2SI_64 = "cvttss2si" "{v}";
    CVTTSD2SI_32 = "cvttsd2si" "{v:e}"; CVTTSD2SI_64 = "cvttsd2si" "{v}";
}

/// A comparison that sets EFLAGS.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    run: fn(&Xmm, &Xmm, &mut Control) -> u64,
}

impl Comparison {
    /// Compares: ZF, PF and CF at their places in EFLAGS; OF, SF and AF are cleared by the instruction.
    ///
    /// # Errors
    ///
    /// [`SimdException`] if an exception is unmasked: EFLAGS is then unchanged.
    pub fn execute(&self, a: &Xmm, b: &Xmm, mxcsr: &mut u32) -> Result<u32, SimdException> {
        let mut flags = 0;
        let raised = raised(*mxcsr, |control| {
            flags = (self.run)(a, b, control) as u32 & 0x45;
            false
        });
        conclude(raised, mxcsr)?;
        Ok(flags)
    }
}

macro_rules! comparison {
    ($($name:ident = $insn:literal;)*) => {$(
        #[doc = concat!("`", $insn, "`.")]
        pub static $name: Comparison = Comparison {
            run: |a, b, control| {
                let flags: u64;
                under_mxcsr!(
                    control, concat!($insn, " {a}, {b}"), "pushfq", "pop {flags}";
                    a = in(xmm_reg) load(a), b = in(xmm_reg) load(b), flags = out(reg) flags,
                );
                flags
            },
        };
    )*};
}

comparison! { COMISS = "comiss"; UCOMISS = "ucomiss"; COMISD = "comisd"; UCOMISD = "ucomisd"; }

macro_rules! immediate {
    ($($name:ident $kernel:ident $insn:literal $count:tt $octaves:literal $mask:literal |$imm:ident| $shape:expr;)*) => {$(
        fn $kernel<const I: u8>(dst: &mut Xmm, src: &Xmm, control: &mut Control) {
            let mut d = load(dst);
            under_mxcsr!(
                control, concat!($insn, " {d}, {s}, {i}");
                d = inout(xmm_reg) d, s = in(xmm_reg) load(src), i = const I,
            );
            *dst = store(d);
        }

        #[doc = concat!("The kernel of `", $insn, "` with immediate `imm`.")]
        pub fn $name($imm: u8) -> Float {
            type Run = fn(&mut Xmm, &Xmm, &mut Control);
            static KERNELS: [[Run; 8]; $octaves] = table!($count $kernel);
            let n = usize::from($imm & $mask);
            Float { run: KERNELS[n / 8][n % 8], shape: $shape }
        }
    )*};
}

immediate! {
    cmpps cmpps_kernel "cmpps" 8 1 0x07 |imm| Shape::Other;
    cmppd cmppd_kernel "cmppd" 8 1 0x07 |imm| Shape::Other;
    cmpss cmpss_kernel "cmpss" 8 1 0x07 |imm| Shape::Other;
    cmpsd cmpsd_kernel "cmpsd" 8 1 0x07 |imm| Shape::Other;
    roundps roundps_kernel "roundps" 16 2 0x0f |imm| Shape::Other;
    roundpd roundpd_kernel "roundpd" 16 2 0x0f |imm| Shape::Other;
    roundss roundss_kernel "roundss" 16 2 0x0f |imm| Shape::Other;
    roundsd roundsd_kernel "roundsd" 16 2 0x0f |imm| Shape::Other;
    dpps dpps_kernel "dpps" 256 32 0xff |imm| Shape::DotSingle(imm);
    dppd dppd_kernel "dppd" 64 8 0x33 |imm| Shape::DotDouble(imm);
}
