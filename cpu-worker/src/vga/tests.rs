//! The card as a guest and as scan-out see it.

use std::sync::Arc;

use quintet_protocol::shm::{Map, View};
use quintet_protocol::time::VmTime;
use quintet_protocol::vram::{DirtTracker, PAGES, VRAM_SEGMENT_BYTES, VramReader, vbe};

use super::*;
use crate::core_complex::snapshot::snapshot_tests;
use quintet_protocol::addr::GuestPhys;

const NOW: VmTime = VmTime(0);

fn card() -> (Vga, VramReader) {
    let map = Arc::new(Map::anonymous(VRAM_SEGMENT_BYTES as u64).unwrap());
    let reader = VramReader::new(View::new(Arc::clone(&map))).unwrap();
    (Vga::new(VramWriter::new(ViewMut::new(map)).unwrap()), reader)
}

fn text() -> (Vga, VramReader) {
    let (mut vga, reader) = card();
    vga.firmware_mode3();
    (vga, reader)
}

fn out(vga: &mut Vga, port: u16, value: u8) -> VgaEffects {
    vga.port_write(NOW, port, u32::from(value), 1).unwrap()
}

fn indexed(vga: &mut Vga, port: u16, index: u8, value: u8) -> VgaEffects {
    vga.port_write(NOW, port, u32::from(index) | u32::from(value) << 8, 2)
        .unwrap()
}

fn inb(vga: &mut Vga, port: u16) -> u8 {
    vga.port_read(NOW, port, 1).unwrap() as u8
}

fn dispi(vga: &mut Vga, index: usize, value: u16) -> VgaEffects {
    vga.port_write(NOW, 0x1CE, index as u32, 2).unwrap();
    vga.port_write(NOW, 0x1CF, u32::from(value), 2).unwrap()
}

fn at(reader: &VramReader, offset: u16, plane: usize) -> u8 {
    let mut byte = [0];
    reader.read(plane_index(offset, plane), &mut byte);
    byte[0]
}

/// 320×200 in 256 colours, chained.
fn mode_13h(vga: &mut Vga) {
    indexed(vga, 0x3C4, 4, 0x0E);
    indexed(vga, 0x3C4, 2, 0x0F);
    indexed(vga, 0x3CE, 5, 0x40);
    indexed(vga, 0x3CE, 6, 0x05);
}

/// 640×480 in 16 colours, planar.
fn mode_12h(vga: &mut Vga) {
    indexed(vga, 0x3C4, 4, 0x06);
    indexed(vga, 0x3C4, 2, 0x0F);
    indexed(vga, 0x3CE, 5, 0x00);
    indexed(vga, 0x3CE, 6, 0x05);
}

snapshot_tests!(snapshot_bytes, card().0, |v: &mut Vga| {
    v.firmware_mode3();
});

#[test]
fn s3_87_a_card_after_reset_shows_nothing_but_the_legacy_vga() {
    let (mut vga, reader) = text();
    dispi(&mut vga, vbe::ENABLE, 0x41);
    vga.reset();
    let registers = reader.registers().unwrap();
    assert_eq!(registers.vbe[vbe::ENABLE], 0);
    assert_eq!(registers.crtc, [0; 25]);
}

#[test]
fn mode_3_has_font_palette_and_blanks() {
    let (_, reader) = text();
    assert_eq!(
        reader.registers().unwrap().sequencer,
        VgaRegisters::text_80x25().sequencer
    );
    assert_eq!(reader.palette().unwrap(), Palette::ega());
    for row in 0..16u16 {
        assert_eq!(
            at(&reader, u16::from(b'A') * 32 + row, 2),
            font::CP437_8X16[65][usize::from(row)]
        );
    }
    assert_eq!((at(&reader, 0, 0), at(&reader, 0, 1)), (0x20, 0x07));
    assert_eq!((at(&reader, 3998, 0), at(&reader, 3998, 1)), (0x20, 0x07));
}

#[test]
fn text_goes_to_planes_zero_and_one_and_the_plain_way_agrees() {
    let (mut vga, reader) = text();
    let window = vga.window();
    assert_eq!(
        window,
        Window {
            start: 0xB_8000,
            len: 0x8000,
            plain: Plain::OddEven
        }
    );
    vga.write(GuestPhys(0xB_8000 + 160), 2, 0x1F41);
    assert_eq!((at(&reader, 160, 0), at(&reader, 160, 1)), (0x41, 0x1F));
    assert_eq!(vga.read(GuestPhys(0xB_8000 + 160), 2), 0x1F41);
    assert_eq!(window.plain_index(GuestPhys(0xB_80A1)), Some(plane_index(160, 1)));
    assert_eq!(window.plain_index(GuestPhys(0xA_0000)), None);
    assert_eq!(vga.read(GuestPhys(0xA_0000), 1), 0xFF, "not in this window");
}

