//! The VRAM segment: display memory, the register file that scan-out reads, and dirt epochs.
//!
//! One file, written by cpu-worker alone. Its readers (scan-out, screenshots) keep all of their state to
//! themselves, so there may be any number of them and none is ever waited for.
//!
//! **Memory.** 16 MiB. The four 64 KiB planes of the VGA lie interleaved in the first 256 KiB: byte `offset` of
//! `plane` is at [`plane_index`]. The CPU side maps as hardware does: in odd/even mode address A goes to plane
//! A & 1 at offset A & !1, in chain-4 mode to plane A & 3 at offset A & !3, otherwise to every enabled plane at
//! offset A; the CRTC's byte, word and doubleword modes undo it (IBM VGA technical reference, CRTC index 17h,
//! 14h). Folding the holes of odd/even and chain-4 away, as some emulators do, was rejected: then a guest that
//! changes the mode over live memory sees other bytes than on hardware. A VBE linear mode uses the memory as a
//! plain array.
//!
//! **Dirt.** A word per 4 KiB page holds the *frame epoch* in which the page was last opened for writing or written.
//! A store by host pointer marks nothing: the page is marked once, when the vCPU gets the right to write it (a writable
//! TLB entry), and stays *open* until that right is taken back. The current epoch is a word of the writer's. A reader
//! that has drawn from open pages asks for the next epoch (a counter in its own file, and the exit word); the vCPU
//! drops its rights, then raises the epoch. So at a look that finds epoch `e`, whatever is written later is marked
//! with `e` or more, and a reader that remembers the `e` of its last look alone copies every page marked with it or
//! more: nothing is missed, and a page that is not written any more is copied once more at most. A store that takes the
//! slow path marks after its bytes. An unchanged screen opens nothing, so nobody advances anything. Counters per page
//! raised by each store were here before: they cost each store a second one. One bit per page was rejected: whoever
//! clears it would be a second writer.
//!
//! **Sleep.** A reader that sleeps raises its *armed* counter, a word of its own file, looks at all marks
//! again, sleeps for one frame, looks once more, and only then without a deadline. The writer compares the armed
//! counter with what it saw last after a mark or a new epoch and rings the doorbell when it moved. The store of the
//! mark and the load of the counter may pass each other, which a fence would prevent at the price of one per guest
//! store; the second look makes up for it, since no store stays in a store buffer for a frame.

use std::sync::Arc;

use crate::doorbell::Doorbell;
use crate::scanout::{self, CURSOR_WORDS, CursorState, Stuck};
use crate::shm::{View, ViewMut};
use crate::sync::{AtomicU32, Ordering};

/// Display memory in bytes.
pub const VRAM_BYTES: usize = 16 << 20;
/// Unit of dirt tracking in bytes.
pub const PAGE_BYTES: usize = 4096;
/// Pages of display memory.
pub const PAGES: usize = VRAM_BYTES / PAGE_BYTES;
/// Bytes of one VGA plane.
pub const PLANE_BYTES: usize = 64 << 10;

/// First word of the segment's contents: "QVRM".
pub const MAGIC: u32 = u32::from_le_bytes(*b"QVRM");
/// Version of the layout below.
pub const VERSION: u32 = 2;

const AT_MAGIC: usize = 0;
const AT_VERSION: usize = 4;
const AT_BYTES: usize = 8;
/// The frame epoch, never zero before it wraps.
const AT_EPOCH: usize = 12;
/// Where the register record starts: a generation word and [`REGISTER_WORDS`] more.
pub const AT_REGISTERS: usize = 0x100;
/// Where the palette record starts: a generation word and [`PALETTE_WORDS`] more.
pub const AT_PALETTE: usize = 0x400;
/// Where the record of a hardware cursor starts.
pub const AT_CURSOR: usize = 0x800;
/// Where the marks start: per page the u32 epoch of its last opening.
pub const AT_DIRT: usize = 0x4000;
/// Where display memory starts. A multiple of every host page size up to 64 KiB.
pub const AT_MEMORY: usize = 0x1_0000;
/// Length of the segment's contents in bytes.
pub const VRAM_SEGMENT_BYTES: usize = AT_MEMORY + VRAM_BYTES;

