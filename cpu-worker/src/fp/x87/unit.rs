//! The architectural state of the x87 and the rules of its register stack.

use crate::fp::F80;

/// Bits of the control word (SDM volume 1, 8.1.5).
pub mod control {
    /// The masks of the six exceptions; bit n masks flag n of the status word.
    pub const MASKS: u16 = 0x3f;
    /// Mask of the invalid-operation exception.
    pub const IM: u16 = 0x01;
    /// Bits that FLDCW keeps: the masks, PC, RC and the infinity bit. Bit 6 reads as one.
    pub const WRITABLE: u16 = 0x1f3f;
    /// Bit 6, which always reads as one.
    pub const ALWAYS: u16 = 0x40;
}

/// Bits of the status word (SDM volume 1, 8.1.3).
pub mod status {
    /// Invalid operation.
    pub const IE: u16 = 0x01;
    /// Denormal operand.
    pub const DE: u16 = 0x02;
    /// Division by zero.
    pub const ZE: u16 = 0x04;
    /// Overflow.
    pub const OE: u16 = 0x08;
    /// Underflow.
    pub const UE: u16 = 0x10;
    /// Precision.
    pub const PE: u16 = 0x20;
    /// Stack fault.
    pub const SF: u16 = 0x40;
    /// Exception summary: an unmasked exception is pending.
    pub const ES: u16 = 0x80;
    /// Condition code 0.
    pub const C0: u16 = 0x0100;
    /// Condition code 1: rounded up, or the direction of a stack fault.
    pub const C1: u16 = 0x0200;
    /// Condition code 2.
    pub const C2: u16 = 0x0400;
    /// Condition code 3.
    pub const C3: u16 = 0x4000;
    /// All four condition codes.
    pub const CONDITION: u16 = C0 | C1 | C2 | C3;
    /// The busy bit, a copy of [`ES`].
    pub const BUSY: u16 = 0x8000;
    /// The six exception flags.
    pub const EXCEPTIONS: u16 = 0x3f;
    /// Exceptions found before the operation: unmasked, they leave operands and stack untouched.
    pub const BEFORE: u16 = IE | DE | ZE;
}

/// The x87 unit of one vCPU. MMX shares `registers[n].mantissa`.
///
/// `#[repr(C)]`: the translator reads and writes the fields in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Unit {
    /// R0 to R7, by physical number: ST(i) is `registers[(top + i) & 7]`.
    pub registers: [F80; 8],
    /// The control word; bit 6 is always one.
    pub control: u16,
    /// The status word without TOP (bits 13 to 11, always zero here).
    pub status: u16,
    /// TOP, 0 to 7.
    pub top: u8,
    /// Bit n is set if register n (physical) is not empty, as in the abridged tag byte of FXSAVE.
    pub valid: u8,
    /// The last opcode: low three bits of the first byte, then the second byte; 11 bits.
    pub opcode: u16,
    /// The selector of the last instruction's code segment.
    pub instruction_selector: u16,
    /// The selector of the last memory operand's segment.
    pub data_selector: u16,
    /// The offset of the last instruction that was no control instruction.
    pub instruction_pointer: u64,
    /// The offset of the last memory operand.
    pub data_pointer: u64,
}

impl Default for Unit {
    fn default() -> Self {
        Self::power_up()
    }
}

impl Unit {
    /// The state after power-up or RESET (SDM volume 3, table 10-1): control word 0040h, all tags valid.
    pub const fn power_up() -> Self {
        Self {
            registers: [F80::ZERO; 8],
            control: control::ALWAYS,
            status: 0,
            top: 0,
            valid: 0xff,
            opcode: 0,
            instruction_selector: 0,
            data_selector: 0,
            instruction_pointer: 0,
            data_pointer: 0,
        }
    }

    /// FNINIT. Register contents stay.
    pub const fn init(&mut self) {
        self.control = super::CONTROL_DEFAULT;
        self.status = 0;
        self.top = 0;
        self.valid = 0;
        self.opcode = 0;
        self.instruction_selector = 0;
        self.data_selector = 0;
        self.instruction_pointer = 0;
        self.data_pointer = 0;
    }

    /// The status word as FNSTSW stores it, TOP included.
    pub const fn status_word(&self) -> u16 {
        self.status | (self.top as u16) << 11
    }

    /// Loads the status word, TOP included, as FLDENV and FRSTOR do; ES and B follow from flags and masks.
    pub const fn set_status_word(&mut self, word: u16) {
        self.top = (word >> 11 & 7) as u8;
        self.status = word & !0x3800;
        self.summarise();
    }

