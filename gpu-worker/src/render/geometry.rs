//! What the CRTC and its neighbours have been told: the size of the picture, where its bytes are, how they are
//! meant.

use quintet_protocol::framebuffer::FrameLayout;
use quintet_protocol::scanout::PixelFormat;
use quintet_protocol::time::{NANOS_PER_SEC, VmTime};
use quintet_protocol::vram::{VgaRegisters, vbe};

/// How display memory becomes dots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: the screen is off, held in reset, or the palette is being loaded.
    Blank,
    /// Characters and attributes, with fonts from plane 2.
    Text,
    /// One bit of each plane per pixel.
    Planar,
    /// Two bits per pixel, as the CGA had them.
    Interleaved,
    /// Eight bits per pixel, a pixel per plane in turn (mode 13h and its relatives).
    Packed,
    /// A VBE mode with its pixels one after another.
    Linear(PixelFormat),
}

/// How the CRTC turns its memory address counter into a plane offset (CRTC index 14h and 17h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addressing {
    /// Times four, with bits 14 and 15 in the two lowest.
    pub double_word: bool,
    /// As it is. Otherwise times two with a high bit in the lowest.
    pub byte: bool,
    /// Word mode: that high bit is 15; otherwise 13.
    pub wrap_15: bool,
    /// Bit 13 is the lowest bit of the row scan counter (CGA).
    pub row_scan_13: bool,
    /// Bit 14 is the second bit of the row scan counter (Hercules).
    pub row_scan_14: bool,
}

impl Addressing {
    /// The plane offset for a counter value and a row scan.
    pub fn offset(self, counter: u32, row_scan: u32) -> u16 {
        let address = if self.double_word {
            counter << 2 | counter >> 14 & 3
        } else if self.byte {
            counter
        } else {
            counter << 1 | counter >> if self.wrap_15 { 15 } else { 13 } & 1
        };
        let mut address = address as u16;
        if self.row_scan_13 {
            address = address & !0x2000 | (row_scan as u16 & 1) << 13;
        }
        if self.row_scan_14 {
            address = address & !0x4000 | (row_scan as u16 >> 1 & 1) << 14;
        }
        address
    }

    /// Whether consecutive counter values are consecutive, `step` apart, as plane offsets: true unless the counter wraps
    /// in between.
    pub fn step(self) -> u16 {
        if self.double_word {
            4
        } else if self.byte {
            1
        } else {
            2
        }
    }
}

/// How often the picture is refreshed, which is what blinking counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Nanoseconds of a frame.
    pub frame: u64,
}

impl Timing {
    fn of(r: &VgaRegisters) -> Self {
        let dots = if r.sequencer[1] & 1 != 0 { 8 } else { 9 } * if r.sequencer[1] & 8 != 0 { 2 } else { 1 };
        let clock = if r.misc >> 2 & 3 == 1 {
            28_322_000
        } else {
            25_175_000
        };
        let line = (u64::from(r.crtc[0]) + 5) * dots;
        let lines = u64::from(r.crtc[6]) | bit(r.crtc[7], 0, 8) | bit(r.crtc[7], 5, 9);
        // 20 to 200 Hz, whatever the registers say: blinking is for people.
        Self {
            frame: (line * (lines + 2) * NANOS_PER_SEC / clock)
                .clamp(NANOS_PER_SEC / 200, NANOS_PER_SEC / 20),
        }
    }

    /// Number of the frame at `now`.
    pub fn frame_at(self, now: VmTime) -> u64 {
        now.0 / self.frame
    }

    /// Whether the text cursor is in the lit half of its 16 frames.
    pub fn cursor_on(self, now: VmTime) -> bool {
        self.frame_at(now) & 8 == 0
    }

    /// Whether blinking characters are in the lit half of their 32 frames.
    pub fn text_on(self, now: VmTime) -> bool {
        self.frame_at(now) & 16 == 0
    }

