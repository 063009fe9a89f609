//! Tests that every device passes, stamped out by [`device_contract`], and the bench they run on.

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use quintet_protocol::input::{Button, InputEvent, Key};
use quintet_protocol::ram::{GuestRam, RamLayout};
use quintet_protocol::time::VmTime;

use super::{
    Access, Backplane, Device, Interrupts, MachineRequest, Requests, Size, StreamIn, StreamOut, Streams, Wire,
};
use crate::block::Disks;
use crate::dma::Dma;
use crate::isa_dma::IsaDma;
use crate::sound::Playback;

/// Byte streams in memory. Eight each way; outgoing ones take `room` bytes.
#[derive(Debug)]
pub(crate) struct TestStreams {
    pub(crate) out: [Vec<u8>; 8],
    pub(crate) incoming: [VecDeque<u8>; 8],
    pub(crate) events: VecDeque<InputEvent>,
    pub(crate) room: usize,
}

impl TestStreams {
    pub(crate) fn unlimited() -> Self {
        Self {
            out: Default::default(),
            incoming: Default::default(),
            events: VecDeque::new(),
            room: usize::MAX,
        }
    }
}

impl Streams for TestStreams {
    fn put(&mut self, stream: StreamOut, byte: u8) -> bool {
        let room = self.out[usize::from(stream.0)].len() < self.room;
        if room {
            self.out[usize::from(stream.0)].push(byte);
        }
        room
    }
    fn take(&mut self, stream: StreamIn) -> Option<u8> {
        self.incoming[usize::from(stream.0)].pop_front()
    }
    fn take_input(&mut self) -> Option<InputEvent> {
        self.events.pop_front()
    }
}

/// A machine around one device.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) now: VmTime,
    pub(crate) irq: Interrupts,
    pub(crate) streams: TestStreams,
    pub(crate) dma: Dma,
    pub(crate) may_master: bool,
    pub(crate) disks: Disks,
    pub(crate) isa_dma: IsaDma,
    pub(crate) playback: Playback,
    pub(crate) requests: Requests,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let ram = GuestRam::anonymous(RamLayout::new(2 << 20)).expect("anonymous RAM");
        Self {
            now: VmTime(1_000_000),
            irq: Interrupts::default(),
            streams: TestStreams::unlimited(),
            dma: Dma::new(ram),
            may_master: true,
            disks: Disks::default(),
            isa_dma: IsaDma::default(),
            playback: Playback::default(),
            requests: Requests::default(),
        }
    }

    /// Has the disks begin what was asked of them.
    pub(crate) fn submit(&mut self) -> bool {
        self.disks.submit(&mut self.dma)
    }

    pub(crate) fn backplane(&mut self) -> Backplane<'_> {
        Backplane {
            now: self.now,
            irq: &mut self.irq,
            streams: &mut self.streams,
            dma: &mut self.dma,
            may_master: self.may_master,
            disks: &mut self.disks,
            isa_dma: &mut self.isa_dma,
            playback: &mut self.playback,
            requests: &mut self.requests,
        }
    }

    pub(crate) fn read(&mut self, dev: &mut dyn Device, region: u8, offset: u64, size: Size) -> u64 {
        dev.read(&mut self.backplane(), Access { region, offset, size }) & size.ones()
    }

    pub(crate) fn write(&mut self, dev: &mut dyn Device, region: u8, offset: u64, size: Size, value: u64) {
        dev.write(
            &mut self.backplane(),
            Access { region, offset, size },
            value & size.ones(),
        );
    }

    pub(crate) fn inb(&mut self, dev: &mut dyn Device, offset: u64) -> u8 {
        self.read(dev, 0, offset, Size::BYTE) as u8
    }

    pub(crate) fn outb(&mut self, dev: &mut dyn Device, offset: u64, value: u8) {
        self.write(dev, 0, offset, Size::BYTE, u64::from(value));
    }

    /// Lets `nanos` pass, serving deadlines in their order.
    pub(crate) fn pass(&mut self, dev: &mut dyn Device, nanos: u64) {
        let end = self.now + nanos;
        while let Some(due) = dev.next_deadline().filter(|d| *d <= end) {
            self.now = self.now.max(due);
            dev.advance(&mut self.backplane());
        }
        self.now = end;
        dev.advance(&mut self.backplane());
    }

    pub(crate) fn wire(&self, line: usize) -> Wire {
        self.irq.wires()[line]
    }

    pub(crate) fn request(&mut self) -> Option<MachineRequest> {
        self.requests.take()
    }
}

