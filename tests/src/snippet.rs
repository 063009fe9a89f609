//! A vCPU by itself, for running a few bytes of code: RAM, no devices.

use quintet_cpu_worker::bus::{Bus, Effects};
use quintet_cpu_worker::cpuid::Model;
use quintet_cpu_worker::exec::{ExitWord, Vcpu};
use quintet_cpu_worker::jit::{CodeMemory, Jit};
use quintet_cpu_worker::mmu::PageKind;
use quintet_cpu_worker::state::{CodeSize, Cr0, Cr4, Efer, RIP, Segment, seg};
use quintet_protocol::addr::GuestPhys;
use quintet_protocol::ram::{GuestRam, RamLayout};
use quintet_protocol::time::VmTime;

/// A machine of RAM only: ports and unclaimed memory read as all ones, writes go nowhere.
#[derive(Debug, Default)]
pub struct RamOnly {
    reads: u64,
}

impl Bus for RamOnly {
    fn port_in(&mut self, _port: u16, _size: u8) -> u32 {
        u32::MAX
    }
    fn port_out(&mut self, _port: u16, _size: u8, _value: u32) -> Effects {
        Effects::empty()
    }
    fn mmio_read(&mut self, _addr: GuestPhys, _size: u8) -> u64 {
        u64::MAX
    }
    fn mmio_write(&mut self, _addr: GuestPhys, _size: u8, _value: u64) -> Effects {
        Effects::empty()
    }
    fn page_kind(&self, _page: u64) -> Option<PageKind> {
        None
    }
    fn poll(&mut self) -> Effects {
        Effects::empty()
    }
    fn tsc(&mut self) -> u64 {
        self.reads += 1;
        self.reads
    }
    fn now(&mut self) -> VmTime {
        VmTime(self.reads)
    }
}

/// A vCPU after reset with `bytes` of private RAM.
///
/// # Panics
/// When the host has no memory.
pub fn vcpu(bytes: u64) -> Box<Vcpu> {
    let ram = GuestRam::anonymous(RamLayout::new(bytes)).expect("private RAM");
    let mut cpu = Box::new(Vcpu::new(
        ram,
        Box::new(RamOnly::default()),
        Model::default(),
        ExitWord::local(),
    ));
    if std::env::var("QUINTET_TEST_ACCEL").is_ok_and(|v| v == "jit") {
        cpu.jit = Some(translator());
    }
    cpu
}

/// A translator that translates every block at its first execution.
///
/// # Panics
/// When the host cannot execute translated code.
pub fn translator() -> Box<Jit> {
    translator_from(1)
}

/// A translator that translates a block at its execution number `hot`.
///
/// # Panics
/// When the host cannot execute translated code.
pub fn translator_from(hot: u32) -> Box<Jit> {
    let memory = CodeMemory::new(16 << 20).expect("memory for code");
    Jit::new(memory, hot).expect("a host that can execute translated code")
}

/// Puts the vCPU into flat code of `size` at CPL 0 without paging (64-bit code: with an identity map made by
/// `bits64`), executing from `at`.
pub fn flat(cpu: &mut Vcpu, size: CodeSize, at: u64) {
    use quintet_cpu_worker::state::Attr;
    cpu.reset();
    let (code, data) = match size {
        CodeSize::Bits16 => (0x009B, 0x0093),
        CodeSize::Bits32 => (0xC09B, 0xC093),
        CodeSize::Bits64 => (0xA09B, 0xC093),
    };
    let limit = if size == CodeSize::Bits16 {
        0xFFFF
    } else {
        u32::MAX
    };
    cpu.state.cr0 |= Cr0::PE | Cr0::NE;
    cpu.state.segs[seg::CS] = Segment::new(8, 0, limit, Attr(code));
    for s in [seg::DS, seg::ES, seg::SS, seg::FS, seg::GS] {
        cpu.state.segs[s] = Segment::new(16, 0, limit, Attr(data));
    }
    cpu.state.cr4 |= Cr4::OSFXSR | Cr4::OSXMMEXCPT;
    if size == CodeSize::Bits64 {
        identity_map(cpu);
        cpu.state.cr4 |= Cr4::PAE;
        cpu.state.efer |= Efer::LME | Efer::LMA | Efer::SCE | Efer::NXE;
        cpu.state.cr0 |= Cr0::PG | Cr0::WP;
    }
    cpu.state.regs[RIP] = at;
    cpu.refresh_mode();
    cpu.tlb.flush_all();
}

/// Page tables at 1 MiB that map the first GiB onto itself in 2 MiB pages.
fn identity_map(cpu: &mut Vcpu) {
    const TABLES: u64 = 1 << 20;
    let entry = |cpu: &Vcpu, at: u64, v: u64| {
        cpu.mem
            .ram()
            .write(GuestPhys(at), &v.to_le_bytes())
            .expect("in RAM");
    };
    entry(cpu, TABLES, TABLES + 0x1007);
    entry(cpu, TABLES + 0x1000, TABLES + 0x2007);
    for n in 0..512 {
        entry(cpu, TABLES + 0x2000 + n * 8, n << 21 | 0xE7);
    }
    cpu.state.cr3 = TABLES;
}
