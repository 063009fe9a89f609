//! Software TLBs and the jump cache: everything that a change of the page tables makes stale.
//!
//! Direct-mapped tables for reading and for writing, each three times, so that a change of privilege costs an
//! index and not a flush: supervisor with SMAP in force, supervisor with SMAP lifted (EFLAGS.AC), user. A tag
//! says that the page may be accessed that way by host pointer and nothing else to do: dirty bit set, no decoded
//! code on it, plain RAM or display memory that scan-out knows to be open. Whatever else (devices, ROM, first write to a clean page, pages with code) has no
//! tag and takes the slow path. One table for reading and writing was rejected: a copy between two buffers that
//! share a slot would miss at every turn.
//!
//! Flushes cost what was filled since the last one, not the size of the tables: a guest that switches
//! address spaces thousands of times a second fills some dozens of entries in between. Entries of global pages are kept
//! on a list of their own and survive.

use std::collections::HashSet;

use crate::exec::{Frame, JUMPS, Jump, MODES, NO_TAG, TLB_ENTRIES, Target, TlbEntry};

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

const INDICES: [TlbIndex; 3] = [TlbIndex::Supervisor, TlbIndex::SupervisorAc, TlbIndex::User];

/// Bit of a page number that says display memory instead of RAM.
pub(super) const VRAM: u64 = 1 << 63;

/// A translation to be remembered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill {
    /// Any linear address in the page.
    pub linear: u64,
    /// Host address minus linear address.
    pub addend: u64,
    /// RAM page number; of a page of display memory, with [`VRAM`].
    pub page: u64,
    /// Whether it survives a change of CR3.
    pub global: bool,
    /// Whether writes may go there by host pointer, too.
    pub writable: bool,
    /// Whether it was a write that missed: the entry of the other kind is filled only where that costs no other page
    /// its own, or a copy between two buffers that share their slots would miss at every turn.
    pub for_write: bool,
}

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

const NO_CODE: CodeEntry = CodeEntry {
    tag: NO_TAG,
    page: 0,
    global: false,
};

const NO_JUMP: Jump = Jump {
    first: core::ptr::null(),
    end: core::ptr::null(),
    block: 0,
};

/// What the upper levels of the page tables say of 2 MiB: a paging-structure cache (SDM vol. 3, 4.10.3).
#[derive(Clone, Copy, Debug)]
pub(super) struct Upper {
    /// Linear address >> 21.
    pub region: u64,
    /// Physical address of the page table.
    pub table: u64,
    pub writable: bool,
    pub user: bool,
    pub no_exec: bool,
}

const NO_UPPER: Upper = Upper {
    region: u64::MAX,
    table: 0,
    writable: false,
    user: false,
    no_exec: false,
};

/// Entries of the paging-structure cache, a power of two.
const UPPERS: usize = 64;
/// Entries of the instruction TLB, a power of two.
const CODE_ENTRIES: usize = 256;
/// Bits in which pages with jumps are remembered.
const JUMP_PAGES: usize = 64 << 10;
/// Most entries on a list before everything is dropped instead.
const LIST: usize = 64 << 10;

/// Slots filled since the last flush.
#[derive(Debug, Default)]
struct Filled {
    read: Vec<u16>,
    write: Vec<u16>,
    code: Vec<u16>,
    jumps: Vec<u16>,
}

/// The TLBs and the jump cache of one vCPU.
#[derive(Debug)]
pub struct Tlb {
    /// The tables that translated code shares.
    pub frame: Box<Frame>,
    /// RAM page of each entry of `frame.write`.
    write_pages: Box<[[u64; TLB_ENTRIES]; 3]>,
    code: Box<[[CodeEntry; CODE_ENTRIES]; 3]>,
    upper: [Upper; UPPERS],
    /// With each, whether its page is global.
    jumps: Box<[[(Jump, bool); JUMPS]; MODES]>,
    /// Not global, then global.
    filled: [Filled; 2],
    /// 2 MiB regions (linear address >> 21) that large pages cover, at least in part.
    large: HashSet<u64>,
    /// Whether a large page of 1 GiB was seen.
    huge: bool,
    /// Bit per class of linear pages (address >> 12, modulo the bits): jumps may lead into one of them.
    jump_pages: [u64; JUMP_PAGES / 64],
    /// How often data entries were dropped.
    drops: u64,
}