const _: () = assert!(AT_REGISTERS + 4 * (1 + REGISTER_WORDS) <= AT_PALETTE);
const _: () = assert!(AT_PALETTE + 4 * (1 + PALETTE_WORDS) <= AT_CURSOR);
const _: () = assert!(AT_CURSOR + 4 * CURSOR_WORDS <= AT_DIRT);
const _: () = assert!(AT_DIRT + 4 * PAGES <= AT_MEMORY);

/// Where byte `offset` of `plane` (0–3) lies in display memory.
#[inline]
pub const fn plane_index(offset: u16, plane: usize) -> usize {
    offset as usize * 4 + (plane & 3)
}

/// Words of a [`VgaRegisters`] record without its generation word.
pub const REGISTER_WORDS: usize = 25;
const REGISTER_BYTES: usize = REGISTER_WORDS * 4;

/// Indices into [`VgaRegisters::vbe`] (Bochs DISPI interface, ports 1CEh and 1CFh).
pub mod vbe {
    /// Interface version, B0C0h–B0C5h.
    pub const ID: usize = 0;
    /// Width in pixels.
    pub const XRES: usize = 1;
    /// Height in lines.
    pub const YRES: usize = 2;
    /// Bits per pixel: 4, 8, 15, 16, 24, 32.
    pub const BPP: usize = 3;
    /// The `ENABLE_*` bits.
    pub const ENABLE: usize = 4;
    /// Bank that appears at A0000h, in units of 64 KiB.
    pub const BANK: usize = 5;
    /// Width of the virtual screen in pixels; gives the pitch.
    pub const VIRT_WIDTH: usize = 6;
    /// Height of the virtual screen in lines.
    pub const VIRT_HEIGHT: usize = 7;
    /// First visible pixel of a line.
    pub const X_OFFSET: usize = 8;
    /// First visible line.
    pub const Y_OFFSET: usize = 9;
    /// Display memory in units of 64 KiB.
    pub const VIDEO_MEMORY_64K: usize = 10;

    /// [`ENABLE`]: a VBE mode is on.
    pub const ENABLE_ENABLED: u16 = 0x01;
    /// [`ENABLE`]: reads answer the largest value instead of the current one.
    pub const ENABLE_GETCAPS: u16 = 0x02;
    /// [`ENABLE`]: the DAC has 8 bits per colour.
    pub const ENABLE_8BIT_DAC: u16 = 0x20;
    /// [`ENABLE`]: the linear framebuffer answers.
    pub const ENABLE_LFB: u16 = 0x40;
    /// [`ENABLE`]: display memory is not cleared by the mode set.
    pub const ENABLE_NOCLEARMEM: u16 = 0x80;
}

/// The registers that decide what the screen shows, as the guest wrote them (IBM VGA technical reference; the
/// Bochs VBE interface for `vbe`). All-zero registers, those of a machine before its firmware ran, show black.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VgaRegisters {
    /// Miscellaneous output, 3C2h.
    pub misc: u8,
    /// PEL mask, 3C6h.
    pub pel_mask: u8,
    /// Attribute address, 3C0h; bit 5 (PAS) is clear while the palette is being loaded, which blanks the screen.
    pub attribute_index: u8,
    /// Sequencer 0–7; VGA has 0–4.
    pub sequencer: [u8; 8],
    /// CRTC 00h–18h.
    pub crtc: [u8; 25],
    /// Graphics controller 0–8.
    pub graphics: [u8; 9],
    /// Attribute controller 00h–14h.
    pub attribute: [u8; 21],
    /// VBE DISPI registers, indexed by the constants in [`vbe`].
    pub vbe: [u16; 11],
}

