//! Instructions that are executed as themselves, on other registers.

use iced_x86::{Code, CpuidFeature, EncodingKind, Instruction, Mnemonic, OpAccess, OpKind, Register};

use super::abi::{self, RAX, RCX};
use super::asm::frame;
use super::flags::Flags;
use super::live::{Effect, by_cl};
use super::memory::{Address, Want};
use super::translate::{Block, Unsupported};

/// How an instruction deals with the arithmetic flags.
struct FlagUse {
    /// It needs them as they were before, to read them or to leave some of them alone.
    before: bool,
    /// It writes some.
    writes: bool,
    /// Nobody looks at them behind it.
    dead: bool,
}

impl FlagUse {
    /// For `i`, with `live` flags behind it.
    fn of(i: &Instruction, live: u32) -> Self {
        let effect = Effect::of(i);
        Self {
            before: effect.reads != 0 || effect.may_write && live & !effect.writes != 0,
            writes: effect.may_write,
            dead: live == 0,
        }
    }
}

/// Integer instructions that may be executed as themselves.
fn integer(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        m,
        Mov | Movzx
            | Movsx
            | Movsxd
            | Lea
            | Add
            | Or
            | Adc
            | Sbb
            | And
            | Sub
            | Xor
            | Cmp
            | Test
            | Inc
            | Dec
            | Neg
            | Not
            | Shl
            | Shr
            | Sar
            | Rol
            | Ror
            | Rcl
            | Rcr
            | Shld
            | Shrd
            | Imul
            | Bt
            | Bts
            | Btr
            | Btc
            | Bsf
            | Bsr
            | Bswap
            | Popcnt
            | Xchg
            | Xadd
    ) || condition(m)
}

fn condition(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        m,
        Cmovo
            | Cmovno
            | Cmovb
            | Cmovae
            | Cmove
            | Cmovne
            | Cmovbe
            | Cmova
            | Cmovs
            | Cmovns
            | Cmovp
            | Cmovnp
            | Cmovl
            | Cmovge
            | Cmovle
            | Cmovg
            | Seto
            | Setno
            | Setb
            | Setae
            | Sete
            | Setne
            | Setbe
            | Seta
            | Sets
            | Setns
            | Setp
            | Setnp
            | Setl
            | Setge
            | Setle
            | Setg
    )
}

/// Whether `i` is an SSE instruction without anything that its operands do not show.
pub(super) fn vector(i: &Instruction) -> bool {
    use Mnemonic::*;
    if i.code().encoding() != EncodingKind::Legacy
        || matches!(
            i.mnemonic(),
            Ldmxcsr
                | Stmxcsr
                | Maskmovdqu
                | Pcmpestri
                | Pcmpestri64
                | Pcmpestrm
                | Pcmpestrm64
                | Pcmpistri
                | Pcmpistrm
                | Crc32
                | Popcnt
                | Fxsave
                | Fxsave64
                | Fxrstor
                | Fxrstor64
                | Lfence
                | Mfence
                | Sfence
                | Clflush
                | Fisttp
                | Monitor
                | Mwait
        )
    {
        return false;
    }
    let xmm = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_xmm());
    let other = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm());
    let known = i.code().cpuid_features().iter().all(|f| {
        matches!(
            f,
            CpuidFeature::SSE
                | CpuidFeature::SSE2
                | CpuidFeature::SSE3
                | CpuidFeature::SSSE3
                | CpuidFeature::SSE4_1
                | CpuidFeature::SSE4_2
                | CpuidFeature::AES
                | CpuidFeature::PCLMULQDQ
        )
    });
    xmm && !other && known
}

/// Whether `i` may be one for [`Block::plain`].
pub(super) fn known(i: &Instruction, mode: &crate::exec::ModeKey) -> bool {
    integer(i.mnemonic()) || mode.sse && vector(i)
}

/// Whether `i` has a memory operand, and [`Block::plain`] looks for that one access and no other.
pub(super) fn one_access(i: &Instruction, mode: &crate::exec::ModeKey) -> bool {
    let elsewhere = i.is_string_instruction()
        || matches!(i.mnemonic(), Mnemonic::Lea)
        || i.mnemonic() == Mnemonic::Imul && i.op_count() == 1
        || is_bit_string(i)
        || by_cl(i);
    known(i, mode) && !elsewhere
}

