//! What a vCPU and a coordinator see of a running worker.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::commit::{COMMIT_SIZE, CommitStore, DEVICES_AT};
use quintet_protocol::handshake::{FileId, Role, WorkerError};
use quintet_protocol::input::{InputEvent, Key};
use quintet_protocol::layout::{Ends, Region};
use quintet_protocol::message::{Command, CommandFlags};
use quintet_protocol::reply::ReplyStatus;
use quintet_protocol::shm::{Map, View, ViewMut};
use quintet_protocol::status::{GuestEvent, MachineState, PeerState, StatusWord, StatusWriter, WorkerState};
use quintet_protocol::sync::Ordering;
use quintet_protocol::wires::WireReader;

use super::rig::Rig;
use super::worker::Global;
use super::{Turn, Worker};

const SCR: u16 = 0x3FF;

#[test]
fn posted_writes_are_applied_in_order_and_a_read_waits_behind_them() {
    let mut r = Rig::new().booted();
    for value in 0..=200 {
        r.outb(SCR, value);
    }
    assert_eq!(r.inb(SCR), 200);
    r.settle();
    assert_eq!(r.ring.is_drained(), Ok(true));
}

#[test]
fn unclaimed_ports_and_memory_say_so_and_read_as_ones() {
    let mut r = Rig::new().booted();
    assert_eq!(
        r.ask(Command::PortRead { port: 0x300, size: 4 }),
        (ReplyStatus::Unclaimed, vec![0xFF; 4])
    );
    let addr = GuestPhys(0xFE00_0000);
    assert_eq!(
        r.ask(Command::MmioRead { addr, size: 8 }),
        (ReplyStatus::Unclaimed, vec![0xFF; 8])
    );
    let addr = GuestPhys(0xFF00_0000);
    let flags = CommandFlags::POSTED;
    r.post(Command::MmioWrite {
        flags,
        addr,
        size: 3,
        value: 0x0011_2233,
    });
    assert_eq!(
        r.ask(Command::MmioRead { addr, size: 5 }),
        (ReplyStatus::Done, vec![0x33, 0x22, 0x11, 0, 0])
    );
}

#[test]
fn string_io_moves_a_page_in_one_command() {
    let mut r = Rig::new().booted();
    let flags = CommandFlags::POSTED;
    r.post(Command::PortWrite {
        flags,
        port: 0x510,
        size: 2,
        value: 0,
    });
    assert_eq!(
        r.ask(Command::StringIn {
            port: 0x511,
            size: 1,
            count: 6
        })
        .1,
        b"QEMU\0\0"
    );
    r.post(Command::StringOut {
        flags,
        port: 0x3F8,
        size: 1,
        data: b"hello ",
    });
    let ram = r.set.guest_ram().expect("RAM");
    ram.write(GuestPhys(0x1FFB), b"dlrow").expect("RAM");
    let flags = CommandFlags::REPLY.with(CommandFlags::BACKWARDS);
    let guest = GuestPhys(0x1FFF);
    let (_, done) = r.ask(Command::StringOutPage {
        flags,
        port: 0x3F8,
        size: 1,
        count: 5,
        guest,
    });
    assert_eq!(done, 5_u32.to_le_bytes());
    assert_eq!(r.output, b"hello world");
    r.post(Command::PortWrite {
        flags: CommandFlags::POSTED,
        port: 0x510,
        size: 2,
        value: 0,
    });
    r.ask(Command::StringInPage {
        flags: CommandFlags::REPLY,
        port: 0x511,
        size: 1,
        count: 4,
        guest: GuestPhys(0x3000),
    });
    assert_eq!(ram.read_array::<4>(GuestPhys(0x3000)), Ok(*b"QEMU"));
}

#[test]
fn a_wire_that_an_access_moves_is_published_before_its_reply() {
    let mut r = Rig::new().booted();
    r.settle();
    r.worker = None;
    let (replies, wires) = (r.cpu.reply_reader(0), r.cpu.view(Region::wires()));
    let number = r.ring.number() + 1;
    let seen = Rc::new(Cell::new(0));
    let count = Rc::clone(&seen);
    r.look = Some(Rc::new(move || {
        if replies.is_ready(number) {
            let mut reader = WireReader::new(wires.clone());
            reader.changes(|_| {});
            assert!(reader.level(14), "the reply came first");
            count.set(count.get() + 1);
        }
    }));
    r.out_sync(0x200E, 1, 1);
    assert!(seen.get() > 0);
}

