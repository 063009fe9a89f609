//! Loads and stores by linear address, and the segmented ones on top of them.
//!
//! The fast path is one compare and one `mov`: the tag of a TLB entry equals the page of the access's last
//! byte, and, the table being indexed by the page of the first, that also says that it crosses no page.
#![allow(
    unsafe_code,
    reason = "guest RAM is reached by the host pointer of a TLB entry"
)]

use quintet_protocol::addr::GuestPhys;

use super::{PageKind, TlbIndex, phys};
use crate::exec::{Exit, Flow, Int, Op, Vcpu, Vector, flag};
use crate::state::{Cr0, Flag, seg};

/// What an access wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Fetch,
}

impl Vcpu {
    /// What lies at a physical page.
    pub fn page_kind(&self, page: u64) -> PageKind {
        self.bus
            .page_kind(page)
            .unwrap_or_else(|| self.mem.layout_kind(page))
    }

    // ---- linear ----

    /// Loads at a linear address with the current privilege.
    #[inline(always)]
    pub fn load_linear<T: Int>(&mut self, linear: u64) -> Result<T, Exit> {
        self.load_with(linear, self.tlb_index)
    }

    /// Loads with the rights of a TLB table.
    #[inline(always)]
    fn load_with<T: Int>(&mut self, linear: u64, index: TlbIndex) -> Result<T, Exit> {
        let e = self.tlb.read(index, linear);
        if e.tag == linear.wrapping_add(T::BYTES - 1) & !0xFFF {
            // SAFETY: a matching read tag means that the page is mapped RAM or display memory at linear + addend,
            // and that the access lies within it.
            return Ok(unsafe { phys::load((linear.wrapping_add(e.addend)) as *const u8) });
        }
        self.load_slow(linear, T::BYTES as usize, index).map(T::trunc)
    }

    /// Stores at a linear address with the current privilege.
    #[inline(always)]
    pub fn store_linear<T: Int>(&mut self, linear: u64, value: T) -> Flow {
        self.store_with(linear, value, self.tlb_index)
    }

    /// Stores with the rights of a TLB table.
    #[inline(always)]
    pub(crate) fn store_with<T: Int>(&mut self, linear: u64, value: T, index: TlbIndex) -> Flow {
        let e = self.tlb.write(index, linear);
        if e.tag == linear.wrapping_add(T::BYTES - 1) & !0xFFF {
            // SAFETY: as in `load_linear`, and a write tag means writable.
            unsafe { phys::store((linear.wrapping_add(e.addend)) as *mut u8, value) };
            return Ok(());
        }
        self.store_slow(linear, T::BYTES as usize, value.to_u64(), index)
    }

    /// Loads with supervisor privilege whatever the CPL: descriptor tables, TSS.
    pub fn load_system<T: Int>(&mut self, linear: u64) -> Result<T, Exit> {
        self.load_with(self.wrap_linear(linear), TlbIndex::Supervisor)
    }

    /// Stores with supervisor privilege whatever the CPL.
    pub fn store_system<T: Int>(&mut self, linear: u64, value: T) -> Flow {
        self.store_with(self.wrap_linear(linear), value, TlbIndex::Supervisor)
    }

    /// Host pointer for `linear` when `access` of `len` bytes there is plain RAM within a page, else `None`: for
    /// string instructions, which move whole runs. Checks nothing but the TLB.
    #[inline]
    pub fn ram_run(&self, linear: u64, len: u64, write: bool) -> Option<*mut u8> {
        let e = if write {
            self.tlb.write(self.tlb_index, linear)
        } else {
            self.tlb.read(self.tlb_index, linear)
        };
        (len != 0 && e.tag == linear.wrapping_add(len - 1) & !0xFFF)
            .then(|| linear.wrapping_add(e.addend) as *mut u8)
    }

    /// Makes sure that a store of `len` bytes at `linear` will not fault, without storing.
    pub fn probe_write(&mut self, linear: u64, len: u64) -> Flow {
        self.translate(linear, Access::Write, self.tlb_index)?;
        let last = self.wrap_linear(linear.wrapping_add(len - 1));
        if (last ^ linear) & !0xFFF != 0 {
            self.translate(last & !0xFFF, Access::Write, self.tlb_index)?;
        }
        Ok(())
    }