/// Whether `i` tests a bit that may lie far from its operand in memory.
fn is_bit_string(i: &Instruction) -> bool {
    matches!(
        i.mnemonic(),
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
    ) && i.op0_kind() == OpKind::Memory
        && i.op1_kind() == OpKind::Register
}

/// Whether the memory operand of `i` must be aligned to 16 bytes.
pub(super) fn must_be_aligned(i: &Instruction, mode: &crate::exec::ModeKey) -> bool {
    mode.sse && vector(i) && i.memory_size().size() == 16 && !unaligned(i.mnemonic())
}

/// Whether a 16-byte memory operand of `i` may lie anywhere.
pub(super) fn unaligned(m: Mnemonic) -> bool {
    matches!(
        m,
        Mnemonic::Movups | Mnemonic::Movupd | Mnemonic::Movdqu | Mnemonic::Lddqu
    )
}

/// The same instruction in a form whose operands can be chosen: not with a fixed accumulator, not the one-byte forms
/// that 64-bit code lost.
pub(super) fn general(code: Code) -> Code {
    use Code::*;
    match code {
        Add_AL_imm8 => Add_rm8_imm8,
        Or_AL_imm8 => Or_rm8_imm8,
        Adc_AL_imm8 => Adc_rm8_imm8,
        Sbb_AL_imm8 => Sbb_rm8_imm8,
        And_AL_imm8 => And_rm8_imm8,
        Sub_AL_imm8 => Sub_rm8_imm8,
        Xor_AL_imm8 => Xor_rm8_imm8,
        Cmp_AL_imm8 => Cmp_rm8_imm8,
        Test_AL_imm8 => Test_rm8_imm8,
        Add_AX_imm16 => Add_rm16_imm16,
        Or_AX_imm16 => Or_rm16_imm16,
        Adc_AX_imm16 => Adc_rm16_imm16,
        Sbb_AX_imm16 => Sbb_rm16_imm16,
        And_AX_imm16 => And_rm16_imm16,
        Sub_AX_imm16 => Sub_rm16_imm16,
        Xor_AX_imm16 => Xor_rm16_imm16,
        Cmp_AX_imm16 => Cmp_rm16_imm16,
        Test_AX_imm16 => Test_rm16_imm16,
        Add_EAX_imm32 => Add_rm32_imm32,
        Or_EAX_imm32 => Or_rm32_imm32,
        Adc_EAX_imm32 => Adc_rm32_imm32,
        Sbb_EAX_imm32 => Sbb_rm32_imm32,
        And_EAX_imm32 => And_rm32_imm32,
        Sub_EAX_imm32 => Sub_rm32_imm32,
        Xor_EAX_imm32 => Xor_rm32_imm32,
        Cmp_EAX_imm32 => Cmp_rm32_imm32,
        Test_EAX_imm32 => Test_rm32_imm32,
        Add_RAX_imm32 => Add_rm64_imm32,
        Or_RAX_imm32 => Or_rm64_imm32,
        Adc_RAX_imm32 => Adc_rm64_imm32,
        Sbb_RAX_imm32 => Sbb_rm64_imm32,
        And_RAX_imm32 => And_rm64_imm32,
        Sub_RAX_imm32 => Sub_rm64_imm32,
        Xor_RAX_imm32 => Xor_rm64_imm32,
        Cmp_RAX_imm32 => Cmp_rm64_imm32,
        Test_RAX_imm32 => Test_rm64_imm32,
        Inc_r16 => Inc_rm16,
        Inc_r32 => Inc_rm32,
        Dec_r16 => Dec_rm16,
        Dec_r32 => Dec_rm32,
        Xchg_r16_AX => Xchg_rm16_r16,
        Xchg_r32_EAX => Xchg_rm32_r32,
        Xchg_r64_RAX => Xchg_rm64_r64,
        Mov_AL_moffs8 => Mov_r8_rm8,
        Mov_AX_moffs16 => Mov_r16_rm16,
        Mov_EAX_moffs32 => Mov_r32_rm32,
        Mov_RAX_moffs64 => Mov_r64_rm64,
        Mov_moffs8_AL => Mov_rm8_r8,
        Mov_moffs16_AX => Mov_rm16_r16,
        Mov_moffs32_EAX => Mov_rm32_r32,
        Mov_moffs64_RAX => Mov_rm64_r64,
        other => other,
    }
}

