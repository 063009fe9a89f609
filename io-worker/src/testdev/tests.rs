use super::*;
use crate::bus::contract::{Bench, device_contract, saved};
use crate::bus::{Device, MachineRequest, Size, StreamOut};

device_contract!(debugcon_contract, |_: &mut Bench| Debugcon::new(
    "debugcon",
    StreamOut(2)
));
device_contract!(exit_contract, |_: &mut Bench| DebugExit);
device_contract!(testdev_contract, |b: &mut Bench| PcTestdev::new(&mut b.irq));
device_contract!(memory_contract, |_: &mut Bench| TestMemory::new(1));
device_contract!(source_contract, |b: &mut Bench| IrqSource::new(&mut b.irq));

#[test]
fn the_debug_console_keeps_order_and_loses_nothing_while_its_stream_is_full() {
    let mut b = Bench::new();
    let mut dev = Debugcon::new("debugcon", StreamOut(2));
    assert_eq!(b.inb(&mut dev, 0), 0xE9);
    b.streams.room = 1;
    for byte in b"abc" {
        b.outb(&mut dev, 0, *byte);
    }
    assert_eq!(b.streams.out[2], b"a");
    b.streams.room = 9;
    b.pass(&mut dev, 0);
    assert_eq!(b.streams.out[2], b"abc");
    assert!(dev.next_deadline().is_none());
}

#[test]
fn the_exit_port_passes_its_value_on() {
    let mut b = Bench::new();
    b.outb(&mut DebugExit, 0, 0x10);
    assert_eq!(b.request(), Some(MachineRequest::Exit(0x10)));
    b.write(&mut DebugExit, 0, 0, Size::DWORD, 3);
    assert_eq!(b.request(), Some(MachineRequest::Exit(3)));
    assert_eq!(b.request(), None);
}

#[test]
fn testdev_scratch_is_byte_addressable_and_its_lines_follow() {
    let mut b = Bench::new();
    let mut dev = PcTestdev::new(&mut b.irq);
    b.write(&mut dev, 0, 0, Size::DWORD, 0x4433_2211);
    b.outb(&mut dev, 1, 0xAA);
    assert_eq!(b.read(&mut dev, 0, 0, Size::DWORD), 0x4433_AA11);
    assert_eq!(b.read(&mut dev, 0, 2, Size::WORD), 0x4433);
    b.write(&mut dev, 1, 14, Size::BYTE, 1);
    assert!(b.wire(14).high);
    b.write(&mut dev, 1, 23, Size::BYTE, 1);
    assert!(b.wire(23).high);
    b.write(&mut dev, 1, 14, Size::BYTE, 0);
    assert!(!b.wire(14).high);
    assert_eq!(b.wire(14).edges, 1);
}

#[test]
fn testdev_memory_holds_and_survives_a_successor() {
    let mut b = Bench::new();
    let mut dev = TestMemory::new(0);
    b.write(&mut dev, 0, 0xFC, Size::QWORD, 0x8877_6655_4433_2211);
    assert_eq!(b.read(&mut dev, 0, 0xFF, Size::DWORD), 0x7766_5544);
    assert_eq!(b.read(&mut dev, 0, BANK - 8, Size::QWORD), 0);
    let mut next = TestMemory::new(0);
    next.load(1, &saved(&dev)).expect("state");
    assert_eq!(b.read(&mut next, 0, 0xFC, Size::QWORD), 0x8877_6655_4433_2211);
}

#[test]
fn a_full_bank_fits_a_commit() {
    let mut b = Bench::new();
    let mut dev = TestMemory::new(3);
    for offset in (0..BANK).step_by(8) {
        b.write(&mut dev, 0, offset, Size::QWORD, u64::MAX);
    }
    assert!(saved(&dev).len() < 60 << 10);
}

#[test]
fn the_source_rises_again_after_its_delay_as_often_as_told() {
    let mut b = Bench::new();
    let mut dev = IrqSource::new(&mut b.irq);
    b.write(&mut dev, 0, 8, Size::DWORD, 1000);
    b.write(&mut dev, 0, 12, Size::DWORD, 2);
    b.outb(&mut dev, 0, 1);
    for n in 1..=2 {
        assert!(b.wire(5).high);
        b.outb(&mut dev, 1, 0);
        assert!(!b.wire(5).high);
        b.pass(&mut dev, 999);
        assert!(!b.wire(5).high);
        b.pass(&mut dev, 1);
        assert_eq!(b.wire(5).edges, n + 1);
    }
    b.outb(&mut dev, 1, 0);
    b.pass(&mut dev, 10_000);
    assert_eq!(b.read(&mut dev, 0, 4, Size::DWORD), 3);
    b.outb(&mut dev, 2, 0);
    assert_eq!((b.wire(7).high, b.wire(7).edges), (false, 1));
}
