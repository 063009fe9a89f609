//! Multiboot 1 kernels (Multiboot Specification 0.6.96): ELF files and those with the a.out kludge.
//!
//! Not given: VBE and APM information, drives, ELF section headers, and video modes other than text; a kernel
//! that sets the video flag gets the text mode it would get from any loader without graphics.

use super::e820::{self, Kind};
use super::elf::{self, Elf, u32_at};
use super::payload::{self, LoadError, Loader, Module, Source};
use super::state;
use quintet_protocol::boot_state::BootState;

const HEADER_MAGIC: u32 = 0x1BAD_B002;
/// EAX at the entry (§3.2).
pub const LOADER_MAGIC: u32 = 0x2BAD_B002;
/// The header lies in the first 8192 bytes (§3.1).
const SEARCH: u64 = 8192;
/// Feature flags of the header that a loader has to understand or refuse: bits 0 to 15.
const MUST_UNDERSTAND: u32 = 0xFFFF;
const PAGE_ALIGN: u32 = 1 << 0;
const MEMORY_INFO: u32 = 1 << 1;
const VIDEO: u32 = 1 << 2;
const AOUT_KLUDGE: u32 = 1 << 16;
/// More modules than any kernel takes.
const MOST_MODULES: usize = 256;
/// All that we add lies below the EBDA.
const LOW: u64 = e820::EBDA;
const NAME: &[u8] = b"Quintet\0";

/// The multiboot header of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Offset in the file.
    offset: u64,
    flags: u32,
    /// header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr with the a.out kludge.
    address: [u32; 5],
}

/// Finds the header: a magic number on a 4-byte boundary whose checksum is right.
pub fn find(source: &dyn Source) -> Option<Header> {
    let head = payload::head(source, SEARCH);
    (0..head.len().saturating_sub(11)).step_by(4).find_map(|at| {
        let (magic, flags, sum) = (u32_at(&head, at), u32_at(&head, at + 4), u32_at(&head, at + 8));
        if magic != HEADER_MAGIC || magic.wrapping_add(flags).wrapping_add(sum) != 0 {
            return None;
        }
        let mut address = [0; 5];
        if flags & AOUT_KLUDGE != 0 {
            let fields = payload::array::<20>(source, at as u64 + 12, "").ok()?;
            for (i, field) in address.iter_mut().enumerate() {
                *field = u32_at(&fields, i * 4);
            }
        }
        Some(Header {
            offset: at as u64,
            flags,
            address,
        })
    })
}

