//! Where the guest's arithmetic flags are at each point of a translation.
//!
//! They may be in the host's flags, as an image in the frame, or nowhere but computable: after `cmp a, b` the
//! host may spoil its flags as long as a and b still hold what they held, for the comparison can be made again. So
//! the look into the TLB before each access may use `cmp` and `and`, and a fault on the cold path still sees
//! exact flags; saving them before each access (`lahf`, `seto`, a store) is left for what has no such recipe. Looking
//! into the TLB without touching flags (BMI2 shifts, `jrcxz`) was rejected: it costs more on every access than a recipe costs
//! on few.

use core::mem::offset_of;

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use super::abi::{self, RAX};
use super::asm::{Asm, at, frame};
use crate::exec::Frame;

/// The six arithmetic flags in iced's bits.
pub(super) const ARITHMETIC: u32 = iced_x86::RflagsBits::OF
    | iced_x86::RflagsBits::SF
    | iced_x86::RflagsBits::ZF
    | iced_x86::RflagsBits::AF
    | iced_x86::RflagsBits::PF
    | iced_x86::RflagsBits::CF;

/// Instructions that compute the flags again, from registers. They may spoil RAX.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Recipe {
    code: [Instruction; 3],
    len: u8,
    /// Host registers that it reads, by number.
    reads: u16,
}

fn bit(r: Register) -> u16 {
    1 << r.full_register().number()
}

impl Recipe {
    fn of(code: &[Instruction], reads: u16) -> Option<Self> {
        let mut r = Self {
            code: [Instruction::default(); 3],
            len: code.len() as u8,
            reads,
        };
        r.code[..code.len()].copy_from_slice(code);
        Some(r)
    }

    /// A recipe for the flags that `i` has just left: an instruction on host registers, without memory operand.
    pub fn after(i: &Instruction) -> Option<Self> {
        if i.op0_kind() != OpKind::Register || matches!(i.op1_kind(), OpKind::Memory) {
            return None;
        }
        let a = i.op0_register();
        let bytes = a.size();
        let b = (i.op1_kind() == OpKind::Register).then(|| i.op1_register());
        if !usable(a) || b.is_some_and(|b| !usable(b)) {
            return None;
        }
        match i.mnemonic() {
            Mnemonic::Cmp | Mnemonic::Test => Self::of(&[*i], bit(a) | b.map_or(0, bit)),
            Mnemonic::And | Mnemonic::Or | Mnemonic::Xor => {
                let code = match bytes {
                    1 => Code::Test_rm8_r8,
                    2 => Code::Test_rm16_r16,
                    4 => Code::Test_rm32_r32,
                    _ => Code::Test_rm64_r64,
                };
                Self::of(&[Instruction::with2(code, a, a).ok()?], bit(a))
            }
            Mnemonic::Add | Mnemonic::Sub if bytes >= 4 => Self::sum(i, a, b, bytes),
            _ => None,
        }
    }

    fn sum(i: &Instruction, a: Register, b: Option<Register>, bytes: usize) -> Option<Self> {
        let add = i.mnemonic() == Mnemonic::Add;
        let wide = bytes == 8;
        let t = abi::sized(RAX, bytes);
        let full = a.full_register();
        if let Some(b) = b {
            if a == b {
                return None;
            }
            let (mov, sub, plus, cmp) = if wide {
                (
                    Code::Mov_r64_rm64,
                    Code::Sub_r64_rm64,
                    Code::Add_r64_rm64,
                    Code::Cmp_r64_rm64,
                )
            } else {
                (
                    Code::Mov_r32_rm32,
                    Code::Sub_r32_rm32,
                    Code::Add_r32_rm32,
                    Code::Cmp_r32_rm32,
                )
            };
            let (undo, again) = if add { (sub, plus) } else { (plus, cmp) };
            let code = [
                Instruction::with2(mov, t, a).ok()?,
                Instruction::with2(undo, t, b).ok()?,
                Instruction::with2(again, t, b).ok()?,
            ];
            return Self::of(&code, bit(a) | bit(b));
        }
        let imm = i.immediate(1) as i64 as i32;
        let undo = if add { imm.checked_neg()? } else { imm };
        let lea = if wide { Code::Lea_r64_m } else { Code::Lea_r32_m };
        let again = match (add, wide) {
            (true, true) => Code::Add_rm64_imm32,
            (true, false) => Code::Add_rm32_imm32,
            (false, true) => Code::Cmp_rm64_imm32,
            (false, false) => Code::Cmp_rm32_imm32,
        };
        let code = [
            Instruction::with2(lea, t, at(full, i64::from(undo))).ok()?,
            Instruction::with2(again, t, imm).ok()?,
        ];
        Self::of(&code, bit(a))
    }

