//! A vCPU with RAM, descriptor tables and page tables, for a few instructions of guest code.
//!
//! Every vector leads to a HLT in a row of its own, followed by what returns from it: a test runs until the next
//! event ([`Machine::run`]), looks at the frame, and may go on behind it.

use std::sync::{Arc, Mutex};

use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use quintet_cpu_worker::bus::{Bus, Effects};
use quintet_cpu_worker::cpuid::Model;
use quintet_cpu_worker::exec::{ExitWord, RunExit, Vcpu};
use quintet_cpu_worker::jit::{CodeMemory, Jit};
use quintet_cpu_worker::mmu::PageKind;
use quintet_cpu_worker::state::{
    Activity, Attr, CodeSize, Cr0, Cr4, DescriptorTable, Efer, Flags, RIP, Segment, gpr, seg,
};
use quintet_protocol::addr::GuestPhys;
use quintet_protocol::ram::{GuestRam, RamLayout};
use quintet_protocol::time::VmTime;

pub const GDT: u64 = 0x1000;
pub const IDT: u64 = 0x2000;
pub const LDT: u64 = 0x3000;
pub const TSS: u64 = 0x4000;
/// Tasks of the tests' own, 256 bytes each.
pub const TASKS: u64 = 0x5000;
pub const HANDLERS: u64 = 0x6000;
pub const CODE: u64 = 0x8000;
pub const DATA: u64 = 0x1_0000;
/// Tops of the stacks of levels 0 to 3.
pub const STACKS: [u64; 4] = [0x2_1000, 0x2_2000, 0x2_3000, 0x2_4000];
pub const IST1: u64 = 0x2_5000;
pub const TABLES: u64 = 0x10_0000;
const RAM: u64 = 4 << 20;

/// In the order that SYSENTER, SYSCALL and their returns want.
pub const CODE32: u16 = 0x08;
pub const DATA32: u16 = 0x10;
pub const USER_CODE32: u16 = 0x1B;
pub const USER_DATA32: u16 = 0x23;
pub const USER_CODE64: u16 = 0x2B;
pub const USER_DATA64: u16 = 0x33;
pub const CODE64: u16 = 0x38;
pub const DATA64: u16 = 0x40;
/// Sixteen bytes in long mode.
pub const TR: u16 = 0x48;
/// Sixteen bytes in long mode.
pub const LDTR: u16 = 0x58;
pub const CODE_DPL1: u16 = 0x68;
pub const DATA_DPL1: u16 = 0x70;
pub const CONFORMING: u16 = 0x78;
pub const CODE16: u16 = 0x80;
pub const DATA16: u16 = 0x88;
/// From here on descriptors are the tests'.
pub const FREE: u16 = 0x90;

pub const TF: u64 = 0x100;
pub const IF: u64 = 0x200;
pub const NT: u64 = 0x4000;
pub const RF: u64 = 0x1_0000;
pub const VM: u64 = 0x2_0000;
pub const AC: u64 = 0x4_0000;

/// Ends [`Machine::run`] with [`Stop::Port`].
pub const PORT: u16 = 0xF4;

pub const DE: u8 = 0;
pub const DB: u8 = 1;
pub const UD: u8 = 6;
pub const DF: u8 = 8;
pub const TS: u8 = 10;
pub const NP: u8 = 11;
pub const SS: u8 = 12;
pub const GP: u8 = 13;
pub const PF: u8 = 14;
pub const ALIGN: u8 = 17;

/// What the tests do to the machine, and see of it, from outside.
#[derive(Debug, Default)]
pub struct Outside {
    pub nmi: bool,
    pub interrupt: Option<u8>,
    /// What was written to the VMware backdoor; read back from it with all bits turned.
    pub backdoor: std::collections::VecDeque<u32>,
}

struct TestBus(Arc<Mutex<Outside>>);