    /// When a phase ends next.
    pub fn next_phase(self, now: VmTime) -> VmTime {
        VmTime((self.frame_at(now) / 8 + 1) * 8 * self.frame)
    }
}

fn bit(register: u8, from: u32, to: u32) -> u64 {
    u64::from(register >> from & 1) << to
}

/// Where a line of the picture comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// Memory address counter at its first character clock.
    pub counter: u32,
    /// Row scan within the character row.
    pub row_scan: u32,
    /// Dots shifted out on the left.
    pub pan: u32,
}

/// The picture that the registers describe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// How memory becomes dots.
    pub mode: Mode,
    /// Width in dots.
    pub width: u32,
    /// Height in lines.
    pub height: u32,
    /// Whether a VBE mode is on.
    pub vbe: bool,
    /// Character clocks of a line.
    pub columns: u32,
    /// Dots of a character clock, 8 or 9.
    pub cell_width: u32,
    /// How many dots wide each of them is shown.
    pub dot_scale: u32,
    /// Row scans of a character row.
    pub cell_height: u32,
    /// How many lines each row scan is shown.
    pub line_scale: u32,
    /// Counter value of the first character.
    pub start: u32,
    /// Counter values from row to row; for linear modes, bytes from line to line.
    pub pitch: u32,
    /// First byte of a linear mode.
    pub base: u32,
    /// Row scan of the first line.
    pub preset_row: u32,
    /// Dots that are shifted out on the left.
    pub pan: u32,
    /// Whether panning ends at the split.
    pub pan_compatible: bool,
    /// Line after which the counter starts again from zero.
    pub line_compare: u32,
    /// How the counter becomes an offset.
    pub addressing: Addressing,
    /// Refresh.
    pub timing: Timing,
}

impl Geometry {
    /// The geometry of these registers. Always a possible size: registers that describe none give a blank 720×400.
    pub fn of(r: &VgaRegisters) -> Self {
        if r.vbe[vbe::ENABLE] & vbe::ENABLE_ENABLED != 0 {
            Self::of_vbe(r)
        } else {
            Self::of_vga(r)
        }
    }

    /// Lines of a character row as shown.
    pub fn row_lines(&self) -> u32 {
        self.cell_height * self.line_scale
    }

    /// What line `y` of the picture shows.
    pub fn scan_at(&self, y: u32) -> Scan {
        // The split: the line after the compare starts a second picture at counter zero.
        let (y, start, preset_row, pan) = match y.checked_sub(self.line_compare.saturating_add(1)) {
            Some(below) => (below, 0, 0, if self.pan_compatible { 0 } else { self.pan }),
            None => (y, self.start, self.preset_row, self.pan),
        };
        let scan = y / self.line_scale + preset_row;
        Scan {
            counter: start.wrapping_add((scan / self.cell_height).wrapping_mul(self.pitch)),
            row_scan: scan % self.cell_height,
            pan,
        }
    }

