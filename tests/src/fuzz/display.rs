//! The VGA's registers and memory as a guest writes them, and the picture that comes of it.

use std::sync::Arc;

use arbitrary::Unstructured;
use quintet_cpu_worker::core_complex::snapshot::Snapshot as _;
use quintet_cpu_worker::vga::Vga;
use quintet_gpu_worker::render::{Damage, Inputs, Renderer};
use quintet_protocol::addr::GuestPhys;
use quintet_protocol::shm::{Map, View, ViewMut};
use quintet_protocol::time::VmTime;
use quintet_protocol::vram::{DirtTracker, VRAM_BYTES, VRAM_SEGMENT_BYTES, VramReader, VramWriter};

/// Most accesses of an input.
const MOST: usize = 500;
/// Most pictures of an input: a large one takes some milliseconds.
const PICTURES: u32 = 4;

/// Scan-out without its frames.
#[derive(Debug, Default)]
struct Screen {
    tracker: DirtTracker,
    renderer: Renderer,
    generations: Option<[u32; 3]>,
}

impl Screen {
    /// Draws what has changed, and all of it anew: the two are the same picture.
    fn draw(&mut self, vram: &VramReader, now: VmTime) {
        let (Ok(registers), Ok(palette)) = (vram.registers(), vram.palette()) else {
            panic!("a record of a writer that is alive is not readable");
        };
        let generations = Some(vram.generations());
        let mut pages = Vec::new();
        self.tracker
            .take(vram, Renderer::watched(&registers), |page| pages.push(page));
        let damage = match self.generations == generations {
            true => Damage::Pages(pages),
            false => Damage::All,
        };
        self.generations = generations;
        let inputs = Inputs {
            registers: &registers,
            palette: &palette,
            memory: vram,
            now,
        };
        self.renderer.render(&inputs, &damage);
        let mut anew = Renderer::default();
        anew.render(&inputs, &Damage::All);
        let (a, b) = (self.renderer.picture(), anew.picture());
        assert_eq!(a.layout(), b.layout());
        assert!(a.pixels() == b.pixels(), "drawn in part it is another picture");
    }
}

/// Ports and memory of the card, and its picture between them.
///
/// # Panics
/// When the short way to a byte gives another byte than the long one, the picture drawn in part is another than the one drawn whole,
/// or a saved card is another card.
pub fn vga(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let flags: u8 = u.arbitrary().unwrap_or(0);
    let map = Arc::new(Map::anonymous(VRAM_SEGMENT_BYTES as u64).expect("memory"));
    let reader = VramReader::new(View::new(Arc::clone(&map))).expect("a segment of its size");
    let card = || Vga::new(VramWriter::new(ViewMut::new(Arc::clone(&map))).expect("a segment of its size"));
    let mut vga = card();
    if flags & 1 == 0 {
        vga.firmware_mode3();
    }
    let mut screen = Screen::default();
    let mut pictures = 0;
    let mut now = VmTime(0);
    for _ in 0..MOST {
        if u.is_empty() {
            break;
        }
        let op: u8 = u.arbitrary().unwrap_or(0);
        let size = [1, 2, 4, 1][usize::from(op >> 4 & 3)];
        match op % 12 {
            0 | 1 => {
                // An index and its value in one, as most guests write them.
                let (port, value) = (
                    u.arbitrary::<u8>().unwrap_or(0),
                    u.arbitrary::<u16>().unwrap_or(0),
                );
                let port = [0x3C4, 0x3CE, 0x3D4, 0x3B4][usize::from(port & 3)];
                vga.port_write(now, port, u32::from(value), 2);
            }
            2 => {
                let (index, value) = (
                    u.arbitrary::<u8>().unwrap_or(0),
                    u.arbitrary::<u16>().unwrap_or(0),
                );
                vga.port_write(now, 0x1CE, u32::from(index % 12), 2);
                vga.port_write(now, 0x1CF, u32::from(value), 2);
            }
            3 => {
                let (port, value) = (u.arbitrary::<u8>().unwrap_or(0), u.arbitrary().unwrap_or(0));
                let ones = u32::MAX >> (32 - 8 * u32::from(size));
                vga.port_write(now, 0x3B0 + u16::from(port % 0x30), value & ones, size);
            }
            4 => {
                let port: u8 = u.arbitrary().unwrap_or(0);
                vga.port_read(now, 0x3B0 + u16::from(port % 0x30), size);
            }
            5 | 6 => {
                let address = GuestPhys(0xA_0000 + u64::from(u.arbitrary::<u32>().unwrap_or(0)) % 0x2_0000);
                vga.write(address, size, u.arbitrary().unwrap_or(0));
            }
            7 => {
                let address = GuestPhys(0xA_0000 + u64::from(u.arbitrary::<u32>().unwrap_or(0)) % 0x2_0000);
                let long = vga.read(address, 1);
                if let Some(index) = vga.window().plain_index(address) {
                    let mut byte = [0];
                    reader.read(index, &mut byte);
                    assert_eq!(long, u64::from(byte[0]), "{address:?} by two ways");
                }
            }
            8 => {
                // As the vCPU writes the linear frame buffer: bytes, then a mark.
                let at = u.arbitrary::<u32>().unwrap_or(0) as usize % VRAM_BYTES;
                let n = usize::from(u.arbitrary::<u8>().unwrap_or(0))
                    .min(VRAM_BYTES - at)
                    .min(u.len());
                let bytes = u.bytes(n).unwrap_or(&[]);
                vga.vram().memory().write_bytes(at, bytes);
                vga.vram().mark_range(at, n);
            }
            9 => {
                let offset = u64::from(u.arbitrary::<u16>().unwrap_or(0) % 0x1000);
                if op & 0x80 == 0 {
                    vga.bar_write(now, offset, u.arbitrary().unwrap_or(0), size);
                } else {
                    vga.bar_read(now, offset, size);
                }
            }
            10 if pictures < PICTURES => {
                pictures += 1;
                screen.draw(&reader, now);
                vga.vram().begin_epoch();
                now = now + (u64::from(u.arbitrary::<u16>().unwrap_or(0)) << 14);
            }
            10 => {}
            _ => {
                // The process ends, and the card is put back by its successor.
                let state = vga.save();
                vga = card();
                vga.restore(state.clone());
                assert_eq!(vga.save(), state);
            }
        }
    }
    screen.draw(&reader, now);
}