impl Bus for TestBus {
    fn port_in(&mut self, port: u16, _size: u8) -> u32 {
        let mut outside = self.0.lock().expect("unpoisoned");
        if port == 0x5658
            && let Some(value) = outside.backdoor.pop_front()
        {
            return !value;
        }
        0x5A5A_5A5A
    }
    fn port_out(&mut self, port: u16, _size: u8, value: u32) -> Effects {
        if port == 0x5658 {
            self.0.lock().expect("unpoisoned").backdoor.push_back(value);
        }
        if port == PORT {
            Effects::STOP
        } else {
            Effects::empty()
        }
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
        Effects::INTERRUPT
    }
    fn interrupt_pending(&mut self) -> bool {
        self.0.lock().expect("unpoisoned").interrupt.is_some()
    }
    fn acknowledge(&mut self) -> Option<u8> {
        self.0.lock().expect("unpoisoned").interrupt.take()
    }
    fn take_nmi(&mut self) -> bool {
        core::mem::take(&mut self.0.lock().expect("unpoisoned").nmi)
    }
    fn tsc(&mut self) -> u64 {
        0
    }
    fn now(&mut self) -> VmTime {
        VmTime(0)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Real,
    Protected,
    Long,
}

/// An event as its handler finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    pub vector: u8,
    pub code: Option<u32>,
    pub ip: u64,
    pub cs: u16,
    pub flags: u64,
    /// Linear address of the pushed instruction pointer.
    pub frame: u64,
}

/// Why the guest stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    Event(Event),
    /// HLT outside the handlers.
    Halt,
    /// OUT to [`PORT`].
    Port,
    Shutdown,
}

#[allow(missing_debug_implementations, reason = "holds a vCPU, which has none")]
pub struct Machine {
    pub cpu: Box<Vcpu>,
    pub outside: Arc<Mutex<Outside>>,
    pub mode: Mode,
    /// Bytes an entry of the frame has.
    pub slot: u64,
    word: ExitWord,
}

/// A descriptor; `attr` as LAR shows it, shifted down by 8.
pub fn descriptor(base: u64, limit: u32, attr: u32) -> u64 {
    let (base, limit, attr) = (base as u32, u64::from(limit), u64::from(attr));
    let low = limit & 0xFFFF | u64::from(base & 0xFFFF) << 16;
    let high = u64::from(base >> 16 & 0xFF)
        | (attr & 0xFF) << 8
        | (limit >> 16 & 15) << 16
        | (attr & 0xF000) << 8
        | u64::from(base & 0xFF00_0000);
    low | high << 32
}

/// A gate; `attr` is its second doubleword's bits 8 to 15, `count` its bits 0 to 7 (parameters, IST).
pub fn gate(selector: u16, offset: u64, attr: u32, count: u32) -> u64 {
    let low = u64::from(selector) << 16 | offset & 0xFFFF;
    let high = u64::from(attr << 8 | count) | offset & 0xFFFF_0000;
    low | high << 32
}

fn has_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17)
}

impl Machine {
    pub fn new(mode: Mode) -> Self {
        Self::with_model(mode, Model::default())
    }

    pub fn with_model(mode: Mode, model: Model) -> Self {
        let outside = Arc::new(Mutex::new(Outside::default()));
        let ram = GuestRam::anonymous(RamLayout::new(RAM)).expect("private RAM");
        let word = ExitWord::local();
        let mut cpu = Vcpu::new(ram, Box::new(TestBus(outside.clone())), model, word.clone());
        if std::env::var("QUINTET_TEST_ACCEL").is_ok_and(|v| v == "jit") {
            let memory = CodeMemory::new(1 << 20).expect("memory for code");
            cpu.jit = Jit::new(memory, 1);
        }
        let mut m = Self {
            cpu: Box::new(cpu),
            outside,
            mode,
            slot: match mode {
                Mode::Real => 2,
                Mode::Protected => 4,
                Mode::Long => 8,
            },
            word,
        };
        m.tables();
        m.handlers();
        match mode {
            Mode::Real => m.real(),
            Mode::Protected => m.protected(),
            Mode::Long => m.long(),
        }
        m
    }