impl Default for Tlb {
    fn default() -> Self {
        Self {
            frame: Frame::new(),
            write_pages: Box::new([[0; TLB_ENTRIES]; 3]),
            code: Box::new([[NO_CODE; CODE_ENTRIES]; 3]),
            upper: [NO_UPPER; UPPERS],
            jumps: on_the_heap([(NO_JUMP, false); JUMPS]),
            filled: Default::default(),
            large: HashSet::new(),
            huge: false,
            jump_pages: [0; JUMP_PAGES / 64],
            drops: 0,
        }
    }
}

/// `N` copies of `one` that were never on the stack together.
fn on_the_heap<T: Clone, const N: usize>(one: T) -> Box<[T; N]> {
    let all: Result<Box<[T; N]>, _> = vec![one; N].into_boxed_slice().try_into();
    all.unwrap_or_else(|_| unreachable!("the length is N"))
}

/// Where [`Tlb::jump_pages`] has the page of `linear`.
fn jump_page(linear: u64) -> (usize, u64) {
    let page = (linear >> 12) as usize % JUMP_PAGES;
    (page / 64, 1 << (page % 64))
}

/// A slot on a list: table and index in one number.
fn number(table: usize, slot: usize, size: usize) -> u16 {
    (table * size + slot) as u16
}

const _: () = assert!(3 * TLB_ENTRIES <= 1 << 16 && MODES * JUMPS <= 1 << 16);

impl Tlb {
    #[inline(always)]
    pub(super) fn read(&self, index: TlbIndex, linear: u64) -> &TlbEntry {
        &self.frame.read[index as usize][Frame::tlb_slot(linear)]
    }

    #[inline(always)]
    pub(super) fn write(&self, index: TlbIndex, linear: u64) -> &TlbEntry {
        &self.frame.write[index as usize][Frame::tlb_slot(linear)]
    }

    pub(super) fn fill(&mut self, index: TlbIndex, fill: Fill) {
        let table = index as usize;
        let slot = Frame::tlb_slot(fill.linear);
        let entry = TlbEntry {
            tag: fill.linear & !0xFFF,
            addend: fill.addend,
        };
        let n = number(table, slot, TLB_ENTRIES);
        let list = &mut self.filled[usize::from(fill.global)];
        let vacant = |e: &TlbEntry| e.tag == NO_TAG || e.tag == entry.tag;
        let (read, write) = (
            &mut self.frame.read[table][slot],
            &mut self.frame.write[table][slot],
        );
        if !fill.for_write || vacant(read) {
            *read = entry;
            list.read.push(n);
        }
        if fill.writable && (fill.for_write || vacant(write)) {
            *write = entry;
            self.write_pages[table][slot] = fill.page;
            list.write.push(n);
        }
        if list.read.len().max(list.write.len()) > LIST {
            self.flush_all();
        }
    }

    /// What the upper levels are known to say of `linear`.
    #[inline]
    pub(super) fn upper(&self, linear: u64) -> Option<Upper> {
        let e = self.upper[(linear >> 21) as usize % UPPERS];
        (e.region == linear >> 21).then_some(e)
    }

    /// Remembers what a walk that went through found in the upper levels.
    pub(super) fn fill_upper(&mut self, entry: Upper) {
        self.upper[entry.region as usize % UPPERS] = entry;
    }

    #[inline]
    pub(super) fn code_entry(&self, index: TlbIndex, linear: u64) -> &CodeEntry {
        &self.code[index as usize][(linear >> 12) as usize % CODE_ENTRIES]
    }

    pub(super) fn fill_code(&mut self, index: TlbIndex, entry: CodeEntry) {
        let slot = (entry.tag >> 12) as usize % CODE_ENTRIES;
        let list = &mut self.filled[usize::from(entry.global)].code;
        list.push(number(index as usize, slot, CODE_ENTRIES));
        self.code[index as usize][slot] = entry;
        if list.len() > LIST {
            self.flush_all();
        }
    }

    /// Whether the instruction TLB's entry for `linear` is of a global page.
    pub(crate) fn code_global(&self, index: TlbIndex, linear: u64) -> bool {
        let e = self.code_entry(index, linear);
        e.tag == linear & !0xFFF && e.global
    }