impl VgaRegisters {
    /// 80×25 colour text, mode 3 of the VGA BIOS, 720×400 with cells of 9×16 and a cursor on the last two
    /// lines but one: the values of the IBM VGA's mode table.
    pub fn text_80x25() -> Self {
        let mut attribute = [0; 21];
        for (index, value) in attribute.iter_mut().take(16).enumerate() {
            // Palette entry n is EGA colour n; brown and the bright colours are the EGA codes of the same.
            *value = match index {
                6 => 0x14,
                8.. => 0x38 + (index as u8 - 8),
                _ => index as u8,
            };
        }
        attribute[0x10] = 0x0C;
        attribute[0x12] = 0x0F;
        attribute[0x13] = 0x08;
        Self {
            misc: 0x67,
            pel_mask: 0xFF,
            attribute_index: 0x20,
            sequencer: [0x03, 0x00, 0x03, 0x00, 0x02, 0, 0, 0],
            crtc: [
                0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00, 0x4F, 0x0D, 0x0E, 0x00, 0x00, 0x00,
                0x00, 0x9C, 0x8E, 0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF,
            ],
            graphics: [0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0E, 0x00, 0xFF],
            attribute,
            vbe: [0; 11],
        }
    }

    /// The record behind the generation word.
    pub fn to_words(&self) -> [u32; REGISTER_WORDS] {
        let mut bytes = [0; REGISTER_BYTES];
        bytes[0] = self.misc;
        bytes[1] = self.pel_mask;
        bytes[2] = self.attribute_index;
        bytes[4..12].copy_from_slice(&self.sequencer);
        bytes[12..37].copy_from_slice(&self.crtc);
        bytes[40..49].copy_from_slice(&self.graphics);
        bytes[52..73].copy_from_slice(&self.attribute);
        for (pair, value) in bytes[76..98].chunks_exact_mut(2).zip(self.vbe) {
            pair.copy_from_slice(&value.to_le_bytes());
        }
        let mut words = [0; REGISTER_WORDS];
        for (word, four) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        }
        words
    }

    /// The value of a record. Any words make one.
    pub fn from_words(words: &[u32; REGISTER_WORDS]) -> Self {
        let mut bytes = [0; REGISTER_BYTES];
        for (four, word) in bytes.chunks_exact_mut(4).zip(words) {
            four.copy_from_slice(&word.to_le_bytes());
        }
        let mut registers = Self {
            misc: bytes[0],
            pel_mask: bytes[1],
            attribute_index: bytes[2],
            ..Self::default()
        };
        registers.sequencer.copy_from_slice(&bytes[4..12]);
        registers.crtc.copy_from_slice(&bytes[12..37]);
        registers.graphics.copy_from_slice(&bytes[40..49]);
        registers.attribute.copy_from_slice(&bytes[52..73]);
        for (value, pair) in registers.vbe.iter_mut().zip(bytes[76..98].chunks_exact(2)) {
            *value = u16::from_le_bytes([pair[0], pair[1]]);
        }
        registers
    }
}

/// Words of a [`Palette`] record without its generation word.
pub const PALETTE_WORDS: usize = 256 * 3 / 4;

/// The 256 registers of the DAC as the guest wrote them: red, green, blue, in 6 bits each, or 8 with
/// [`vbe::ENABLE_8BIT_DAC`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Palette(pub [[u8; 3]; 256]);

impl Default for Palette {
    fn default() -> Self {
        Self([[0; 3]; 256])
    }
}

impl Palette {
    /// The first 64 registers as the VGA BIOS sets them for 16-colour modes: the EGA's `rgbRGB` codes, two bits
    /// per colour of one third and two thirds. The other registers are black.
    pub fn ega() -> Self {
        let mut palette = Self::default();
        for (code, entry) in palette.0.iter_mut().take(64).enumerate() {
            for (colour, value) in entry.iter_mut().enumerate() {
                let full = code >> (2 - colour) & 1;
                let third = code >> (5 - colour) & 1;
                *value = (full * 0x2A + third * 0x15) as u8;
            }
        }
        palette
    }

    /// The record behind the generation word.
    pub fn to_words(&self) -> [u32; PALETTE_WORDS] {
        let mut words = [0; PALETTE_WORDS];
        for (word, four) in words.iter_mut().zip(self.0.as_flattened().chunks_exact(4)) {
            *word = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        }
        words
    }

    /// The value of a record. Any words make one.
    pub fn from_words(words: &[u32; PALETTE_WORDS]) -> Self {
        let mut palette = Self::default();
        for (four, word) in palette.0.as_flattened_mut().chunks_exact_mut(4).zip(words) {
            four.copy_from_slice(&word.to_le_bytes());
        }
        palette
    }
}

