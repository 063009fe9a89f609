//! Memory operands wider than a general register.
#![allow(
    unsafe_code,
    reason = "16-byte accesses go through the host pointer of a TLB entry"
)]

use crate::exec::{Exit, Flow, Op, Vcpu};
use crate::fp::Xmm;
use crate::mmu::{load, store};

impl Vcpu {
    /// Loads `out.len()` bytes at `linear`, which [`Vcpu::operand_linear`] gave.
    pub(crate) fn load_bytes(&mut self, linear: u64, out: &mut [u8]) -> Flow {
        let mut at = 0;
        let mut chunks = out.chunks_exact_mut(8);
        for chunk in &mut chunks {
            let v = self.load_linear::<u64>(self.wrap_linear(linear.wrapping_add(at)))?;
            chunk.copy_from_slice(&v.to_le_bytes());
            at += 8;
        }
        for pair in chunks.into_remainder().chunks_mut(2) {
            let v = self.load_linear::<u16>(self.wrap_linear(linear.wrapping_add(at)))?;
            pair.copy_from_slice(&v.to_le_bytes()[..pair.len()]);
            at += 2;
        }
        Ok(())
    }

    /// Stores an even number of bytes, at most a page, at `linear`; if the store faults nothing is written.
    pub(crate) fn store_bytes(&mut self, linear: u64, bytes: &[u8]) -> Flow {
        debug_assert!(bytes.len().is_multiple_of(2) && bytes.len() <= 4096);
        self.probe_write(linear, bytes.len() as u64)?;
        let mut at = 0;
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut v = [0; 8];
            v.copy_from_slice(chunk);
            self.store_linear(self.wrap_linear(linear.wrapping_add(at)), u64::from_le_bytes(v))?;
            at += 8;
        }
        for pair in chunks.remainder().chunks_exact(2) {
            let v = u16::from_le_bytes([pair[0], pair[1]]);
            self.store_linear(self.wrap_linear(linear.wrapping_add(at)), v)?;
            at += 2;
        }
        Ok(())
    }

    /// Loads 16 bytes at the memory operand, of any alignment.
    #[inline(always)]
    pub(crate) fn load_xmm(&mut self, op: &Op) -> Result<Xmm, Exit> {
        let linear = self.operand_linear(op, 16, false)?;
        self.load_xmm_linear(linear)
    }

    /// Loads 16 bytes at the memory operand; #GP(0) unless it is aligned.
    #[inline(always)]
    pub(crate) fn load_xmm_aligned(&mut self, op: &Op) -> Result<Xmm, Exit> {
        let linear = self.operand_linear(op, 16, false)?;
        if linear & 15 != 0 {
            return self.gp0();
        }
        self.load_xmm_linear(linear)
    }

    #[inline(always)]
    fn load_xmm_linear(&mut self, linear: u64) -> Result<Xmm, Exit> {
        if let Some(p) = self.ram_run(linear, 16, false) {
            // SAFETY: `ram_run` says that the 16 bytes are mapped RAM.
            return Ok(unsafe { Xmm::new(load(p), load(p.add(8))) });
        }
        let low = self.load_linear::<u64>(linear)?;
        let high = self.load_linear::<u64>(self.wrap_linear(linear.wrapping_add(8)))?;
        Ok(Xmm::new(low, high))
    }

    /// Stores 16 bytes at the memory operand, of any alignment.
    #[inline(always)]
    pub(crate) fn store_xmm(&mut self, op: &Op, value: Xmm) -> Flow {
        let linear = self.operand_linear(op, 16, true)?;
        self.store_xmm_linear(linear, value)
    }

    /// Stores 16 bytes at the memory operand; #GP(0) unless it is aligned.
    #[inline(always)]
    pub(crate) fn store_xmm_aligned(&mut self, op: &Op, value: Xmm) -> Flow {
        let linear = self.operand_linear(op, 16, true)?;
        if linear & 15 != 0 {
            return self.gp0();
        }
        self.store_xmm_linear(linear, value)
    }

    #[inline(always)]
    fn store_xmm_linear(&mut self, linear: u64, value: Xmm) -> Flow {
        if let Some(p) = self.ram_run(linear, 16, true) {
            // SAFETY: `ram_run` says that the 16 bytes are mapped, writable RAM without decoded code.
            unsafe {
                store(p, value.quads[0]);
                store(p.add(8), value.quads[1]);
            }
            return Ok(());
        }
        self.store_bytes(linear, &value.to_bytes())
    }
}