    /// Where the jump cache leads from `tag` in `mode`.
    #[inline(always)]
    pub(crate) fn jump(&self, mode: usize, tag: u64) -> Option<(&Jump, u64)> {
        let slot = self.jump_at(mode, tag)?;
        Some((&self.jumps[mode][slot].0, self.frame.targets[mode][slot].native))
    }

    /// The slot in which the jump cache has `tag` in `mode`.
    #[inline(always)]
    fn jump_at(&self, mode: usize, tag: u64) -> Option<usize> {
        let slot = Frame::jump_slot(tag);
        let targets = &self.frame.targets[mode];
        [slot, slot ^ 1].into_iter().find(|&s| targets[s].tag == tag)
    }

    /// Remembers where `tag`, which [`Self::note_jump_page`] is told of, leads in `mode`; `global` when its page survives a change of CR3.
    pub(crate) fn fill_jump(&mut self, mode: usize, tag: u64, jump: Jump, native: u64, global: bool) {
        let slot = self.jump_at(mode, tag).unwrap_or_else(|| {
            // The newest is the first that is looked at; what was there before it gets the other slot.
            let first = Frame::jump_slot(tag);
            let before = self.frame.targets[mode][first];
            if before.tag != NO_TAG {
                let known = self.jumps[mode][first];
                self.put_jump(mode, first ^ 1, before, known);
            }
            first
        });
        self.put_jump(mode, slot, Target { tag, native }, (jump, global));
        if self.filled.iter().any(|list| list.jumps.len() > LIST) {
            self.forget_jumps();
        }
    }

    fn put_jump(&mut self, mode: usize, slot: usize, target: Target, known: (Jump, bool)) {
        self.frame.targets[mode][slot] = target;
        self.jumps[mode][slot] = known;
        self.filled[usize::from(known.1)]
            .jumps
            .push(number(mode, slot, JUMPS));
    }

    /// Notes that a change of the page of `linear` makes jumps stale.
    pub(crate) fn note_jump_page(&mut self, linear: u64) {
        let (word, bit) = jump_page(linear);
        self.jump_pages[word] |= bit;
    }

    /// Drops what the jump cache knows of `tag` in `mode`.
    pub(crate) fn forget_jump(&mut self, mode: usize, tag: u64) {
        if let Some(slot) = self.jump_at(mode, tag) {
            self.frame.targets[mode][slot].tag = NO_TAG;
        }
    }

    /// Drops the jump cache, when blocks it leads to are no more.
    pub(crate) fn forget_jumps(&mut self) {
        for list in &mut self.filled {
            for n in list.jumps.drain(..) {
                self.frame.targets.as_flattened_mut()[usize::from(n)].tag = NO_TAG;
            }
        }
        self.jump_pages.fill(0);
    }

    /// Notes that the translation of `linear` came from a large page of `1 << shift` bytes: INVLPG drops all of it.
    pub(super) fn note_large(&mut self, linear: u64, shift: u32) {
        if shift > 22 {
            self.huge = true;
        } else {
            self.large.insert(linear >> 22);
        }
    }

    /// How often entries were dropped, rather than replaced: what was looked up before may not be so any more.
    pub(crate) fn drops(&self) -> u64 {
        self.drops
    }

    /// Drops all rights to write without looking.
    pub(crate) fn forget_writes(&mut self) {
        self.drops += 1;
        for list in &mut self.filled {
            for n in list.write.drain(..) {
                self.frame.write.as_flattened_mut()[usize::from(n)].tag = NO_TAG;
            }
        }
    }

    /// Drops everything.
    pub fn flush_all(&mut self) {
        self.flush(1);
        self.flush_non_global();
        self.large.clear();
        self.huge = false;
        self.jump_pages.fill(0);
    }

    /// Drops everything but global pages.
    pub fn flush_non_global(&mut self) {
        self.flush(0);
    }

    fn flush(&mut self, global: usize) {
        self.drops += 1;
        self.upper = [NO_UPPER; UPPERS];
        let list = &mut self.filled[global];
        for n in list.read.drain(..) {
            self.frame.read.as_flattened_mut()[usize::from(n)].tag = NO_TAG;
        }
        for n in list.write.drain(..) {
            self.frame.write.as_flattened_mut()[usize::from(n)].tag = NO_TAG;
        }
        for n in list.code.drain(..) {
            self.code.as_flattened_mut()[usize::from(n)].tag = NO_TAG;
        }
        for n in list.jumps.drain(..) {
            self.frame.targets.as_flattened_mut()[usize::from(n)].tag = NO_TAG;
        }
    }

