//! x87 state (SDM vol. 1, 8.1).

/// An 80-bit extended-precision number as the x87 holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[repr(C)]
pub struct F80 {
    /// Significand with its explicit integer bit.
    pub mantissa: u64,
    /// Sign in bit 15, biased exponent in bits 0–14.
    pub sign_exponent: u16,
}

/// The x87 registers. MMX registers are the mantissas.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct FpuState {
    /// Physical registers R0–R7; ST(i) is R((top + i) mod 8).
    pub regs: [F80; 8],
    /// Control word.
    pub cw: u16,
    /// Status word without the TOP field, which is `top`.
    pub sw: u16,
    /// Bit per physical register: set when it is not empty.
    pub valid: u8,
    /// Top of stack, 0–7.
    pub top: u8,
    /// Last opcode, 11 bits.
    pub fop: u16,
    /// Code segment of the last instruction.
    pub fcs: u16,
    /// Data segment of the last memory operand.
    pub fds: u16,
    /// Instruction pointer of the last instruction.
    pub fip: u64,
    /// Offset of the last memory operand.
    pub fdp: u64,
}

impl FpuState {
    /// The state after RESET#.
    pub fn reset() -> Self {
        Self {
            regs: [F80::default(); 8],
            cw: 0x40,
            sw: 0,
            valid: 0xFF,
            top: 0,
            fop: 0,
            fcs: 0,
            fds: 0,
            fip: 0,
            fdp: 0,
        }
    }
}