    fn of_vga(r: &VgaRegisters) -> Self {
        let text = r.graphics[6] & 1 == 0;
        let nine = r.sequencer[1] & 1 == 0;
        let packed = !text && r.graphics[5] & 0x40 != 0;
        let columns = u32::from(r.crtc[1]) + 1;
        let lines = (u32::from(r.crtc[0x12]) | (bit(r.crtc[7], 1, 8) | bit(r.crtc[7], 6, 9)) as u32) + 1;
        let cell_width = if nine && text { 9 } else { 8 };
        let dot_scale = if r.sequencer[1] & 8 != 0 { 2 } else { 1 };
        let cell_height = u32::from(r.crtc[9] & 0x1F) + 1;
        let doubled = r.crtc[9] & 0x80 != 0;
        let halved = r.crtc[0x17] & 4 != 0;
        let running = r.attribute_index & 0x20 != 0 && r.sequencer[1] & 0x20 == 0 && r.sequencer[0] & 3 == 3;
        // Registers that nobody has set describe a line or a column: there is no picture yet.
        let set = lines >= 16
            && columns >= 8
            && FrameLayout::packed(columns * cell_width * dot_scale, lines).is_ok();
        let mode = match r.graphics[5] >> 5 & 3 {
            _ if !running || !set => Mode::Blank,
            _ if text => Mode::Text,
            0 => Mode::Planar,
            1 => Mode::Interleaved,
            _ => Mode::Packed,
        };
        let (width, height) = if set {
            (columns * cell_width * dot_scale, lines)
        } else {
            (720, 400)
        };
        let pel = u32::from(r.attribute[0x13] & 0x0F);
        let pan = match (cell_width, packed) {
            (_, true) => pel & 7,
            (9, _) => (pel + 1) % 9,
            _ => pel & 7,
        };
        Self {
            mode,
            width,
            height,
            vbe: false,
            columns,
            cell_width,
            dot_scale,
            cell_height,
            line_scale: if doubled { 2 } else { 1 } * if halved { 2 } else { 1 },
            start: (u32::from(r.crtc[0x0C]) << 8 | u32::from(r.crtc[0x0D])) + u32::from(r.crtc[8] >> 5 & 3),
            pitch: u32::from(r.crtc[0x13]) * 2,
            base: 0,
            preset_row: u32::from(r.crtc[8] & 0x1F),
            pan,
            pan_compatible: r.attribute[0x10] & 0x20 != 0,
            line_compare: u32::from(r.crtc[0x18]) | (bit(r.crtc[7], 4, 8) | bit(r.crtc[9], 6, 9)) as u32,
            addressing: Addressing {
                double_word: r.crtc[0x14] & 0x40 != 0,
                byte: r.crtc[0x17] & 0x40 != 0,
                wrap_15: r.crtc[0x17] & 0x20 != 0,
                row_scan_13: r.crtc[0x17] & 1 == 0,
                row_scan_14: r.crtc[0x17] & 2 == 0,
            },
            timing: Timing::of(r),
        }
    }

    fn of_vbe(r: &VgaRegisters) -> Self {
        let get = |index: usize| u32::from(r.vbe[index]);
        let (width, height) = (get(vbe::XRES), get(vbe::YRES));
        let virtual_width = get(vbe::VIRT_WIDTH).max(width);
        let mode = match get(vbe::BPP) {
            4 => Mode::Planar,
            8 => Mode::Linear(PixelFormat::Indexed8),
            15 => Mode::Linear(PixelFormat::Xrgb1555),
            16 => Mode::Linear(PixelFormat::Rgb565),
            24 => Mode::Linear(PixelFormat::Bgr8),
            32 => Mode::Linear(PixelFormat::Bgrx8),
            _ => Mode::Blank,
        };
        let bytes = match mode {
            Mode::Linear(format) => format.bytes(),
            _ => 0,
        };
        let (x, y) = (get(vbe::X_OFFSET), get(vbe::Y_OFFSET));
        let possible = FrameLayout::packed(width, height).is_ok();
        let pitch = match mode {
            Mode::Planar => virtual_width / 8,
            _ => virtual_width * bytes,
        };
        Self {
            mode: if possible { mode } else { Mode::Blank },
            width: if possible { width } else { 720 },
            height: if possible { height } else { 400 },
            vbe: true,
            columns: width.div_ceil(8),
            cell_width: 8,
            dot_scale: 1,
            cell_height: 1,
            line_scale: 1,
            start: y.saturating_mul(pitch).saturating_add(x / 8),
            pitch,
            base: y.saturating_mul(pitch).saturating_add(x * bytes),
            preset_row: 0,
            pan: x & 7,
            pan_compatible: false,
            line_compare: u32::MAX,
            addressing: Addressing {
                double_word: false,
                byte: true,
                wrap_15: false,
                row_scan_13: false,
                row_scan_14: false,
            },
            timing: Timing::of(r),
        }
    }
}
