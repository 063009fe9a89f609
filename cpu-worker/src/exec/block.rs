//! Predecoded blocks and their cache.
//!
//! A block is a straight run of ops from one physical address, decoded for one code size; it ends at a
//! control transfer, at an instruction after which everything must be looked at anew, at the end of its page, or at
//! [`MAX_OPS`]. Blocks are found by RAM address, so they outlive changes of address space. An instruction
//! that crosses a page begins a block of its own that remembers both pages, and so does a hot loop that crosses one. The former faults
//! where its second page is missing; in place of the latter there is a shorter block.
//!
//! Code that is overwritten: each RAM page with decoded code has a mask of its 64-byte lines that do. Stores
//! to such a page take the slow path, look at the mask, and drop the blocks they touch. Write-protecting
//! host pages instead was measured at 4.6 µs a page and more for each fault.
//!
//! Ops live in an arena in which room is only made between blocks, so that a block whose own code is being
//! overwritten can finish the instruction it is in. It is filled region by region; when the last is full, the oldest is
//! given up. Emptying all of it at once was simpler, and every 64 000 blocks the guest stood still until what it needs
//! was decoded and translated again.
#![allow(
    unsafe_code,
    reason = "ops are read by raw pointer while the vCPU they belong to is borrowed"
)]

use std::collections::HashMap;

use super::{Exit, Flow, Op, Vcpu, is_guard};
use crate::state::CodeSize;

/// Most ops in a block: bounds how late an interrupt can be seen.
pub const MAX_OPS: usize = 64;
/// Ops the arena holds.
const ARENA_OPS: usize = 256 << 10;
/// Blocks there are numbers for.
const BLOCKS: usize = ARENA_OPS / 4;
/// Parts that are given up one at a time.
const REGIONS: usize = 8;
const REGION_OPS: usize = ARENA_OPS / REGIONS;
const REGION_BLOCKS: usize = BLOCKS / REGIONS;
/// Buckets of the hash table, a power of two.
const BUCKETS: usize = 64 << 10;
const NONE: u32 = u32::MAX;

/// A block of predecoded ops.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// RAM address of its first byte.
    pub start: u64,
    /// RAM page of its tail when it goes on in another.
    pub second_page: Option<u64>,
    /// Length in bytes.
    pub len: u32,
    /// Index of its first op in the arena.
    first: u32,
    /// Number of ops, at least 1.
    pub count: u32,
    /// What it was decoded as.
    pub code: CodeSize,
    /// Whether its bytes are still what was decoded.
    pub valid: bool,
    /// Next block in the same bucket.
    next: u32,
}

/// Where a block starts that is executed once and that no lookup finds: its bytes are no RAM.
pub const NOWHERE: u64 = u64::MAX << 12;

/// Takes a number that is not in use.
const NO_BLOCK: Block = Block {
    start: 0,
    second_page: None,
    len: 0,
    first: 0,
    count: 0,
    code: CodeSize::Bits16,
    valid: false,
    next: NONE,
};

impl Block {
    /// RAM addresses of the bytes that lie in `page`, one of its pages: first and one past the last.
    fn part_in(&self, page: u64) -> (u64, u64) {
        let in_first = u64::from(self.len).min(4096 - self.start % 4096);
        if self.start / 4096 == page {
            (self.start, self.start + in_first)
        } else {
            (page * 4096, page * 4096 + u64::from(self.len) - in_first)
        }
    }
}

/// What is known of one RAM page with code.
#[derive(Debug, Default)]
struct CodePage {
    /// Bit per 64-byte line that some block covers.
    lines: u64,
    blocks: Vec<u32>,
}

/// All blocks of a vCPU.
#[derive(Debug)]
pub struct BlockCache {
    /// Ops of the regions, one after the other, as far as they have been in use.
    arena: Vec<Op>,
    blocks: Vec<Block>,
    /// The region that is being filled, and where its next op and block go.
    region: usize,
    next_op: usize,
    next_block: usize,
    /// How many regions were given up.
    evictions: u64,
    buckets: Box<[u32]>,
    pages: HashMap<u64, CodePage>,
    /// Bit per RAM page: in `pages`.
    bitmap: Vec<u64>,
    /// Blocks dropped since the last [`Self::bury`].
    dropped: Vec<u32>,
}