    fn tables(&mut self) {
        let long = self.mode == Mode::Long;
        for (selector, base, limit, attr) in [
            (CODE32, 0, 0xF_FFFF, 0xC09B),
            (DATA32, 0, 0xF_FFFF, 0xC093),
            (USER_CODE32, 0, 0xF_FFFF, 0xC0FB),
            (USER_DATA32, 0, 0xF_FFFF, 0xC0F3),
            (CODE16, 0, 0xFFFF, 0x009B),
            (DATA16, 0, 0xFFFF, 0x0093),
            (CODE64, 0, 0xF_FFFF, 0xA09B),
            (USER_CODE64, 0, 0xF_FFFF, 0xA0FB),
            (USER_DATA64, 0, 0xF_FFFF, 0xC0F3),
            (DATA64, 0, 0xF_FFFF, 0xC093),
            (TR, TSS, 0x2FF, 0x008B),
            (LDTR, LDT, 0xFF, 0x0082),
            (CODE_DPL1, 0, 0xF_FFFF, 0xC0BB),
            (DATA_DPL1, 0, 0xF_FFFF, 0xC0B3),
            (CONFORMING, 0, 0xF_FFFF, 0xC09F),
        ] {
            self.describe(selector, descriptor(base, limit, attr));
        }
        if long {
            for (n, stack) in (0..3).zip(STACKS) {
                self.write64(TSS + 4 + 8 * n, stack);
            }
            self.write64(TSS + 36, IST1);
            self.write16(TSS + 102, 104);
        } else {
            for (n, (stack, ss)) in (0..3).zip(STACKS.into_iter().zip([DATA32, DATA_DPL1 | 1, 0])) {
                self.write32(TSS + 4 + 8 * n, stack as u32);
                self.write16(TSS + 8 + 8 * n, ss);
            }
            self.write16(TSS + 102, 104);
        }
        // The I/O bitmap denies nothing but its end.
        self.write8(TSS + 0x2FF, 0xFF);
        self.cpu.state.gdtr = DescriptorTable {
            base: GDT,
            limit: 0xFFF,
        };
    }

    fn handlers(&mut self) {
        for vector in 0..=255u8 {
            let at = HANDLERS + 16 * u64::from(vector);
            let mut bytes = vec![0xF4];
            if has_code(vector) {
                match self.mode {
                    Mode::Real => {}
                    Mode::Protected => bytes.extend([0x83, 0xC4, 4]),
                    Mode::Long => bytes.extend([0x48, 0x83, 0xC4, 8]),
                }
            }
            if self.mode == Mode::Long {
                bytes.push(0x48);
            }
            bytes.push(0xCF);
            self.write(at, &bytes);
            match self.mode {
                Mode::Real => self.write32(4 * u64::from(vector), at as u32),
                Mode::Protected => self.vector(vector, gate(CODE32, at, 0x8E, 0)),
                Mode::Long => self.vector(vector, gate(CODE64, at, 0x8E, 0)),
            }
        }
        self.cpu.state.idtr = if self.mode == Mode::Real {
            DescriptorTable {
                base: 0,
                limit: 0x3FF,
            }
        } else {
            DescriptorTable {
                base: IDT,
                limit: 0xFFF,
            }
        };
    }

    fn real(&mut self) {
        let s = &mut self.cpu.state;
        s.segs[seg::CS] = Segment::real(0);
        s.regs[gpr::RSP] = 0x7000;
        self.at(CODE);
    }

    fn protected(&mut self) {
        self.cpu.state.cr0 |= Cr0::PE | Cr0::NE;
        self.level0(CODE32);
        self.system_segments();
        self.at(CODE);
    }

    fn long(&mut self) {
        self.cpu.state.cr0 |= Cr0::PE | Cr0::NE | Cr0::PG | Cr0::WP;
        self.cpu.state.cr4 |= Cr4::PAE;
        self.cpu.state.efer |= Efer::LME | Efer::LMA | Efer::SCE | Efer::NXE;
        self.map_long();
        self.level0(CODE64);
        self.system_segments();
        self.at(CODE);
    }