/// Loads kernel and modules and builds the multiboot information.
///
/// # Errors
/// [`LoadError`], of which the user's files are the cause.
pub fn load(
    loader: &mut Loader<'_>,
    header: Header,
    kernel: Module<'_>,
    modules: &[Module<'_>],
    map: &[e820::Entry],
) -> Result<BootState, LoadError> {
    let unknown = header.flags & MUST_UNDERSTAND & !(PAGE_ALIGN | MEMORY_INFO | VIDEO);
    if unknown != 0 {
        return Err(LoadError::Field {
            what: "Multiboot flags not known",
            value: u64::from(unknown),
        });
    }
    if modules.len() > MOST_MODULES {
        return Err(LoadError::Modules {
            given: modules.len() as u64,
            max: MOST_MODULES as u64,
        });
    }
    let entry = if header.flags & AOUT_KLUDGE != 0 {
        load_kludge(loader, header, kernel.data)?
    } else if elf::is_elf(kernel.data) {
        let elf = Elf::parse(kernel.data)?;
        elf.load(kernel.data, loader)?;
        elf.physical(elf.entry)
    } else {
        return Err(LoadError::Field {
            what: "Multiboot flags (neither ELF nor addresses)",
            value: header.flags.into(),
        });
    };
    if entry >= 1 << 32 {
        return Err(LoadError::Field {
            what: "Entry point of a multiboot kernel",
            value: entry,
        });
    }
    let info = write_info(loader, kernel.command_line, modules, map)?;
    let stack = loader.lowest(0x2000, 16, LOW, "A stack")?;
    let mut state = state::protected(entry, stack + 0x2000);
    state.rax = u64::from(LOADER_MAGIC);
    state.rbx = info;
    Ok(state)
}

/// The address fields of the header (§3.1.3) instead of an object format.
fn load_kludge(loader: &mut Loader<'_>, header: Header, kernel: &dyn Source) -> Result<u64, LoadError> {
    let [header_addr, load_addr, load_end, bss_end, entry] = header.address.map(u64::from);
    let field = |what, value| LoadError::Field { what, value };
    let before = header_addr
        .checked_sub(load_addr)
        .ok_or(field("Multiboot load_addr", load_addr))?;
    let offset = header
        .offset
        .checked_sub(before)
        .ok_or(field("Multiboot load_addr", load_addr))?;
    let len = if load_end == 0 {
        kernel.len() - offset
    } else {
        load_end
            .checked_sub(load_addr)
            .ok_or(field("Multiboot load_end_addr", load_end))?
    };
    payload::check(kernel, offset, len, "the kernel's load range")?;
    let bss = if bss_end == 0 {
        0
    } else {
        bss_end
            .checked_sub(load_addr + len)
            .ok_or(field("Multiboot bss_end_addr", bss_end))?
    };
    loader.take(load_addr, len + bss, "The kernel")?;
    loader.copy(kernel, offset, len, load_addr)?;
    loader.zero(load_addr + len, bss)?;
    Ok(entry)
}

/// Puts a string with its NUL into low memory.
fn string(loader: &mut Loader<'_>, text: &str, what: &'static str) -> Result<u64, LoadError> {
    let at = loader.lowest(text.len() as u64 + 1, 4, LOW, what)?;
    loader.write(at, text.as_bytes())?;
    loader.write(at + text.len() as u64, &[0])?;
    Ok(at)
}

/// The information structure (§3.3) with all that it points to; answers its address.
fn write_info(
    loader: &mut Loader<'_>,
    command_line: &str,
    modules: &[Module<'_>],
    map: &[e820::Entry],
) -> Result<u64, LoadError> {
    let mut list = Vec::with_capacity(modules.len() * 16);
    for module in modules {
        let len = module.data.len();
        // Behind the kernel, page-aligned whether it asked for that or not, and low enough for 32 bits.
        let at = loader
            .places
            .lowest_from(e820::EXTENDED, len.max(1), 4096, 1 << 32)
            .ok_or(LoadError::NoRoom {
                what: "A module",
                len,
                ram_mib: loader.ram_mib(),
            })?;
        loader.copy(module.data, 0, len, at)?;
        let name = string(loader, module.command_line, "A module's arguments")?;
        for word in [at, at + len, name, 0] {
            list.extend((word as u32).to_le_bytes());
        }
    }
    let list_at = loader.lowest(list.len().max(16) as u64, 16, LOW, "The module list")?;
    loader.write(list_at, &list)?;

    let mut mmap = Vec::with_capacity(map.len() * 24);
    for e in map {
        mmap.extend(20_u32.to_le_bytes()); // size of the rest
        mmap.extend(e.base.to_le_bytes());
        mmap.extend(e.len.to_le_bytes());
        mmap.extend((e.kind as u32).to_le_bytes());
    }
    let mmap_at = loader.lowest(mmap.len() as u64, 16, LOW, "The memory map")?;
    loader.write(mmap_at, &mmap)?;
    let line_at = string(loader, command_line, "The command line")?;
    let name_at = loader.lowest(NAME.len() as u64, 4, LOW, "The loader's name")?;
    loader.write(name_at, NAME)?;

    let usable_from = |base| {
        map.iter()
            .find(|e| e.base == base && e.kind == Kind::Usable)
            .map_or(0, |e| e.len >> 10)
    };
    let mut info = [0_u8; 116];
    let mut put = |at: usize, value: u64| info[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
    // Flags: memory sizes, command line, modules, memory map, loader's name.
    put(0, 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9);
    put(4, usable_from(0));
    put(8, usable_from(e820::EXTENDED));
    put(16, line_at);
    put(20, modules.len() as u64);
    put(24, list_at);
    put(44, mmap.len() as u64);
    put(48, mmap_at);
    put(64, name_at);
    let at = loader.lowest(info.len() as u64, 16, LOW, "The multiboot information")?;
    loader.write(at, &info)?;
    Ok(at)
}
