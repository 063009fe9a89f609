//! Descriptors: reading them, and loading segment registers from them (SDM vol. 3, 3.4 and 5).

use crate::exec::{Exit, Flow, Vcpu, Vector};
use crate::mmu::canonical;
use crate::state::{Attr, CodeSize, Segment, seg};

/// An 8-byte descriptor and where it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    /// First doubleword.
    pub low: u32,
    /// Second doubleword.
    pub high: u32,
    /// Linear address.
    pub at: u64,
}

impl Descriptor {
    /// Base address, bits 0–31.
    pub fn base(&self) -> u64 {
        u64::from(self.low >> 16 | (self.high & 0xFF) << 16 | self.high & 0xFF00_0000)
    }

    /// Limit in bytes.
    pub fn limit(&self) -> u32 {
        let limit = self.low & 0xFFFF | self.high & 0x000F_0000;
        if self.attr().granular() {
            limit << 12 | 0xFFF
        } else {
            limit
        }
    }

    /// Access rights.
    pub fn attr(&self) -> Attr {
        Attr::from_descriptor(self.high)
    }

    /// Gate: selector of the target.
    pub fn gate_selector(&self) -> u16 {
        (self.low >> 16) as u16
    }

    /// Gate: offset of the target, bits 0–31.
    pub fn gate_offset(&self) -> u64 {
        u64::from(self.low & 0xFFFF | self.high & 0xFFFF_0000)
    }
}

/// The selector part of an error code.
pub(crate) fn selector_code(selector: u16) -> u32 {
    u32::from(selector & 0xFFFC)
}

impl Vcpu {
    /// Reads the descriptor that `selector` names; `None` beyond its table.
    pub(crate) fn descriptor(&mut self, selector: u16) -> Result<Option<Descriptor>, Exit> {
        let (base, limit) = if selector & 4 == 0 {
            (self.state.gdtr.base, u32::from(self.state.gdtr.limit))
        } else {
            let ldtr = &self.state.segs[seg::LDTR];
            if ldtr.attr.unusable() {
                return Ok(None);
            }
            (ldtr.base, ldtr.limit)
        };
        let index = u32::from(selector & 0xFFF8);
        if index + 7 > limit {
            return Ok(None);
        }
        let at = base.wrapping_add(u64::from(index));
        let both = self.load_system::<u64>(at)?;
        Ok(Some(Descriptor {
            low: both as u32,
            high: (both >> 32) as u32,
            at,
        }))
    }

    /// As [`Self::descriptor`], with `vector`(selector) beyond the table and for a null selector.
    pub(crate) fn descriptor_or(&mut self, selector: u16, vector: Vector) -> Result<Descriptor, Exit> {
        if selector & 0xFFFC == 0 {
            return self.raise(vector);
        }
        match self.descriptor(selector)? {
            Some(d) => Ok(d),
            None => self.raise_code(vector, selector_code(selector)),
        }
    }

    /// Bits 32–63 of the offset of a gate in the IDT of long mode.
    pub(crate) fn upper_offset(&mut self, d: &Descriptor) -> Result<u64, Exit> {
        Ok(u64::from(self.load_system::<u32>(d.at + 8)?) << 32)
    }

    /// Bits 32–63 of the base or offset of the 16-byte descriptor `d` of long mode, which `selector` names. Raises
    /// #GP(selector) when its table ends before it or the type field of its second half is not 0.
    pub(crate) fn upper_half(&mut self, selector: u16, d: &Descriptor) -> Result<u64, Exit> {
        let limit = if selector & 4 == 0 {
            u32::from(self.state.gdtr.limit)
        } else {
            self.state.segs[seg::LDTR].limit
        };
        if u32::from(selector & 0xFFF8) + 15 <= limit {
            let both = self.load_system::<u64>(d.at + 8)?;
            if both >> 40 & 0x1F == 0 {
                return Ok(both << 32);
            }
        }
        self.raise_code(Vector::Gp, selector_code(selector))
    }

    /// The base of a 16-byte LDT or TSS descriptor. As [`Self::upper_half`], and #GP(selector) for a base that is
    /// not canonical.
    pub(crate) fn long_base(&mut self, selector: u16, d: &Descriptor) -> Result<u64, Exit> {
        let base = self.upper_half(selector, d)? | d.base();
        if canonical(base) {
            Ok(base)
        } else {
            self.raise_code(Vector::Gp, selector_code(selector))
        }
    }

    /// Sets the accessed bit in memory unless it is set.
    pub(crate) fn set_accessed(&mut self, d: &mut Descriptor) -> Flow {
        if d.high & 0x100 == 0 {
            d.high |= 0x100;
            self.store_system(d.at + 5, (d.high >> 8) as u8)?;
        }
        Ok(())
    }

