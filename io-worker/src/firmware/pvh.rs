//! PVH kernels: ELF files with Xen's note that names a 32-bit entry without paging (Xen's
//! docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h).

use super::e820;
use super::elf::{self, Elf, u32_at};
use super::payload::{LoadError, Loader, Module, Source};
use super::state;
use quintet_protocol::boot_state::BootState;

/// Type of the note `XEN_ELFNOTE_PHYS32_ENTRY`.
const PHYS32_ENTRY: u32 = 18;
/// `XEN_HVM_START_MAGIC_VALUE`: "xEn3" with the top bit of the E set.
pub const START_MAGIC: u32 = 0x336E_C578;
/// Version with the memory map.
const VERSION: u32 = 1;
const MOST_MODULES: usize = 256;
const LOW: u64 = e820::EBDA;

/// The PVH entry point of an ELF file, if it has one.
///
/// # Errors
/// [`LoadError`] when the file is an ELF file that cannot be read.
pub fn entry(source: &dyn Source) -> Result<Option<(Elf, u64)>, LoadError> {
    if !elf::is_elf(source) {
        return Ok(None);
    }
    let elf = Elf::parse(source)?;
    let note = elf
        .notes(source)
        .into_iter()
        .find(|n| n.name == b"Xen" && n.kind == PHYS32_ENTRY);
    Ok(note
        .filter(|n| n.desc.len() >= 4)
        .map(|n| (elf, u64::from(u32_at(&n.desc, 0)))))
}

/// Loads kernel and modules and builds `hvm_start_info`.
///
/// # Errors
/// [`LoadError`], of which the user's files are the cause.
pub fn load(
    loader: &mut Loader<'_>,
    (elf, entry): (Elf, u64),
    kernel: &dyn Source,
    modules: &[Module<'_>],
    command_line: &str,
    map: &[e820::Entry],
    rsdp: u64,
) -> Result<BootState, LoadError> {
    if modules.len() > MOST_MODULES {
        return Err(LoadError::Modules {
            given: modules.len() as u64,
            max: MOST_MODULES as u64,
        });
    }
    elf.load(kernel, loader)?;
    let string = |loader: &mut Loader<'_>, text: &str, what| -> Result<u64, LoadError> {
        let at = loader.lowest(text.len() as u64 + 1, 8, LOW, what)?;
        loader.write(at, text.as_bytes())?;
        loader.write(at + text.len() as u64, &[0])?;
        Ok(at)
    };

    let mut list = Vec::with_capacity(modules.len() * 32);
    for module in modules {
        let len = module.data.len();
        let at = loader.highest(len.max(1), 1 << 32, "A module")?;
        loader.copy(module.data, 0, len, at)?;
        // The arguments alone: a PVH module's file name is nobody's business.
        let arguments = module.command_line.split_once(' ').map_or("", |(_, rest)| rest);
        let line = string(loader, arguments, "A module's arguments")?;
        for word in [at, len, line, 0] {
            list.extend(word.to_le_bytes());
        }
    }
    let mut memory = Vec::with_capacity(map.len() * 24);
    for e in map {
        memory.extend(e.base.to_le_bytes());
        memory.extend(e.len.to_le_bytes());
        memory.extend((e.kind as u32).to_le_bytes());
        memory.extend(0_u32.to_le_bytes());
    }
    let list_at = loader.lowest(list.len().max(8) as u64, 8, LOW, "The module list")?;
    loader.write(list_at, &list)?;
    let memory_at = loader.lowest(memory.len() as u64, 8, LOW, "The memory map")?;
    loader.write(memory_at, &memory)?;
    let line_at = string(loader, command_line, "The command line")?;

    let mut info = Vec::with_capacity(56);
    for word in [START_MAGIC, VERSION, 0, modules.len() as u32] {
        info.extend(word.to_le_bytes());
    }
    let list_at = if modules.is_empty() { 0 } else { list_at };
    for word in [list_at, line_at, rsdp, memory_at] {
        info.extend(word.to_le_bytes());
    }
    info.extend((map.len() as u32).to_le_bytes());
    info.extend(0_u32.to_le_bytes());
    let info_at = loader.lowest(info.len() as u64, 8, LOW, "hvm_start_info")?;
    loader.write(info_at, &info)?;
    let stack = loader.lowest(0x2000, 16, LOW, "A stack")?;
    let mut state = state::protected(entry, stack + 0x2000);
    state.rbx = info_at;
    Ok(state)
}