/// What a processor without BMI1 and LZCNT makes of their encodings: it ignores the prefix.
pub(super) fn as_executed(i: &Instruction) -> Instruction {
    let mut i = *i;
    i.set_code(match i.code() {
        Code::Tzcnt_r16_rm16 => Code::Bsf_r16_rm16,
        Code::Tzcnt_r32_rm32 => Code::Bsf_r32_rm32,
        Code::Tzcnt_r64_rm64 => Code::Bsf_r64_rm64,
        Code::Lzcnt_r16_rm16 => Code::Bsr_r16_rm16,
        Code::Lzcnt_r32_rm32 => Code::Bsr_r32_rm32,
        Code::Lzcnt_r64_rm64 => Code::Bsr_r64_rm64,
        other => other,
    });
    i
}

/// A register operand that a scratch register holds meanwhile: one that lives in the frame, or one whose second byte
/// is named.
struct Held {
    guest: usize,
    scratch: Register,
    written: bool,
    /// What is there now matters.
    read: bool,
}

impl Block<'_> {
    /// Re-encodes `i`.
    pub(super) fn plain(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        let sse = self.mode.sse && vector(i);
        if !sse && !integer(i.mnemonic()) {
            return Err(Unsupported);
        }
        if i.is_string_instruction() || i.mnemonic() == Mnemonic::Imul && i.op_count() == 1 {
            return Err(Unsupported);
        }
        let memory = (0..i.op_count()).find(|&n| i.op_kind(n) == OpKind::Memory);
        if i.mnemonic() == Mnemonic::Lea {
            return self.lea(i);
        }
        let by_cl = by_cl(i);
        if is_bit_string(i) || by_cl && memory.is_some() {
            return Err(Unsupported);
        }

        let accesses = {
            let info = self.info(i);
            [info.op0_access(), info.op1_access(), info.op2_access()]
        };
        let writes = |n: u32| {
            !matches!(
                accesses[n as usize],
                OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
            )
        };
        let mut out = *i;
        out.set_code(general(i.code()));
        let mut held: Vec<Held> = Vec::new();
        let mut written = [Register::None; 3];
        // AH and CH have no place in the host's registers; DH and BH are themselves.
        let high = |r: Register| matches!(r, Register::AH | Register::CH);
        let second = (0..i.op_count())
            .filter(|&n| i.op_kind(n) == OpKind::Register && high(i.op_register(n)))
            .map(|n| i.op_register(n).full_register().number())
            .next();
        for n in 0..i.op_count() {
            if i.op_kind(n) != OpKind::Register {
                continue;
            }
            let r = i.op_register(n);
            if by_cl && n == i.op_count() - 1 {
                continue;
            }
            if r.is_xmm() {
                continue;
            }
            if !r.is_gpr() {
                return Err(Unsupported);
            }
            let guest = r.full_register().number();
            let full = match abi::host(guest) {
                Some(full) if second != Some(guest) => full,
                _ => {
                    let read = accesses[n as usize] != OpAccess::Write || r.size() < 4;
                    let rcx_taken = memory.is_some() || by_cl;
                    self.hold(&mut held, guest, [read, writes(n)], rcx_taken)?
                }
            };
            if high(r) {
                if full != RAX {
                    return Err(Unsupported);
                }
                out.set_op_register(n, Register::AH);
            } else if !matches!(r, Register::BH | Register::DH) {
                out.set_op_register(n, abi::sized(full, r.size()));
            }
            if writes(n) {
                written[n as usize] = abi::host(guest).unwrap_or(full);
            }
        }
        let address = match memory {
            Some(_) => Some(Address::of(i, &self.mode)?),
            None => None,
        };
        if sse {
            self.need_xmm();
        }
        let flags = FlagUse::of(i, self.live);
        let Some(n) = memory else {
            return self.registers(&out, &flags, &held, &written, by_cl);
        };
        let bytes = i.memory_size().size();
        let want = Want {
            bytes,
            write: writes(n),
            aligned: must_be_aligned(i, &self.mode),
        };
        if !matches!(bytes, 1 | 2 | 4 | 8 | 16) {
            return Err(Unsupported);
        }
        let address = address.ok_or(Unsupported)?;
        self.access(&out, n, &address, want, &flags, &held, &written)
    }

    /// Finds a scratch register for a register operand that lives in the frame.
    fn hold(
        &mut self,
        held: &mut Vec<Held>,
        guest: usize,
        [read, written]: [bool; 2],
        rcx_taken: bool,
    ) -> Result<Register, Unsupported> {
        if let Some(h) = held.iter_mut().find(|h| h.guest == guest) {
            h.written |= written;
            h.read |= read;
            return Ok(h.scratch);
        }
        let scratch = match (held.len(), rcx_taken) {
            (0, _) => RAX,
            (1, false) => RCX,
            _ => return Err(Unsupported),
        };
        held.push(Held {
            guest,
            scratch,
            written,
            read,
        });
        Ok(scratch)
    }

    fn registers(
        &mut self,
        out: &Instruction,
        flags: &FlagUse,
        held: &[Held],
        written: &[Register; 3],
        by_cl: bool,
    ) -> Result<(), Unsupported> {
        self.prepare_flags(flags, written);
        if by_cl {
            self.asm.rr(Code::Mov_r32_rm32, Register::ECX, Register::R14D);
        }
        self.load_held(held);
        if !self.asm.try_put(out) {
            return Err(Unsupported);
        }
        self.finish(out, flags, held, written);
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one instruction")]
    fn access(
        &mut self,
        out: &Instruction,
        operand: u32,
        address: &Address,
        want: Want,
        flags: &FlagUse,
        held: &[Held],
        written: &[Register; 3],
    ) -> Result<(), Unsupported> {
        let miss = self.asm.label();
        let back = self.asm.label();
        self.before_access(address, want);
        let before = self.flags;
        let place = self.probe(address, want, miss)?;
        self.prepare_flags(flags, written);
        self.load_held(held);
        let mut out = *out;
        out.set_op_kind(operand, OpKind::Memory);
        super::memory::set_operand(&mut out, &place);
        if !self.asm.try_put(&out) {
            // Both ways lead to the handler.
            self.asm.bind(miss);
            self.flags = before;
            return Err(Unsupported);
        }
        self.finish(&out, flags, held, written);
        self.asm.bind(back);
        self.on_miss(miss, back, &before);
        Ok(())
    }

    /// Puts the flags where the instruction needs them, or where they outlast it.
    fn prepare_flags(&mut self, flags: &FlagUse, written: &[Register; 3]) {
        let lost = !flags.writes
            && written
                .iter()
                .any(|&r| r != Register::None && self.flags.lost_with(r));
        if flags.before || lost {
            self.host_flags();
        }
    }

    fn load_held(&mut self, held: &[Held]) {
        for h in held.iter().filter(|h| h.read) {
            self.asm.load_guest(h.scratch, h.guest);
        }
    }

    fn finish(&mut self, out: &Instruction, flags: &FlagUse, held: &[Held], written: &[Register; 3]) {
        for h in held.iter().filter(|h| h.written) {
            match abi::host(h.guest) {
                Some(r) => self.asm.rr(Code::Mov_r64_rm64, r, h.scratch),
                None => self.asm.store_home(h.guest, h.scratch),
            }
        }
        if flags.writes {
            self.flags.written(out);
            if flags.dead {
                self.flags = Flags::DEAD;
            }
        } else {
            for &r in written.iter().filter(|&&r| r != Register::None) {
                self.flags.register_written(r);
            }
        }
    }

    /// LEA: no memory is touched.
    fn lea(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        let mut offset = *i;
        offset.set_segment_prefix(Register::None);
        let mut address = Address::of(&offset, &self.mode)?;
        address.segment = None;
        let r = i.op0_register();
        let guest = r.full_register().number();
        let dst = abi::host(guest);
        let target = dst.unwrap_or(RAX);
        if dst.is_some_and(|d| self.flags.lost_with(d)) {
            self.host_flags();
        }
        // Folding the frame's registers in must not spoil flags: `linear` uses moves and LEA only here.
        self.lea_into(target, &address, r.size())?;
        match dst {
            Some(d) => self.flags.register_written(d),
            None if r.size() >= 4 => self.asm.store_home(guest, RAX),
            None => self
                .asm
                .mr(Code::Mov_rm16_r16, frame(abi::home(guest)), Register::AX),
        }
        Ok(())
    }
}
