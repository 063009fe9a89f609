//! Execution in the interpreter, or by the translator.

use super::{End, General, Machine, OPERAND};
use quintet_cpu_worker::bus::{Bus, Effects};
use quintet_cpu_worker::cpuid::Model;
use quintet_cpu_worker::exec::{ExitWord, RunExit, Vcpu, Vector};
use quintet_cpu_worker::fp::Xmm;
use quintet_cpu_worker::mmu::PageKind;
use quintet_cpu_worker::state::{Attr, Cr0, Cr4, DescriptorTable, Efer, Flags, Segment, gpr, seg};
use quintet_protocol::addr::GuestPhys;
use quintet_protocol::ram::{GuestRam, RamLayout};
use quintet_protocol::time::VmTime;
use quintet_tests::snippet;

/// Nothing around the vCPU.
struct Nothing;

impl Bus for Nothing {
    fn port_in(&mut self, _: u16, _: u8) -> u32 {
        u32::MAX
    }

    fn port_out(&mut self, _: u16, _: u8, _: u32) -> Effects {
        Effects::empty()
    }

    fn mmio_read(&mut self, _: GuestPhys, _: u8) -> u64 {
        u64::MAX
    }

    fn mmio_write(&mut self, _: GuestPhys, _: u8, _: u64) -> Effects {
        Effects::empty()
    }

    fn page_kind(&self, _: u64) -> Option<PageKind> {
        None
    }

    fn poll(&mut self) -> Effects {
        Effects::empty()
    }

    fn tsc(&mut self) -> u64 {
        0
    }

    fn now(&mut self) -> VmTime {
        VmTime::default()
    }
}

const TABLES: u64 = 0x1000;
const GDT: u64 = 0x4000;
const IDT: u64 = 0x5000;
const STACK: u64 = 0x9000;
/// Where all exceptions go.
const HANDLER: u64 = 0xa000;
const CODE: u64 = 0x10_0000;
const HLT: u8 = 0xf4;

/// A vCPU in 64-bit mode, paging one to one.
pub struct Guest {
    pub cpu: Vcpu,
    pub ram: GuestRam,
    next: u64,
}

impl Guest {
    pub fn new() -> Self {
        Self::with_model(Model::default())
    }

    /// A guest on a processor of that model.
    pub fn with_model(model: Model) -> Self {
        let ram = GuestRam::anonymous(RamLayout::new(OPERAND + (1 << 20))).expect("guest RAM");
        // One PML4 entry, one 1 GiB page: present, writable, user.
        ram.write(GuestPhys(TABLES), &((TABLES + 0x1000) | 7).to_le_bytes())
            .expect("PML4");
        ram.write(GuestPhys(TABLES + 0x1000), &0x87u64.to_le_bytes())
            .expect("PDPT");
        for (n, descriptor) in [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff_u64]
            .iter()
            .enumerate()
        {
            ram.write(GuestPhys(GDT + 8 * n as u64), &descriptor.to_le_bytes())
                .expect("GDT");
        }
        for vector in 0..32 {
            // A present 64-bit interrupt gate to selector 8.
            let gate = HANDLER & 0xffff | 8 << 16 | 0x8e00 << 32 | (HANDLER >> 16) << 48;
            ram.write(GuestPhys(IDT + 16 * vector), &gate.to_le_bytes())
                .expect("IDT");
        }
        let mut cpu = Vcpu::new(ram.clone(), Box::new(Nothing), model, ExitWord::local());
        let state = &mut cpu.state;
        state.cr0 = Cr0::PE | Cr0::PG | Cr0::NE | Cr0::ET | Cr0::MP;
        state.cr4 = Cr4::PAE | Cr4::OSFXSR | Cr4::OSXMMEXCPT | Cr4::OSXSAVE;
        state.efer = Efer::LME | Efer::LMA;
        state.cr3 = TABLES;
        state.xcr0 = 3;
        state.gdtr = DescriptorTable { base: GDT, limit: 23 };
        state.idtr = DescriptorTable {
            base: IDT,
            limit: 511,
        };
        state.segs[seg::CS] = Segment::new(8, 0, u32::MAX, Attr(0xa09b));
        for n in [seg::DS, seg::ES, seg::SS] {
            state.segs[n] = Segment::new(16, 0, u32::MAX, Attr(0xc093));
        }
        cpu.refresh_mode();
        ram.write(GuestPhys(HANDLER), &[HLT]).expect("handler");
        let mut guest = Self { cpu, ram, next: CODE };
        if std::env::var("QUINTET_TEST_ACCEL").is_ok_and(|v| v == "jit") {
            guest.translate();
        }
        guest
    }

