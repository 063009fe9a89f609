use super::*;
use crate::bus::Size;
use crate::bus::contract::{Bench, device_contract};

fn ports(_: &mut Bench) -> IsaDmaPorts {
    IsaDmaPorts
}

device_contract!(contract, ports);

/// As a driver sets a channel of the first controller up, byte by byte.
fn set_up(bench: &mut Bench, channel: u8, mode: u8, address: u32, count: u16) {
    let page_port = [(2, 0), (1, 2), (1, 0), (1, 1)][usize::from(channel)];
    let mut out = |region, offset: u64, value: u8| {
        bench.write(&mut IsaDmaPorts, region, offset, Size::BYTE, u64::from(value));
    };
    out(0, 0xA, 4 | channel);
    out(0, 0xC, 0);
    out(0, 0xB, mode | channel);
    let [low, high, page, _] = address.to_le_bytes();
    for byte in [low, high] {
        out(0, u64::from(channel) * 2, byte);
    }
    out(page_port.0, page_port.1, page);
    for byte in count.to_le_bytes() {
        out(0, u64::from(channel) * 2 + 1, byte);
    }
    out(0, 0xA, channel);
}

fn give(bench: &mut Bench, data: &[u8]) -> Moved {
    bench.isa_dma.to_memory(2, &mut bench.dma, data)
}

#[test]
fn a_channel_writes_memory_until_it_has_counted_to_its_end() {
    let mut bench = Bench::new();
    set_up(&mut bench, 2, 0x44, 0x1_2340, 5);
    assert_eq!(
        give(&mut bench, &[1, 2, 3, 4]),
        Moved {
            bytes: 4,
            ended: false
        }
    );
    assert_eq!(bench.read(&mut IsaDmaPorts, 0, 8, Size::BYTE), 0);
    // The current address and count are read back through the same flip-flop.
    bench.write(&mut IsaDmaPorts, 0, 0xC, Size::BYTE, 0);
    let bytes = [4, 4, 5, 5].map(|at| bench.read(&mut IsaDmaPorts, 0, at, Size::BYTE));
    assert_eq!(bytes, [0x44, 0x23, 1, 0]);
    assert_eq!(
        give(&mut bench, &[5, 6, 7]),
        Moved {
            bytes: 2,
            ended: true
        }
    );
    assert_eq!(
        give(&mut bench, &[8]),
        Moved {
            bytes: 0,
            ended: false
        },
        "masked by its end"
    );
    assert_eq!(bench.read(&mut IsaDmaPorts, 0, 8, Size::BYTE), 0x04, "told once");
    assert_eq!(bench.read(&mut IsaDmaPorts, 0, 8, Size::BYTE), 0x00);
    let mut memory = [0; 7];
    bench.dma.read(GuestPhys(0x1_2340), &mut memory);
    assert_eq!(memory, [1, 2, 3, 4, 5, 6, 0]);
}

#[test]
fn an_address_wraps_within_its_page_and_auto_mode_begins_again() {
    let mut bench = Bench::new();
    set_up(&mut bench, 2, 0x54, 0x1_FFFE, 2);
    assert_eq!(
        give(&mut bench, &[1, 2, 3]),
        Moved {
            bytes: 3,
            ended: true
        }
    );
    assert_eq!(
        give(&mut bench, &[9]),
        Moved {
            bytes: 1,
            ended: false
        }
    );
    let mut memory = [0; 2];
    bench.dma.read(GuestPhys(0x1_FFFE), &mut memory);
    assert_eq!(memory, [9, 2]);
    bench.dma.read(GuestPhys(0x1_0000), &mut memory);
    assert_eq!(memory, [3, 0]);
}

#[test]
fn a_device_takes_from_memory_and_verifies_without_touching_it() {
    let mut bench = Bench::new();
    bench.dma.write(GuestPhys(0x5000), &[7, 8, 9]);
    set_up(&mut bench, 2, 0x48, 0x5000, 2);
    let mut data = [0; 4];
    let moved = bench.isa_dma.from_memory(2, &bench.dma, &mut data);
    assert_eq!(
        (moved, data),
        (
            Moved {
                bytes: 3,
                ended: true
            },
            [7, 8, 9, 0]
        )
    );
    set_up(&mut bench, 2, 0x40, 0x5000, 2);
    assert_eq!(
        give(&mut bench, &[1, 1, 1]),
        Moved {
            bytes: 3,
            ended: true
        }
    );
    let mut memory = [0; 3];
    bench.dma.read(GuestPhys(0x5000), &mut memory);
    assert_eq!(memory, [7, 8, 9]);
}

#[test]
fn a_controller_that_is_switched_off_moves_nothing() {
    let mut bench = Bench::new();
    set_up(&mut bench, 2, 0x44, 0x5000, 2);
    bench.write(&mut IsaDmaPorts, 0, 8, Size::BYTE, 0x04);
    assert_eq!(
        give(&mut bench, &[1]),
        Moved {
            bytes: 0,
            ended: false
        }
    );
    bench.write(&mut IsaDmaPorts, 0, 0xD, Size::BYTE, 0);
    assert_eq!(
        bench.read(&mut IsaDmaPorts, 0, 0xF, Size::BYTE),
        0xFF,
        "master clear masks"
    );
    bench.write(&mut IsaDmaPorts, 0, 0xE, Size::BYTE, 0);
    assert_eq!(give(&mut bench, &[1]).bytes, 1);
}

#[test]
fn words_of_the_second_controller_lie_in_pages_of_128_kib() {
    let mut bench = Bench::new();
    let mut out = |region, offset, value| bench.write(&mut IsaDmaPorts, region, offset, Size::BYTE, value);
    // Channel 5: mode, address 3_0004h in words, two words.
    for (offset, value) in [
        (0x16, 0x45),
        (0x18, 0),
        (0x04, 0x02),
        (0x04, 0x80),
        (0x06, 1),
        (0x06, 0),
    ] {
        out(4, offset, value);
    }
    out(3, 2, 0x03);
    out(4, 0x14, 1);
    let moved = bench.isa_dma.to_memory(5, &mut bench.dma, &[1, 2, 3, 4, 5]);
    assert_eq!(
        moved,
        Moved {
            bytes: 4,
            ended: true
        }
    );
    let mut memory = [0; 5];
    bench.dma.read(GuestPhys(0x3_0004), &mut memory);
    assert_eq!(memory, [1, 2, 3, 4, 0]);
}

#[test]
fn the_state_comes_back() {
    let mut bench = Bench::new();
    set_up(&mut bench, 2, 0x44, 0x1_2340, 5);
    give(&mut bench, &[1, 2]);
    let mut bytes = Vec::new();
    bench.isa_dma.save(&mut bytes);
    let mut again = IsaDma::default();
    again.load(&bytes).expect("loads");
    assert_eq!(again.state, bench.isa_dma.state);
    assert!(again.load(&bytes[1..]).is_err());
}
