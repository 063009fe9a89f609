//! A worker killed at every step of its loop.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::handshake::Role;
use quintet_protocol::input::{InputEvent, Key};
use quintet_protocol::message::{Command, CommandFlags};

use super::rig::Rig;

/// What a guest saw and did, to be the same however often the worker died.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    output: Vec<u8>,
    received: Vec<u8>,
    keys: Vec<u8>,
    files: Vec<u8>,
    edges: u32,
    raised: u32,
}

/// A guest that uses everything that must happen exactly once.
fn guest(r: &mut Rig) -> Outcome {
    r.boot();
    let mut seen = Outcome {
        output: vec![],
        received: vec![],
        keys: vec![],
        files: vec![],
        edges: 0,
        raised: 0,
    };
    let ram = r.set.guest_ram().expect("RAM");
    for (reg, value) in [(3, 0x83), (0, 1), (1, 0), (3, 3), (2, 0x01), (4, 0x0B)] {
        r.outb(0x3F8 + reg, value);
    }
    r.out_sync(0x60, 1, 0xF4);
    assert_eq!(r.inb(0x60), 0xFA);
    r.typed(b"typed by the host");
    let mut to = r.host.lifecycle_to_producer(Role::Io).expect("ring");
    for usage in 4..8 {
        for down in [true, false] {
            to.push(
                InputEvent::Key {
                    key: Key(usage),
                    down,
                }
                .to_record(0)
                .as_bytes(),
            )
            .expect("room");
        }
    }
    r.rung = true;
    for round in 0..4_u8 {
        for byte in format!("line {round}\n").bytes() {
            r.outb(0x3F8, byte);
        }
        r.outb(0x2022, 0);
        r.outb(0x2022, 0);
        r.count_edges();
        // Two bytes of the CPU count by port, then the signature by DMA, byte after byte.
        r.post(Command::PortWrite {
            flags: CommandFlags::POSTED,
            port: 0x510,
            size: 2,
            value: 1,
        });
        let mut control = 0x0000_000A_u32;
        for _ in 0..2 {
            let mut descriptor = control.to_be_bytes().to_vec();
            descriptor.extend(2_u32.to_be_bytes());
            descriptor.extend(0x8000_u64.to_be_bytes());
            ram.write(GuestPhys(0x9000), &descriptor).expect("RAM");
            ram.write(GuestPhys(0x8000), b"??").expect("RAM");
            r.out_sync(0x518, 4, 0x9000_u32.swap_bytes());
            assert_eq!(
                ram.read_array::<4>(GuestPhys(0x9000)),
                Ok([0; 4]),
                "completed before the reply"
            );
            seen.files
                .extend(ram.read_array::<2>(GuestPhys(0x8000)).expect("RAM"));
            control = 2;
        }
        r.out_sync(0x2020, 1, 1);
        r.outb(0x2021, 1);
        for _ in 0..4 {
            while r.inb(0x3FD) & 1 == 0 {}
            seen.received.push(r.inb(0x3F8));
        }
        while r.inb(0x64) & 1 != 0 && seen.keys.len() < 6 * usize::from(round + 1) {
            seen.keys.push(r.inb(0x60));
        }
    }
    seen.raised = u32::from_le_bytes(
        r.ask(Command::PortRead {
            port: 0x2024,
            size: 4,
        })
        .1
        .try_into()
        .expect("four"),
    );
    r.settle();
    r.count_edges();
    seen.edges = r.edges[7];
    seen.output = std::mem::take(&mut r.output);
    seen
}

fn expected() -> Outcome {
    let mut r = Rig::new();
    let seen = guest(&mut r);
    assert_eq!(seen.output, b"line 0\nline 1\nline 2\nline 3\n");
    assert_eq!(seen.received, b"typed by the hos");
    assert_eq!(seen.files, b"QEMU".repeat(4));
    assert_eq!((seen.edges, seen.raised), (8, 4));
    assert_eq!(
        seen.keys,
        [
            0x1C, 0xF0, 0x1C, 0x32, 0xF0, 0x32, 0x21, 0xF0, 0x21, 0x23, 0xF0, 0x23
        ]
    );
    assert_eq!(r.generation, 1);
    seen
}

#[test]
fn killed_once_at_every_step_the_guest_sees_everything_exactly_once() {
    let expected = expected();
    let mut step = 0;
    loop {
        let mut r = Rig::new();
        r.lives.push_back(step);
        let seen = guest(&mut r);
        assert_eq!(seen, expected, "killed at step {step}");
        if r.generation == 1 {
            break;
        }
        // Each step of the first turns, then in strides: a whole sweep takes long in a debug build.
        step += if step < 120 { 1 } else { 7 };
    }
    assert!(step > 400, "only {step} steps");
}

#[test]
fn killed_over_and_over_the_guest_sees_everything_exactly_once() {
    let expected = expected();
    for seed in 1..=12_u32 {
        let mut r = Rig::new();
        r.hurt(seed);
        let seen = guest(&mut r);
        assert_eq!(seen, expected, "seed {seed}");
        assert!(r.generation > 10, "the guest ended before it was hurt");
    }
}