#[test]
fn registers_show_what_an_interrupt_is_for_before_its_line_rises() {
    let mut r = Rig::new().booted();
    // COM1: interrupts for received data reach the line.
    r.outb(0x3F9, 1);
    r.outb(0x3FC, 8);
    r.settle();
    let map = r.cpu.decode_map_reader().read().expect("map").1;
    let claim = *map.port(0x3FD).expect("claimed");
    let offset = usize::from(claim.mirror_offset) + (0x3FD - claim.start as usize);
    let mirror = r.cpu.mirror_reader(usize::from(claim.mirror));
    let (posted, wires) = (r.ring.number(), r.cpu.view(Region::wires()));
    r.worker = None;
    let seen = Rc::new(Cell::new(0));
    let count = Rc::clone(&seen);
    r.look = Some(Rc::new(move || {
        let mut reader = WireReader::new(wires.clone());
        reader.changes(|_| {});
        if reader.level(4) {
            let line_status = mirror.read(0, posted, offset, 1);
            assert_eq!(line_status.map(|v| v & 1), Some(1), "the line rose first");
            count.set(count.get() + 1);
        }
    }));
    r.typed(b"x");
    r.settle();
    assert!(seen.get() > 0);
}

/// A guest that started on the boot state alone wrote its first bytes to a serial line that nobody claimed yet.
#[test]
fn a_guest_starts_when_its_devices_are_there_and_not_before() {
    let mut r = Rig::new();
    // The least that is a multiboot image: a header that says where it lies, and where it is entered.
    let header = [
        0x1BAD_B002,
        1 << 16,
        0xE451_4FFE,
        0x10_0000,
        0x10_0000,
        0,
        0,
        0x10_0000,
    ];
    r.kernel = Some(header.iter().flat_map(|word: &u32| word.to_le_bytes()).collect());
    let cpu = r.cpu.clone();
    let (early, seen) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (too_soon, started) = (Rc::clone(&early), Rc::clone(&seen));
    r.look = Some(Rc::new(move || {
        let map = cpu.decode_map_reader().read();
        let claimed = map.is_ok_and(|(_, map)| map.port(0x3F8).is_some());
        if cpu.guest_start(1).is_ok_and(|boot| boot.is_some()) {
            assert!(claimed, "nobody claims COM1");
            started.set(started.get() + 1);
        } else if cpu.boot_state_reader().read().is_ok_and(|boot| boot.is_some()) && !claimed {
            too_soon.set(too_soon.get() + 1);
        }
    }));
    r.boot();
    r.settle();
    r.inb(0x3FD);
    assert!(early.get() > 0, "the boot state does not come first any more");
    assert!(seen.get() > 0);
}

#[test]
fn a_ring_of_input_full_of_rubbish_is_named_and_taken_into_use_again() {
    let mut r = Rig::new().booted();
    r.out_sync(0x60, 1, 0xF4);
    assert_eq!(r.inb(0x60), 0xFA);
    let gpu = Ends::new(&r.set.maps(Role::Gpu).expect("maps"));
    let (ring, io) = (gpu.view_mut(Region::input()), r.io_status());
    assert_eq!(io.peer_faults(), None);
    let mut x = 1_u64;
    for round in 1..50 {
        for at in (0..256).step_by(8) {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ring.store_u64(at, x, Ordering::Relaxed);
        }
        r.rung = true;
        r.settle();
        // Once for the rubbish of each round; an honest tail by accident is not in these numbers.
        assert_eq!(io.peer_faults(), Some((Role::Gpu, round)));
    }
    // What a successor puts in arrives.
    let mut to = gpu.input_producer().expect("a ring");
    for down in [true, false] {
        let key = InputEvent::Key { key: Key(4), down };
        to.push(key.to_record(0).as_bytes()).expect("room");
    }
    r.rung = true;
    r.settle();
    assert_eq!([r.inb(0x60), r.inb(0x60), r.inb(0x60)], [0x1C, 0xF0, 0x1C]);
}

#[test]
fn nothing_goes_out_before_the_commit_that_contains_it() {
    let mut r = Rig::new().booted();
    r.settle();
    r.worker = None;
    let (store, stream) = (r.host.view(Region::commit()), r.host.view(Region::stream_out(0)));
    let moves = Rc::new(Cell::new(0));
    let (count, last) = (Rc::clone(&moves), Cell::new(0));
    r.look = Some(Rc::new(move || {
        let tail = stream.load_u64(0, Ordering::Acquire);
        if tail != last.replace(tail) {
            assert!(tail <= committed_output(&store), "output moved before its commit");
            count.set(count.get() + 1);
        }
    }));
    for byte in b"some text" {
        r.outb(0x3F8, *byte);
        r.turn();
    }
    r.settle();
    assert_eq!(r.output, b"some text");
    assert!(moves.get() > 0);
}