    /// FLDCW: a flag that becomes unmasked becomes pending, one that becomes masked stops being so.
    pub const fn set_control(&mut self, word: u16) {
        self.control = word & control::WRITABLE | control::ALWAYS;
        self.summarise();
    }

    /// FNCLEX. The condition codes stay, which the manual calls undefined.
    pub const fn clear_exceptions(&mut self) {
        self.status &= status::CONDITION;
    }

    /// Whether the next waiting instruction raises #MF.
    pub const fn is_pending(&self) -> bool {
        self.status & status::ES != 0
    }

    /// The physical number of ST(`i`).
    #[inline]
    pub const fn index(&self, i: u8) -> usize {
        (self.top.wrapping_add(i) & 7) as usize
    }

    /// ST(`i`), whatever its tag.
    #[inline]
    pub const fn st(&self, i: u8) -> F80 {
        self.registers[self.index(i)]
    }

    /// Whether ST(`i`) is tagged empty.
    #[inline]
    pub const fn is_empty(&self, i: u8) -> bool {
        self.valid >> self.index(i) & 1 == 0
    }

    /// Writes ST(`i`) and tags it valid.
    #[inline]
    pub const fn set_st(&mut self, i: u8, value: F80) {
        let n = self.index(i);
        self.registers[n] = value;
        self.valid |= 1 << n;
    }

    /// Pops once: ST(0) becomes empty, its contents stay.
    #[inline]
    pub const fn pop(&mut self) {
        self.valid &= !(1 << self.top);
        self.top = (self.top + 1) & 7;
    }

    /// Pushes without a check; the caller has looked at ST(7).
    #[inline]
    pub const fn push(&mut self, value: F80) {
        self.top = self.top.wrapping_sub(1) & 7;
        self.set_st(0, value);
    }

    /// FFREE: tags ST(`i`) empty and clears C1.
    pub const fn free(&mut self, i: u8) {
        self.status &= !status::C1;
        self.valid &= !(1 << self.index(i));
    }

    /// FINCSTP and FDECSTP: moves TOP by `by`, tags untouched, and clears C1.
    pub const fn rotate(&mut self, by: u8) {
        self.top = self.top.wrapping_add(by) & 7;
        self.status &= !status::C1;
    }

    /// The full tag word, two bits for each physical register, as FNSTENV stores it.
    pub fn tag_word(&self) -> u16 {
        use crate::fp::f80::Class;
        (0..8).rev().fold(0, |word, n| {
            let tag = match self.registers[n].class() {
                _ if self.valid >> n & 1 == 0 => 3,
                Class::Normal => 0,
                Class::Zero => 1,
                _ => 2,
            };
            word << 2 | tag
        })
    }

    /// Loads a full tag word. Only emptiness is kept: the other tags follow from the contents.
    pub const fn set_tag_word(&mut self, word: u16) {
        self.valid = 0;
        let mut n = 0;
        while n < 8 {
            if word >> (2 * n) & 3 != 3 {
                self.valid |= 1 << n;
            }
            n += 1;
        }
    }

    /// What every MMX instruction but EMMS does to the stack: TOP 0, all registers valid.
    #[inline]
    pub const fn enter_mmx(&mut self) {
        self.top = 0;
        self.valid = 0xff;
    }

    /// Writes an MMX register: the exponent field becomes all ones (SDM volume 1, 9.2.3).
    #[inline]
    pub const fn set_mm(&mut self, n: u8, value: u64) {
        self.registers[(n & 7) as usize] = F80::new(0xffff, value);
    }

    /// Whether an operation that set the flags of `word` ends without touching operands and stack.
    #[inline]
    pub(super) const fn faults(&self, word: u16) -> bool {
        word & !self.control & status::BEFORE != 0
    }

    /// Takes a kernel's status word: exception flags are sticky, of the condition codes only those in
    /// `codes` are replaced.
    #[inline]
    pub(super) const fn merge(&mut self, word: u16, codes: u16) {
        self.status = self.status & !codes | word & (codes | status::EXCEPTIONS);
        self.summarise();
    }

    /// A stack fault: underflow clears C1, overflow sets it. True if the masked response is due.
    pub(super) const fn stack_fault(&mut self, overflow: bool) -> bool {
        self.status = self.status & !status::C1 | status::IE | status::SF;
        if overflow {
            self.status |= status::C1;
        }
        self.summarise();
        self.control & control::IM != 0
    }

    const fn summarise(&mut self) {
        let pending = self.status & !self.control & status::EXCEPTIONS != 0;
        self.status = if pending {
            self.status | status::ES | status::BUSY
        } else {
            self.status & !(status::ES | status::BUSY)
        };
    }
}