    fn emit(&self, a: &mut Asm) {
        for i in &self.code[..usize::from(self.len)] {
            a.put(i);
        }
    }

    /// Whether it reads `r`.
    pub fn reads(&self, r: Register) -> bool {
        self.reads & bit(r) != 0
    }
}

/// Whether a register keeps a guest value: not a scratch one, and not a high byte, which cannot be named beside the others.
fn usable(r: Register) -> bool {
    r.is_gpr()
        && !matches!(r, Register::AH | Register::BH | Register::CH | Register::DH)
        && !matches!(r.full_register(), Register::RAX | Register::RCX)
}

/// Where the flags are now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flags {
    /// In the host's flags.
    pub host: bool,
    /// In the frame.
    pub saved: bool,
    /// Computable.
    pub recipe: Option<Recipe>,
    /// Nothing has changed them since the block was entered.
    pub entry: bool,
}

impl Flags {
    /// At the start of a block: in the frame.
    pub const ENTRY: Self = Self {
        host: false,
        saved: true,
        recipe: None,
        entry: true,
    };

    /// After a handler ran.
    pub const SAVED: Self = Self {
        host: false,
        saved: true,
        recipe: None,
        entry: false,
    };

    /// Nobody will look at them.
    pub const DEAD: Self = Self::SAVED;

    /// Puts them into the frame. RAX must be free.
    pub fn save(&mut self, a: &mut Asm) {
        if self.saved {
            return;
        }
        self.bring(a);
        a.op(Code::Lahf);
        a.r(Code::Seto_rm8, Register::AL);
        a.mr(Code::Mov_rm16_r16, frame(offset_of!(Frame, flags)), Register::AX);
        self.saved = true;
    }

    /// To be called before the host's flags are spoiled. RAX must be free.
    pub fn spoil(&mut self, a: &mut Asm) {
        if !self.saved && self.recipe.is_none() {
            self.save(a);
        }
        self.host = false;
    }

    /// Puts them into the host's flags. RAX must be free.
    pub fn bring(&mut self, a: &mut Asm) {
        if self.host {
            return;
        }
        match &self.recipe {
            Some(recipe) => recipe.emit(a),
            None => load(a),
        }
        self.host = true;
    }

    /// The guest's instruction `i`, as emitted, has just written them all.
    pub fn written(&mut self, i: &Instruction) {
        *self = Self {
            host: true,
            saved: false,
            recipe: Recipe::after(i),
            entry: false,
        };
    }

    /// Whether they are lost when `r` is written.
    pub fn lost_with(&self, r: Register) -> bool {
        !self.host && !self.saved && self.recipe.is_some_and(|recipe| recipe.reads(r))
    }

    /// A host register was written.
    pub fn register_written(&mut self, r: Register) {
        if self.recipe.is_some_and(|recipe| recipe.reads(r)) {
            self.recipe = None;
        }
    }
}

/// Loads the image in the frame into the host's flags. Spoils RAX.
pub(super) fn load(a: &mut Asm) {
    a.rm(
        Code::Movzx_r32_rm16,
        Register::EAX,
        frame(offset_of!(Frame, flags)),
    );
    a.ri(Code::Add_rm8_imm8, Register::AL, 0x7F);
    a.op(Code::Sahf);
}

/// The image of an RFLAGS word.
pub(crate) fn image(bits: u64) -> u64 {
    (bits & 0xD5) << 8 | bits >> 11 & 1
}

/// CF, PF, AF, ZF, SF and OF at their places, from an image.
pub(crate) fn bits(image: u64) -> u64 {
    image >> 8 & 0xD5 | (image & 1) << 11
}