/// Why a segment is not a VRAM segment of this build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VramError {
    /// Fewer bytes than the layout needs.
    #[error("The VRAM segment has {len} bytes; {VRAM_SEGMENT_BYTES} are needed")]
    TooSmall {
        /// Bytes there are.
        len: usize,
    },
    /// Another magic, version or size than this build writes.
    #[error("The VRAM segment has magic {magic:#x}, version {version} and {bytes} bytes of memory")]
    Foreign {
        /// Magic found.
        magic: u32,
        /// Version found.
        version: u32,
        /// Size of display memory found.
        bytes: u32,
    },
}

/// cpu-worker's end of the segment. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct VramWriter {
    view: ViewMut,
    bell: Option<Arc<SleepHint>>,
}

impl VramWriter {
    /// Takes `view` (the segment's contents), and writes the header. Memory and registers are left alone, so
    /// that a successor finds the screen as it was.
    ///
    /// # Errors
    /// [`VramError::TooSmall`].
    pub fn new(view: ViewMut) -> Result<Self, VramError> {
        if view.len() < VRAM_SEGMENT_BYTES {
            return Err(VramError::TooSmall { len: view.len() });
        }
        view.store_u32(AT_VERSION, VERSION, Ordering::Relaxed);
        view.store_u32(AT_BYTES, VRAM_BYTES as u32, Ordering::Relaxed);
        view.store_u32(AT_MAGIC, MAGIC, Ordering::Release);
        let writer = Self { view, bell: None };
        // What a predecessor had open is closed; and no page counts as open that nobody ever marked.
        writer.begin_epoch();
        Ok(writer)
    }

    /// The same, waking the reader behind `hint` when something changes while it sleeps.
    pub fn with_bell(self, hint: SleepHint) -> Self {
        Self {
            bell: Some(Arc::new(hint)),
            ..self
        }
    }

    #[inline]
    fn ring(&self) {
        if let Some(bell) = &self.bell {
            bell.ring_if_armed();
        }
    }

    /// Publishes the register file. To be called after a write to any register that [`VgaRegisters`] holds.
    pub fn publish_registers(&self, registers: &VgaRegisters) {
        let part = self.view.slice(AT_REGISTERS, 4 * (1 + REGISTER_WORDS));
        scanout::publish(&part, &registers.to_words());
        self.ring();
    }

    /// Publishes the DAC. To be called after the third write of a colour to 3C9h.
    pub fn publish_palette(&self, palette: &Palette) {
        let part = self.view.slice(AT_PALETTE, 4 * (1 + PALETTE_WORDS));
        scanout::publish(&part, &palette.to_words());
        self.ring();
    }

    /// Publishes a hardware cursor.
    pub fn publish_cursor(&self, cursor: &CursorState) {
        scanout::publish(&self.view.slice(AT_CURSOR, 4 * CURSOR_WORDS), &cursor.to_words());
        self.ring();
    }

    /// Display memory, [`VRAM_BYTES`] long. After a write to it, [`Self::mark`].
    pub fn memory(&self) -> ViewMut {
        self.view.slice(AT_MEMORY, VRAM_BYTES)
    }

    /// Marks the page of byte `offset` of display memory as written or about to be. Offsets wrap at the end of
    /// memory. A store that was made comes before its mark; a right to store, after it.
    #[inline]
    pub fn mark(&self, offset: usize) {
        let at = AT_DIRT + offset / PAGE_BYTES % PAGES * 4;
        let epoch = self.view.load_u32(AT_EPOCH, Ordering::Relaxed);
        if self.view.load_u32(at, Ordering::Relaxed) != epoch {
            // SYNC POINT vram-dirt: the bytes before the mark; pairs with the acquire load in `VramReader::dirt`.
            self.view.store_u32(at, epoch, Ordering::Release);
            self.ring();
        }
    }

    /// Whether a reader has asked for a new epoch since the last one began. Costs a load.
    #[inline]
    pub fn is_epoch_wanted(&self) -> bool {
        self.bell.as_ref().is_some_and(|bell| bell.is_epoch_wanted())
    }

