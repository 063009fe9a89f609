//! How the first processor starts: what firmware and boot loader hand to the vCPU.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::ram::{GuestRam, RamError};

/// Where the global descriptor table lies: in the BIOS segment, which no kernel is loaded over.
pub const GDT: u64 = 0xF_1000;
/// Where the task state segment lies that TR names.
pub const TSS: u64 = 0xF_1100;
/// Selector of the code segment at the entry (`__BOOT_CS` of Linux).
pub const CODE: u16 = 0x10;
/// Selector of the data segments at the entry (`__BOOT_DS` of Linux).
pub const DATA: u16 = 0x18;
/// Selector of the task state segment.
pub const TASK: u16 = 0x20;

/// Mode the processor is in at its first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryMode {
    /// Real mode; CS is a segment number.
    Real16,
    /// 32-bit protected mode, flat segments, no paging.
    Prot32,
    /// 64-bit mode with paging by `cr3` (PAE, LME and LMA set).
    Long64,
}

/// Registers of the bootstrap processor at the first instruction of a kernel. What is not here is as after
/// reset; interrupts are off, and segment caches are loaded from the descriptors at [`Self::gdt_base`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootState {
    /// Mode of the processor.
    pub mode: EntryMode,
    /// First instruction.
    pub rip: u64,
    /// Top of a small stack in low memory.
    pub rsp: u64,
    /// EAX: multiboot's magic number, else 0.
    pub rax: u64,
    /// EBX: multiboot's or PVH's information, else 0.
    pub rbx: u64,
    /// RSI: Linux's `boot_params`, else 0.
    pub rsi: u64,
    /// Page tables; 0 unless in [`EntryMode::Long64`].
    pub cr3: u64,
    /// Linear address of the GDT.
    pub gdt_base: u64,
    /// Its limit.
    pub gdt_limit: u16,
    /// CS.
    pub cs: u16,
    /// DS, ES, FS, GS and SS.
    pub ds: u16,
    /// TR.
    pub tr: u16,
    /// Edge/level control registers 4D0h (low byte) and 4D1h as firmware leaves them.
    pub elcr: u16,
}

impl BootState {
    /// A start in `mode` at `rip` with the flat segments of [`write_tables`].
    pub fn flat(mode: EntryMode, rip: u64, rsp: u64) -> Self {
        Self {
            mode,
            rip,
            rsp,
            rax: 0,
            rbx: 0,
            rsi: 0,
            cr3: 0,
            gdt_base: GDT,
            gdt_limit: GDT_LEN - 1,
            cs: CODE,
            ds: DATA,
            tr: TASK,
            elcr: 0,
        }
    }
}

/// Six entries: null, unused, code, data, and a task state segment that takes two in 64-bit mode.
const GDT_LEN: u16 = 6 * 8;

/// Writes the GDT and the TSS for a start in `mode`. Accessed and busy bits are already set, because the
/// BIOS segment is read-only by then (Intel SDM vol. 3, §3.4.5 and §8.2).
///
/// # Errors
/// [`RamError`] when there is no RAM behind the BIOS segment.
pub fn write_tables(ram: &GuestRam, mode: EntryMode) -> Result<(), RamError> {
    let code: u64 = match mode {
        EntryMode::Real16 => 0x0000_9B00_0000_FFFF,
        EntryMode::Prot32 => 0x00CF_9B00_0000_FFFF,
        EntryMode::Long64 => 0x00AF_9B00_0000_FFFF,
    };
    let data: u64 = 0x00CF_9300_0000_FFFF;
    // Type 11 (busy TSS, 32 or 64 bit), present, limit 67h; the base fits into 24 bits.
    let task: u64 = 0x0000_8B00_0000_0067 | TSS << 16;
    let entries = [0, 0, code, data, task, 0];
    let bytes: Vec<u8> = entries.iter().flat_map(|e: &u64| e.to_le_bytes()).collect();
    ram.write(GuestPhys(GDT), &bytes)?;
    ram.write(GuestPhys(TSS), &[0; 0x68])
}