/// The position of stream 0 in the last commit, from a copy of the store, since opening one writes to it.
fn committed_output(store: &View) -> u64 {
    let copy = ViewMut::new(Arc::new(Map::anonymous(COMMIT_SIZE as u64).expect("map")));
    let mut bytes = vec![0; DEVICES_AT];
    store.read_bytes(0, &mut bytes);
    copy.write_bytes(0, &bytes);
    let global: Option<Global> = CommitStore::open(copy).load_global().expect("a commit");
    global.map_or(0, |g| g.outside.out[0])
}

#[test]
fn a_mirror_counts_only_once_it_knows_of_every_write_posted() {
    let mut r = Rig::new().booted();
    r.settle();
    let map = r.cpu.decode_map_reader().read().expect("map").1;
    let claim = *map.port(0x3FD).expect("claimed");
    let offset = usize::from(claim.mirror_offset) + (0x3FD - claim.start as usize);
    let mirror = r.cpu.mirror_reader(usize::from(claim.mirror));
    assert_eq!(mirror.read(0, 0, offset, 1), Some(0x60));
    let posted = r.post(Command::PortWrite {
        flags: CommandFlags::POSTED,
        port: 0x3FB,
        size: 1,
        value: 3,
    });
    assert_eq!(mirror.read(0, posted, offset, 1), None);
    r.settle();
    assert_eq!(mirror.read(0, posted, offset, 1), Some(0x60));
    r.typed(b"x");
    r.settle();
    assert_eq!(mirror.read(0, posted, offset, 1), Some(0x61));
}

#[test]
fn the_decode_map_is_new_before_the_write_that_changes_it_returns() {
    let mut r = Rig::new().booted();
    r.settle();
    let reader = r.cpu.decode_map_reader();
    let version = reader.version();
    let flags = CommandFlags::REPLY;
    for (register, value) in [(0x10, 0xFD00_0000), (0x04, 2)] {
        r.ask(Command::PciWrite {
            flags,
            address: 0x8000_1000 | register,
            offset: 0,
            size: 4,
            value,
        });
    }
    assert_ne!(reader.version(), version);
    let (_, map) = reader.read().expect("map");
    assert_eq!(
        map.address(0xFD00_0000).map(|c| c.device),
        Some(quintet_protocol::decode_map::DEVICE_VRAM)
    );
    assert_eq!(
        r.ask(Command::PciRead {
            address: 0x8000_0000,
            offset: 0,
            size: 4
        })
        .1,
        [0x86, 0x80, 0x37, 0x12]
    );
    r.out_sync(0x64, 1, 0xDD);
    assert!(!reader.read().expect("map").1.a20);
}

#[test]
fn exit_and_reset_reach_the_coordinator_and_a_reset_is_carried_out_once() {
    let mut r = Rig::new().booted();
    r.outb(SCR, 7);
    r.out_sync(0x64, 1, 0xFE);
    assert!(matches!(
        r.io_status().guest_event(),
        Some((1, GuestEvent::Reset(_)))
    ));
    r.outb(SCR, 9);
    r.status.store(StatusWord::ResetGeneration, 2);
    r.settle();
    assert_eq!(r.io_status().load(StatusWord::ResetDone), 2);
    assert_eq!(
        r.ring.is_drained(),
        Ok(true),
        "what was posted before belongs to the life before"
    );
    r.worker = None;
    r.settle();
    assert_eq!(
        r.io_status().guest_event().map(|e| e.0),
        Some(1),
        "not asked again"
    );
    r.out_sync(0xF4, 1, 0x10);
    assert_eq!(r.io_status().guest_event(), Some((2, GuestEvent::ExitPort(0x10))));
}

#[test]
fn a_read_that_a_reset_overtakes_is_answered() {
    let mut r = Rig::new().booted();
    r.outb(SCR, 7);
    let number = r.push(Command::PortRead { port: SCR, size: 1 });
    r.status.store(StatusWord::ResetGeneration, 2);
    r.settle();
    let mut data = [0; 8];
    assert_eq!(
        r.replies.take(number, &mut data),
        Ok(Some((ReplyStatus::Done, 1)))
    );
    assert_eq!(data[0], 7, "by the life it belongs to");
    assert_eq!(r.io_status().load(StatusWord::ResetDone), 2);
}

