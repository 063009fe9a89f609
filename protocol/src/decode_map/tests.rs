//! Publication, look-up, and what a reader refuses.

use std::sync::Arc;

use super::*;
use crate::shm::Map;

fn words() -> ViewMut {
    ViewMut::new(Arc::new(Map::anonymous(DECODE_MAP_SIZE as u64).unwrap()))
}

fn sample() -> DecodeMap {
    let uart = |start, attributes| Claim {
        start,
        len: 1,
        device: 2,
        attributes,
        ..Claim::default()
    };
    DecodeMap {
        ports: vec![
            uart(0x3F8, Attributes::POSTED),
            Claim {
                mirror: 3,
                mirror_offset: 5,
                ..uart(0x3FD, Attributes::MIRRORED)
            },
            Claim {
                len: 4,
                ..uart(0xCFC, Attributes::AFFECTS_VIEW)
            },
            uart(0xFFFF, Attributes::SYNC),
        ],
        memory: vec![
            Claim {
                start: 0xFEB0_0000,
                len: 0x1000,
                device: 9,
                attributes: Attributes::POSTED,
                ..Claim::default()
            },
            Claim {
                start: 0xFFFE_0000,
                len: 0x2_0000,
                attributes: Attributes::ROM,
                rom: 0x1000,
                ..Claim::default()
            },
        ],
        shadows: vec![
            Shadow {
                start: 0xA_0000,
                len: 0x2_0000,
                read: Backing::Vga,
                write: Backing::Vga,
            },
            Shadow {
                start: 0xF_0000,
                len: 0x1_0000,
                read: Backing::Rom(0x1_1000),
                write: Backing::Ram,
            },
        ],
        pirq: [Some(10), None, Some(11), Some(0)],
        a20: true,
    }
}

#[test]
fn a_map_comes_back_as_it_was_published_and_its_version_moves() {
    let w = words();
    let reader = DecodeMapReader::new(w.view().clone());
    assert_eq!(reader.read().unwrap().0, 0);
    let mut writer = DecodeMapWriter::new(w);
    let version = writer.publish(&sample()).unwrap();
    assert_eq!(reader.version(), version);
    assert_eq!(reader.read(), Ok((version, sample())));
    assert_ne!(writer.publish(&sample()).unwrap(), version);
}

#[test]
fn the_claim_on_a_port_or_address_is_found() {
    let map = sample();
    assert_eq!(map.port(0x3F8).unwrap().start, 0x3F8);
    assert_eq!(map.port(0x3F9), None);
    assert_eq!(map.port(0xCFF).unwrap().start, 0xCFC);
    assert_eq!(map.port(0xD00), None);
    assert_eq!(map.port(0xFFFF).unwrap().start, 0xFFFF);
    assert_eq!(map.port(0), None);
    assert_eq!(map.address(0xFEB0_0FFF).unwrap().device, 9);
    assert_eq!(map.address(0xFEB0_1000), None);
}

#[test]
fn capacity_is_bounded() {
    let mut writer = DecodeMapWriter::new(words());
    let claim = |n: usize| Claim {
        start: n as u64 * 2,
        len: 1,
        ..Claim::default()
    };
    let mut map = DecodeMap {
        ports: (0..MAX_CLAIMS).map(claim).collect(),
        ..DecodeMap::default()
    };
    assert!(writer.publish(&map).is_ok());
    map.memory.push(claim(0));
    assert_eq!(
        writer.publish(&map),
        Err(DecodeMapError::TooMany {
            claims: MAX_CLAIMS + 1,
            shadows: 0
        })
    );
}

#[test]
fn impossible_maps_are_refused_by_writer_and_reader_alike() {
    let broken: [fn(&mut DecodeMap); 14] = [
        |m| m.ports[0].len = 0,
        |m| m.ports[3].len = 2,
        |m| m.ports[1].start = 0x3F8,
        |m| m.ports.swap(0, 1),
        |m| m.ports[0].device = 64,
        |m| m.ports[1].mirror = 32,
        |m| m.ports[1].mirror_offset = 32,
        |m| m.memory[0].len = u64::MAX,
        |m| m.memory[1].rom = ROM_SIZE as u32,
        |m| m.shadows[0].start = 0xA_0001,
        |m| m.shadows[1].len = 0x2_0000,
        |m| m.shadows[0].len = 0x8_0000,
        |m| m.shadows[1].read = Backing::Rom(ROM_SIZE as u32 - 1),
        |m| m.pirq[0] = Some(16),
    ];
    for (n, breaks) in broken.into_iter().enumerate() {
        let mut map = sample();
        breaks(&mut map);
        assert!(
            matches!(map.validate(), Err(DecodeMapError::Invalid { .. })),
            "case {n}"
        );
        let w = words();
        assert!(DecodeMapWriter::new(w.clone()).publish(&map).is_err(), "case {n}");
        // A writer that does not check.
        SeqWriter::new(w.clone()).write(&wire::encode(&map));
        assert!(DecodeMapReader::new(w.view().clone()).read().is_err(), "case {n}");
    }
}

#[test]
fn any_rubbish_is_refused_or_valid_without_a_panic() {
    use proptest::prelude::*;
    let w = words();
    let good = wire::encode(&sample());
    proptest!(|(at in 0usize..288, value in any::<[u8; 4]>(), header in any::<bool>())| {
        let mut bytes = good.clone();
        let at = if header { at % 32 } else { at }.min(bytes.len() - 4);
        bytes[at..at + 4].copy_from_slice(&value);
        SeqWriter::new(w.clone()).write(&bytes);
        if let Ok((_, map)) = DecodeMapReader::new(w.view().clone()).read() {
            prop_assert_eq!(map.validate(), Ok(()));
        }
    });
}
