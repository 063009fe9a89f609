//! How the first processor starts: the flat segments and control registers of each entry mode.
//!
//! The Linux boot protocol wants its code and data selectors (`__BOOT_CS`, `__BOOT_DS`) in a GDT that is in
//! memory; multiboot and PVH leave the GDT open and get the same one.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::boot_state::{BootState, EntryMode};
use quintet_protocol::ram::{GuestRam, RamError};

/// Where the global descriptor table lies: in the BIOS segment, which no kernel is loaded over.
pub const GDT: u64 = 0xF_1000;
/// Selector of the code segment at the entry.
pub const CODE: u16 = 0x10;
/// Selector of the data segments at the entry.
pub const DATA: u16 = 0x18;
const GDT_LEN: u16 = 4 * 8;

/// CR0.PE and CR0.ET: protected mode, caches on, as firmware leaves it.
const CR0_PROTECTED: u64 = 0x11;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
/// IA32_EFER.LME and LMA.
const EFER_LONG: u64 = 1 << 8 | 1 << 10;

/// A start at `rip` in protected mode, flat and without paging.
pub fn protected(rip: u64, rsp: u64) -> BootState {
    BootState {
        mode: EntryMode::Protected32,
        rip,
        rsp,
        rflags: 2,
        cr0: CR0_PROTECTED,
        gdt_base: GDT,
        gdt_limit: GDT_LEN - 1,
        selectors: [CODE, DATA, DATA, DATA, DATA, DATA],
        ..BootState::default()
    }
}

/// A start at `rip` in 64-bit mode with the page tables at `cr3`.
pub fn long(rip: u64, rsp: u64, cr3: u64) -> BootState {
    BootState {
        mode: EntryMode::Long64,
        cr0: CR0_PROTECTED | CR0_PG,
        cr3,
        cr4: CR4_PAE,
        efer: EFER_LONG,
        ..protected(rip, rsp)
    }
}

/// Writes the GDT for a start in `mode`. Accessed bits are already set, because the BIOS segment is read-only
/// by then (Intel SDM vol. 3, §3.4.5).
///
/// # Errors
/// [`RamError`] when there is no RAM behind the BIOS segment.
pub fn write_tables(ram: &GuestRam, mode: EntryMode) -> Result<(), RamError> {
    let code: u64 = match mode {
        EntryMode::Real16 | EntryMode::Reset => 0x0000_9B00_0000_FFFF,
        EntryMode::Protected32 => 0x00CF_9B00_0000_FFFF,
        EntryMode::Long64 => 0x00AF_9B00_0000_FFFF,
    };
    let data: u64 = 0x00CF_9300_0000_FFFF;
    let bytes: Vec<u8> = [0, 0, code, data].iter().flat_map(|e| e.to_le_bytes()).collect();
    ram.write(GuestPhys(GDT), &bytes)
}
