//! Everything a guest can do to io-worker's devices, and what a predecessor can have committed.

use arbitrary::Unstructured;
use quintet_io_worker::bus::{RegionKind, Size};
use quintet_io_worker::run::commands::apply;
use quintet_protocol::addr::GuestPhys;
use quintet_protocol::input::{InputEvent, Key};
use quintet_protocol::message::{Command, CommandFlags, MAX_COMMAND};

use super::board::{Board, RAM, size};

/// Most accesses of an input.
const MOST: usize = 600;

fn byte(u: &mut Unstructured<'_>) -> u8 {
    u.arbitrary().unwrap_or(0)
}

fn word(u: &mut Unstructured<'_>) -> u16 {
    u.arbitrary().unwrap_or(0)
}

fn double(u: &mut Unstructured<'_>) -> u32 {
    u.arbitrary().unwrap_or(0)
}

/// An address: most of RAM's lower part, some anywhere.
fn address(u: &mut Unstructured<'_>) -> u64 {
    match byte(u) {
        0..0xE0 => u64::from(word(u)) << 2,
        0xE0..0xF8 => u64::from(double(u)) % (RAM + 0x1_0000),
        _ => u.arbitrary().unwrap_or(u64::MAX),
    }
}

fn apply_bytes(board: &mut Board, bytes: &[u8]) {
    let wants = Command::decode(bytes).is_ok_and(|c| c.wants_reply());
    let answer = board.env(|m, env| apply(m, env, bytes));
    if let Ok(answer) = answer {
        assert_eq!(answer.is_some(), wants, "a reply to who waits for one");
        let longest = quintet_protocol::reply::REPLY_DATA;
        assert!(answer.is_none_or(|(_, data)| data.len() <= longest));
    }
}

fn send(board: &mut Board, command: Command<'_>) {
    let mut head = [0; MAX_COMMAND];
    let len = command.encode(&mut head);
    let bytes = [&head[..len], command.data()].concat();
    assert_eq!(
        Command::decode(&bytes),
        Ok(command),
        "a command comes back as it went"
    );
    apply_bytes(board, &bytes);
}

/// An access to a register of a device that is there, wherever its windows lie now.
fn access(board: &mut Board, u: &mut Unstructured<'_>, write: bool) {
    let (which, offset) = (byte(u), word(u));
    let Some(claim) = board
        .claims()
        .get(usize::from(which) % board.claims().len().max(1))
    else {
        return;
    };
    let at = claim.start + u64::from(offset) % claim.len;
    let flags = CommandFlags::POSTED;
    let command = match (claim.kind, write) {
        (RegionKind::Port, false) => Command::PortRead {
            port: at as u16,
            size: size(u),
        },
        (RegionKind::Port, true) => {
            let size = size(u);
            let value = double(u) & Size::new(size).map_or(0, Size::ones) as u32;
            Command::PortWrite {
                flags,
                port: at as u16,
                size,
                value,
            }
        }
        (RegionKind::Memory, false) => Command::MmioRead {
            addr: GuestPhys(at),
            size: 1 + byte(u) % 8,
        },
        (RegionKind::Memory, true) => {
            let size = 1 + byte(u) % 8;
            let value: u64 = u.arbitrary().unwrap_or(0);
            Command::MmioWrite {
                flags,
                addr: GuestPhys(at),
                size,
                value: value & (u64::MAX >> (64 - 8 * u32::from(size))),
            }
        }
    };
    send(board, command);
}

fn configuration(board: &mut Board, u: &mut Unstructured<'_>, write: bool) {
    // Slots that have a function, most of the time.
    let (devfn, register) = (byte(u) % 0x38, byte(u));
    let address = 1 << 31 | u32::from(devfn) << 8 | u32::from(register & !3);
    let (offset, size) = (register & 3, size(u));
    let value = double(u) & Size::new(size).map_or(0, Size::ones) as u32;
    send(
        board,
        if write {
            Command::PciWrite {
                flags: CommandFlags::REPLY,
                address,
                offset: offset & !(size - 1),
                size,
                value,
            }
        } else {
            Command::PciRead {
                address,
                offset: offset & !(size - 1),
                size,
            }
        },
    );
}