/// In each plain mode, random addresses: the quick way gives the index that the full way writes.
#[test]
fn the_plain_way_writes_where_the_full_way_does() {
    for setup in [
        |_: &mut Vga| {},
        mode_13h,
        |v: &mut Vga| {
            for (index, value) in [
                (vbe::XRES, 640),
                (vbe::YRES, 480),
                (vbe::BPP, 8),
                (vbe::ENABLE, 1),
                (vbe::BANK, 2),
            ] {
                dispi(v, index, value);
            }
        },
    ] {
        let (mut vga, reader) = text();
        setup(&mut vga);
        let window = vga.window();
        assert_ne!(window.plain, Plain::No);
        for step in 0..500u64 {
            let address = GuestPhys(window.start + step * 7919 % window.len);
            let value = (step * 37 % 251) as u8;
            vga.write(address, 1, u64::from(value));
            let mut byte = [0];
            reader.read(window.plain_index(address).unwrap(), &mut byte);
            assert_eq!(byte[0], value);
            assert_eq!(vga.read(address, 1), u64::from(value));
        }
    }
}

#[test]
fn chain_4_spreads_pixels_over_the_planes() {
    let (mut vga, reader) = text();
    mode_13h(&mut vga);
    assert_eq!(
        vga.window(),
        Window {
            start: 0xA_0000,
            len: 0x1_0000,
            plain: Plain::Chain4
        }
    );
    vga.write(GuestPhys(0xA_0005), 4, 0x4433_2211);
    assert_eq!(
        [
            at(&reader, 4, 1),
            at(&reader, 4, 2),
            at(&reader, 4, 3),
            at(&reader, 8, 0)
        ],
        [0x11, 0x22, 0x33, 0x44]
    );
}

#[test]
fn planar_writes_reach_the_enabled_planes_and_reads_take_the_selected_one() {
    let (mut vga, reader) = text();
    mode_12h(&mut vga);
    assert_eq!(vga.window().plain, Plain::No);
    indexed(&mut vga, 0x3C4, 2, 0x05);
    indexed(&mut vga, 0x3CE, 8, 0x0F);
    for plane in 0..4 {
        indexed(&mut vga, 0x3CE, 4, plane);
        vga.read(GuestPhys(0xA_9000), 1);
    }
    vga.write(GuestPhys(0xA_9000), 1, 0xFF);
    assert_eq!([0, 1, 2, 3].map(|p| at(&reader, 0x9000, p)), [0x0F, 0, 0x0F, 0]);
    indexed(&mut vga, 0x3CE, 4, 2);
    assert_eq!(vga.read(GuestPhys(0xA_9000), 1), 0x0F);
}

#[test]
fn write_mode_1_copies_four_planes_through_the_latches() {
    let (mut vga, reader) = text();
    mode_12h(&mut vga);
    for plane in 0..4u8 {
        indexed(&mut vga, 0x3C4, 2, 1 << plane);
        vga.write(GuestPhys(0xA_9000), 1, 0x10 + u64::from(plane));
    }
    indexed(&mut vga, 0x3C4, 2, 0x0F);
    indexed(&mut vga, 0x3CE, 5, 0x01);
    vga.read(GuestPhys(0xA_9000), 1);
    vga.write(GuestPhys(0xA_9100), 1, 0xEE);
    assert_eq!(
        [0, 1, 2, 3].map(|p| at(&reader, 0x9100, p)),
        [0x10, 0x11, 0x12, 0x13]
    );
}

#[test]
fn a_font_is_loaded_through_plane_2_as_bioses_do() {
    let (mut vga, reader) = text();
    for (port, index, value) in [
        (0x3C4, 2, 4),
        (0x3C4, 4, 7),
        (0x3CE, 4, 2),
        (0x3CE, 5, 0),
        (0x3CE, 6, 4),
    ] {
        indexed(&mut vga, port, index, value);
    }
    vga.write(GuestPhys(0xA_0000 + 0x41 * 32), 1, 0x5A);
    assert_eq!(vga.read(GuestPhys(0xA_0000 + 0x41 * 32), 1), 0x5A);
    assert_eq!(at(&reader, 0x41 * 32, 2), 0x5A);
    assert_eq!(at(&reader, 0x41 * 32, 0), 0x20, "the text stays");
}