pub(crate) fn saved(dev: &dyn Device) -> Vec<u8> {
    let mut out = Vec::new();
    dev.save(&mut out);
    out
}

/// A random thing that may happen to a device.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Read {
        region: u8,
        offset: u64,
        size: Size,
    },
    Write {
        region: u8,
        offset: u64,
        size: Size,
        value: u64,
    },
    Input {
        stream: u8,
        bytes: Vec<u8>,
    },
    Event(InputEvent),
    Pass(u64),
    Reset,
}

pub(crate) fn any_op(regions: Vec<u64>) -> impl Strategy<Value = Op> {
    let size = prop_oneof![
        Just(Size::BYTE),
        Just(Size::WORD),
        Just(Size::DWORD),
        Just(Size::QWORD)
    ];
    let place = (0..regions.len().max(1), any::<u64>(), size).prop_map(move |(region, offset, size)| {
        let len = regions.get(region).copied().unwrap_or(8).max(8);
        (region as u8, offset % (len - u64::from(size.bytes()) + 1), size)
    });
    let value = prop_oneof![any::<u64>(), (0_u64..256), Just(u64::MAX)];
    prop_oneof![
        4 => place.clone().prop_map(|(region, offset, size)| Op::Read { region, offset, size }),
        6 => (place, value).prop_map(|((region, offset, size), value)| Op::Write { region, offset, size, value }),
        1 => (0_u8..8, proptest::collection::vec(any::<u8>(), 0..20)).prop_map(|(stream, bytes)| Op::Input { stream, bytes }),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(key, down)| Op::Event(InputEvent::Key { key: Key(key), down })),
        1 => (any::<i16>(), any::<i16>()).prop_map(|(dx, dy)| Op::Event(InputEvent::Motion { dx, dy })),
        1 => (0..0x8000_u16, 0..0x8000_u16).prop_map(|(x, y)| Op::Event(InputEvent::Position { x, y })),
        1 => (0..5_u8, any::<bool>()).prop_map(|(n, down)| {
            let button = Button::from_index(n).expect("one of five");
            Op::Event(InputEvent::Button { button, down })
        }),
        1 => (0_u64..2_000_000).prop_map(Op::Pass),
        1 => Just(Op::Reset),
    ]
}

pub(crate) fn apply(bench: &mut Bench, dev: &mut dyn Device, regions: &[u64], op: &Op) {
    match op {
        // Regions shorter than eight bytes get the accesses that fit.
        Op::Read { region, offset, size }
        | Op::Write {
            region, offset, size, ..
        } if regions
            .get(usize::from(*region))
            .is_none_or(|len| offset + u64::from(size.bytes()) > *len) => {}
        Op::Read { region, offset, size } => {
            bench.read(dev, *region, *offset, *size);
        }
        Op::Write {
            region,
            offset,
            size,
            value,
        } => bench.write(dev, *region, *offset, *size, *value),
        Op::Input { stream, bytes } => bench.streams.incoming[usize::from(*stream)].extend(bytes),
        Op::Event(event) => bench.streams.events.push_back(*event),
        Op::Pass(nanos) => bench.pass(dev, *nanos),
        Op::Reset => dev.reset(&mut bench.backplane()),
    }
    bench.request();
}

/// Makes a device on a bench.
pub(crate) type Build<D> = fn(&mut Bench) -> D;

pub(crate) fn save_load_save<D: Device>(build: Build<D>) {
    let probe = build(&mut Bench::new());
    let regions: Vec<u64> = probe.regions().iter().map(|r| r.len).collect();
    let strategy = proptest::collection::vec(any_op(regions.clone()), 0..60);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&strategy, |ops| {
            let mut bench = Bench::new();
            bench.streams.room = 40;
            let mut dev = build(&mut bench);
            dev.start(&mut bench.backplane());
            for op in &ops {
                apply(&mut bench, &mut dev, &regions, op);
            }
            let first = saved(&dev);
            let mut other = Bench::new();
            let mut next = build(&mut other);
            next.load(dev.state_version(), &first).expect("own state");
            prop_assert_eq!(&saved(&next), &first);
            prop_assert_eq!(next.next_deadline(), dev.next_deadline());
            prop_assert!(next.load(dev.state_version() + 1, &first).is_err());
            if let Some((_, short)) = first.split_last() {
                prop_assert!(next.load(dev.state_version(), short).is_err());
                prop_assert_eq!(&saved(&next), &first);
            }
            Ok(())
        })
        .expect("contract");
}

