//! Architectural state of a vCPU, apart from behaviour.
//!
//! One `#[repr(C)]` struct is the JIT's ABI, the payload of a snapshot and what a debugger shows, so it holds
//! nothing that is derived for speed except the segment bounds and the lazy flags, both defined here.

mod control;
mod flags;
mod fpu;
mod segment;

pub use control::{Cr0, Cr4, Efer};
pub use flags::{Flag, Flags};
pub use fpu::{F80, FpuState, Xmm};
pub use segment::{Attr, DescriptorTable, Segment, SegmentBounds};

/// Index into [`CpuState::regs`] of the instruction pointer.
pub const RIP: usize = 16;
/// Index into [`CpuState::regs`] of the register that always reads zero: "no base", "no index".
pub const ZERO: usize = 17;

/// General-purpose registers by their encoding (SDM vol. 2, table 3-1).
#[allow(missing_docs, reason = "the names are the registers")]
pub mod gpr {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
    pub const R11: usize = 11;
}

/// Segment registers by their encoding, then the two system ones, then the flat segment that 64-bit code
/// uses in place of ES, CS, SS and DS.
#[allow(missing_docs, reason = "the names are the registers")]
pub mod seg {
    pub const ES: usize = 0;
    pub const CS: usize = 1;
    pub const SS: usize = 2;
    pub const DS: usize = 3;
    pub const FS: usize = 4;
    pub const GS: usize = 5;
    pub const LDTR: usize = 6;
    pub const TR: usize = 7;
    pub const FLAT: usize = 8;
    pub const COUNT: usize = 9;
}

/// How the bytes at CS:rIP are decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum CodeSize {
    /// 16-bit operands and addresses by default: real mode, V86, CS.D = 0.
    Bits16 = 0,
    /// 32-bit operands and addresses by default: CS.D = 1.
    Bits32 = 1,
    /// 64-bit mode: EFER.LMA and CS.L.
    Bits64 = 2,
}

impl CodeSize {
    /// 16, 32 or 64.
    pub fn bits(self) -> u32 {
        16 << self as u32
    }
}

/// What the vCPU is doing between instructions (SDM vol. 3, activity states).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Activity {
    /// Executing.
    #[default]
    Active,
    /// After HLT: woken by an enabled interrupt, NMI, INIT or reset.
    Halted,
    /// After a triple fault: only a reset gets it out.
    Shutdown,
    /// Waiting for a start-up IPI after INIT.
    WaitForSipi,
}

/// Model-specific registers that are plain storage with checks; the rest live in the core complex.
#[derive(Clone, Debug, Default)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the SDM's, vol. 4")]
pub struct Msrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub tsc_aux: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub misc_enable: u64,
    pub mtrr_def_type: u64,
    pub mtrr_fixed: [u64; 11],
    pub mtrr_var: [u64; 16],
    pub mcg_status: u64,
    pub mcg_ctl: u64,
    pub mc_banks: [u64; 32],
    pub debug_ctl: u64,
    pub spec_ctl: u64,
    pub feature_control: u64,
}

/// Everything a program or a debugger can see of one vCPU.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct CpuState {
    /// RAX … R15, then [`RIP`], then [`ZERO`].
    pub regs: [u64; 18],
    /// RFLAGS, arithmetic flags lazily.
    pub flags: Flags,
    /// ES … GS, LDTR, TR and the flat segment.
    pub segs: [Segment; seg::COUNT],
    /// Global descriptor table.
    pub gdtr: DescriptorTable,
    /// Interrupt descriptor table.
    pub idtr: DescriptorTable,
    /// Control register 0.
    pub cr0: Cr0,
    /// Page-fault linear address.
    pub cr2: u64,
    /// Page-table base, PWT/PCD and PCID.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: Cr4,
    /// Extended features.
    pub efer: Efer,
    /// XCR0: what XSAVE manages.
    pub xcr0: u64,
    /// PAE page-directory-pointer entries, loaded with CR3 (SDM vol. 3, 4.4.1).
    pub pdptes: [u64; 4],
    /// DR0–DR3 at 0–3, DR6 at 6, DR7 at 7.
    pub dr: [u64; 8],
    /// Plain model-specific registers.
    pub msrs: Msrs,
    /// x87 state.
    pub fpu: FpuState,
    /// XMM0–XMM15.
    pub xmm: [Xmm; 16],
    /// SSE control and status.
    pub mxcsr: u32,
    /// Current privilege level, 0–3; 3 in V86 mode, 0 in real mode.
    pub cpl: u8,
    /// What the vCPU is doing.
    pub activity: Activity,
    /// Whether STI, MOV SS or POP SS has just executed: no interrupt before the next instruction ends.
    pub shadow: Shadow,
    /// Whether NMIs are blocked until IRET.
    pub nmi_blocked: bool,
    /// Physical-address mask of A20: all ones, or all ones without bit 20.
    pub a20_mask: u64,
}