    fn system_segments(&mut self) {
        let s = &mut self.cpu.state;
        s.segs[seg::TR] = Segment::new(TR, TSS, 0x2FF, Attr(0x8B));
        s.segs[seg::LDTR] = Segment::new(LDTR, LDT, 0xFF, Attr(0x82));
    }

    /// Level 0 with code segment `cs` and flat data.
    pub fn level0(&mut self, cs: u16) {
        self.level(cs, DATA32, 0);
        self.cpu.state.regs[gpr::RSP] = STACKS[0];
    }

    /// Level 3 with flat 32-bit code, or 64-bit code in long mode.
    pub fn user(&mut self) {
        let cs = if self.mode == Mode::Long {
            USER_CODE64
        } else {
            USER_CODE32
        };
        self.level(cs, USER_DATA32, 3);
        self.cpu.state.regs[gpr::RSP] = STACKS[3];
    }

    /// Segment registers as if loaded, without the checks.
    pub fn level(&mut self, cs: u16, data: u16, cpl: u8) {
        self.force(seg::CS, cs);
        for n in [seg::SS, seg::DS, seg::ES, seg::FS, seg::GS] {
            self.force(n, data);
        }
        self.cpu.state.cpl = cpl;
        self.cpu.refresh_mode();
    }

    /// Loads a segment register from the GDT without any check.
    pub fn force(&mut self, n: usize, selector: u16) {
        let d = self.read64(GDT + u64::from(selector & 0xFFF8));
        let attr = Attr::from_descriptor((d >> 32) as u32);
        let limit = (d & 0xFFFF | d >> 32 & 0xF_0000) as u32;
        let limit = if attr.granular() {
            limit << 12 | 0xFFF
        } else {
            limit
        };
        let base = d >> 16 & 0xFF_FFFF | d >> 32 & 0xFF00_0000;
        self.cpu.state.segs[n] = Segment::new(selector, base, limit, attr);
        self.cpu.refresh_mode();
    }

    /// Execution goes on at `ip`.
    pub fn at(&mut self, ip: u64) {
        self.cpu.state.regs[RIP] = ip;
        self.cpu.state.activity = Activity::Active;
        self.cpu.refresh_mode();
    }

    pub fn set_flags(&mut self, bits: u64) {
        self.cpu.state.flags = Flags::from_bits(bits | 2);
        self.cpu.refresh_mode();
    }

    pub fn flags(&self) -> u64 {
        self.cpu.state.flags.bits()
    }

    pub fn reg(&self, n: usize) -> u64 {
        self.cpu.state.regs[n]
    }

    pub fn set(&mut self, n: usize, v: u64) {
        self.cpu.state.regs[n] = v;
    }

    /// Sets a debug register, DR6 and DR7 with their fixed bits.
    pub fn debug(&mut self, n: usize, v: u64) {
        self.cpu.state.dr[n] = match n {
            6 => v | 0xFFFF_0FF0,
            7 => v | 0x400,
            _ => v,
        };
        self.cpu.refresh_mode();
    }

    /// DR6 without its fixed bits.
    pub fn dr6(&self) -> u64 {
        assert_eq!(self.cpu.state.dr[6] & !0xE00F, 0xFFFF_0FF0, "fixed bits of DR6");
        self.cpu.state.dr[6] & 0xE00F
    }

    /// Puts a descriptor into the GDT.
    pub fn describe(&mut self, selector: u16, d: u64) {
        self.write64(GDT + u64::from(selector & 0xFFF8), d);
    }

    pub fn described(&self, selector: u16) -> u64 {
        self.read64(GDT + u64::from(selector & 0xFFF8))
    }

    /// Puts a gate into the IDT.
    pub fn vector(&mut self, vector: u8, gate: u64) {
        let v = u64::from(vector);
        if self.mode == Mode::Long {
            self.write64(IDT + 16 * v, gate);
            self.write64(IDT + 16 * v + 8, 0);
        } else {
            self.write64(IDT + 8 * v, gate);
        }
    }

    pub fn handler(vector: u8) -> u64 {
        HANDLERS + 16 * u64::from(vector)
    }