#[test]
fn while_the_vcpu_has_not_stopped_a_reset_waits_and_commands_are_served() {
    let mut r = Rig::new().booted();
    r.status.store(StatusWord::PeerCpu, PeerState::Running as u32);
    r.status
        .store(StatusWord::MachineState, MachineState::Running as u32);
    r.settle();
    // What the vCPU has obeyed is the state before: the orders come one word after another.
    r.status.store(StatusWord::ResetGeneration, 2);
    r.outb(SCR, 2);
    assert_eq!(r.inb(SCR), 2);
    r.status
        .store(StatusWord::MachineState, MachineState::Resetting as u32);
    r.settle();
    r.status.store(StatusWord::RunEpoch, 5);
    r.outb(SCR, 3);
    assert_eq!(r.inb(SCR), 3);
    assert_eq!(r.io_status().load(StatusWord::ResetDone), 1);
    let file = r
        .set
        .maps(Role::Cpu)
        .expect("maps")
        .view_mut(FileId::Control(Role::Cpu))
        .expect("writable");
    StatusWriter::new(&file, Role::Cpu).store(StatusWord::EpochSeen, 5);
    r.settle();
    assert_eq!(r.io_status().load(StatusWord::ResetDone), 2);
}

#[test]
fn a_stop_request_and_a_shutdown_command_end_the_worker() {
    let mut r = Rig::new().booted();
    r.settle();
    r.post(Command::Shutdown);
    assert_eq!(r.turn(), Turn::Stop);
    let mut r = Rig::new().booted();
    r.settle();
    r.status.store(StatusWord::StopRequested, 1 << Role::Io.index());
    assert_eq!(r.turn(), Turn::Stop);
}

#[test]
fn an_image_that_is_none_is_a_configuration_error_that_names_it() {
    let mut r = Rig::new();
    r.kernel = Some(b"no kernel".to_vec());
    let error = Worker::open(r.context()).expect_err("refused");
    assert!(matches!(error, WorkerError::Config(_)), "{error}");
}

#[test]
fn rubbish_in_the_command_ring_is_dropped_and_service_goes_on() {
    let mut r = Rig::new().booted();
    for bytes in [&[0xFF; 40][..], &[], &[2, 1]] {
        r.ring.push(bytes).expect("room");
    }
    r.outb(SCR, 5);
    assert_eq!(r.inb(SCR), 5);
}

/// The real loop in a thread, asleep when it is not needed.
#[test]
fn a_worker_in_its_own_thread_serves_sleeps_and_wakes() {
    let mut r = Rig::new();
    r.generation = 1;
    let context = r.context();
    let worker = std::thread::spawn(move || super::run(context));
    let bell = r.cpu.doorbell(quintet_protocol::layout::SleeperId::Io);
    let status = r.io_status();
    while status.load(StatusWord::ResetDone) != 1 || status.load(StatusWord::ReadyIo) != 1 {
        std::thread::yield_now();
    }
    let ask = |r: &mut Rig, command| {
        let number = r.push(command);
        bell.nudge();
        let mut data = [0; 8];
        loop {
            if let Ok(Some((_, len))) = r.replies.take(number, &mut data) {
                return data[..len].to_vec();
            }
            std::thread::yield_now();
        }
    };
    for value in 0..50 {
        r.push(Command::PortWrite {
            flags: CommandFlags::POSTED,
            port: SCR,
            size: 1,
            value,
        });
        assert_eq!(
            ask(&mut r, Command::PortRead { port: SCR, size: 1 }),
            [value as u8]
        );
        if value % 10 == 0 {
            while status.load(StatusWord::WorkerState) != WorkerState::Parked as u32 {
                std::thread::yield_now();
            }
        }
    }
    // Input wakes it without a command.
    r.typed(b"z");
    bell.ring();
    let (_, map) = r.cpu.decode_map_reader().read().expect("map");
    let claim = *map.port(0x3FD).expect("claimed");
    let offset = usize::from(claim.mirror_offset) + (0x3FD - claim.start as usize);
    let mirror = r.cpu.mirror_reader(usize::from(claim.mirror));
    while mirror.read(0, 0, offset, 1) != Some(0x61) {
        std::thread::yield_now();
    }
    r.status.store(StatusWord::StopRequested, 1 << Role::Io.index());
    bell.ring();
    assert!(worker.join().expect("no panic").is_ok());
}
