//! The screen of a module: its frames in display memory, shown by gpu-worker as any other guest's.
//!
//! A frame is copied behind the ones before it and then shown by one record, which names its place, as a VBE mode's display
//! start does. So gpu-worker reads a whole frame as long as it is no slower than the module is with the next two.

use quintet_protocol::vram::{VRAM_BYTES, VgaRegisters, VramWriter, vbe};

use crate::memory::{GuestMemory, OutOfBounds};

/// Most frames in display memory.
const FRAMES: usize = 3;
/// Largest sides of a picture in pixels: what a presented frame may have.
pub const MAX_SIDES: (u32, u32) = (2560, 1600);
/// Bytes that are copied at a time.
const PIECE: usize = 64 << 10;

/// The module's end of display memory.
#[derive(Debug)]
pub struct Screen {
    vram: VramWriter,
    sides: (u32, u32),
    next: usize,
}

impl Screen {
    /// Leaves on the screen what is there.
    pub fn new(vram: VramWriter) -> Self {
        Self {
            vram,
            sides: (0, 0),
            next: 0,
        }
    }

    /// Shows a frame of 32-bit pixels, bytes blue, green, red and one that is ignored, lines without gaps. False when a
    /// picture of that size is not possible.
    ///
    /// # Errors
    /// [`OutOfBounds`]; the screen is as it was.
    pub fn present(&mut self, memory: &GuestMemory, at: u32, sides: (u32, u32)) -> Result<bool, OutOfBounds> {
        let (width, height) = sides;
        if width == 0
            || height == 0
            || width > MAX_SIDES.0
            || height > MAX_SIDES.1
            || !width.is_multiple_of(8)
        {
            return Ok(false);
        }
        let len = width as usize * height as usize * 4;
        memory.check(at, len)?;
        if self.sides != sides {
            self.sides = sides;
            self.next = 0;
        }
        if self.next == FRAMES.min(VRAM_BYTES / len) {
            self.next = 0;
        }
        if self.vram.is_epoch_wanted() {
            self.vram.begin_epoch();
        }
        let (to, from) = (self.vram.memory(), self.next * len);
        let mut piece = vec![0; PIECE];
        for done in (0..len).step_by(PIECE) {
            let bytes = &mut piece[..PIECE.min(len - done)];
            memory.read(at + done as u32, bytes)?;
            to.write_bytes(from + done, bytes);
        }
        self.vram.mark_range(from, len);
        let mut registers = VgaRegisters::text_80x25();
        registers.vbe[vbe::XRES] = width as u16;
        registers.vbe[vbe::YRES] = height as u16;
        registers.vbe[vbe::BPP] = 32;
        registers.vbe[vbe::ENABLE] = vbe::ENABLE_ENABLED | vbe::ENABLE_LFB;
        registers.vbe[vbe::VIRT_WIDTH] = width as u16;
        registers.vbe[vbe::VIRT_HEIGHT] = (VRAM_BYTES / (width as usize * 4)).min(0xFFFF) as u16;
        registers.vbe[vbe::Y_OFFSET] = (self.next as u32 * height) as u16;
        self.vram.publish_registers(&registers);
        self.next += 1;
        Ok(true)
    }
}