#[test]
fn switched_off_memory_does_not_answer() {
    let (mut vga, _) = text();
    assert!(out(&mut vga, 0x3C2, 0x65).contains(VgaEffects::WINDOW));
    vga.write(GuestPhys(0xB_8000), 1, 0x41);
    assert_eq!(vga.read(GuestPhys(0xB_8000), 1), 0xFF);
    out(&mut vga, 0x3C2, 0x67);
    assert_eq!(vga.read(GuestPhys(0xB_8000), 1), 0x20);
}

#[test]
fn s3_85_a_visible_register_is_published_once_and_a_drawing_register_not() {
    let (mut vga, reader) = text();
    let before = reader.generations();
    assert_eq!(indexed(&mut vga, 0x3D4, 0x0F, 80), VgaEffects::PICTURE);
    assert_eq!(reader.generations()[0], before[0] + 1);
    assert_eq!(reader.registers().unwrap().crtc[0x0F], 80);
    assert_eq!(
        indexed(&mut vga, 0x3D4, 0x0F, 80),
        VgaEffects::empty(),
        "nothing changed"
    );
    assert_eq!(
        indexed(&mut vga, 0x3CE, 8, 0x55),
        VgaEffects::WINDOW,
        "no longer a plain copy"
    );
    assert_eq!(reader.generations()[0], before[0] + 1);
}

#[test]
fn a_colour_is_published_with_its_third_byte() {
    let (mut vga, reader) = text();
    out(&mut vga, 0x3C8, 7);
    assert!(out(&mut vga, 0x3C9, 1).is_empty() && out(&mut vga, 0x3C9, 2).is_empty());
    assert_eq!(out(&mut vga, 0x3C9, 3), VgaEffects::PICTURE);
    assert_eq!(reader.palette().unwrap().0[7], [1, 2, 3]);
}

#[test]
fn writes_mark_the_pages_they_touch() {
    let (mut vga, reader) = text();
    let mut tracker = DirtTracker::default();
    vga.vram().begin_epoch();
    tracker.take(&reader, 0..PAGES, |_| {});
    vga.write(GuestPhys(0xB_8000 + 0x3FF), 2, 0);
    let mut pages = Vec::new();
    tracker.take(&reader, 0..PAGES, |page| pages.push(page));
    assert_eq!(pages, [0, 1], "offsets 3FEh and 400h, four bytes each");
}

#[test]
fn the_crtc_protects_its_first_registers_but_for_line_compare() {
    let (mut vga, _) = text();
    indexed(&mut vga, 0x3D4, 0x00, 0x12);
    indexed(&mut vga, 0x3D4, 0x07, 0x00);
    out(&mut vga, 0x3D4, 0x00);
    assert_eq!(inb(&mut vga, 0x3D5), 0x5F);
    out(&mut vga, 0x3D4, 0x07);
    assert_eq!(inb(&mut vga, 0x3D5), 0x0F);
    indexed(&mut vga, 0x3D4, 0x11, 0x0E);
    indexed(&mut vga, 0x3D4, 0x00, 0x12);
    out(&mut vga, 0x3D4, 0x00);
    assert_eq!(inb(&mut vga, 0x3D5), 0x12);
}

#[test]
fn the_crtc_answers_in_colour_or_mono_and_not_in_both() {
    let (mut vga, _) = text();
    out(&mut vga, 0x3D4, 0x0E);
    assert_eq!((inb(&mut vga, 0x3D4), inb(&mut vga, 0x3B4)), (0x0E, 0xFF));
    out(&mut vga, 0x3C2, 0x66);
    assert_eq!((inb(&mut vga, 0x3D4), inb(&mut vga, 0x3B4)), (0xFF, 0x0E));
}

#[test]
fn input_status_1_tells_the_retrace_and_resets_the_flip_flop() {
    let (mut vga, _) = text();
    let line = Timing::new(0x67, 0, &VgaRegisters::text_80x25().crtc).line_nanos;
    assert_eq!(vga.port_read(VmTime(0), 0x3DA, 1), Some(0));
    assert_eq!(vga.port_read(VmTime(line * 412 + 1), 0x3DA, 1), Some(9));
    out(&mut vga, 0x3C0, 0x13);
    inb(&mut vga, 0x3DA);
    out(&mut vga, 0x3C0, 0x31);
    out(&mut vga, 0x3C0, 0x3F);
    assert_eq!(inb(&mut vga, 0x3C1), 0x3F);
}