    /// Has instructions executed by translated code from now on.
    pub fn translate(&mut self) {
        self.cpu.jit = Some(snippet::translator());
    }

    /// Puts an instruction into memory, at an address of its own.
    pub fn place(&mut self, bytes: &[u8]) -> u64 {
        let at = self.next;
        self.ram.write(GuestPhys(at), bytes).expect("code");
        // The instruction has at most fifteen bytes.
        let end = at + bytes.len() as u64;
        self.ram.write(GuestPhys(end), &[HLT]).expect("code");
        self.next += 16;
        at
    }

    /// Executes the instruction of `len` bytes at `at` from `machine`.
    pub fn run(&mut self, at: u64, len: usize, machine: &Machine) -> (Machine, End) {
        let cpu = &mut self.cpu;
        let mut x87 = [0; 160];
        x87.copy_from_slice(&machine.fx[..160]);
        cpu.state.fpu.load_fxsave_area(&x87, true);
        for (n, register) in cpu.state.xmm.iter_mut().enumerate() {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&machine.fx[160 + 16 * n..176 + 16 * n]);
            *register = Xmm::from_bytes(bytes);
        }
        cpu.state.mxcsr =
            u32::from_le_bytes([machine.fx[24], machine.fx[25], machine.fx[26], machine.fx[27]]);
        cpu.state.flags = Flags::from_bits(machine.flags & 0x8d5 | 2);
        let general = machine.general;
        for (n, value) in [
            (gpr::RAX, general.rax),
            (gpr::RCX, general.rcx),
            (gpr::RDX, general.rdx),
            (gpr::RBX, general.rbx),
            (gpr::RSI, general.rsi),
            (gpr::RDI, general.rdi),
        ] {
            cpu.state.regs[n] = value;
        }
        self.ram
            .write(GuestPhys(OPERAND), &machine.memory)
            .expect("operand");
        cpu.state.activity = Default::default();
        cpu.set_rip(at);
        cpu.state.regs[gpr::RSP] = STACK;
        let mut completed = at + len as u64;
        if cpu.jit.is_some() {
            // The test may have changed control registers.
            cpu.refresh_mode();
            // A translation is a block's: here the instruction's and the HLT's behind it, or the handler's HLT.
            assert_eq!(cpu.run(10), RunExit::Idle, "it runs into a HLT");
            completed += 1;
        } else {
            cpu.step();
        }
        let end = if cpu.rip() == completed {
            End::Completed
        } else {
            match cpu.pending_fault.vector {
                Vector::Ud => End::Undefined,
                Vector::Mf | Vector::Xm => End::Numeric,
                _ => End::Fault,
            }
        };
        (self.machine(), end)
    }

    fn machine(&mut self) -> Machine {
        let state = &self.cpu.state;
        let mut machine = Machine {
            fx: [0; 512],
            general: General {
                rax: state.regs[gpr::RAX],
                rcx: state.regs[gpr::RCX],
                rdx: state.regs[gpr::RDX],
                rbx: state.regs[gpr::RBX],
                rsi: state.regs[gpr::RSI],
                rdi: state.regs[gpr::RDI],
            },
            flags: state.flags.bits(),
            memory: [0; super::OPERAND_LEN],
        };
        machine.fx[..160].copy_from_slice(&state.fpu.fxsave_area(true));
        machine.fx[24..28].copy_from_slice(&state.mxcsr.to_le_bytes());
        for (n, register) in state.xmm.iter().enumerate() {
            machine.fx[160 + 16 * n..176 + 16 * n].copy_from_slice(&register.to_bytes());
        }
        self.ram
            .read(GuestPhys(OPERAND), &mut machine.memory)
            .expect("operand");
        machine
    }
}
