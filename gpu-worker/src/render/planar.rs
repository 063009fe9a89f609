//! The VGA's graphics modes: planar 16 colours, the CGA's interleaved four, mode 13h and its unchained relatives.
//!
//! All of them fetch the byte of each plane per character clock and differ in how 32 bits become eight dots.

use quintet_protocol::framebuffer::TileSet;
use quintet_protocol::vram::{PAGE_BYTES, PLANE_BYTES};

use super::{Colour, Geometry, Inputs, Lut, Memory, Mode, Picture, Scan};

/// Pages that the four planes lie in.
pub(super) const PAGES_OF_PLANES: usize = 4 * PLANE_BYTES / PAGE_BYTES;

/// Draws every line and marks what differs from before.
pub(super) fn draw<M: Memory>(
    picture: &mut Picture,
    geometry: &Geometry,
    inputs: &Inputs<'_, M>,
    lut: &Lut,
    dirty: &mut TileSet,
) {
    let clocks = geometry.columns as usize + 1;
    let mut fetched = vec![[0; 4]; clocks];
    let mut dots: Vec<Colour> = vec![[0; 4]; clocks * 8];
    let mut line: Vec<Colour> = vec![[0, 0, 0, 255]; geometry.width as usize];
    let mut previous: Option<Scan> = None;
    for y in 0..geometry.height {
        let scan = geometry.scan_at(y);
        if previous != Some(scan) {
            fetch(geometry, inputs.memory, scan, &mut fetched);
            for (planes, dots) in fetched.iter().zip(dots.as_chunks_mut().0) {
                *dots = colours(geometry.mode, *planes, lut);
            }
            let shown = dots[scan.pan as usize..].iter();
            let scale = geometry.dot_scale as usize;
            for (to, dot) in line.chunks_mut(scale).zip(shown) {
                to.fill(*dot);
            }
            previous = Some(scan);
        }
        picture.put_line(y, &line, dirty);
    }
}

/// The bytes of the four planes at each character clock of a line.
fn fetch(geometry: &Geometry, memory: &impl Memory, scan: Scan, into: &mut [[u8; 4]]) {
    if geometry.vbe {
        into.fill([0; 4]);
        memory.read(scan.counter as usize * 4, into.as_flattened_mut());
        return;
    }
    let addressing = geometry.addressing;
    if addressing.step() == 1 && scan.counter & 0xFFFF < 0x1F00 {
        // Byte mode, and too low for the row scan bits or the end to come in between.
        memory.read_planes(addressing.offset(scan.counter, scan.row_scan), into);
        return;
    }
    for (clock, planes) in (0..).zip(into) {
        let offset = addressing.offset(scan.counter.wrapping_add(clock), scan.row_scan);
        memory.read_planes(offset, core::slice::from_mut(planes));
    }
}

/// The eight dots of a character clock.
fn colours(mode: Mode, [p0, p1, p2, p3]: [u8; 4], lut: &Lut) -> [Colour; 8] {
    match mode {
        Mode::Interleaved => core::array::from_fn(|dot| {
            let (low, high) = if dot < 4 { (p0, p2) } else { (p1, p3) };
            let shift = 6 - 2 * (dot & 3);
            lut.attribute[usize::from(low >> shift & 3 | (high >> shift & 3) << 2)]
        }),
        Mode::Packed => core::array::from_fn(|dot| lut.dac[usize::from([p0, p1, p2, p3][dot / 2])]),
        _ => core::array::from_fn(|dot| {
            let bit = |plane: u8| plane >> (7 - dot) & 1;
            lut.attribute[usize::from(bit(p0) | bit(p1) << 1 | bit(p2) << 2 | bit(p3) << 3)]
        }),
    }
}
