//! The book of translations: where each lies, what leads to it, and how the oldest are given up.
//!
//! Code memory is filled region by region. When the last is full, the oldest region is evicted: its translations are taken off
//! their blocks, and every jump from another region into it leads nowhere again. Whatever is still hot is translated anew at
//! its next execution. Emptying all of the memory at once needs no book of jumps, but then everything is to be
//! translated anew; evicting single translations would need one of the holes, too.

use std::collections::HashMap;

use quintet_protocol::sync::{AtomicU64, Ordering};

use super::cache::CodeMemory;
use super::translate::Site;

/// Parts of the code memory that are given up one at a time.
pub(super) const REGIONS: usize = 8;

/// Things of one region. Their numbers tell the region, and are given again after it was evicted.
#[derive(Debug)]
pub(super) struct Shelf<T> {
    region: usize,
    items: Vec<T>,
}

impl<T> Shelf<T> {
    fn new(region: usize) -> Self {
        Self {
            region,
            items: Vec::new(),
        }
    }

    /// Number of what is pushed next; those after it are [`REGIONS`] apart.
    pub(super) fn next(&self) -> u32 {
        (self.items.len() * REGIONS + self.region) as u32
    }

    /// Adds a thing, and tells its number.
    pub(super) fn push(&mut self, item: T) -> u32 {
        let number = self.next();
        self.items.push(item);
        number
    }
}

/// The region of what has `number`, and its place there.
fn place(number: u32) -> (usize, usize) {
    (number as usize % REGIONS, number as usize / REGIONS)
}

/// A translation of one block for one address and mode. What a debugger's script reads of it has a layout
/// ([`super::shown`]).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Native {
    /// Number of the block.
    pub block: u32,
    pub rip: u64,
    pub mode: usize,
    /// Where it executes.
    pub entry: u64,
    /// Its offset in the code memory.
    pub offset: usize,
    pub flags_dead: bool,
    /// Bytes of it, and how many come before the parts that misses and ways out lead to.
    pub len: usize,
    pub straight: usize,
    /// Bytes of guest code that it translates.
    pub guest: usize,
    /// Not 0 once it was taken off its block: nothing enters it any more.
    pub buried: u32,
    /// Number of its first link, and how many it has.
    pub links: (u32, usize),
    /// The next translation of the same block.
    pub next: Option<u32>,
}

/// Where a [`Link`] leads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Led {
    /// Back to the run loop.
    Nowhere,
    /// To this translation.
    To(u32),
    /// There as well, by a jump laid over the saving of the flags.
    Short(u32),
    /// To a look into the jump cache, made for this link.
    Stub,
    /// It belongs to a buried translation: other code may be in its place.
    Dead,
}

/// A direct jump out of a translation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// Offset in the code memory of the jump's displacement, and that displacement while it leads nowhere.
    pub jump: usize,
    pub idle: [u8; 4],
    /// Offset of the code that saves the flags for it.
    pub save: usize,
    pub target: u64,
    led: Led,
    /// The region it leads to.
    region: usize,
    /// What a short jump was laid over.
    under: [u8; 5],
}

impl Link {
    /// A jump with its displacement at `jump`, which is `idle`, to `target`; its saving of the flags begins at `save`.
    pub fn new(jump: usize, idle: [u8; 4], save: usize, target: u64) -> Self {
        Self {
            jump,
            idle,
            save,
            target,
            led: Led::Nowhere,
            region: 0,
            under: [0; 5],
        }
    }

    /// Makes it lead nowhere.
    fn release(&mut self, memory: &mut CodeMemory) {
        match self.led {
            Led::Nowhere | Led::Dead => return,
            Led::To(_) | Led::Stub => memory.write(self.jump, &self.idle),
            Led::Short(_) => memory.write(self.save, &self.under),
        }
        self.led = Led::Nowhere;
    }
}

/// A part of the code memory with what lies in it.
#[derive(Debug)]
pub(super) struct Region {
    /// Offsets in the code memory.
    start: usize,
    used: usize,
    end: usize,
    pub natives: Shelf<Native>,
    pub sites: Shelf<Site>,
    pub links: Shelf<Link>,
}