/// Interruptibility (SDM vol. 3, 6.8.3 and 24.4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Shadow {
    /// Nothing is held back.
    #[default]
    None,
    /// After STI that set IF: maskable interrupts are held back for one instruction.
    Sti,
    /// After MOV SS or POP SS: interrupts, NMIs and debug traps are held back for one instruction.
    MovSs,
}

impl CpuState {
    /// The state after power-up or RESET# (SDM vol. 3, table 9-1), `signature` being CPUID leaf 1 EAX.
    pub fn reset(signature: u32) -> Self {
        let data = Segment::real(0);
        let mut cs = Segment::real(0xF000);
        cs.base = 0xFFFF_0000;
        let mut ldtr = Segment::real(0);
        ldtr.attr = Attr(0x0082);
        let mut tr = ldtr;
        tr.attr = Attr(0x008B);
        let mut regs = [0; 18];
        regs[gpr::RDX] = u64::from(signature);
        regs[RIP] = 0xFFF0;
        let mut dr = [0; 8];
        dr[6] = 0xFFFF_0FF0;
        dr[7] = 0x400;
        Self {
            regs,
            flags: Flags::from_bits(2),
            segs: [data, cs, data, data, data, data, ldtr, tr, Segment::flat()],
            gdtr: DescriptorTable {
                base: 0,
                limit: 0xFFFF,
            },
            idtr: DescriptorTable {
                base: 0,
                limit: 0xFFFF,
            },
            cr0: Cr0::CD | Cr0::NW | Cr0::ET,
            cr2: 0,
            cr3: 0,
            cr4: Cr4::empty(),
            efer: Efer::empty(),
            xcr0: 1,
            pdptes: [0; 4],
            dr,
            msrs: Msrs {
                pat: 0x0007_0406_0007_0406,
                misc_enable: 1,
                mcg_ctl: u64::MAX,
                ..Msrs::default()
            },
            fpu: FpuState::power_up(),
            xmm: [Xmm::ZERO; 16],
            mxcsr: 0x1F80,
            cpl: 0,
            activity: Activity::Active,
            shadow: Shadow::None,
            nmi_blocked: false,
            a20_mask: u64::MAX,
        }
    }

    /// The instruction pointer.
    pub fn rip(&self) -> u64 {
        self.regs[RIP]
    }

    /// Whether CR0.PE is set.
    pub fn protected(&self) -> bool {
        self.cr0.contains(Cr0::PE)
    }

    /// Whether this is virtual-8086 mode.
    pub fn v86(&self) -> bool {
        self.flags.get(Flag::Vm)
    }

    /// Whether segments work as in real mode: base = selector × 16 (real mode and V86).
    pub fn real_segments(&self) -> bool {
        !self.protected() || self.v86()
    }

    /// Whether EFER.LMA is set: 64-bit or compatibility mode.
    pub fn long_mode(&self) -> bool {
        self.efer.contains(Efer::LMA)
    }

    /// How code at CS:rIP is decoded now.
    pub fn code_size(&self) -> CodeSize {
        let cs = &self.segs[seg::CS];
        if self.long_mode() && cs.attr.long() {
            CodeSize::Bits64
        } else if cs.attr.big() && !self.v86() {
            CodeSize::Bits32
        } else {
            CodeSize::Bits16
        }
    }
}