impl BlockCache {
    /// An empty cache for `ram_pages` pages of RAM.
    pub fn new(ram_pages: u64) -> Self {
        Self {
            arena: Vec::with_capacity(ARENA_OPS),
            blocks: Vec::with_capacity(BLOCKS),
            region: 0,
            next_op: 0,
            next_block: 0,
            evictions: 0,
            buckets: vec![NONE; BUCKETS].into_boxed_slice(),
            pages: HashMap::new(),
            bitmap: vec![0; ram_pages.div_ceil(64) as usize],
            dropped: Vec::new(),
        }
    }

    /// Whether code has been decoded from RAM page `page`.
    #[inline]
    pub fn has_code(&self, page: u64) -> bool {
        self.bitmap
            .get((page / 64) as usize)
            .is_some_and(|w| w >> (page % 64) & 1 != 0)
    }

    fn bucket(start: u64, code: CodeSize) -> usize {
        let h = (start ^ (code as u64) << 61).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (h >> 48) as usize % BUCKETS
    }

    /// The newest valid block at RAM address `start` decoded as `code`.
    #[inline]
    pub fn find(&self, start: u64, code: CodeSize) -> Option<u32> {
        self.find_from(self.buckets[Self::bucket(start, code)], start, code)
    }

    /// The newest one older than block `n` that starts there, too.
    pub fn find_older(&self, n: u32) -> Option<u32> {
        let Block {
            start, code, next, ..
        } = self.blocks[n as usize];
        self.find_from(next, start, code)
    }

    /// Looks through a bucket from `n` on.
    #[inline]
    fn find_from(&self, mut n: u32, start: u64, code: CodeSize) -> Option<u32> {
        while n != NONE {
            let b = &self.blocks[n as usize];
            if b.start == start && b.code == code && b.valid {
                return Some(n);
            }
            n = b.next;
        }
        None
    }

    /// The block with number `n`.
    #[inline(always)]
    pub fn block(&self, n: u32) -> &Block {
        &self.blocks[n as usize]
    }

    /// How many regions were given up to make room.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// The ops of block `n`: first and one past the last. Valid until [`Self::evict`] and [`Self::reset`].
    #[inline(always)]
    pub fn ops(&self, n: u32) -> (*const Op, *const Op) {
        let b = &self.blocks[n as usize];
        // SAFETY: `insert` made `first..first + count` inside the arena, which never moves: it is not pushed to
        // beyond the capacity it was made with.
        unsafe {
            let first = self.arena.as_ptr().add(b.first as usize);
            (first, first.add(b.count as usize))
        }
    }

    /// Whether the first instruction of block `n` lies in two pages.
    pub(super) fn first_crosses(&self, n: u32) -> bool {
        let block = &self.blocks[n as usize];
        let (first, end) = (block.first as usize, (block.first + block.count) as usize);
        let len = self.arena[first..end]
            .iter()
            .find(|op| !is_guard(op))
            .map_or(0, |op| op.len);
        block.start % 4096 + u64::from(len) > 4096
    }

    /// Whether block `n` begins with a guard.
    pub(super) fn has_guard(&self, n: u32) -> bool {
        is_guard(&self.arena[self.blocks[n as usize].first as usize])
    }

    /// Whether there is no room for another block, so that [`Self::evict`] is due.
    pub fn full(&self) -> bool {
        self.next_op + MAX_OPS > (self.region + 1) * REGION_OPS
            || self.next_block == (self.region + 1) * REGION_BLOCKS
    }

