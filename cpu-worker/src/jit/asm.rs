//! Host code in the making: iced's encoder, labels, and shorthands for what the translator emits often.
//!
//! Instructions of the guest are re-encoded, not assembled from text or macros, so that one encoder serves both them
//! and the code around them. `dynasmrt` was rejected: it could do only the second half.

use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Mnemonic, OpKind, Register};

use super::abi::{self, RAX};

/// A place in the code that is jumped to; bound once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Label(usize);

/// The code of one translation, until it is copied to where it runs.
pub(super) struct Asm {
    encoder: Encoder,
    base: u64,
    len: usize,
    /// Offset each label is bound to.
    labels: Vec<Option<usize>>,
    /// Offsets of 32-bit displacements, and the labels they lead to.
    fixups: Vec<(usize, Label)>,
    /// The guest register that lives in the frame and that RAX is known to hold, too.
    rax: Option<usize>,
}

/// An operand in the frame: GS and a displacement.
pub(super) fn frame(offset: usize) -> MemoryOperand {
    MemoryOperand::new(
        Register::None,
        Register::None,
        1,
        offset as i64,
        8,
        false,
        Register::GS,
    )
}

/// An operand in the frame, `index` beyond `offset`.
pub(super) fn frame_at(index: Register, offset: usize) -> MemoryOperand {
    MemoryOperand::new(index, Register::None, 1, offset as i64, 1, false, Register::GS)
}

/// `[base + disp]`.
pub(super) fn at(base: Register, disp: i64) -> MemoryOperand {
    MemoryOperand::new(
        base,
        Register::None,
        1,
        disp,
        u32::from(disp != 0),
        false,
        Register::None,
    )
}

