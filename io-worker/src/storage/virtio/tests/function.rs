//! The function's capabilities, and the window in configuration space.

use super::super::function::{BAR_LEN, COMMON, DEVICE, ISR, NOTIFY};
use super::*;
use crate::bus::Access;
use crate::pci::{PciBus, bdf};

fn bus() -> PciBus {
    let mut pci = PciBus::new();
    pci.add(virtio_slot(0), virtio_blk_function(7));
    pci
}

#[test]
fn the_capabilities_say_where_everything_lies() {
    let pci = bus();
    let at = bdf(5, 0);
    let byte = |register: u8| pci.peek(at, register, Size::BYTE);
    assert_eq!(pci.peek(at, 0, Size::DWORD), 0x1042_1AF4);
    assert_eq!(byte(0x06) & 0x10, 0x10);
    let mut found = Vec::new();
    let mut cap = byte(0x34) as u8;
    while cap != 0 {
        assert_eq!(byte(cap), 9);
        assert!(found.len() < 8, "the list has no end");
        let (offset, len) = (
            pci.peek(at, cap + 8, Size::DWORD),
            pci.peek(at, cap + 12, Size::DWORD),
        );
        found.push((byte(cap + 3), byte(cap + 2), byte(cap + 4), offset, len));
        if byte(cap + 3) == 2 {
            assert_eq!(pci.peek(at, cap + 16, Size::DWORD), 4, "notify_off_multiplier");
        }
        cap = byte(cap + 1) as u8;
    }
    assert_eq!(
        found,
        [
            (1, 16, 4, COMMON, 0x40),
            (3, 16, 4, ISR, 1),
            (4, 16, 4, DEVICE, 60),
            (2, 20, 4, NOTIFY, 4),
            (5, 20, 0, 0, 0),
        ]
    );
    assert_eq!(
        pci.bars(at)
            .iter()
            .map(|b| (b.register, b.len))
            .collect::<Vec<_>>(),
        [(0x20, BAR_LEN)]
    );
}

#[test]
fn the_window_leads_to_the_place_that_the_driver_names() {
    let mut pci = bus();
    let at = bdf(5, 0);
    let latch = |register: u8| 0x8000_2800 | u32::from(register);
    let cap = 0x84;
    let data = cap + 16;
    assert_eq!(pci.window(latch(data), 0, Size::DWORD), None, "no length yet");
    pci.poke(at, cap + 4, Size::BYTE, 4);
    pci.poke(at, cap + 8, Size::DWORD, 0x14);
    pci.poke(at, cap + 12, Size::DWORD, 1);
    let place = Access {
        region: 0,
        offset: 0x14,
        size: Size::BYTE,
    };
    assert_eq!(pci.window(latch(data), 0, Size::BYTE), Some((7, place)));
    assert_eq!(pci.window(latch(data), 3, Size::BYTE), Some((7, place)));
    assert_eq!(pci.window(latch(data - 4), 3, Size::BYTE), None);
    assert_eq!(pci.window(latch(data + 4), 0, Size::BYTE), None);
    for (bar, offset, len) in [
        (5, 0, 4),
        (4, 2, 4),
        (4, BAR_LEN, 1),
        (4, u32::MAX - 3, 4),
        (4, 0, 8),
        (4, 0, 3),
    ] {
        pci.poke(at, cap + 4, Size::BYTE, bar);
        pci.poke(at, cap + 8, Size::DWORD, offset);
        pci.poke(at, cap + 12, Size::DWORD, len);
        assert_eq!(
            pci.window(latch(data), 0, Size::DWORD),
            None,
            "{bar} {offset:#x} {len}"
        );
    }
    pci.poke(at, data, Size::DWORD, 0x1234_5678);
    assert_eq!(pci.window_data(latch(data)), 0x1234_5678);
    pci.fill_window(latch(data), 0x9ABC);
    assert_eq!(pci.peek(at, data, Size::DWORD), 0x9ABC);
}
