//! MMX instructions by way of the SSE ones.
//!
//! The host's MMX registers are its x87 registers, which compiled code must find empty; and every MMX
//! instruction is a part of an SSE one. How it is a part is the [`Form`].

use super::{Integer, Xmm, immediate};

/// How a 64-bit instruction follows from the 128-bit one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Element by element: the low halves.
    Low,
    /// The high halves of the operands interleaved: the upper half of the *low* 128-bit interleaving.
    High,
    /// The destination's results below the source's: both operands in one register.
    Joined,
    /// PSHUFB, whose selectors have three bits instead of four.
    Shuffle,
}

/// An MMX instruction: which SSE kernel, and how.
#[derive(Clone, Copy, Debug)]
pub struct Mmx {
    /// The 128-bit kernel.
    pub kernel: Integer,
    /// What to make of it.
    pub form: Form,
}

impl Mmx {
    /// The new destination from the old one and the source.
    #[inline]
    pub fn execute(&self, dst: u64, src: u64) -> u64 {
        let mut d = Xmm::new(dst, if self.form == Form::Joined { src } else { 0 });
        let s = match self.form {
            Form::Low | Form::High => Xmm::new(src, 0),
            Form::Joined => d,
            Form::Shuffle => Xmm::new(src & 0x8787_8787_8787_8787, 0),
        };
        (self.kernel)(&mut d, &s);
        d.quads[usize::from(self.form == Form::High)]
    }
}

/// PSHUFW with immediate `imm`.
pub fn pshufw(src: u64, imm: u8) -> u64 {
    let mut out = Xmm::ZERO;
    immediate::pshuflw(imm)(&mut out, &Xmm::new(src, 0));
    out.quads[0]
}

/// PALIGNR on MMX registers; 16 and more give zero.
pub const fn palignr(dst: u64, src: u64, imm: u8) -> u64 {
    let both = (dst as u128) << 64 | src as u128;
    if imm > 15 {
        0
    } else {
        (both >> (8 * imm as u32)) as u64
    }
}