    /// Begins the next epoch. Nobody may have a right to write display memory by host pointer any more: each begins
    /// with a mark in the new epoch.
    pub fn begin_epoch(&self) {
        if let Some(bell) = &self.bell {
            bell.take_epoch_wish();
        }
        let next = self.view.load_u32(AT_EPOCH, Ordering::Relaxed).wrapping_add(1);
        // SYNC POINT vram-epoch: all bytes and marks of the old epoch before the new one; pairs with the acquire load
        // in `VramReader::epoch`.
        self.view.store_u32(AT_EPOCH, next, Ordering::Release);
        self.ring();
    }

    /// Marks every page of `[offset, offset + len)`; a length of zero marks none.
    pub fn mark_range(&self, offset: usize, len: usize) {
        if len > 0 {
            for page in offset / PAGE_BYTES..=(offset + (len - 1).min(VRAM_BYTES)) / PAGE_BYTES {
                self.mark(page * PAGE_BYTES);
            }
        }
    }
}

/// Anybody else's end of the segment.
#[derive(Debug, Clone)]
pub struct VramReader {
    view: View,
}

impl VramReader {
    /// Takes `view` (the segment's contents) and checks the size only: the writer may not have started yet.
    ///
    /// # Errors
    /// [`VramError::TooSmall`].
    pub fn new(view: View) -> Result<Self, VramError> {
        if view.len() < VRAM_SEGMENT_BYTES {
            return Err(VramError::TooSmall { len: view.len() });
        }
        Ok(Self { view })
    }

    /// Whether the writer has started, and is one of this build.
    ///
    /// # Errors
    /// [`VramError::Foreign`] for another layout.
    pub fn is_ready(&self) -> Result<bool, VramError> {
        let magic = self.view.load_u32(AT_MAGIC, Ordering::Acquire);
        let version = self.view.load_u32(AT_VERSION, Ordering::Relaxed);
        let bytes = self.view.load_u32(AT_BYTES, Ordering::Relaxed);
        match magic {
            0 => Ok(false),
            MAGIC if version == VERSION && bytes == VRAM_BYTES as u32 => Ok(true),
            _ => Err(VramError::Foreign {
                magic,
                version,
                bytes,
            }),
        }
    }

    /// Generation words of registers, palette and cursor: as long as they stay equal, so do the records.
    pub fn generations(&self) -> [u32; 3] {
        [AT_REGISTERS, AT_PALETTE, AT_CURSOR].map(|at| self.view.load_u32(at, Ordering::Acquire))
    }

    /// The register file.
    ///
    /// # Errors
    /// [`Stuck`] when the writer died in a publication.
    pub fn registers(&self) -> Result<VgaRegisters, Stuck> {
        let mut words = [0; REGISTER_WORDS];
        scanout::read(
            &self.view.slice(AT_REGISTERS, 4 * (1 + REGISTER_WORDS)),
            &mut words,
        )?;
        Ok(VgaRegisters::from_words(&words))
    }

    /// The DAC.
    ///
    /// # Errors
    /// [`Stuck`] when the writer died in a publication.
    pub fn palette(&self) -> Result<Palette, Stuck> {
        let mut words = [0; PALETTE_WORDS];
        scanout::read(&self.view.slice(AT_PALETTE, 4 * (1 + PALETTE_WORDS)), &mut words)?;
        Ok(Palette::from_words(&words))
    }

    /// The hardware cursor.
    ///
    /// # Errors
    /// [`Stuck`] when the writer died in a publication.
    pub fn cursor(&self) -> Result<CursorState, Stuck> {
        let mut words = [0; CURSOR_WORDS - 1];
        scanout::read(&self.view.slice(AT_CURSOR, 4 * CURSOR_WORDS), &mut words)?;
        Ok(CursorState::from_words(&words))
    }

    /// Copies display memory from `offset` on. What lies past its end is left as it was.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let len = into.len().min(VRAM_BYTES.saturating_sub(offset));
        if len > 0 {
            self.view.read_bytes(AT_MEMORY + offset, &mut into[..len]);
        }
    }

    /// The frame epoch. Load it before the marks.
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.view.load_u32(AT_EPOCH, Ordering::Acquire)
    }

    /// The epoch of the last mark of page `page`, which must be below [`PAGES`]. Load it before the page's bytes.
    #[inline]
    pub fn dirt(&self, page: usize) -> u32 {
        self.view.load_u32(AT_DIRT + page * 4, Ordering::Acquire)
    }
}