    /// Drops the page of `linear`: INVLPG.
    pub fn flush_page(&mut self, linear: u64) {
        if self.huge || self.large.contains(&(linear >> 22)) {
            return self.flush_all();
        }
        self.drops += 1;
        // INVLPG drops all paging-structure caches.
        self.upper = [NO_UPPER; UPPERS];
        let page = linear & !0xFFF;
        let slot = Frame::tlb_slot(linear);
        for index in INDICES {
            for table in [&mut self.frame.read, &mut self.frame.write] {
                let e = &mut table[index as usize][slot];
                if e.tag == page {
                    e.tag = NO_TAG;
                }
            }
            let c = &mut self.code[index as usize][(linear >> 12) as usize % CODE_ENTRIES];
            if c.tag == page {
                c.tag = NO_TAG;
            }
        }
        let (word, bit) = jump_page(linear);
        if self.jump_pages[word] & bit != 0 {
            self.forget_jumps();
        }
    }

    /// Takes away the right to write RAM page `page` without looking: code has been decoded from it.
    pub fn write_protect(&mut self, page: u64) {
        self.forget_writes_to(|p| p == page);
    }

    /// Takes away every right to write display memory without looking.
    pub(crate) fn close_vram(&mut self) {
        self.forget_writes_to(|p| p & VRAM != 0);
    }

    fn forget_writes_to(&mut self, pages: impl Fn(u64) -> bool) {
        self.drops += 1;
        let known = self.write_pages.as_flattened();
        for list in &self.filled {
            for &n in &list.write {
                if pages(known[usize::from(n)]) {
                    self.frame.write.as_flattened_mut()[usize::from(n)].tag = NO_TAG;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jump(block: u32) -> Jump {
        Jump { block, ..NO_JUMP }
    }

    /// Addresses of different pages that share their two slots.
    fn colliding(count: usize) -> Vec<u64> {
        let slot = Frame::jump_slot(0x1000) | 1;
        let all = (1..1_000_000)
            .map(|n| n * 8)
            .filter(|&a| Frame::jump_slot(a) | 1 == slot);
        all.take(count).collect()
    }

    #[test]
    fn two_addresses_of_one_slot_are_both_known_and_the_older_of_them_goes_for_a_third() {
        let mut tlb = Tlb::default();
        let a = colliding(3);
        let known = |tlb: &Tlb, n: usize| tlb.jump(1, a[n]).map(|(j, native)| (j.block, native));
        tlb.fill_jump(1, a[0], jump(0), 100, false);
        tlb.fill_jump(1, a[1], jump(1), 101, false);
        assert_eq!((known(&tlb, 0), known(&tlb, 1)), (Some((0, 100)), Some((1, 101))));
        assert!(tlb.jump(2, a[0]).is_none(), "of another mode");
        // What is known already keeps its slot.
        tlb.fill_jump(1, a[0], jump(7), 107, false);
        assert_eq!((known(&tlb, 0), known(&tlb, 1)), (Some((7, 107)), Some((1, 101))));
        tlb.forget_jump(1, a[0]);
        assert_eq!((known(&tlb, 0), known(&tlb, 1)), (None, Some((1, 101))));
        tlb.fill_jump(1, a[0], jump(0), 100, false);
        tlb.fill_jump(1, a[2], jump(2), 102, false);
        assert_eq!(known(&tlb, 2), Some((2, 102)));
        assert_eq!([0, 1].iter().filter(|&&n| known(&tlb, n).is_some()).count(), 1);
    }

    #[test]
    fn what_moves_to_the_other_slot_is_dropped_when_its_page_is() {
        let a = colliding(2);
        for global in [false, true] {
            let mut tlb = Tlb::default();
            tlb.fill_jump(0, a[0], jump(0), 1, global);
            tlb.fill_jump(0, a[1], jump(1), 2, !global);
            tlb.flush_non_global();
            // What is global may be dropped early, what is not must go.
            assert!(tlb.jump(0, a[usize::from(global)]).is_none());
            tlb.flush_all();
            assert!(a.iter().all(|&a| tlb.jump(0, a).is_none()));
        }
    }
}