    /// Makes sure that a load of `len` bytes at `linear` will not fault, without loading.
    pub fn probe_read(&mut self, linear: u64, len: u64) -> Flow {
        self.translate(linear, Access::Read, self.tlb_index)?;
        let last = self.wrap_linear(linear.wrapping_add(len - 1));
        if (last ^ linear) & !0xFFF != 0 {
            self.translate(last & !0xFFF, Access::Read, self.tlb_index)?;
        }
        Ok(())
    }

    /// Linear addresses are 32 bits wide outside 64-bit mode.
    #[inline]
    pub fn wrap_linear(&self, linear: u64) -> u64 {
        if self.state.long_mode() {
            linear
        } else {
            linear & 0xFFFF_FFFF
        }
    }

    /// Translates for `access` and fills the TLB. Raises #PF, and #GP for addresses that are not canonical
    /// (callers that want #SS have checked before).
    pub fn translate(&mut self, linear: u64, access: Access, index: TlbIndex) -> Result<u64, Exit> {
        if self.state.long_mode() && !canonical(linear) {
            return self.gp0();
        }
        let (user, ac) = (index == TlbIndex::User, index == TlbIndex::SupervisorAc);
        let t = self.walk(linear, access, user, ac)?;
        let page = linear & !0xFFF;
        if t.shift != 12 {
            self.tlb.note_large(linear, t.shift);
        }
        let kind = self.page_kind(t.phys / 4096);
        if access == Access::Fetch {
            return Ok(t.phys);
        }
        if self.watching || self.is_page_watched(linear) {
            // Data breakpoints look at every access, watchpoints of the debugger at those of their pages.
            return Ok(t.phys);
        }
        let (number, host, writable) = match kind {
            PageKind::Ram(n) => (n, self.mem.page_ptr(n), t.write_ok && !self.blocks.has_code(n)),
            PageKind::Rom(n) => (n, self.mem.page_ptr(n), false),
            PageKind::Vram(n) => {
                // A read opens nothing, or a screen that is read back would be drawn at every frame; and stores that
                // are compared go by the bus, which says that they cannot be taken back.
                let writable = t.write_ok && access == Access::Write && self.trial.is_none();
                let Some(host) = self.bus.vram_page(n, writable) else {
                    return Ok(t.phys);
                };
                (n | super::tlb::VRAM, host, writable)
            }
            PageKind::WriteOnly(_) | PageKind::Device => return Ok(t.phys),
        };
        // While a block is tried, each store is to be seen.
        let tried = match &mut self.trial {
            Some(trial) if trial.active => {
                if access == Access::Write {
                    trial.written_to(linear, index);
                }
                true
            }
            _ => false,
        };
        let writable = writable && !tried;
        // A walk for a write proves only the write; reads follow from it, since no page table makes a page
        // write-only.
        let fill = super::tlb::Fill {
            linear,
            addend: (host as u64).wrapping_sub(page),
            page: number,
            global: t.global,
            writable,
            for_write: access == Access::Write,
        };
        self.tlb.fill(index, fill);
        Ok(t.phys)
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn load_slow(&mut self, linear: u64, len: usize, index: TlbIndex) -> Result<u64, Exit> {
        self.check_watch(linear, len, Access::Read);
        let first = 4096 - (linear & 0xFFF) as usize;
        if len <= first {
            if self.alignment_faults(linear, len, index) {
                return self.raise(Vector::Ac);
            }
            let phys = self.translate(linear, Access::Read, index)?;
            return Ok(self.phys_read(phys, len));
        }
        if self.alignment_faults(linear, len, index) {
            return self.raise(Vector::Ac);
        }
        let next = self.wrap_linear(linear.wrapping_add(first as u64));
        let a = self.translate(linear, Access::Read, index)?;
        let b = self.translate(next, Access::Read, index)?;
        let low = self.phys_read(a, first);
        let high = self.phys_read(b, len - first);
        Ok(low | high << (first * 8))
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn store_slow(&mut self, linear: u64, len: usize, value: u64, index: TlbIndex) -> Flow {
        if self.alignment_faults(linear, len, index) {
            return self.raise(Vector::Ac);
        }
        let first = 4096 - (linear & 0xFFF) as usize;
        if len <= first {
            let phys = self.translate(linear, Access::Write, index)?;
            self.phys_write(phys, len, value);
        } else {
            let next = self.wrap_linear(linear.wrapping_add(first as u64));
            let a = self.translate(linear, Access::Write, index)?;
            let b = self.translate(next, Access::Write, index)?;
            self.phys_write(a, first, value);
            self.phys_write(b, len - first, value >> (first * 8));
        }
        self.check_watch(linear, len, Access::Write);
        Ok(())
    }

    fn alignment_faults(&self, linear: u64, len: usize, index: TlbIndex) -> bool {
        index == TlbIndex::User
            && self.state.flags.get(Flag::Ac)
            && self.state.cr0.contains(Cr0::AM)
            && self.state.cpl == 3
            && !linear.is_multiple_of(len as u64)
    }

    // ---- physical ----

    /// Reads up to 8 bytes that do not cross a page.
    pub(crate) fn phys_read(&mut self, phys: u64, len: usize) -> u64 {
        match self.page_kind(phys / 4096) {
            PageKind::Ram(n) | PageKind::Rom(n) => {
                let at = n * 4096 + phys % 4096;
                match len {
                    1 => u64::from(self.mem.read::<u8>(at)),
                    2 => u64::from(self.mem.read::<u16>(at)),
                    4 => u64::from(self.mem.read::<u32>(at)),
                    8 => self.mem.read::<u64>(at),
                    _ => (0..len).fold(0, |v, i| {
                        v | u64::from(self.mem.read::<u8>(at + i as u64)) << (i * 8)
                    }),
                }
            }
            PageKind::WriteOnly(_) | PageKind::Vram(_) | PageKind::Device => {
                self.note_device();
                self.device_pieces(phys, len, |cpu, at, size, shift, v| {
                    *v |= (cpu.bus.mmio_read(GuestPhys(at), size) & mask(size)) << shift;
                })
            }
        }
    }

    /// Writes up to 8 bytes that do not cross a page.
    pub(crate) fn phys_write(&mut self, phys: u64, len: usize, value: u64) {
        match self.page_kind(phys / 4096) {
            PageKind::Ram(n) | PageKind::WriteOnly(n) => {
                let at = n * 4096 + phys % 4096;
                if let Some(trial) = &mut self.trial {
                    trial.before_write(&self.mem, at, len);
                }
                match len {
                    1 => self.mem.write(at, value as u8),
                    2 => self.mem.write(at, value as u16),
                    4 => self.mem.write(at, value as u32),
                    8 => self.mem.write(at, value),
                    _ => (0..len).for_each(|i| self.mem.write(at + i as u64, (value >> (i * 8)) as u8)),
                }
                if self.blocks.has_code(n) {
                    self.code_written(n, (phys % 4096) as usize, len);
                }
            }
            PageKind::Rom(_) => {}
            PageKind::Vram(_) | PageKind::Device => {
                self.note_device();
                self.device_pieces(phys, len, |cpu, at, size, shift, _| {
                    let effects = cpu
                        .bus
                        .mmio_write(GuestPhys(at), size, value >> shift & mask(size));
                    cpu.apply(effects);
                });
            }
        }
    }

    /// A block that is being tried touches a device: it cannot be taken back.
    fn note_device(&mut self) {
        if let Some(trial) = &mut self.trial {
            trial.device = true;
        }
    }

    /// Cuts a device access into the sizes a bus has: those that a page crossing leaves over are odd.
    fn device_pieces(
        &mut self,
        phys: u64,
        len: usize,
        mut each: impl FnMut(&mut Self, u64, u8, usize, &mut u64),
    ) -> u64 {
        let mut v = 0;
        let mut done = 0;
        while done < len {
            let left = len - done;
            let size = if left >= 8 {
                8
            } else if left >= 4 {
                4
            } else if left >= 2 {
                2
            } else {
                1
            };
            each(self, phys + done as u64, size as u8, done * 8, &mut v);
            done += size;
        }
        v
    }

    // ---- segmented ----

    /// The linear address of `offset` in `segment` for reading `len` bytes: #GP, or #SS for SS, past the limit.
    #[inline(always)]
    pub fn linear_read(&mut self, segment: u8, offset: u64, len: u64, long: bool) -> Result<u64, Exit> {
        let s = &self.state.segs[segment as usize];
        if long {
            return Ok(s.base.wrapping_add(offset));
        }
        if s.read.contain(offset, len) {
            return Ok(s.base.wrapping_add(offset) & 0xFFFF_FFFF);
        }
        self.limit_fault(segment)
    }

    /// As [`Self::linear_read`], for writing.
    #[inline(always)]
    pub fn linear_write(&mut self, segment: u8, offset: u64, len: u64, long: bool) -> Result<u64, Exit> {
        let s = &self.state.segs[segment as usize];
        if long {
            return Ok(s.base.wrapping_add(offset));
        }
        if s.write.contain(offset, len) {
            return Ok(s.base.wrapping_add(offset) & 0xFFFF_FFFF);
        }
        self.limit_fault(segment)
    }

    #[cold]
    fn limit_fault<T>(&mut self, segment: u8) -> Result<T, Exit> {
        self.raise(if segment as usize == seg::SS {
            Vector::Ss
        } else {
            Vector::Gp
        })
    }

    /// #SS(0) for a stack address that is not canonical: RSP or RBP as base without another segment.
    #[inline(always)]
    pub fn check_stack_canonical(&mut self, linear: u64) -> Flow {
        if canonical(linear) {
            Ok(())
        } else {
            self.raise(Vector::Ss)
        }
    }

    /// Loads the memory operand of `op`.
    #[inline(always)]
    pub fn load<T: Int>(&mut self, op: &Op) -> Result<T, Exit> {
        let linear = self.operand_linear(op, T::BYTES, false)?;
        self.load_linear(linear)
    }

    /// Stores to the memory operand of `op`.
    #[inline(always)]
    pub fn store<T: Int>(&mut self, op: &Op, value: T) -> Flow {
        let linear = self.operand_linear(op, T::BYTES, true)?;
        self.store_linear(linear, value)
    }

    /// The checked linear address of the memory operand of `op`, `len` bytes long.
    #[inline(always)]
    pub fn operand_linear(&mut self, op: &Op, len: u64, write: bool) -> Result<u64, Exit> {
        let offset = self.ea(op);
        if op.has(flag::LONG) {
            let linear = self.state.segs[op.seg as usize].base.wrapping_add(offset);
            if !canonical(linear) {
                return self.not_canonical(op);
            }
            return Ok(linear);
        }
        if write {
            self.linear_write(op.seg, offset, len, false)
        } else {
            self.linear_read(op.seg, offset, len, false)
        }
    }

    #[cold]
    fn not_canonical<T>(&mut self, op: &Op) -> Result<T, Exit> {
        // In 64-bit mode a stack reference is one with RSP or RBP as base and no FS or GS.
        let stack = op.seg as usize == seg::FLAT && matches!(op.base, 4 | 5);
        self.raise(if stack { Vector::Ss } else { Vector::Gp })
    }

    /// Reads, changes and writes the memory operand of `op`. `f` runs only when the write cannot fault any more,
    /// so that it may set flags and registers.
    #[inline(always)]
    pub fn modify<T: Int>(&mut self, op: &Op, f: impl FnOnce(&mut Self, T) -> T) -> Flow {
        let linear = self.operand_linear(op, T::BYTES, true)?;
        let e = self.tlb.write(self.tlb_index, linear);
        if e.tag == linear.wrapping_add(T::BYTES - 1) & !0xFFF {
            let p = linear.wrapping_add(e.addend) as *mut u8;
            // SAFETY: the tag matches: mapped memory within one page that may be written, and so read.
            let old = unsafe { phys::load(p) };
            let new = f(self, old);
            // SAFETY: as above; `f` cannot unmap guest RAM.
            unsafe { phys::store(p, new) };
            return Ok(());
        }
        self.probe_write(linear, T::BYTES)?;
        let old = T::trunc(self.load_slow(linear, T::BYTES as usize, self.tlb_index)?);
        let new = f(self, old);
        self.store_slow(linear, T::BYTES as usize, new.to_u64(), self.tlb_index)
    }
}

/// Whether bits 47–63 of a linear address are equal.
#[inline(always)]
pub(crate) fn canonical(linear: u64) -> bool {
    (linear as i64) << 16 >> 16 == linear as i64
}

fn mask(size: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(size))
}
