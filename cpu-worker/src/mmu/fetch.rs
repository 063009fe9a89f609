//! Instruction fetch: from CS:rIP to the bytes of an instruction.

use super::{Access, PageKind};
use crate::exec::{Exit, Vcpu};
use crate::state::{CodeSize, seg};

/// Most bytes an instruction can have.
pub const MAX_INSTRUCTION: usize = 15;

/// Bytes fetched for decoding, and where they lie.
#[derive(Clone, Copy, Debug)]
pub struct Fetched {
    /// The bytes; `len` of them are valid.
    pub bytes: [u8; MAX_INSTRUCTION],
    /// How many there are before the page, or the segment, ends.
    pub len: usize,
}

impl Vcpu {
    /// Linear address of the next instruction; #GP when rIP is outside CS or not canonical.
    #[inline(always)]
    pub fn fetch_linear(&mut self) -> Result<u64, Exit> {
        let cs = &self.state.segs[seg::CS];
        let rip = self.rip();
        if self.code_size == CodeSize::Bits64 {
            return Ok(rip);
        }
        if rip > u64::from(cs.limit) {
            return self.gp0();
        }
        Ok(cs.base.wrapping_add(rip) & 0xFFFF_FFFF)
    }

    /// Physical address of code at `linear`, and its RAM page unless it lies in device memory.
    #[inline]
    pub fn translate_code(&mut self, linear: u64) -> Result<(u64, Option<u64>), Exit> {
        let index = self.tlb_index;
        let e = self.tlb.code_entry(index, linear);
        if e.tag == linear & !0xFFF {
            let page = e.page;
            return Ok((page * 4096 + (linear & 0xFFF), Some(page)));
        }
        self.translate_code_slow(linear)
    }

    #[cold]
    fn translate_code_slow(&mut self, linear: u64) -> Result<(u64, Option<u64>), Exit> {
        let index = self.tlb_index;
        let user = self.state.cpl == 3;
        if self.state.long_mode() && !super::access::canonical(linear) {
            return self.gp0();
        }
        let t = self.walk(linear, Access::Fetch, user, false)?;
        if t.shift != 12 {
            self.tlb.note_large(linear, t.shift);
        }
        match self.page_kind(t.phys / 4096) {
            PageKind::Ram(page) | PageKind::Rom(page) => {
                let entry = super::tlb::CodeEntry {
                    tag: linear & !0xFFF,
                    page,
                    global: t.global,
                };
                self.tlb.fill_code(index, entry);
                Ok((page * 4096 + (linear & 0xFFF), Some(page)))
            }
            PageKind::WriteOnly(_) | PageKind::Vram(_) | PageKind::Device => Ok((t.phys, None)),
        }
    }

    /// RAM page of code at `linear`, if finding out neither faults nor sets an accessed bit: for code that may never be executed.
    pub(crate) fn code_page_quietly(&mut self, linear: u64) -> Option<u64> {
        let known = self.tlb.code_entry(self.tlb_index, linear).tag == linear & !0xFFF;
        if !known && !self.is_accessed(linear) {
            return None;
        }
        self.translate_code(linear).ok()?.1
    }

    /// Fetches the bytes at `linear` up to the end of the page. `code` is what [`Self::translate_code`] gave.
    pub fn fetch_page(&mut self, linear: u64, code: (u64, Option<u64>)) -> Fetched {
        let left = (4096 - (linear & 0xFFF) as usize).min(MAX_INSTRUCTION);
        let mut f = Fetched {
            bytes: [0; MAX_INSTRUCTION],
            len: left,
        };
        for (i, b) in f.bytes[..left].iter_mut().enumerate() {
            *b = match code.1 {
                Some(_) => self.mem.read::<u8>(code.0 + i as u64),
                None => self.phys_read(code.0 + i as u64, 1) as u8,
            };
        }
        f
    }
}