/// What one reader has seen of the marks. It always looks at the same pages, or takes everything when they change.
#[derive(Debug, Clone, Default)]
pub struct DirtTracker {
    /// Epoch at the last taking; `None` before the first.
    since: Option<u32>,
    /// Epoch in which pages were found open: until it ends there is nothing new to be known of them.
    open: Option<u32>,
}

/// Whether epoch `mark` is `since` or later; epochs wrap.
fn reaches(mark: u32, since: u32) -> bool {
    mark.wrapping_sub(since).cast_signed() >= 0
}

impl DirtTracker {
    /// Forgets everything: each page is dirty until it is taken.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether a page of `pages` may have been written since it was taken; takes none. While the epoch lasts in which
    /// pages were found open, the answer is no: it ends as soon as the vCPU runs, and only a vCPU that runs writes.
    pub fn any(&self, vram: &VramReader, mut pages: core::ops::Range<usize>) -> bool {
        let Some(since) = self.since else { return true };
        self.open != Some(vram.epoch()) && pages.any(|page| reaches(vram.dirt(page), since))
    }

    /// Calls `dirty` for each page of `pages` that may have been written since it was taken last, and takes it. Copy
    /// the bytes only afterwards. Answers whether pages are open: then the vCPU is to be asked for a new epoch, without
    /// which they stay so.
    pub fn take(
        &mut self,
        vram: &VramReader,
        pages: core::ops::Range<usize>,
        mut dirty: impl FnMut(usize),
    ) -> bool {
        let epoch = vram.epoch();
        let mut open = false;
        for page in pages {
            let mark = vram.dirt(page);
            open |= mark == epoch;
            if self.since.is_none_or(|since| reaches(mark, since)) {
                dirty(page);
            }
        }
        self.since = Some(epoch);
        self.open = open.then_some(epoch);
        open
    }
}

/// A reader's way to ask for a new epoch.
#[derive(Debug)]
pub struct EpochWish {
    words: ViewMut,
    vcpu: Doorbell,
}

impl EpochWish {
    /// Asks through the second word of `words`, in the reader's file, the vCPU whose exit word is behind `vcpu`.
    pub fn new(words: ViewMut, vcpu: Doorbell) -> Self {
        Self { words, vcpu }
    }

    /// Asks.
    pub fn ask(&self) {
        let wishes = self.words.load_u32(WISHES, Ordering::Relaxed).wrapping_add(1);
        self.words.store_u32(WISHES, wishes, Ordering::Release);
        self.vcpu.ring();
    }
}

/// Offset of the counter of wishes for a new epoch, behind the armed counter.
const WISHES: usize = 4;

/// The writer's side of a sleeping reader: whether its doorbell has to be rung after a mark.
#[derive(Debug)]
pub struct SleepHint {
    armed: View,
    seen: AtomicU32,
    granted: AtomicU32,
    doorbell: Doorbell,
}

impl SleepHint {
    /// Watches the armed counter, the first word of `armed`, in the reader's file, for the sleeper behind
    /// `doorbell`, and the wishes for an epoch behind it.
    pub fn new(armed: View, doorbell: Doorbell) -> Self {
        Self {
            armed,
            seen: AtomicU32::new(0),
            granted: AtomicU32::new(0),
            doorbell,
        }
    }

    #[inline]
    fn is_epoch_wanted(&self) -> bool {
        self.armed.load_u32(WISHES, Ordering::Relaxed) != self.granted.load(Ordering::Relaxed)
    }

    fn take_epoch_wish(&self) {
        let wishes = self.armed.load_u32(WISHES, Ordering::Acquire);
        self.granted.store(wishes, Ordering::Relaxed);
    }

    /// Rings once after each arming of the reader, and answers whether it did. Costs one load of a line that rests in
    /// the cache while the reader is awake.
    #[inline]
    pub fn ring_if_armed(&self) -> bool {
        let now = self.armed.load_u32(0, Ordering::Relaxed);
        if now == self.seen.load(Ordering::Relaxed) {
            return false;
        }
        // Two threads that ring for the same arming do no harm.
        self.seen.store(now, Ordering::Relaxed);
        self.doorbell.ring();
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