    /// Assembles code at `at` for the current size of code; gives the address of each instruction and of the end.
    pub fn assemble(
        &mut self,
        at: u64,
        code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> Vec<u64> {
        let bits = self.cpu.code_size.bits();
        self.assemble_as(bits, at, code)
    }

    pub fn assemble_as(
        &mut self,
        bits: u32,
        at: u64,
        code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) -> Vec<u64> {
        let mut a = CodeAssembler::new(bits).expect("a bitness");
        code(&mut a).expect("instructions");
        let bytes = a.assemble(at).expect("assembles");
        self.write(at, &bytes);
        let mut places = vec![at];
        let mut decoder = iced_x86::Decoder::with_ip(bits, &bytes, at, iced_x86::DecoderOptions::NONE);
        while decoder.can_decode() {
            places.push(decoder.decode().next_ip());
        }
        places
    }

    /// Assembles at [`CODE`] and starts there.
    pub fn code(&mut self, code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u64> {
        let places = self.assemble(CODE, code);
        self.at(CODE);
        places
    }

    /// Bytes at [`CODE`], started.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.write(CODE, bytes);
        self.at(CODE);
    }

    /// Runs to the next event or the end; goes on behind the one before.
    pub fn run(&mut self) -> Stop {
        if self.cpu.state.activity == Activity::Halted {
            self.cpu.state.activity = Activity::Active;
        }
        // The tests write behind the vCPU's back.
        self.cpu.discard_code();
        match self.cpu.run(200_000) {
            RunExit::Idle => self.stopped(),
            RunExit::Requested => Stop::Port,
            RunExit::Shutdown => Stop::Shutdown,
            RunExit::Held => panic!("there is no debugger"),
            RunExit::Budget => panic!("the guest does not stop, rip {:#x}", self.cpu.rip()),
        }
    }

    fn stopped(&mut self) -> Stop {
        let cs = &self.cpu.state.segs[seg::CS];
        let at = (cs.base + self.cpu.rip()).wrapping_sub(HANDLERS + 1);
        if at >= 0x1000 || !at.is_multiple_of(16) {
            return Stop::Halt;
        }
        let vector = (at / 16) as u8;
        let ss = &self.cpu.state.segs[seg::SS];
        let (base, mask) = match (self.cpu.code_size, ss.attr.big()) {
            (CodeSize::Bits64, _) => (0, u64::MAX),
            (_, true) => (ss.base, 0xFFFF_FFFF),
            (_, false) => (ss.base, 0xFFFF),
        };
        let mut frame = base + (self.reg(gpr::RSP) & mask);
        let slot = self.slot;
        let code = (has_code(vector) && self.mode != Mode::Real).then(|| {
            frame += slot;
            self.read_slot(frame - slot) as u32
        });
        Stop::Event(Event {
            vector,
            code,
            ip: self.read_slot(frame),
            cs: self.read16(frame + slot),
            flags: self.read_slot(frame + 2 * slot),
            frame,
        })
    }

    fn read_slot(&self, at: u64) -> u64 {
        match self.slot {
            2 => u64::from(self.read16(at)),
            4 => u64::from(self.read32(at)),
            _ => self.read64(at),
        }
    }

    /// What was pushed before the flags: entry `n`, the old stack pointer being 0.
    pub fn outer(&self, event: &Event, n: u64) -> u64 {
        self.read_slot(event.frame + (3 + n) * self.slot)
    }

    /// Runs to an event, which must come.
    #[track_caller]
    pub fn event(&mut self) -> Event {
        match self.run() {
            Stop::Event(e) => e,
            other => panic!("no event but {other:?}, rip {:#x}", self.cpu.rip()),
        }
    }

    /// Runs to an event, which must be `vector` at `ip`.
    #[track_caller]
    pub fn expect(&mut self, vector: u8, ip: u64) -> Event {
        let e = self.event();
        assert_eq!((e.vector, e.ip), (vector, ip), "{e:x?}");
        e
    }

    /// Runs to a fault at [`CODE`] with an error code.
    #[track_caller]
    pub fn fault(&mut self, vector: u8, code: u32) -> Event {
        let e = self.event();
        assert_eq!((e.vector, e.code, e.ip), (vector, Some(code), CODE), "{e:x?}");
        assert_eq!(e.flags & RF, if self.slot == 2 { 0 } else { RF }, "RF of a fault");
        e
    }

    /// An interrupt comes.
    pub fn interrupt(&mut self, vector: u8) {
        self.outside.lock().expect("unpoisoned").interrupt = Some(vector);
        self.word.set();
    }

    /// An NMI comes.
    pub fn nmi(&mut self) {
        self.outside.lock().expect("unpoisoned").nmi = true;
        self.word.set();
    }

    // ---- memory ----

    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        self.cpu.mem.ram().write(GuestPhys(at), bytes).expect("in RAM");
    }

