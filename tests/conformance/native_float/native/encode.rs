//! Encodings of every instruction of a set of extensions, from the decoder's own tables.

use super::values::Random;
use iced_x86::{Code, CpuidFeature, Encoder, EncodingKind, Instruction, OpCodeOperandKind, OpKind, Register};

/// An instruction as it is encoded for both sides.
pub struct Encoded {
    pub instruction: Instruction,
    pub bytes: Vec<u8>,
}

/// Features that do not make an instruction one of a set but may come with it.
const EXTRA: [CpuidFeature; 2] = [CpuidFeature::X64, CpuidFeature::CMOV];

/// All instructions whose CPUID features are among `features`.
pub fn codes(features: &[CpuidFeature]) -> impl Iterator<Item = Code> + use<'_> {
    Code::values().filter(|code| {
        let info = code.op_code();
        info.is_instruction()
            && info.encoding() == EncodingKind::Legacy
            && info.mode64()
            && !info.fwait()
            && code.cpuid_features().iter().any(|f| features.contains(f))
            && code
                .cpuid_features()
                .iter()
                .all(|f| features.contains(f) || EXTRA.contains(f))
    })
}

/// Encodes `code` with random registers and immediate; a register-or-memory operand is memory if `memory`.
/// Nothing if the instruction has no such form.
pub fn encode(code: Code, memory: bool, random: &mut Random) -> Option<Encoded> {
    let info = code.op_code();
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    let mut has_memory = false;
    for n in 0..info.op_count() {
        use OpCodeOperandKind as Kind;
        let set = |i: &mut Instruction, r: Register| {
            i.set_op_kind(n, OpKind::Register);
            i.set_op_register(n, r);
        };
        let kind = info.op_kind(n);
        match kind {
            Kind::mem | Kind::mem_offs => has_memory = true,
            Kind::xmm_or_mem
            | Kind::mm_or_mem
            | Kind::r32_or_mem
            | Kind::r64_or_mem
            | Kind::r16_or_mem
            | Kind::r8_or_mem
                if memory =>
            {
                has_memory = true;
            }
            Kind::xmm_reg | Kind::xmm_rm | Kind::xmm_or_mem => {
                set(&mut instruction, Register::XMM0 + random.below(16) as u32);
            }
            Kind::mm_reg | Kind::mm_rm | Kind::mm_or_mem => {
                set(&mut instruction, Register::MM0 + random.below(8) as u32);
            }
            Kind::r64_reg | Kind::r64_rm | Kind::r64_or_mem => set(&mut instruction, general(random, 3)),
            Kind::r32_reg | Kind::r32_rm | Kind::r32_or_mem => set(&mut instruction, general(random, 2)),
            Kind::r16_reg | Kind::r16_rm | Kind::r16_or_mem => set(&mut instruction, general(random, 1)),
            Kind::r8_reg | Kind::r8_or_mem => set(&mut instruction, general(random, 0)),
            Kind::ax => set(&mut instruction, Register::AX),
            Kind::st0 => set(&mut instruction, Register::ST0),
            Kind::sti_opcode => set(&mut instruction, Register::ST0 + random.below(8) as u32),
            Kind::imm8 => {
                instruction.set_op_kind(n, OpKind::Immediate8);
                instruction.set_immediate8(random.next() as u8);
            }
            Kind::seg_rDI => {
                instruction.set_op_kind(n, OpKind::MemorySegRDI);
            }
            other => panic!("no operand for {other:?} of {code:?}"),
        }
        if has_memory && instruction.memory_base() == Register::None && !matches!(kind, Kind::seg_rDI) {
            instruction.set_op_kind(n, OpKind::Memory);
            instruction.set_memory_base(Register::RSI);
        }
    }
    if memory != has_memory {
        return None;
    }
    let mut encoder = Encoder::new(64);
    encoder.encode(&instruction, 0x1000).ok()?;
    Some(Encoded {
        instruction,
        bytes: encoder.take_buffer(),
    })
}

/// RAX, RCX, RDX or RBX in the width 1 << `log`.
fn general(random: &mut Random, log: usize) -> Register {
    let base = [Register::AL, Register::AX, Register::EAX, Register::RAX][log];
    base + random.below(4) as u32
}
