//! The register file as handlers see it: by byte offset, in any width.
#![allow(
    unsafe_code,
    reason = "AL, AH, AX, EAX and RAX are overlapping bytes of one array"
)]

use super::{Int, Op, Vcpu};
use crate::state::{RIP, ZERO, gpr};

const FILE: usize = 18 * 8;

impl Vcpu {
    /// Reads the register at byte offset `at` of the file (see [`Op::dst`]).
    #[inline(always)]
    pub fn reg<T: Int>(&self, at: u8) -> T {
        debug_assert!(at as usize + size_of::<T>() <= FILE);
        // SAFETY: decoded offsets are at most 15 * 8 + 7, and 17 * 8 for the zero register, so that the read
        // stays inside `regs`; hosts are little-endian.
        unsafe {
            self.state
                .regs
                .as_ptr()
                .cast::<u8>()
                .add(at as usize)
                .cast::<T>()
                .read_unaligned()
        }
    }

    /// Writes the register at byte offset `at`. A 32-bit write clears the upper half, as 64-bit mode wants and
    /// the other modes cannot see.
    #[inline(always)]
    pub fn set_reg<T: Int>(&mut self, at: u8, value: T) {
        debug_assert!(at as usize + size_of::<T>() <= 16 * 8);
        let file = self.state.regs.as_mut_ptr().cast::<u8>();
        // SAFETY: as in `reg`; a 32-bit operand has an offset that is a multiple of 8, so eight bytes fit.
        unsafe {
            if T::BITS == 32 {
                file.add(at as usize)
                    .cast::<u64>()
                    .write_unaligned(value.to_u64());
            } else {
                file.add(at as usize).cast::<T>().write_unaligned(value);
            }
        }
    }

    /// A general register by number, whole.
    #[inline(always)]
    pub fn gpr(&self, n: usize) -> u64 {
        self.state.regs[n]
    }

    /// Writes the low part of a general register by number, with the rules of [`Self::set_reg`].
    #[inline(always)]
    pub fn set_gpr<T: Int>(&mut self, n: usize, value: T) {
        self.set_reg(n as u8 * 8, value);
    }

    /// Writes a general register under the address-size rules: 16 bits keep the rest, 32 bits clear it.
    #[inline(always)]
    pub fn set_gpr_addr(&mut self, n: usize, value: u64, addr_shift: u8) {
        match addr_shift {
            48 => self.set_gpr(n, value as u16),
            32 => self.set_gpr(n, value as u32),
            _ => self.state.regs[n] = value,
        }
    }

    /// RIP.
    #[inline(always)]
    pub fn rip(&self) -> u64 {
        self.state.regs[RIP]
    }

    /// Sets RIP.
    #[inline(always)]
    pub fn set_rip(&mut self, rip: u64) {
        self.state.regs[RIP] = rip;
    }

    /// RSP, whole.
    #[inline(always)]
    pub fn rsp(&self) -> u64 {
        self.state.regs[gpr::RSP]
    }

    /// The effective address of the memory operand, wrapped to the address size, before segmentation.
    #[inline(always)]
    pub fn ea(&self, op: &Op) -> u64 {
        debug_assert!(op.base as usize <= ZERO && op.index as usize <= ZERO);
        // SAFETY: decoding only produces base and index numbers up to ZERO.
        let (base, index) = unsafe {
            let r = self.state.regs.as_ptr();
            (*r.add(op.base as usize), *r.add(op.index as usize))
        };
        let sum = base
            .wrapping_add(index << op.scale)
            .wrapping_add(op.disp as i64 as u64);
        sum << op.addr_shift >> op.addr_shift
    }
}