/// All translations.
#[derive(Debug)]
pub(super) struct Book {
    regions: [Region; REGIONS],
    /// The region that is being filled.
    now: usize,
    /// By number of the block: its first translation.
    first: Vec<Option<u32>>,
    /// By number of a translation: links that lead to it, or did.
    into: HashMap<u32, Vec<u32>>,
    /// How many regions were evicted.
    pub evictions: u64,
    /// Where the translations of each region are, for a debugger.
    shown: Box<[Shown; REGIONS]>,
}

/// Where the translations of a region are. Whatever moves or drops them sets `count` to 0 first, so that a process that is stopped at
/// any instruction shows all of them or none.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Shown {
    /// Address of the first.
    pub first: AtomicU64,
    /// How many there are.
    pub count: AtomicU64,
}

impl Shown {
    /// Shows nothing.
    fn hide(&self) {
        self.count.store(0, Ordering::SeqCst);
    }

    /// Shows `natives`.
    fn show(&self, natives: &[Native]) {
        self.first.store(natives.as_ptr() as u64, Ordering::SeqCst);
        self.count.store(natives.len() as u64, Ordering::SeqCst);
    }
}

impl Book {
    /// A book for `len` bytes of memory, the first `taken` of which are not for translations.
    pub fn new(len: usize, taken: usize) -> Self {
        let size = (len / REGIONS) & !15;
        Self {
            regions: core::array::from_fn(|n| {
                let start = (n * size).max(taken.next_multiple_of(16));
                Region {
                    start,
                    used: start,
                    end: (n + 1) * size,
                    natives: Shelf::new(n),
                    sites: Shelf::new(n),
                    links: Shelf::new(n),
                }
            }),
            now: 0,
            first: Vec::new(),
            into: HashMap::new(),
            evictions: 0,
            shown: Box::default(),
        }
    }

    /// Where a debugger finds the translations.
    pub fn shown(&self) -> *const [Shown; REGIONS] {
        &raw const *self.shown
    }

    /// Whether a translation of at most `largest` bytes may find no room, so that [`Self::evict`] is due.
    pub fn full(&self, largest: usize) -> bool {
        let region = &self.regions[self.now];
        region.used + largest > region.end
    }

    /// Where the next code goes, an offset in the code memory.
    pub fn used(&self) -> usize {
        self.regions[self.now].used
    }

    /// Notes that `len` bytes were written there.
    pub fn take(&mut self, len: usize) {
        let region = &mut self.regions[self.now];
        region.used = (region.used + len).next_multiple_of(16);
    }

    /// Number of translations, and how many bytes they have.
    pub fn extent(&self) -> (usize, usize) {
        let regions = self.regions.iter();
        regions.fold((0, 0), |(count, bytes), region| {
            (
                count + region.natives.items.len(),
                bytes + region.used - region.start,
            )
        })
    }

    /// The translations that can be entered.
    pub fn natives(&self) -> impl Iterator<Item = &Native> {
        let all = self.regions.iter().flat_map(|region| &region.natives.items);
        all.filter(|native| native.buried == 0)
    }

    /// The region that is being filled.
    pub fn region(&mut self) -> &mut Region {
        &mut self.regions[self.now]
    }

    /// The oldest translation of the first region.
    pub fn oldest(&self) -> Option<&Native> {
        self.regions[0].natives.items.first()
    }

    pub fn native(&self, number: u32) -> &Native {
        let (region, at) = place(number);
        &self.regions[region].natives.items[at]
    }

    pub fn site(&self, number: u32) -> &Site {
        let (region, at) = place(number);
        &self.regions[region].sites.items[at]
    }

    pub fn link(&self, number: u32) -> &Link {
        let (region, at) = place(number);
        &self.regions[region].links.items[at]
    }

    /// Whether link `link` belongs to translation `number`.
    pub fn has_link(&self, number: u32, link: u32) -> bool {
        let (first, count) = self.native(number).links;
        let ((region, from), (other, at)) = (place(first), place(link));
        region == other && (from..from + count).contains(&at)
    }

    /// The translation of block `n` for `rip` and `mode`.
    pub fn find(&self, n: u32, rip: u64, mode: usize) -> Option<u32> {
        let mut at = *self.first.get(n as usize)?;
        while let Some(number) = at {
            let t = self.native(number);
            if t.rip == rip && t.mode == mode {
                return Some(number);
            }
            at = t.next;
        }
        None
    }