    pub fn write8(&mut self, at: u64, v: u8) {
        self.write(at, &[v]);
    }

    pub fn write16(&mut self, at: u64, v: u16) {
        self.write(at, &v.to_le_bytes());
    }

    pub fn write32(&mut self, at: u64, v: u32) {
        self.write(at, &v.to_le_bytes());
    }

    pub fn write64(&mut self, at: u64, v: u64) {
        self.write(at, &v.to_le_bytes());
    }

    fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        self.cpu.mem.ram().read_array(GuestPhys(at)).expect("in RAM")
    }

    pub fn read8(&self, at: u64) -> u8 {
        u8::from_le_bytes(self.read(at))
    }

    pub fn read16(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.read(at))
    }

    pub fn read32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.read(at))
    }

    pub fn read64(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.read(at))
    }

    // ---- paging: everything onto itself in 4 KiB pages, for all levels, accessed and dirty ----

    fn map_long(&mut self) {
        self.write64(TABLES, (TABLES + 0x1000) | 0x27);
        self.write64(TABLES + 0x1000, (TABLES + 0x2000) | 0x27);
        for n in 0..2 {
            self.write64(TABLES + 0x2000 + 8 * n, (TABLES + 0x4000 + 0x1000 * n) | 0x27);
        }
        for n in 0..1024 {
            self.write64(TABLES + 0x4000 + 8 * n, n << 12 | 0x67);
        }
        self.cpu.state.cr3 = TABLES;
        self.cpu.tlb.flush_all();
    }

    /// Turns PAE paging on, with the leaves where [`Self::wide_entry`] finds them.
    pub fn page_pae(&mut self) {
        self.map_long();
        self.write64(TABLES + 0x1000, (TABLES + 0x2000) | 1);
        self.cpu.state.cr3 = TABLES + 0x1000;
        self.cpu.state.pdptes = [(TABLES + 0x2000) | 1, 0, 0, 0];
        self.cpu.state.cr4 |= Cr4::PAE;
        self.cpu.state.cr0 |= Cr0::PG;
        self.cpu.refresh_mode();
    }

    /// Turns 32-bit paging on.
    pub fn page_32(&mut self) {
        self.write32(TABLES, (TABLES + 0x1000) as u32 | 0x27);
        for n in 0..1024 {
            self.write32(TABLES + 0x1000 + 4 * n, (n << 12 | 0x67) as u32);
        }
        self.cpu.state.cr3 = TABLES;
        self.cpu.state.cr0 |= Cr0::PG;
        self.cpu.tlb.flush_all();
        self.cpu.refresh_mode();
    }

    /// Address of the leaf of `linear` with PAE or 4-level paging.
    pub fn wide_entry(linear: u64) -> u64 {
        TABLES + 0x4000 + linear / 4096 * 8
    }

    /// Address of the leaf of `linear` with 32-bit paging.
    pub fn entry_32(linear: u64) -> u64 {
        TABLES + 0x1000 + linear / 4096 * 4
    }

    /// Changes bits of the leaf of `linear` with PAE or 4-level paging.
    pub fn change(&mut self, linear: u64, clear: u64, set: u64) {
        let at = Self::wide_entry(linear);
        let v = self.read64(at) & !clear | set;
        self.write64(at, v);
    }
}
