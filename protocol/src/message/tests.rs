//! Golden bytes, and what a decoder refuses.

use super::*;
use crate::addr::GuestPhys;

fn encoded(c: &Command<'_>) -> Vec<u8> {
    let mut buf = [0; MAX_COMMAND];
    let n = c.encode(&mut buf);
    let mut bytes = buf[..n].to_vec();
    bytes.extend(c.data());
    bytes
}

fn commands() -> Vec<(Command<'static>, &'static str)> {
    let reply = CommandFlags::REPLY;
    let posted = CommandFlags::POSTED;
    let back = CommandFlags::BACKWARDS;
    vec![
        (
            Command::Nop {
                flags: posted,
                seq: 0x0102_0304,
            },
            "0000 00 04030201",
        ),
        (Command::Shutdown, "0100"),
        (
            Command::MmioRead {
                addr: GuestPhys(0xFEB0_0010),
                size: 4,
            },
            "0001 04 1000b0fe00000000",
        ),
        (
            Command::MmioWrite {
                flags: posted,
                addr: GuestPhys(0x1_0000_0000),
                size: 8,
                value: 0x1122_3344_5566_7788,
            },
            "0101 00 08 0000000001000000 8877665544332211",
        ),
        (Command::PortRead { port: 0x3F8, size: 1 }, "0201 01 f803"),
        (
            Command::PortWrite {
                flags: reply,
                port: 0x1F7,
                size: 1,
                value: 0xEC,
            },
            "0301 01 01 f701 ec000000",
        ),
        (
            Command::DiskRead {
                disk_offset: 512,
                len: 1024,
                guest: GuestPhys(0x7C00),
            },
            "0401 0002000000000000 00040000 007c000000000000",
        ),
        (
            Command::DiskWrite {
                disk_offset: 1,
                len: 2,
                guest: GuestPhys(3),
            },
            "0501 0100000000000000 02000000 0300000000000000",
        ),
        (
            Command::PciRead {
                address: 0x8000_0804,
                offset: 2,
                size: 2,
            },
            "0601 02 02 04080080",
        ),
        (
            Command::PciWrite {
                flags: reply,
                address: 0x8000_0804,
                offset: 0,
                size: 4,
                value: 7,
            },
            "0701 01 04 00 04080080 07000000",
        ),
        (
            Command::StringIn {
                port: 0x1F0,
                size: 2,
                count: 256,
            },
            "0801 02 f001 0001",
        ),
        (
            Command::StringOut {
                flags: posted,
                port: 0x1F0,
                size: 2,
                data: &[1, 2, 3, 4],
            },
            "0901 00 02 f001 01020304",
        ),
        (
            Command::StringInPage {
                flags: back,
                port: 0x60,
                size: 1,
                count: 16,
                guest: GuestPhys(0x100F),
            },
            "0a01 02 01 6000 1000 0f10000000000000",
        ),
        (
            Command::StringOutPage {
                flags: posted,
                port: 0x60,
                size: 4,
                count: 1024,
                guest: GuestPhys(0x2000),
            },
            "0b01 00 04 6000 0004 0020000000000000",
        ),
        (
            Command::ModuleCall {
                service: 4,
                words: [0x0000_0010_0000_0003, 512, 0x2000],
            },
            "0c01 0400 0300000010000000 0002000000000000 0020000000000000",
        ),
    ]
}

fn events() -> Vec<(Event, &'static str)> {
    vec![
        (Event::Ack { seq: 9 }, "0010 09000000"),
        (
            Event::MmioReadResp {
                id: 1,
                data: vec![0xAA, 0xBB],
            },
            "0011 01000000 02000000 aabb",
        ),
        (Event::MmioWriteResp { id: 2 }, "0111 02000000"),
        (
            Event::PortReadResp { id: 3, value: 0xFF },
            "0211 03000000 ff000000",
        ),
        (Event::PortWriteResp { id: 4 }, "0311 04000000"),
        (
            Event::DiskReadResp {
                id: 5,
                result: Ok(512),
            },
            "0411 05000000 01 00020000",
        ),
        (
            Event::DiskWriteResp {
                id: 6,
                result: Err(DiskError::GuestRange),
            },
            "0511 06000000 00 02000000",
        ),
        (Event::FrameReady { frame: 7 }, "0012 0700000000000000"),
        (Event::IrqRaise { line: 14 }, "0013 0e"),
        (Event::IrqLower { line: 14 }, "0113 0e"),
        (Event::A20 { enabled: true }, "0213 01"),
        (Event::ResetRequest, "0313"),
        (
            Event::Log {
                level: LogLevel::Warn,
                message: "hé".into(),
            },
            "0014 03 03000000 68c3a9",
        ),
        (
            Event::Serial {
                port: 0x3F8,
                data: b"ok".to_vec(),
            },
            "0015 f803 02000000 6f6b",
        ),
        (Event::Panic { message: "no".into() }, "fe1f 02000000 6e6f"),
        (Event::TripleFault, "ff1f"),
    ]
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b' ').collect();
    digits
        .chunks(2)
        .map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn s3_51_commands_have_their_golden_bytes_and_come_back() {
    for (command, golden) in commands() {
        assert_eq!(encoded(&command), hex(golden), "{command:?}");
        assert_eq!(Command::decode(&hex(golden)), Ok(command));
    }
}

#[test]
fn s3_51_events_have_their_golden_bytes_and_come_back() {
    for (event, golden) in events() {
        assert_eq!(event.encode(), hex(golden), "{event:?}");
        assert_eq!(Event::decode(&hex(golden)), Ok(event));
    }
}