    /// Enters a translation.
    pub fn add(&mut self, mut native: Native) {
        let n = native.block as usize;
        if n >= self.first.len() {
            self.first.resize(n + 1, None);
        }
        native.next = self.first[n];
        let shown = &self.shown[self.now];
        shown.hide();
        let natives = &mut self.regions[self.now].natives;
        self.first[n] = Some(natives.push(native));
        shown.show(&natives.items);
    }

    /// Makes link `number` lead to `entry`: a translation, or a stub in the region that is being filled, as `led` says.
    pub fn lead(&mut self, number: u32, memory: &mut CodeMemory, led: Led, entry: u64) {
        let (region, at) = place(number);
        let link = &mut self.regions[region].links.items[at];
        if matches!(link.led, Led::Dead) {
            return;
        }
        link.release(memory);
        link.led = led;
        // Where the jump ends.
        let mut behind = link.jump + 4;
        if let Led::Short(_) = led {
            behind = link.save + 5;
            link.under = memory.read(link.save);
            memory.write(link.save, &[0xE9]);
        }
        let displacement = (entry.wrapping_sub(memory.address(behind)) as i32).to_le_bytes();
        memory.write(behind - 4, &displacement);
        link.region = self.now;
        if let Led::To(to) | Led::Short(to) = led {
            link.region = place(to).0;
            self.into.entry(to).or_default().push(number);
        }
    }

    /// Takes the translations off block `n`, and answers which they were: where they begin there may be other code from now on.
    pub fn bury(&mut self, n: u32, memory: &mut CodeMemory) -> Vec<u32> {
        let mut buried = Vec::new();
        let mut at = self.first.get_mut(n as usize).and_then(Option::take);
        while let Some(number) = at {
            // What comes in its place may look at flags that this translation did not, and is to be led to in its turn.
            for link in self.into.remove(&number).unwrap_or_default() {
                let (region, at) = place(link);
                let link = self.regions[region].links.items.get_mut(at);
                // It may have been evicted, and its number given again.
                if let Some(link) =
                    link.filter(|l| matches!(l.led, Led::Short(to) | Led::To(to) if to == number))
                {
                    link.release(memory);
                }
            }
            buried.push(number);
            let (region, at_native) = place(number);
            let native = &mut self.regions[region].natives.items[at_native];
            native.buried = 1;
            let Native { next, links, .. } = *native;
            let (region, first) = place(links.0);
            for link in &mut self.regions[region].links.items[first..first + links.1] {
                link.led = Led::Dead;
            }
            at = next;
        }
        buried
    }

    /// Gives up the oldest region and goes on there. Not while its code executes.
    pub fn evict(&mut self, memory: &mut CodeMemory) {
        self.now = (self.now + 1) % REGIONS;
        let now = self.now;
        let region = &mut self.regions[now];
        self.evictions += u64::from(region.used != region.start);
        region.used = region.start;
        region.sites.items.clear();
        region.links.items.clear();
        let natives = region.natives.items.len();
        for at in 0..natives {
            let number = (at * REGIONS + now) as u32;
            self.into.remove(&number);
            self.take_off(number);
        }
        self.shown[now].hide();
        self.regions[now].natives.items.clear();
        for link in self.regions.iter_mut().flat_map(|r| &mut r.links.items) {
            if link.region == now {
                link.release(memory);
            }
        }
    }

    /// Takes a translation off its block, if it is not buried.
    fn take_off(&mut self, number: u32) {
        let Native { block, next, .. } = *self.native(number);
        let mut at = self.first[block as usize];
        if at == Some(number) {
            self.first[block as usize] = next;
            return;
        }
        while let Some(before) = at {
            let (region, place) = place(before);
            let native = &mut self.regions[region].natives.items[place];
            if native.next == Some(number) {
                native.next = next;
                return;
            }
            at = native.next;
        }
    }

    /// Forgets all translations.
    pub fn clear(&mut self) {
        self.now = 0;
        self.shown.iter().for_each(Shown::hide);
        self.first.clear();
        self.into.clear();
        for region in &mut self.regions {
            region.used = region.start;
            region.natives.items.clear();
            region.sites.items.clear();
            region.links.items.clear();
        }
    }
}