    /// Gives up the oldest blocks and their ops. Tells which blocks are no more, with those that were dropped since the last
    /// [`Self::bury`], and which pages have no code any more. Nothing may lead to these blocks afterwards.
    pub fn evict(&mut self) -> (Vec<u32>, Vec<u64>) {
        let mut gone = self.bury();
        self.region = (self.region + 1) % REGIONS;
        self.next_op = self.region * REGION_OPS;
        self.next_block = self.region * REGION_BLOCKS;
        if self.blocks.len() < self.next_block {
            self.blocks.resize(self.next_block, NO_BLOCK);
        }
        let end = (self.next_block + REGION_BLOCKS).min(self.blocks.len());
        self.evictions += u64::from(self.next_block < end);
        let mut touched = Vec::new();
        for n in self.next_block..end {
            let block = &mut self.blocks[n];
            if core::mem::take(&mut block.valid) && block.start != NOWHERE {
                touched.push(block.start / 4096);
                touched.extend(block.second_page);
                self.unlink(n as u32);
                gone.push(n as u32);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        touched.retain(|&page| {
            let Some(p) = self.pages.get_mut(&page) else {
                return false;
            };
            let blocks = &self.blocks;
            p.lines = 0;
            p.blocks.retain(|&n| {
                let block = &blocks[n as usize];
                if block.valid {
                    let (start, end) = block.part_in(page);
                    p.lines |= lines(start % 4096, end - start);
                }
                block.valid
            });
            page < (self.bitmap.len() * 64) as u64 && self.forget_empty(page)
        });
        (gone, touched)
    }

    /// Adds a block and answers its number. The caller has announced code *before* it read the bytes; this keeps the books.
    /// Of blocks at `NOWHERE` there is only the newest: the next block takes its place.
    pub fn insert(
        &mut self,
        start: u64,
        second_page: Option<u64>,
        len: u32,
        code: CodeSize,
        ops: &[Op],
    ) -> u32 {
        assert!(!self.full() && !ops.is_empty() && ops.len() <= MAX_OPS);
        self.take_back();
        let kept = start != NOWHERE;
        let bucket = Self::bucket(start, code);
        let n = self.next_block as u32;
        let block = Block {
            start,
            second_page,
            len,
            first: self.next_op as u32,
            count: ops.len() as u32,
            code,
            valid: true,
            next: if kept { self.buckets[bucket] } else { NONE },
        };
        put(&mut self.arena, self.next_op, ops);
        put(&mut self.blocks, self.next_block, &[block]);
        self.next_op += ops.len();
        self.next_block += 1;
        if !kept {
            return n;
        }
        self.buckets[bucket] = n;
        let offset = start % 4096;
        let in_first = u64::from(len).min(4096 - offset);
        self.cover(start / 4096, offset, in_first, n);
        if let Some(second) = second_page {
            self.cover(second, 0, u64::from(len) - in_first, n);
        }
        n
    }

    /// Frees the place of the newest block if nothing leads to it. If each kept its place, code in a ROM would drive out all that is
    /// in RAM.
    fn take_back(&mut self) {
        if self.next_block > self.region * REGION_BLOCKS
            && let Some(newest) = self.blocks.get_mut(self.next_block - 1)
            && newest.start == NOWHERE
        {
            newest.valid = false;
            self.next_block -= 1;
            self.next_op = newest.first as usize;
        }
    }

    /// Marks a page as holding code, before its bytes are read for decoding. Answers whether it is new.
    pub fn announce(&mut self, page: u64) -> bool {
        let new = !self.has_code(page);
        self.bitmap[(page / 64) as usize] |= 1 << (page % 64);
        self.pages.entry(page).or_default();
        new
    }

    fn cover(&mut self, page: u64, offset: u64, len: u64, n: u32) {
        let p = self.pages.entry(page).or_default();
        p.lines |= lines(offset, len);
        p.blocks.push(n);
    }

    /// Forgets RAM page `page` if no block is left on it. Answers whether it did: stores to it need no second look then.
    pub fn forget_empty(&mut self, page: u64) -> bool {
        let empty = self.pages.get(&page).is_some_and(|p| p.blocks.is_empty());
        if empty {
            self.pages.remove(&page);
            self.bitmap[(page / 64) as usize] &= !(1 << (page % 64));
        }
        empty
    }

    /// Drops the blocks that `[offset, offset + len)` of RAM page `page` touches. Answers whether there were any.
    pub fn invalidate(&mut self, page: u64, offset: usize, len: usize) -> bool {
        let Some(p) = self.pages.get_mut(&page) else {
            return false;
        };
        let touched = lines(offset as u64, len as u64);
        if p.lines & touched == 0 {
            return false;
        }
        let (from, to) = (page * 4096 + offset as u64, page * 4096 + (offset + len) as u64);
        let blocks = &mut self.blocks;
        let mut any = false;
        p.lines = 0;
        p.blocks.retain(|&n| {
            let b = &mut blocks[n as usize];
            if !b.valid {
                return false;
            }
            let (start, end) = b.part_in(page);
            if start < to && from < end {
                b.valid = false;
                self.dropped.push(n);
                any = true;
                return false;
            }
            p.lines |= lines(start % 4096, end - start);
            true
        });
        any
    }

    /// Drops the blocks that touch the byte at `offset` of any page.
    pub fn invalidate_offset(&mut self, offset: usize) {
        let pages: Vec<u64> = self.pages.keys().copied().collect();
        for page in pages {
            self.invalidate(page, offset, 1);
        }
    }

    /// Makes the first op of every dropped block lead back to the run loop, for the jumps that still lead there, and tells
    /// which they are. Not while one of them executes.
    pub fn bury(&mut self) -> Vec<u32> {
        let dropped = core::mem::take(&mut self.dropped);
        for &n in &dropped {
            let first = self.blocks[n as usize].first as usize;
            self.arena[first].handler = stale;
            self.unlink(n);
        }
        dropped
    }

    /// Takes block `n` out of its bucket: code that is written again and again would make that endless.
    fn unlink(&mut self, n: u32) {
        let Block {
            start, code, next, ..
        } = self.blocks[n as usize];
        let bucket = &mut self.buckets[Self::bucket(start, code)];
        if *bucket == n {
            *bucket = next;
            return;
        }
        let mut at = *bucket;
        while at != NONE {
            let block = &mut self.blocks[at as usize];
            if block.next == n {
                block.next = next;
                return;
            }
            at = block.next;
        }
    }

    /// Drops every block of RAM page `page` and forgets the page. Answers whether it was known.
    pub fn invalidate_page(&mut self, page: u64) -> bool {
        self.invalidate(page, 0, 4096);
        self.bitmap[(page / 64) as usize] &= !(1 << (page % 64));
        self.pages.remove(&page).is_some()
    }

    /// Forgets everything and tells which pages held code.
    pub fn reset(&mut self) -> Vec<u64> {
        self.arena.clear();
        self.blocks.clear();
        (self.region, self.next_op, self.next_block) = (0, 0, 0);
        self.dropped.clear();
        self.buckets.fill(NONE);
        self.bitmap.fill(0);
        let pages = (self.bitmap.len() * 64) as u64;
        self.pages
            .drain()
            .map(|(page, _)| page)
            .filter(|&page| page < pages)
            .collect()
    }
}

/// Writes `items` at `at` and behind, where `all` may end or have ended before: nothing refers to what lies between.
fn put<T: Copy>(all: &mut Vec<T>, at: usize, items: &[T]) {
    if all.len() < at {
        all.resize(at, items[0]);
    }
    let (inside, beyond) = items.split_at(items.len().min(all.len() - at));
    all[at..at + inside.len()].copy_from_slice(inside);
    all.extend_from_slice(beyond);
}

/// Stands at the start of a block that is no more.
fn stale(cpu: &mut Vcpu, op: &Op) -> Flow {
    let rip = cpu.rip().wrapping_sub(u64::from(op.len));
    cpu.set_rip(rip);
    cpu.forget_jump_here();
    Err(Exit::Stale)
}

/// Bits of the 64-byte lines that `len` bytes at `offset` of a page touch.
fn lines(offset: u64, len: u64) -> u64 {
    if len == 0 {
        return 0;
    }
    let (first, last) = (offset / 64, (offset + len - 1) / 64);
    (u64::MAX << first) & (u64::MAX >> (63 - last.min(63)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_at_nowhere_take_no_room_and_are_not_found() {
        let op = Vcpu::guard_op(CodeSize::Bits16);
        let mut cache = BlockCache::new(16);
        let first = cache.insert(0x1000, None, 1, CodeSize::Bits16, &[op]);
        let loose = cache.insert(NOWHERE, None, 1, CodeSize::Bits16, &[op]);
        for n in 0..3 * REGION_BLOCKS {
            assert!(!cache.full());
            assert_eq!(
                cache.insert(NOWHERE, None, 1, CodeSize::Bits16, &[op]),
                loose,
                "{n}"
            );
        }
        assert_eq!(cache.find(NOWHERE, CodeSize::Bits16), None);
        let next = cache.insert(0x2000, None, 1, CodeSize::Bits16, &[op]);
        assert_eq!(next, loose);
        assert_eq!(cache.find(0x1000, CodeSize::Bits16), Some(first));
        assert_eq!(cache.find(0x2000, CodeSize::Bits16), Some(next));
        // The region that it lies in is given up with it.
        cache.insert(NOWHERE, None, 1, CodeSize::Bits16, &[op]);
        for _ in 0..REGIONS {
            cache.evict();
        }
        assert_eq!(cache.find(0x1000, CodeSize::Bits16), None);
    }

    #[test]
    fn lines_cover_exactly_what_is_touched() {
        assert_eq!(lines(0, 1), 1);
        assert_eq!(lines(63, 2), 3);
        assert_eq!(lines(4095, 1), 1 << 63);
        assert_eq!(lines(0, 4096), u64::MAX);
        assert_eq!(lines(64, 0), 0);
    }
}
