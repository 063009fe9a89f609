//! The state in which a vCPU starts, as io-worker's firmware published it.

use quintet_protocol::boot_state::{BootState, EntryMode};

use crate::exec::Vcpu;
use crate::state::{Attr, Cr0, Cr4, DescriptorTable, Efer, Flags, RIP, Segment, gpr, seg};

/// Puts the vCPU, which has been reset, into the state that `boot` describes.
pub(super) fn enter(cpu: &mut Vcpu, boot: &BootState) {
    if boot.mode == EntryMode::Reset {
        return;
    }
    let s = &mut cpu.state;
    s.regs[RIP] = boot.rip;
    s.regs[gpr::RSP] = boot.rsp;
    s.regs[gpr::RAX] = boot.rax;
    s.regs[gpr::RBX] = boot.rbx;
    s.regs[gpr::RCX] = boot.rcx;
    s.regs[gpr::RDX] = boot.rdx;
    s.regs[gpr::RSI] = boot.rsi;
    s.regs[gpr::RDI] = boot.rdi;
    s.regs[gpr::RBP] = boot.rbp;
    s.flags = Flags::from_bits(boot.rflags);
    s.gdtr = DescriptorTable {
        base: boot.gdt_base,
        limit: boot.gdt_limit,
    };
    s.idtr = DescriptorTable {
        base: boot.idt_base,
        limit: boot.idt_limit,
    };
    let (code, data) = match boot.mode {
        EntryMode::Real16 | EntryMode::Reset => (Attr::REAL_DATA, Attr::REAL_DATA),
        EntryMode::Protected32 => (Attr(0xC09B), Attr(0xC093)),
        EntryMode::Long64 => (Attr(0xA09B), Attr(0xC093)),
    };
    for (n, s_index) in [seg::CS, seg::DS, seg::ES, seg::FS, seg::GS, seg::SS]
        .into_iter()
        .enumerate()
    {
        let selector = boot.selectors[n];
        s.segs[s_index] = match boot.mode {
            EntryMode::Real16 | EntryMode::Reset => Segment::real(selector),
            _ => Segment::new(
                selector,
                0,
                u32::MAX,
                if s_index == seg::CS { code } else { data },
            ),
        };
    }
    // The mode decides the bits it stands for, whatever else the record says.
    let (pe, pg) = match boot.mode {
        EntryMode::Real16 | EntryMode::Reset => (false, false),
        EntryMode::Protected32 => (true, false),
        EntryMode::Long64 => (true, true),
    };
    s.cr0 = Cr0::from_bits_truncate(boot.cr0) | Cr0::ET;
    s.cr0.set(Cr0::PE, pe);
    s.cr0.set(Cr0::PG, pg);
    s.cr3 = boot.cr3;
    s.cr4 = Cr4::from_bits_truncate(boot.cr4);
    s.efer = Efer::from_bits_truncate(boot.efer);
    s.efer.set(Efer::LMA, boot.mode == EntryMode::Long64);
    if boot.mode == EntryMode::Long64 {
        s.efer |= Efer::LME;
        s.cr4 |= Cr4::PAE;
    }
    cpu.refresh_mode();
    cpu.tlb.flush_all();
}