    /// A segment register's contents from a descriptor.
    pub(crate) fn segment_of(selector: u16, d: &Descriptor) -> Segment {
        Segment::new(selector, d.base(), d.limit(), d.attr())
    }

    /// Loads a data or stack segment register as MOV, POP and LDS do.
    pub(crate) fn load_segment(&mut self, index: usize, selector: u16) -> Flow {
        if self.state.v86() {
            self.state.segs[index] = Segment::new(selector, u64::from(selector) << 4, 0xFFFF, Attr::V86);
        } else if !self.state.protected() {
            self.load_real_segment(index, selector);
        } else {
            let loaded = if index == seg::SS {
                self.stack_segment(selector)?
            } else {
                self.data_segment(selector)?
            };
            self.state.segs[index] = loaded;
        }
        if index == seg::SS || self.code_size != CodeSize::Bits64 {
            self.refresh_mode();
        }
        Ok(())
    }

    /// In real mode only the base changes: a limit from protected mode stays ("big real mode").
    pub(crate) fn load_real_segment(&mut self, index: usize, selector: u16) {
        let s = &mut self.state.segs[index];
        if s.attr.unusable() || !s.attr.present() || !s.attr.writable() {
            s.attr = Attr(Attr::REAL_DATA.0 | s.attr.0 & 0xC000);
            if s.limit == 0 {
                s.limit = 0xFFFF;
            }
        }
        s.selector = selector;
        s.base = u64::from(selector) << 4;
        s.refresh();
    }

    /// Checks and reads a data segment for ES, DS, FS or GS.
    pub(crate) fn data_segment(&mut self, selector: u16) -> Result<Segment, Exit> {
        if selector & 0xFFFC == 0 {
            return Ok(Segment::null(selector));
        }
        let code = selector_code(selector);
        let mut d = self.descriptor_or(selector, Vector::Gp)?;
        let (attr, rpl) = (d.attr(), (selector & 3) as u8);
        if !attr.readable() || !attr.conforming() && (rpl > attr.dpl() || self.state.cpl > attr.dpl()) {
            return self.raise_code(Vector::Gp, code);
        }
        if !attr.present() {
            return self.raise_code(Vector::Np, code);
        }
        self.set_accessed(&mut d)?;
        Ok(Self::segment_of(selector, &d))
    }

    /// Checks and reads a stack segment for the current privilege level.
    pub(crate) fn stack_segment(&mut self, selector: u16) -> Result<Segment, Exit> {
        let (cpl, rpl) = (self.state.cpl, (selector & 3) as u8);
        if selector & 0xFFFC == 0 {
            if self.code_size == CodeSize::Bits64 && cpl < 3 && rpl == cpl {
                return Ok(Self::null_stack(selector));
            }
            return self.gp0();
        }
        self.stack_segment_for(selector, cpl, Vector::Gp)
    }

    /// The null SS of 64-bit mode; big, so that compatibility code has a 32-bit stack pointer.
    pub(crate) fn null_stack(selector: u16) -> Segment {
        let mut s = Segment::null(selector);
        s.attr = Attr(s.attr.0 | u32::from(selector & 3) << 5);
        s
    }

    /// Checks and reads a stack segment for privilege level `cpl`; bad ones raise `vector`(selector), absent ones
    /// #SS(selector).
    pub(crate) fn stack_segment_for(
        &mut self,
        selector: u16,
        cpl: u8,
        vector: Vector,
    ) -> Result<Segment, Exit> {
        let code = selector_code(selector);
        let mut d = self.descriptor_or(selector, vector)?;
        let attr = d.attr();
        if (selector & 3) as u8 != cpl || !attr.writable() || attr.dpl() != cpl {
            return self.raise_code(vector, code);
        }
        if !attr.present() {
            return self.raise_code(Vector::Ss, code);
        }
        self.set_accessed(&mut d)?;
        Ok(Self::segment_of(selector, &d))
    }

    /// After a return to an outer level: data segments that level may not use become null (SDM vol. 2, RET).
    pub(crate) fn drop_inner_segments(&mut self) {
        let cpl = self.state.cpl;
        for index in [seg::ES, seg::DS, seg::FS, seg::GS] {
            let s = &self.state.segs[index];
            let attr = s.attr;
            if !attr.unusable() && !attr.conforming() && attr.code_or_data() && attr.dpl() < cpl {
                self.state.segs[index] = Segment::null(0);
            }
        }
    }

    /// Sets CS and the privilege level.
    pub(crate) fn set_code_segment(&mut self, mut cs: Segment, cpl: u8) {
        cs.selector = cs.selector & !3 | u16::from(cpl);
        self.state.segs[seg::CS] = cs;
        self.state.cpl = cpl;
        self.refresh_mode();
    }
}
