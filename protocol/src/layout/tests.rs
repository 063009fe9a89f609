//! The layout as a whole, and all ends over one set of files.

use super::*;
use crate::doorbell::SpinPolicy;
use crate::handshake::files::{HEAD_LEN, file_len};
use crate::message::{Command, MAX_COMMAND};
use crate::ram::RamLayout;
use crate::reply::ReplyStatus;
use crate::ring::Position;
use crate::wires::Wire;

#[test]
fn no_two_regions_share_a_byte_or_leave_their_file() {
    let all = regions();
    for pair in all.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        assert!(
            a.file != b.file || a.offset + a.len <= b.offset,
            "{a:?} and {b:?}"
        );
    }
    for r in all {
        let len = file_len(r.file, RamLayout::new(0)) as usize - HEAD_LEN;
        assert!(r.offset + r.len <= len, "{r:?} in a file of {len}");
    }
}

#[test]
fn s3_64_regions_of_different_ends_never_share_a_line() {
    for r in regions() {
        if r.name != "status" {
            assert_eq!(r.offset % CACHE_LINE, 0, "{r:?}");
        }
    }
}

#[test]
fn each_region_is_listed_once() {
    let mut names: Vec<_> = regions().iter().map(|r| (r.file, r.name, r.index)).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn a_sleepers_flag_lies_in_its_own_file_and_its_word_in_the_common_one() {
    for who in SleeperId::all() {
        assert!(Region::asleep(who).file.writable_by(who.owner()));
        assert!(
            Role::ALL
                .into_iter()
                .all(|r| Region::doorbell(who).file.writable_by(r))
        );
    }
}

fn two() -> (SegmentSet, Ends, Ends) {
    let set = SegmentSet::create(RamLayout::new(1 << 20), 42).unwrap();
    let (cpu, io) = (
        Ends::new(&set.maps(Role::Cpu).unwrap()),
        Ends::new(&set.maps(Role::Io).unwrap()),
    );
    (set, cpu, io)
}

#[test]
fn a_port_read_goes_to_io_and_its_reply_comes_back() {
    let (_set, cpu, io) = two();
    let (mut ring, replies) = (cpu.command_producer(0).unwrap(), cpu.reply_reader(0));
    let (mut commands, mut reply) = (
        io.command_consumer(0, Position::default()).unwrap(),
        io.reply_writer(0),
    );
    let mut buf = [0; MAX_COMMAND];
    let read = Command::PortRead { port: 0x3FD, size: 1 };
    let len = read.encode(&mut buf);
    let number = ring.push(&buf[..len]).unwrap();
    let mut bytes = [0; 64];
    let record = commands.next(&mut bytes).unwrap().unwrap();
    assert_eq!(
        (record.number, Command::decode(&bytes[..record.len])),
        (number, Ok(read))
    );
    reply.publish(number, ReplyStatus::Done, &[0x60]);
    commands.release_all();
    let mut data = [0; 8];
    assert_eq!(replies.take(number, &mut data), Ok(Some((ReplyStatus::Done, 1))));
    assert_eq!(data[0], 0x60);
    assert!(ring.is_drained().unwrap());
}

#[test]
fn a_wire_reaches_the_vcpu_and_its_exit_word() {
    let (_set, cpu, io) = two();
    let exit = cpu.sleeper(SleeperId::Vcpu(0), SpinPolicy::NEVER);
    let (mut wires, mut raise) = (cpu.wire_reader(), io.wire_writer());
    raise.publish(4, Wire { high: true, edges: 1 });
    io.doorbell(SleeperId::Vcpu(0)).ring();
    assert!(exit.take());
    let mut seen = Vec::new();
    wires.changes(|c| seen.push((c.line, c.high, c.edges)));
    assert_eq!(seen, [(4, true, 1)]);
}

#[test]
fn s3_33_every_end_can_be_had_in_its_process() {
    let (set, cpu, io) = two();
    let c = Ends::new(&set.maps(Role::Coordinator).unwrap());
    let gpu = Ends::new(&set.maps(Role::Gpu).unwrap());
    let mut master = c.clock_master();
    master.resume();
    assert!(cpu.clock().is_running());
    assert_eq!(c.all_doorbells().len(), SleeperId::all().count());
    c.all_doorbells().iter().for_each(|d| d.force());
    for n in 0..STREAMS {
        let (mut w, mut r) = (
            io.stream_out_writer(n, 0).unwrap(),
            c.stream_out_reader(n).unwrap(),
        );
        w.write(&[n as u8]).unwrap();
        w.publish(1);
        let mut byte = [0xFF];
        assert_eq!((r.read(&mut byte), byte[0]), (Ok(1), n as u8));
        let (mut w, mut r) = (c.stream_in_writer(n).unwrap(), io.stream_in_reader(n, 0).unwrap());
        w.write(&[n as u8]).unwrap();
        w.publish(1);
        assert_eq!(r.read(&mut byte), Ok(1));
    }
    for role in Role::WORKERS {
        let worker = Ends::new(&set.maps(role).unwrap());
        c.lifecycle_to_producer(role).unwrap().push(b"to").unwrap();
        worker
            .lifecycle_from_producer(role)
            .unwrap()
            .push(b"from")
            .unwrap();
        worker.trace_producer(role).unwrap().push(b"trace").unwrap();
        assert!(worker.lifecycle_to_consumer(role).unwrap().has_pending());
        assert!(c.lifecycle_from_consumer(role).unwrap().has_pending());
        assert!(c.trace_consumer(role).unwrap().has_pending());
    }
    io.event_producer().unwrap().push(b"event").unwrap();
    assert!(cpu.event_consumer().unwrap().has_pending());
    gpu.input_producer().unwrap().push(b"key").unwrap();
    assert!(io.input_consumer(Position::default()).unwrap().has_pending());
    let mut stale = cpu.invalidation_reader().unwrap();
    io.invalidation_writer().unwrap().send(5);
    assert_eq!(stale.take(), Some(crate::invalidation::Stale::Page(5)));
    cpu.code_map_writer().mark(7);
    let mut hits = Vec::new();
    io.code_map_reader()
        .hits(crate::addr::RamOffset(7 * 4096), 1, |p| hits.push(p));
    assert_eq!(hits, [7]);
    io.mirror_writer(0).publish(&[0; MAX_VCPUS], 1, &[9; 32]);
    assert_eq!(cpu.mirror_reader(0).read(0, 0, 0, 1), Some(9));
    io.decode_map_writer()
        .publish(&crate::decode_map::DecodeMap::default())
        .unwrap();
    assert_eq!(cpu.decode_map_reader().version(), 2);
    io.boot_state_writer()
        .publish(&crate::boot_state::BootState::default());
    assert!(cpu.boot_state_reader().read().unwrap().is_some());
    io.rom_mut().store_u32(0, 7, crate::sync::Ordering::Relaxed);
    assert_eq!(cpu.rom().load_u32(0, crate::sync::Ordering::Relaxed), 7);
    assert_eq!(io.commit_store().number(), 0);
    assert_eq!(set.guest_ram().unwrap().layout().total(), 1 << 20);
}

#[test]
fn s3_7_vram_is_a_segment_of_its_own_that_only_the_vcpus_process_writes() {
    let in_it: Vec<_> = regions().into_iter().filter(|r| r.file == FileId::Vram).collect();
    assert_eq!(in_it, [Region::vram()]);
    assert!(
        in_it[0].len > crate::vram::VRAM_BYTES,
        "display memory and its registers"
    );
    let writers: Vec<_> = Role::ALL
        .into_iter()
        .filter(|r| FileId::Vram.writable_by(*r))
        .collect();
    assert_eq!(writers, [Role::Cpu]);
}

#[test]
#[should_panic(expected = "IpcIo is not writable here")]
fn a_process_cannot_have_the_writing_end_of_anothers_file() {
    let (_set, cpu, _io) = two();
    cpu.wire_writer();
}