/// String I/O: by message or by page.
fn string(board: &mut Board, u: &mut Unstructured<'_>) {
    let (kind, port, size, count) = (byte(u), word(u), size(u), 1 + u16::from(byte(u)) * 4);
    let count = count.min(4096 / u16::from(size));
    // Of one page, as the vCPU sees to.
    let page = u64::from(word(u)) << 12;
    let backwards = kind & 4 != 0;
    let span = u64::from(count - 1) * u64::from(size);
    let guest = GuestPhys(page + if backwards { span } else { 0 });
    let flags = match backwards {
        true => CommandFlags::BACKWARDS,
        false => CommandFlags::POSTED,
    };
    let len = usize::from(byte(u)).min(u.len());
    let data = u.bytes(len).unwrap_or(&[]);
    let data = &data[..data.len() / usize::from(size) * usize::from(size)];
    send(
        board,
        match kind & 3 {
            0 => Command::StringIn { port, size, count },
            1 => Command::StringInPage {
                flags,
                port,
                size,
                count,
                guest,
            },
            2 => Command::StringOutPage {
                flags,
                port,
                size,
                count,
                guest,
            },
            _ => Command::StringOut {
                flags: CommandFlags::POSTED,
                port,
                size,
                data,
            },
        },
    );
}

/// A record of an input event, whose header is right.
fn record(u: &mut Unstructured<'_>) -> Vec<u8> {
    let key = InputEvent::Key {
        key: Key(byte(u)),
        down: true,
    };
    let mut record = key.to_record(0).as_bytes().to_vec();
    let header = record.len() - 2;
    // Device, report, and as many bytes as the length says.
    (record[6], record[7]) = (byte(u) % 4, byte(u) % 8);
    let len = usize::from(byte(u) % 5);
    record.truncate(header);
    record[header - 4..].copy_from_slice(&(len as u32).to_le_bytes());
    record.extend((0..len).map(|_| byte(u)));
    record
}

fn step(board: &mut Board, u: &mut Unstructured<'_>) {
    match byte(u) % 20 {
        0..4 => access(board, u, true),
        4..6 => access(board, u, false),
        6 => configuration(board, u, true),
        7 => configuration(board, u, false),
        8 | 9 => {
            let at = address(u);
            let len = usize::from(byte(u) % 65).min(u.len());
            let bytes = u.bytes(len).unwrap_or(&[]);
            board.poke(at, bytes);
        }
        10 => string(board, u),
        11 => {
            let (port, size) = (word(u), size(u));
            let value = double(u) & Size::new(size).map_or(0, Size::ones) as u32;
            send(
                board,
                Command::PortWrite {
                    flags: CommandFlags::REPLY,
                    port,
                    size,
                    value,
                },
            );
        }
        12 => {
            let (port, size) = (word(u), size(u));
            send(board, Command::PortRead { port, size });
        }
        13 => {
            let len = usize::from(byte(u) % 65).min(u.len());
            let bytes = u.bytes(len).unwrap_or(&[]);
            apply_bytes(board, bytes);
        }
        14 | 15 => board.turn(),
        16 => {
            let nanos = u64::from(word(u)) << (byte(u) % 20);
            board.pass(nanos);
        }
        17 => {
            let record = record(u);
            let event = InputEvent::from_record(&record).ok().map(|(event, _)| event);
            board.bring(record[0], event);
        }
        18 => board.check_mirrors(),
        _ => match byte(u) % 8 {
            0 => board.reset(true),
            1 => board.reset(false),
            2 => board.exchange(byte(u)),
            _ => board.restart(),
        },
    }
}

fn go_on(board: &mut Board, u: &mut Unstructured<'_>) {
    for _ in 0..MOST {
        if u.is_empty() {
            break;
        }
        step(board, u);
    }
    board.check_mirrors();
    board.restart();
}

/// A guest's accesses to every device, with what it has put into RAM, while time passes and the worker dies.
///
/// # Panics
/// When an invariant of [`Board`] is broken.
pub fn devices(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let flags = byte(&mut u);
    let mut board = Board::new(flags & 1 == 0, flags & 2 != 0);
    go_on(&mut board, &mut u);
}

/// Committed states that a hostile predecessor has left: refused, or taken up as one of the part's own; then accesses.
///
/// # Panics
/// When an invariant of [`Board`] is broken.
pub fn state(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let flags = byte(&mut u);
    let mut board = Board::new(flags & 1 == 0, false);
    // A few accesses first, so that the states have something in them.
    for _ in 0..byte(&mut u) % 16 {
        step(&mut board, &mut u);
    }
    board.turn();
    for _ in 0..1 + byte(&mut u) % 4 {
        let (part, how) = (byte(&mut u), byte(&mut u));
        let version = (how & 1 != 0).then(|| word(&mut u));
        if how & 2 == 0 {
            let len = usize::from(word(&mut u)).min(u.len());
            let bytes = u.bytes(len).unwrap_or(&[]);
            board.load(part, version, bytes);
            continue;
        }
        // Its own state with some bytes changed is one more often than bytes from nowhere.
        let mut bytes = board.state(part).to_vec();
        for _ in 0..1 + byte(&mut u) % 8 {
            let (at, value) = (word(&mut u), byte(&mut u));
            if let Some(b) = bytes.get_mut(usize::from(at)) {
                *b = value;
            }
        }
        board.load(part, version, &bytes);
    }
    go_on(&mut board, &mut u);
}
