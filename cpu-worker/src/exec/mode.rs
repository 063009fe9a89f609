//! What decoded and translated code depends on besides its bytes and its address.

use crate::fp::x87::control;
use crate::mmu::TlbIndex;
use crate::state::{CodeSize, CpuState, Cr0, Cr4, Segment, seg};

/// A mode of the processor as the jump cache and the translator see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ModeKey {
    /// How code is decoded.
    pub code: CodeSize,
    /// Which TLB tables data accesses go through.
    pub index: TlbIndex,
    /// CPL 0.
    pub cpl0: bool,
    /// CR4.SMAP, at CPL 0: EFLAGS.AC decides about user pages.
    pub smap: bool,
    /// SSE instructions execute: CR4.OSFXSR set, CR0.EM and TS clear.
    pub sse: bool,
    /// x87 instructions execute without a look at anything: CR0.EM and TS clear, all exceptions masked, none
    /// pending.
    pub x87: bool,
    /// CS, SS, DS and ES start at 0 and end at 4 GiB, and the stack pointer has 32 bits; always in 64-bit
    /// mode.
    pub flat: bool,
    /// The stack pointer is SP, the lower 16 bits.
    pub short_stack: bool,
    /// The limit of CS, beyond which no block may reach; 0 in 64-bit mode, which has none.
    pub limit: u32,
    /// FS and GS end at 4 GiB, wherever they start; always in 64-bit mode.
    pub unlimited: bool,
}

fn unlimited(s: &Segment) -> bool {
    let (r, w) = (s.read, s.write);
    r.low == 0 && r.high == u32::MAX && w.low == 0 && w.high == u32::MAX
}

impl ModeKey {
    /// The mode after STAC or CLAC, where they change one.
    pub(super) fn other_ac(&self) -> Option<Self> {
        let index = match self.index {
            TlbIndex::Supervisor => TlbIndex::SupervisorAc,
            TlbIndex::SupervisorAc => TlbIndex::Supervisor,
            TlbIndex::User => return None,
        };
        self.smap.then_some(Self { index, ..*self })
    }

    /// What [`Self::x87`] is in `s`.
    #[inline]
    pub(crate) fn x87_of(s: &CpuState) -> bool {
        !s.cr0.intersects(Cr0::EM | Cr0::TS)
            && s.fpu.control & control::MASKS == control::MASKS
            && !s.fpu.is_pending()
    }

    /// The mode that `s` is in.
    pub(super) fn of(s: &CpuState, code: CodeSize, index: TlbIndex) -> Self {
        let (flat, unlimited) = match code {
            CodeSize::Bits64 => (true, true),
            // Real mode, V86 and 16-bit code go through their segments whatever these say.
            CodeSize::Bits16 => (false, false),
            CodeSize::Bits32 => {
                let cs = &s.segs[seg::CS];
                let data = [seg::SS, seg::DS, seg::ES]
                    .iter()
                    .all(|&n| s.segs[n].base == 0 && unlimited(&s.segs[n]));
                let flat = data && cs.base == 0 && cs.limit == u32::MAX && s.segs[seg::SS].attr.big();
                (flat, unlimited(&s.segs[seg::FS]) && unlimited(&s.segs[seg::GS]))
            }
        };
        let short_stack = code != CodeSize::Bits64 && !s.segs[seg::SS].attr.big();
        let limit = match code {
            CodeSize::Bits64 => 0,
            _ => s.segs[seg::CS].limit,
        };
        let sse = s.cr4.contains(Cr4::OSFXSR) && !s.cr0.intersects(Cr0::EM | Cr0::TS);
        let x87 = Self::x87_of(s);
        Self {
            cpl0: s.cpl == 0,
            smap: s.cpl == 0 && s.cr4.contains(Cr4::SMAP),
            sse,
            x87,
            limit,
            code,
            index,
            flat,
            short_stack,
            unlimited,
        }
    }
}
