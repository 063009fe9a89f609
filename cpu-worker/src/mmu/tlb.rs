//! Software TLBs.
//!
//! Three direct-mapped tables, so that a change of privilege costs an index and not a flush: supervisor with
//! SMAP in force, supervisor with SMAP lifted (EFLAGS.AC), user. A tag says which page may be accessed that
//! way by host pointer and nothing else to do: dirty bit set, no decoded code on it, plain RAM. Whatever
//! else (devices, ROM, first write to a clean page, pages with code) has no tag and takes the slow path.

/// Entries per table, a power of two.
pub(super) const ENTRIES: usize = 1024;
/// A tag no page has.
const NONE: u64 = u64::MAX;

/// Which table accesses go through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum TlbIndex {
    /// CPL 0–2, SMAP in force when CR4 says so; also implicit accesses to descriptor tables and TSS.
    Supervisor = 0,
    /// CPL 0–2 with EFLAGS.AC set while CR4.SMAP is.
    SupervisorAc = 1,
    /// CPL 3.
    User = 2,
}

/// One translation.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Entry {
    /// Linear page address when reads go straight to RAM.
    pub read: u64,
    /// Linear page address when writes do.
    pub write: u64,
    /// Host address minus linear address.
    pub addend: u64,
    /// RAM page number << 1 | global.
    pub page: u64,
}

const EMPTY: Entry = Entry {
    read: NONE,
    write: NONE,
    addend: 0,
    page: 0,
};

/// One instruction-page translation.
#[derive(Clone, Copy, Debug)]
pub(super) struct CodeEntry {
    /// Linear page address.
    pub tag: u64,
    /// RAM page number.
    pub page: u64,
    /// Whether it survives a change of CR3.
    pub global: bool,
}

/// Entries of the instruction TLB, a power of two.
const CODE_ENTRIES: usize = 128;

/// The data and instruction TLBs of one vCPU.
#[derive(Debug)]
pub struct Tlb {
    data: Box<[[Entry; ENTRIES]; 3]>,
    code: Box<[[CodeEntry; CODE_ENTRIES]; 3]>,
    /// Whether an entry came from a large page, so that INVLPG cannot name it by its 4 KiB page alone.
    large: bool,
    /// Raised by every flush: the tag of caches that hold translations of code.
    generation: u64,
}

impl Default for Tlb {
    fn default() -> Self {
        let none = CodeEntry {
            tag: NONE,
            page: 0,
            global: false,
        };
        Self {
            data: Box::new([[EMPTY; ENTRIES]; 3]),
            code: Box::new([[none; CODE_ENTRIES]; 3]),
            large: false,
            generation: 1,
        }
    }
}

impl Tlb {
    /// Counts flushes; whoever caches a code translation keeps the number beside it.
    #[inline(always)]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Makes caches of code translations stale without touching data entries.
    pub fn bump(&mut self) {
        self.generation += 1;
    }

    #[inline(always)]
    pub(super) fn entry(&self, index: TlbIndex, linear: u64) -> &Entry {
        &self.data[index as usize][(linear >> 12) as usize % ENTRIES]
    }

    pub(super) fn entry_mut(&mut self, index: TlbIndex, linear: u64) -> &mut Entry {
        &mut self.data[index as usize][(linear >> 12) as usize % ENTRIES]
    }

    pub(super) fn code_entry(&mut self, index: TlbIndex, linear: u64) -> &mut CodeEntry {
        &mut self.code[index as usize][(linear >> 12) as usize % CODE_ENTRIES]
    }

    pub(super) fn note_large(&mut self) {
        self.large = true;
    }

    /// Drops everything.
    pub fn flush_all(&mut self) {
        for e in self.data.as_flattened_mut() {
            *e = EMPTY;
        }
        for e in self.code.as_flattened_mut() {
            e.tag = NONE;
        }
        self.large = false;
        self.generation += 1;
    }

    /// Drops everything but global pages.
    pub fn flush_non_global(&mut self) {
        for e in self.data.as_flattened_mut() {
            if e.page & 1 == 0 {
                *e = EMPTY;
            }
        }
        for e in self.code.as_flattened_mut() {
            if !e.global {
                e.tag = NONE;
            }
        }
        self.generation += 1;
    }

    /// Drops the page of `linear`: INVLPG.
    pub fn flush_page(&mut self, linear: u64) {
        if self.large {
            return self.flush_all();
        }
        let page = linear & !0xFFF;
        for index in [TlbIndex::Supervisor, TlbIndex::SupervisorAc, TlbIndex::User] {
            let e = self.entry_mut(index, linear);
            if e.read == page || e.write == page {
                *e = EMPTY;
            }
            let c = self.code_entry(index, linear);
            if c.tag == page {
                c.tag = NONE;
            }
        }
        self.generation += 1;
    }

    /// Takes away the right to write RAM page `page` without looking: code has been decoded from it.
    pub fn write_protect(&mut self, page: u64) {
        for e in self.data.as_flattened_mut() {
            if e.page >> 1 == page {
                e.write = NONE;
            }
        }
    }
}
