//! A local APIC that the guest has moved over its RAM.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::doorbell::SpinPolicy;
use quintet_protocol::handshake::Role;
use quintet_protocol::layout::{Ends, SegmentSet, SleeperId};
use quintet_protocol::profile::ProfileWriter;
use quintet_protocol::ram::RamLayout;
use quintet_protocol::status::WorkerStatus;
use quintet_protocol::trace::Tracer;

use super::{IoClient, MachineBus, SpeakerLine, TimerThread};
use crate::bus::Bus as _;
use crate::core_complex::{CoreComplex, CoreConfig};
use crate::mmu::PageKind;
use crate::vga::Vga;

const IA32_APIC_BASE: u32 = 0x1B;
const ENABLED: u64 = 0x900;

fn bus(set: &SegmentSet) -> (MachineBus, TimerThread) {
    let maps = set.maps(Role::Cpu).expect("maps");
    let ends = Ends::new(&maps);
    let (timer, arm) = TimerThread::start(ends.clock(), ends.doorbell(SleeperId::Vcpu(0))).expect("a thread");
    let io = IoClient::new(
        0,
        ends.command_producer(0).expect("ring"),
        ends.reply_reader(0),
        Vec::new(),
        ends.decode_map_reader(),
        ends.sleeper(SleeperId::Vcpu(0), SpinPolicy::NEVER),
        ends.doorbell(SleeperId::Io),
        ends.doorbell(SleeperId::Vcpu(0)),
        WorkerStatus::from_maps(&maps, Role::Cpu, 1),
        ProfileWriter::default(),
        Tracer::default(),
    );
    let core = CoreComplex::new(CoreConfig {
        tsc_hz: 1_000_000_000,
        unix_nanos: 0,
        ram: set.ram_layout(),
        phys_bits: crate::mmu::MAXPHYADDR,
        cmos: Vec::new(),
    });
    let bus = MachineBus::new(
        core,
        io,
        ends.clock(),
        ends.wire_reader(),
        ends.code_map_writer(),
        ends.invalidation_reader().expect("ring"),
        ends.rom(),
        Vga::new(ends.vram_writer().expect("VRAM")),
        SpeakerLine::new(ends.speaker_writer(), ends.doorbell(SleeperId::Audio)),
        arm,
        set.ram_layout().total() / 4096,
    );
    (bus, timer)
}

#[test]
fn the_apic_wins_over_ram_and_gives_it_back() {
    let set = SegmentSet::create(RamLayout::new(1 << 20), 1).expect("segments");
    let (mut bus, _timer) = bus(&set);
    let page = 0x5_0000 >> 12;
    assert_eq!(bus.page_kind(page), None, "what the RAM layout says");
    let effects = bus.msr_write(IA32_APIC_BASE, 0x5_0000 | ENABLED);
    assert!(matches!(effects, Some(Ok(_))), "{effects:?}");
    assert_eq!(bus.page_kind(page), Some(PageKind::Device));
    assert_eq!(bus.page_kind(page + 1), None);
    // Version register: a number of a local APIC, not the zero that RAM holds there.
    assert_eq!(bus.mmio_read(GuestPhys(0x5_0030), 4) & 0xF0, 0x10);
    let _ = bus.msr_write(IA32_APIC_BASE, 0xFEE0_0000 | ENABLED);
    assert_eq!(bus.page_kind(page), None);
}