impl Asm {
    /// Code that will run at `base`.
    pub fn new(base: u64) -> Self {
        Self {
            encoder: Encoder::new(64),
            base,
            len: 0,
            labels: Vec::new(),
            fixups: Vec::new(),
            rax: None,
        }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds an instruction; `false` when it has no encoding, and then nothing was added.
    #[must_use]
    pub fn try_put(&mut self, i: &Instruction) -> bool {
        match self.encoder.encode(i, self.base + self.len as u64) {
            Ok(n) => {
                self.len += n;
                self.forget_rax(i);
                true
            }
            Err(_) => {
                // What it wrote before it knew.
                let mut bytes = self.encoder.take_buffer();
                bytes.truncate(self.len);
                self.encoder.set_buffer(bytes);
                false
            }
        }
    }

    /// Adds an instruction of our own making.
    ///
    /// # Panics
    /// When it has no encoding: the translator asked for nonsense.
    pub fn put(&mut self, i: &Instruction) {
        if let Err(e) = self
            .encoder
            .encode(i, self.base + self.len as u64)
            .map(|n| self.len += n)
        {
            panic!("{i} has no encoding: {e}");
        }
        self.forget_rax(i);
    }

    /// Notes that `i` may have changed RAX.
    fn forget_rax(&mut self, i: &Instruction) {
        if self.rax.is_none() {
            return;
        }
        // What has two operands writes the first, but for these three; what has fewer may do anything.
        let both = matches!(i.mnemonic(), Mnemonic::Xchg | Mnemonic::Xadd | Mnemonic::Cmpxchg);
        let first = i.op0_kind() == OpKind::Register && i.op0_register().full_register() == Register::RAX;
        if first || both || i.op_count() < 2 {
            self.rax = None;
        }
    }

    /// Loads guest register `n` from its home, unless RAX is asked for and holds it already.
    pub fn load_home(&mut self, to: Register, n: usize) {
        if to == RAX && self.rax == Some(n) {
            return;
        }
        self.rm(Code::Mov_r64_rm64, to, frame(abi::home(n)));
        if to == RAX {
            self.rax = Some(n);
        }
    }

    /// Loads guest register `n`, whole, from wherever it lives.
    pub fn load_guest(&mut self, to: Register, n: usize) {
        match abi::host(n) {
            Some(r) => self.rr(Code::Mov_r64_rm64, to, r),
            None => self.load_home(to, n),
        }
    }

    /// Stores guest register `n` to its home.
    pub fn store_home(&mut self, n: usize, from: Register) {
        self.mr(Code::Mov_rm64_r64, frame(abi::home(n)), from);
        if from == RAX {
            self.rax = Some(n);
        } else if self.rax == Some(n) {
            self.rax = None;
        }
    }

    /// `code dst, src`, both registers.
    pub fn rr(&mut self, code: Code, dst: Register, src: Register) {
        self.put(&Instruction::with2(code, dst, src).expect("two registers"));
    }

    /// `code dst, imm`.
    pub fn ri(&mut self, code: Code, dst: Register, imm: i32) {
        self.put(&Instruction::with2(code, dst, imm).expect("register and immediate"));
    }

    /// `code dst, memory`.
    pub fn rm(&mut self, code: Code, dst: Register, src: MemoryOperand) {
        self.put(&Instruction::with2(code, dst, src).expect("register and memory"));
    }

    /// `code memory, src`.
    pub fn mr(&mut self, code: Code, dst: MemoryOperand, src: Register) {
        self.put(&Instruction::with2(code, dst, src).expect("memory and register"));
    }

    /// `code memory, imm`.
    pub fn mi(&mut self, code: Code, dst: MemoryOperand, imm: i32) {
        self.put(&Instruction::with2(code, dst, imm).expect("memory and immediate"));
    }

    /// `code register`.
    pub fn r(&mut self, code: Code, register: Register) {
        self.put(&Instruction::with1(code, register).expect("a register"));
    }

    /// `code memory`.
    pub fn m(&mut self, code: Code, memory: MemoryOperand) {
        self.put(&Instruction::with1(code, memory).expect("a memory operand"));
    }

    /// `code` alone.
    pub fn op(&mut self, code: Code) {
        self.put(&Instruction::with(code));
    }

    /// Loads a constant in the shortest way that leaves the flags alone.
    pub fn constant(&mut self, dst: Register, value: u64) {
        if value <= u64::from(u32::MAX) {
            let i = Instruction::with2(Code::Mov_r32_imm32, dst.full_register32(), value as u32);
            self.put(&i.expect("register and immediate"));
        } else if value as i64 == i64::from(value as i32) {
            self.ri(Code::Mov_rm64_imm32, dst, value as i32);
        } else {
            self.put(&Instruction::with2(Code::Mov_r64_imm64, dst, value).expect("register and immediate"));
        }
    }

    /// A new label.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Whether something jumps to a label.
    pub fn is_used(&self, label: Label) -> bool {
        self.fixups.iter().rev().any(|&(_, to)| to == label)
    }

    /// Binds a label here.
    pub fn bind(&mut self, label: Label) {
        debug_assert!(self.labels[label.0].is_none(), "a label is bound once");
        self.labels[label.0] = Some(self.len);
        self.rax = None;
    }

    /// A near branch with a 32-bit displacement to a label.
    pub fn branch(&mut self, code: Code, to: Label) {
        let i = Instruction::with_branch(code, self.base + self.len as u64).expect("a near branch");
        self.put(&i);
        self.fixups.push((self.len - 4, to));
    }

    /// A near branch with a 32-bit displacement to an address in the code cache.
    pub fn branch_to(&mut self, code: Code, to: u64) {
        self.put(&Instruction::with_branch(code, to).expect("a near branch"));
    }

    /// The finished bytes.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut bytes = self.encoder.take_buffer();
        for &(at, label) in &self.fixups {
            let to = self.labels[label.0].expect("every label is bound");
            let displacement = (to as i64 - (at as i64 + 4)) as i32;
            bytes[at..at + 4].copy_from_slice(&displacement.to_le_bytes());
        }
        bytes
    }
}
