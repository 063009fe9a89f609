//! x87 instructions, executed as themselves in the host's unit.
//!
//! Where [`ModeKey::x87`] holds, none of them can raise anything but what the look into the TLB sends to
//! the handler. Every one that is no control instruction notes its site ([`super::unit`]); the note comes behind
//! it, so that the handler of the next one still finds the pointers of the last.

use iced_x86::{Code, CpuidFeature, Instruction, Mnemonic, OpKind, Register};

use super::abi::{self, G_RAX, RAX};
use super::memory::{Address, Want, set_operand};
use super::translate::{Block, Unsupported};
use super::unit;
use crate::exec::ModeKey;
use crate::fp::x87::control;
use crate::state::CodeSize;

/// Whether the handler of `i` may look at the x87 unit: unless `i` belongs to what certainly does not.
pub(super) fn touches(i: &Instruction) -> bool {
    use CpuidFeature::*;
    let apart = i.code().cpuid_features().iter().all(|f| {
        matches!(
            f,
            INTEL8086
                | INTEL8086_ONLY
                | INTEL186
                | INTEL286
                | INTEL286_ONLY
                | INTEL386
                | INTEL386_ONLY
                | INTEL486
                | X64
                | CMOV
                | CPUID
                | CX8
                | CMPXCHG16B
                | MSR
                | MULTIBYTENOP
                | PAUSE
                | POPCNT
                | SEP
                | SYSCALL
                | TSC
                | SSE
                | SSE2
                | SSE3
                | SSSE3
                | SSE4_1
                | SSE4_2
        )
    });
    let mmx = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm());
    !apart || mmx || i.mnemonic() == Mnemonic::Wait
}

/// Control instructions that are translated: they note nothing.
fn controls(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(m, Fldcw | Fnstcw | Fnstsw | Fnclex | Wait)
}

/// The others.
fn computes(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        m,
        Fld | Fst
            | Fstp
            | Fstpnce
            | Fild
            | Fist
            | Fistp
            | Fisttp
            | Fld1
            | Fldl2t
            | Fldl2e
            | Fldpi
            | Fldlg2
            | Fldln2
            | Fldz
            | Fxch
            | Ffree
            | Ffreep
            | Fincstp
            | Fdecstp
            | Fnop
            | Fadd
            | Fmul
            | Fsub
            | Fsubr
            | Fdiv
            | Fdivr
            | Faddp
            | Fmulp
            | Fsubp
            | Fsubrp
            | Fdivp
            | Fdivrp
            | Fiadd
            | Fimul
            | Fisub
            | Fisubr
            | Fidiv
            | Fidivr
            | Fcom
            | Fcomp
            | Fcompp
            | Ficom
            | Ficomp
            | Fucom
            | Fucomp
            | Fucompp
            | Ftst
            | Fxam
            | Fabs
            | Fchs
            | Fsqrt
            | Frndint
            | F2xm1
            | Fsin
            | Fcos
            | Fsincos
            | Fptan
            | Fxtract
            | Fpatan
            | Fyl2x
            | Fyl2xp1
            | Fscale
            | Fprem
            | Fprem1
    ) || compares_flags(m)
        || moves(m)
}

/// Those that set ZF, PF and CF, and clear the other arithmetic flags.
fn compares_flags(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(m, Fcomi | Fcomip | Fucomi | Fucomip)
}

/// Those that look at the flags.
fn moves(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        m,
        Fcmovb | Fcmovnb | Fcmove | Fcmovne | Fcmovbe | Fcmovnbe | Fcmovu | Fcmovnu
    )
}

/// Whether `i` may be one for [`Block::x87`].
pub(super) fn known(i: &Instruction, mode: &ModeKey) -> bool {
    mode.flat && mode.x87 && (controls(i.mnemonic()) || computes(i.mnemonic()))
}

impl Block<'_> {
    /// Executes `i` in the host's unit.
    pub(super) fn x87(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        if !known(i, &self.mode) {
            return Err(Unsupported);
        }
        let m = i.mnemonic();
        // Nothing is pending, and CR0.TS is clear.
        if m == Mnemonic::Wait {
            return Ok(());
        }
        if (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory) {
            return self.unit_memory(i);
        }
        self.need_unit();
        if m == Mnemonic::Fnstsw {
            if self.flags.lost_with(G_RAX) {
                self.host_flags();
            }
            self.asm.put(i);
            self.asm
                .rr(Code::Mov_r16_rm16, abi::sized(G_RAX, 2), Register::AX);
            self.flags.register_written(G_RAX);
            return Ok(());
        }
        if moves(m) {
            self.host_flags();
        }
        self.asm.put(i);
        if compares_flags(m) {
            self.flags.written(i);
        }
        if computes(m) {
            self.note();
        }
        Ok(())
    }

    /// `i` has an operand in memory.
    fn unit_memory(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        use Mnemonic::*;
        let address = Address::of(i, &self.mode)?;
        let bytes = i.memory_size().size();
        let want = if matches!(i.mnemonic(), Fst | Fstp | Fist | Fistp | Fisttp | Fnstcw | Fnstsw) {
            Want::write(bytes)
        } else {
            Want::read(bytes)
        };
        self.need_unit();
        let (miss, back) = (self.asm.label(), self.asm.label());
        self.spoil_flags();
        let before = self.flags;
        let place = self.probe(&address, want, miss)?;
        if i.mnemonic() == Fldcw {
            // The word is looked at where nobody else can change it. One that unmasks anything is the handler's.
            let masks = control::MASKS;
            self.asm.rm(Code::Movzx_r32_rm16, Register::EAX, place);
            self.asm.mr(Code::Mov_rm16_r16, unit::control(), Register::AX);
            self.asm.r(Code::Not_rm32, Register::EAX);
            self.asm.ri(Code::Test_rm8_imm8, Register::AL, i32::from(masks));
            self.asm.branch(Code::Jne_rel32_64, miss);
            self.asm.m(Code::Fldcw_m2byte, unit::control());
        } else {
            let mut out = *i;
            set_operand(&mut out, &place);
            self.asm.put(&out);
        }
        if computes(i.mnemonic()) {
            self.note_data(&address);
        }
        self.asm.bind(back);
        self.on_miss(miss, back, &before);
        Ok(())
    }

    /// Notes the op in hand as the last that the unit executed.
    fn note(&mut self) -> i32 {
        let number = self.site() as i32 + 1;
        self.asm.mi(Code::Mov_rm32_imm32, unit::site(), number);
        number
    }

    /// The same, and its operand.
    fn note_data(&mut self, address: &Address) {
        let number = self.note();
        self.asm.mi(Code::Mov_rm32_imm32, unit::data_site(), number);
        let offset = Address {
            segment: None,
            ..*address
        };
        let bytes = if self.mode.code == CodeSize::Bits64 { 8 } else { 4 };
        self.lea_into(RAX, &offset, bytes)
            .expect("the look into the TLB had the same address");
        self.asm.mr(Code::Mov_rm64_r64, unit::data(), RAX);
    }
}