#[test]
fn a_vbe_mode_makes_the_window_a_bank_of_plain_memory() {
    let (mut vga, reader) = text();
    for (index, value) in [
        (vbe::XRES, 1024),
        (vbe::YRES, 768),
        (vbe::BPP, 32),
        (vbe::ENABLE, 0x41),
    ] {
        dispi(&mut vga, index, value);
    }
    assert_eq!(at(&reader, 0, 0), 0, "the mode set cleared the memory");
    assert!(dispi(&mut vga, vbe::BANK, 5).contains(VgaEffects::WINDOW));
    vga.write(GuestPhys(0xA_0010), 4, 0x1234_5678);
    let mut word = [0; 4];
    reader.read(5 << 16 | 0x10, &mut word);
    assert_eq!(u32::from_le_bytes(word), 0x1234_5678);
    assert_eq!(reader.registers().unwrap().vbe[vbe::XRES], 1024);
}

#[test]
fn only_a_window_that_is_an_array_has_pages() {
    let (mut vga, _) = text();
    assert_eq!(vga.window_page(0xB8), None);
    mode_13h(&mut vga);
    assert_eq!(vga.window_page(0xA0), None, "chain-4 leaves holes");
    dispi(&mut vga, vbe::BPP, 8);
    assert!(dispi(&mut vga, vbe::ENABLE, vbe::ENABLE_ENABLED).contains(VgaEffects::WINDOW));
    assert!(dispi(&mut vga, vbe::BANK, 3).contains(VgaEffects::WINDOW));
    assert_eq!(vga.window_page(0xA5), Some(3 * 16 + 5));
    assert_eq!((vga.window_page(0x9F), vga.window_page(0xB0)), (None, None));
    assert_eq!(vga.window_page(u64::MAX), None);
}

#[test]
fn the_register_bar_is_another_way_to_the_same_registers() {
    let (mut vga, _) = text();
    assert_eq!(vga.bar_read(NOW, 0x500, 2), 0xB0C5);
    assert!(vga.bar_write(NOW, 0x502, 800, 2).contains(VgaEffects::PICTURE));
    vga.port_write(NOW, 0x1CE, 1, 2).unwrap();
    assert_eq!(vga.port_read(NOW, 0x1CF, 2), Some(800));
    assert_eq!(vga.bar_read(NOW, 0x40C, 1), 0x67, "3CCh");
    assert_eq!(vga.bar_read(NOW, 0x800, 4), u32::MAX);
    assert_eq!(vga.bar_read(NOW, 0, 4), 0xFFFF_FF00, "EDID");
    assert_eq!(vga.bar_read(NOW, 7, 1), 0);
    assert_eq!(vga.bar_read(NOW, 0x80, 4), 0, "no second block");
    assert_eq!(vga.bar_read(NOW, 0x600, 4), 8, "length of the extended registers");
    assert_eq!(vga.bar_read(NOW, 0x604, 4), 0x1E1E_1E1E, "little-endian");
    vga.bar_write(NOW, 0x502, 0x0300_0400, 4);
    assert_eq!(vga.bar_read(NOW, 0x502, 4), 0x0300_0400, "two registers at once");
    assert_eq!(vga.bar_read(NOW, 0x505, 1), 3);
}

#[test]
fn a_restored_card_publishes_what_it_shows() {
    let (used, _) = text();
    let (mut fresh, reader) = card();
    fresh.restore(used.save());
    assert_eq!(reader.registers().unwrap().crtc, used.registers().crtc);
    assert_eq!(reader.palette().unwrap(), Palette::ega());
    assert_eq!(fresh.window(), used.window());
}

proptest::proptest! {
    #[test]
    fn no_guest_panics_the_card_and_the_plain_way_stays_the_full_way(
        steps in proptest::collection::vec(
            (proptest::prelude::any::<(u8, u16, u32)>(), proptest::prelude::any::<u16>()), 1..200),
    ) {
        let (mut vga, reader) = text();
        for ((kind, port, value), offset) in steps {
            match kind % 6 {
                0 => drop(vga.port_write(VmTime(u64::from(value)), 0x3B0 + port % 0x30, value, 1 + kind % 2)),
                1 => drop(vga.port_read(VmTime(u64::from(value)), 0x3B0 + port % 0x30, 1 + kind % 4)),
                2 => {
                    vga.port_write(NOW, 0x1CE, u32::from(port % 12), 2);
                    vga.port_write(NOW, 0x1CF, if port & 16 == 0 { value } else { value & 0xC3 }, 2);
                }
                3 => drop(vga.bar_write(NOW, u64::from(port % 0x700), value, 1 + kind % 4)),
                _ => {
                    let address = GuestPhys(0xA_0000 + u64::from(offset) * 2 + u64::from(kind & 1));
                    vga.write(address, 1, u64::from(value));
                    if let Some(index) = vga.window().plain_index(address) {
                        let mut byte = [0];
                        reader.read(index, &mut byte);
                        proptest::prop_assert_eq!(byte[0], value as u8);
                    }
                    vga.read(address, 4);
                }
            }
        }
    }
}