pub(crate) fn reset_is_idempotent<D: Device>(build: Build<D>) {
    let probe = build(&mut Bench::new());
    let regions: Vec<u64> = probe.regions().iter().map(|r| r.len).collect();
    let strategy = proptest::collection::vec(any_op(regions.clone()), 0..40);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&strategy, |ops| {
            let mut bench = Bench::new();
            let mut dev = build(&mut bench);
            for op in &ops {
                apply(&mut bench, &mut dev, &regions, op);
            }
            dev.reset(&mut bench.backplane());
            let (once, wires) = (saved(&dev), *bench.irq.wires());
            dev.reset(&mut bench.backplane());
            prop_assert_eq!(saved(&dev), once);
            prop_assert_eq!(*bench.irq.wires(), wires);
            Ok(())
        })
        .expect("contract");
}

pub(crate) fn every_offset_in_every_size<D: Device>(build: Build<D>) {
    let mut bench = Bench::new();
    let mut dev = build(&mut bench);
    for (region, r) in dev.regions().iter().enumerate() {
        let mut last = 0;
        for &(offset, len, _) in &r.runs {
            assert!(
                len > 0 && offset >= last && offset + len <= r.len,
                "runs of region {region}"
            );
            last = offset + len;
        }
        for offset in 0..r.len.min(4096) {
            for size in [Size::BYTE, Size::WORD, Size::DWORD, Size::QWORD] {
                if offset + u64::from(size.bytes()) > r.len {
                    continue;
                }
                for value in [0, 1, 0x80, 0xFF, u64::MAX] {
                    bench.write(&mut dev, region as u8, offset, size, value);
                    bench.read(&mut dev, region as u8, offset, size);
                    bench.request();
                }
            }
        }
    }
    dev.pause();
    dev.resume();
}

/// A mirrored byte must be what a read answers, and the read must change nothing.
pub(crate) fn mirror_tells_what_a_read_would<D: Device>(build: Build<D>) {
    let probe = build(&mut Bench::new());
    let regions: Vec<u64> = probe.regions().iter().map(|r| r.len).collect();
    let strategy = proptest::collection::vec(any_op(regions.clone()), 0..30);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&strategy, |ops| {
            let mut bench = Bench::new();
            let mut dev = build(&mut bench);
            for op in &ops {
                apply(&mut bench, &mut dev, &regions, op);
                for region in 0..regions.len() as u8 {
                    let mut bytes = [0; 16];
                    let valid = dev.mirror(region, &mut bytes);
                    let before = saved(&dev);
                    for (i, byte) in bytes.iter().enumerate().filter(|(i, _)| valid >> i & 1 != 0) {
                        let read = bench.read(&mut dev, region, i as u64, Size::BYTE);
                        prop_assert_eq!(read as u8, *byte, "offset {}", i);
                        prop_assert_eq!(&saved(&dev), &before, "offset {}", i);
                    }
                }
            }
            Ok(())
        })
        .expect("contract");
}

/// Stamps the tests that every device passes. `$build` makes the device on a bench.
macro_rules! device_contract {
    ($name:ident, $build:expr) => {
        mod $name {
            use super::*;
            use crate::bus::contract;

            #[test]
            fn contract_a_saved_state_loads_and_saves_the_same() {
                contract::save_load_save($build);
            }
            #[test]
            fn contract_reset_twice_is_reset_once() {
                contract::reset_is_idempotent($build);
            }
            #[test]
            fn contract_every_offset_answers_in_every_size() {
                contract::every_offset_in_every_size($build);
            }
            #[test]
            fn contract_the_mirror_tells_what_a_read_would() {
                contract::mirror_tells_what_a_read_would($build);
            }
        }
    };
}
pub(crate) use device_contract;