#[test]
fn s3_51_every_truncation_is_an_unexpected_end() {
    for (command, golden) in commands() {
        let bytes = hex(golden);
        let fields = bytes.len() - command.data().len();
        for len in 0..fields {
            let e = Command::decode(&bytes[..len]).unwrap_err();
            assert!(
                matches!(e, DecodeError::UnexpectedEof { .. }),
                "{command:?} cut to {len}: {e}"
            );
        }
    }
    for (event, golden) in events() {
        let bytes = hex(golden);
        for len in 0..bytes.len() {
            let e = Event::decode(&bytes[..len]).unwrap_err();
            assert!(
                matches!(e, DecodeError::UnexpectedEof { .. }),
                "{event:?} cut to {len}: {e}"
            );
        }
    }
}

#[test]
fn s3_51_trailing_bytes_and_unknown_tags_are_unknown_tags() {
    for (command, golden) in commands() {
        if command.data().is_empty() {
            let bytes = [hex(golden), vec![0]].concat();
            assert!(matches!(
                Command::decode(&bytes),
                Err(DecodeError::UnknownTag { trailing: 1, .. })
            ));
        }
    }
    for (_, golden) in events() {
        let bytes = [hex(golden), vec![0; 3]].concat();
        assert!(matches!(
            Event::decode(&bytes),
            Err(DecodeError::UnknownTag { trailing: 3, .. })
        ));
    }
    for tag in [0x0002u16, 0x010D, 0x0FFF, 0x1001, 0x1106, 0x1304, 0x2000, 0xFFFF] {
        let expected = DecodeError::UnknownTag { tag, trailing: 0 };
        assert_eq!(Command::decode(&tag.to_le_bytes()), Err(expected));
        assert_eq!(Event::decode(&tag.to_le_bytes()), Err(expected));
    }
}

#[test]
fn s3_51_values_that_mean_nothing_are_invalid() {
    for bad in [
        "0201 03 f803",
        "0201 00 f803",
        "0301 04 01 f701 00000000",
        "0601 01 04 00000000",
        "0001 09 0000000000000000",
    ] {
        assert!(
            matches!(Command::decode(&hex(bad)), Err(DecodeError::InvalidEnum { .. })),
            "{bad}"
        );
    }
    for bad in [
        "0213 02",
        "0014 05 00000000",
        "0411 00000000 00 05000000",
        "0411 00000000 02 00000000",
    ] {
        assert!(
            matches!(Event::decode(&hex(bad)), Err(DecodeError::InvalidEnum { .. })),
            "{bad}"
        );
    }
    assert_eq!(
        Event::decode(&hex("0014 00 01000000 ff")),
        Err(DecodeError::InvalidUtf8 { field: "log message" })
    );
}

#[test]
fn s3_51_oversized_fields_are_refused_before_they_are_read() {
    let e = Event::decode(&hex("0015 0000 00001000")).unwrap_err();
    assert!(
        matches!(e, DecodeError::OversizedPayload { len: 0x10_0000, .. }),
        "{e}"
    );
    assert!(matches!(
        Event::decode(&vec![0; MAX_MESSAGE + 1]),
        Err(DecodeError::OversizedPayload { .. })
    ));
    let long = Event::Log {
        level: LogLevel::Info,
        message: "é".repeat(MAX_MESSAGE),
    };
    let bytes = long.encode();
    assert!(bytes.len() <= MAX_MESSAGE);
    assert!(matches!(Event::decode(&bytes), Ok(Event::Log { .. })));
}

#[test]
fn a_string_command_never_leaves_its_page() {
    let page = |flags, size, count, addr| {
        let c = Command::StringInPage {
            flags,
            port: 0,
            size,
            count,
            guest: GuestPhys(addr),
        };
        Command::decode(&encoded(&c)).is_ok()
    };
    let (up, down) = (CommandFlags::POSTED, CommandFlags::BACKWARDS);
    assert!(page(up, 2, 2048, 0x1000));
    assert!(!page(up, 2, 2049, 0x1000));
    assert!(!page(up, 2, 2048, 0x1001));
    assert!(page(up, 1, 1, 0x1FFF));
    assert!(!page(up, 2, 1, 0x1FFF));
    assert!(page(down, 2, 2048, 0x1FFE));
    assert!(!page(down, 2, 2048, 0x1FFC));
    assert!(!page(down, 2, 1, 0x1FFF));
    assert!(page(down, 4, 1, 0x1000));
    assert!(page(up, 4, 0, 0x1FFF));
    let c = Command::StringIn {
        port: 0,
        size: 4,
        count: 1025,
    };
    assert!(matches!(
        Command::decode(&encoded(&c)),
        Err(DecodeError::OversizedPayload { .. })
    ));
    let c = Command::StringOut {
        flags: up,
        port: 0,
        size: 4,
        data: &[0; 6],
    };
    assert!(Command::decode(&encoded(&c)).is_err());
}

#[test]
fn any_bytes_decode_or_are_refused_without_a_panic() {
    use proptest::prelude::*;
    proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..64), tag in 0u16..0x2000)| {
        let mut bytes = bytes;
        if bytes.len() >= 2 {
            bytes[..2].copy_from_slice(&tag.to_le_bytes());
        }
        if let Ok(c) = Command::decode(&bytes) {
            prop_assert_eq!(encoded(&c), bytes.clone());
        }
        if let Ok(e) = Event::decode(&bytes) {
            prop_assert_eq!(e.encode(), bytes);
        }
    });
}
