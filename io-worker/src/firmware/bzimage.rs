//! Linux bzImages by the boot protocol's 32- and 64-bit entries (Documentation/arch/x86/boot.rst and
//! zero-page.rst of the kernel).
//!
//! The 16-bit entry is not used: it would need the BIOS services that a machine without firmware lacks, and
//! everything the setup code asks the BIOS for is in `boot_params` here.

use super::e820::{self, Kind};
use super::payload::{self, LoadError, Loader, Module, Source};
use super::state;
use quintet_protocol::boot_state::BootState;

/// Start of the setup header in the file and in `boot_params`.
const HEADER: usize = 0x1F1;
/// The longest header that fits before `edd_mbr_sig_buffer` in `boot_params`.
const HEADER_END: usize = 0x290;
/// `boot_params` is one page.
const ZERO_PAGE: usize = 4096;
const E820_TABLE: usize = 0x2D0;
const E820_MOST: usize = 128;
/// Where a kernel that is loaded high goes (`code32_start` as built).
const LOAD_AT: u64 = 0x10_0000;
/// Kernels before protocol 2.03 say nothing; the documentation gives this.
const OLD_INITRD_MAX: u32 = 0x37FF_FFFF;
/// Everything else of ours lies below the EBDA.
const LOW: u64 = e820::EBDA;
const XLF_KERNEL_64: u16 = 1;
const LOADED_HIGH: u8 = 1;

/// The setup header, of which the loader wants these fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Raw bytes from [`HEADER`] on, to be copied into `boot_params`.
    raw: Vec<u8>,
    /// Boot protocol version, for instance 0x020F.
    pub version: u16,
    /// Length of boot sector and setup, in bytes.
    setup_len: u64,
    /// Length of the protected-mode kernel, in bytes.
    kernel_len: u64,
    /// Highest address an initrd may touch.
    initrd_max: u64,
    /// Longest command line, without its NUL.
    command_line_max: u64,
    /// Whether the kernel has the 64-bit entry at 200h.
    pub has_64: bool,
    relocatable: bool,
    alignment: u64,
    pref_address: u64,
    init_size: u64,
}

/// Whether the file has the setup header's magic.
pub fn is_bzimage(source: &dyn Source) -> bool {
    payload::array::<4>(source, 0x202, "").is_ok_and(|magic| &magic == b"HdrS")
}

impl Header {
    /// Reads and checks the setup header.
    ///
    /// # Errors
    /// [`LoadError::Truncated`], [`LoadError::TooOld`] or [`LoadError::Field`].
    pub fn parse(source: &dyn Source) -> Result<Self, LoadError> {
        let sector = payload::bytes(source, 0, 0x400.min(source.len()), "the setup header")?;
        payload::check(source, 0x250, 0, "the setup header")?;
        let u8_at = |at: usize| sector.get(at).copied().unwrap_or(0);
        let u16_at = |at: usize| u16::from_le_bytes([u8_at(at), u8_at(at + 1)]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        if u16_at(0x1FE) != 0xAA55 {
            return Err(LoadError::Field {
                what: "Linux boot flag",
                value: u64::from(u16_at(0x1FE)),
            });
        }
        let version = u16_at(0x206);
        if version < 0x202 {
            return Err(LoadError::TooOld(version));
        }
        // The jump at 200h ends the header: its target is the first byte after it.
        let end = (0x202 + usize::from(u8_at(0x201))).clamp(0x230, HEADER_END);
        payload::check(source, 0, end as u64, "the setup header")?;
        let setup_sects = match u8_at(0x1F1) {
            0 => 4,
            n => u64::from(n),
        };
        let setup_len = (setup_sects + 1) * 512;
        payload::check(source, 0, setup_len + 1, "the protected-mode kernel")?;
        let rest = source.len() - setup_len;
        let kernel_len = if version >= 0x204 {
            // In paragraphs, which the file may fall short of by less than one.
            let announced = u64::from(u32_at(0x1F4)) * 16;
            if announced == 0 {
                return Err(LoadError::Field {
                    what: "Linux syssize",
                    value: 0,
                });
            }
            payload::check(
                source,
                setup_len,
                announced.saturating_sub(15),
                "the protected-mode kernel",
            )?;
            announced.min(rest)
        } else {
            rest
        };
        if u8_at(0x211) & LOADED_HIGH == 0 {
            return Err(LoadError::Field {
                what: "Linux loadflags (a zImage)",
                value: u64::from(u8_at(0x211)),
            });
        }
        let since =
            |at_least: u16, value: u64, otherwise: u64| if version >= at_least { value } else { otherwise };
        let init_size = since(0x20A, u64::from(u32_at(0x260)), 0).max(kernel_len);
        let alignment = since(0x205, u64::from(u32_at(0x230)), 0);
        let relocatable = version >= 0x205 && u8_at(0x234) != 0;
        if relocatable && !alignment.is_power_of_two() {
            return Err(LoadError::Field {
                what: "Linux kernel_alignment",
                value: alignment,
            });
        }
        let pref_address = since(
            0x20A,
            u64::from(u32_at(0x258)) | u64::from(u32_at(0x25C)) << 32,
            LOAD_AT,
        );
        if pref_address < LOAD_AT {
            return Err(LoadError::Field {
                what: "Linux pref_address",
                value: pref_address,
            });
        }
        Ok(Self {
            raw: sector[HEADER..end.min(sector.len())].to_vec(),
            version,
            setup_len,
            kernel_len,
            initrd_max: since(0x203, u64::from(u32_at(0x22C)), u64::from(OLD_INITRD_MAX)),
            command_line_max: since(0x206, u64::from(u32_at(0x238)), 255),
            has_64: version >= 0x20C && u16_at(0x236) & XLF_KERNEL_64 != 0,
            relocatable,
            alignment,
            pref_address,
            init_size,
        })
    }

    /// Address and length of what the kernel claims while it unpacks itself: it moves from where it is loaded
    /// to where it runs, which is never below `pref_address` (boot.rst, `init_size`).
    fn runtime(&self) -> (u64, u64) {
        let start = if self.relocatable {
            LOAD_AT
                .next_multiple_of(self.alignment.max(1))
                .max(self.pref_address)
        } else {
            self.pref_address
        };
        (start, self.init_size)
    }
}

/// What of the machine a Linux kernel is told besides files and command line.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Memory map.
    pub e820: &'a [e820::Entry],
    /// Physical address of the RSDP.
    pub rsdp: u64,
    /// Whether the processor has long mode.
    pub long_mode: bool,
}

/// Loads kernel, command line and initrd and builds `boot_params`.
///
/// # Errors
/// [`LoadError`], of which the user's files are the cause.
pub fn load(
    loader: &mut Loader<'_>,
    kernel: &dyn Source,
    initrds: &[Module<'_>],
    command_line: &str,
    around: Surroundings<'_>,
) -> Result<BootState, LoadError> {
    let header = Header::parse(kernel)?;
    if initrds.len() > 1 {
        return Err(LoadError::Modules {
            given: initrds.len() as u64,
            max: 1,
        });
    }
    let line_len = command_line.len() as u64;
    let line_max = header.command_line_max.min(0xFFFF);
    if line_len > line_max {
        return Err(LoadError::CommandLine {
            len: line_len,
            max: line_max,
        });
    }
    // The image where it is loaded, then what it needs where it runs; the two usually overlap.
    loader.take(LOAD_AT, header.kernel_len, "The kernel")?;
    let (start, len) = header.runtime();
    let loaded_end = LOAD_AT + header.kernel_len;
    let Some(end) = start.checked_add(len) else {
        return Err(LoadError::Field {
            what: "Linux pref_address",
            value: start,
        });
    };
    let from = start.max(loaded_end);
    if from < end {
        loader.take(from, end - from, "The unpacked kernel")?;
    }
    loader.copy(kernel, header.setup_len, header.kernel_len, LOAD_AT)?;

    let mut params = vec![0_u8; ZERO_PAGE];
    params[HEADER..HEADER + header.raw.len()].copy_from_slice(&header.raw);
    let zero_page = loader.lowest(ZERO_PAGE as u64, 4096, LOW, "boot_params")?;
    let line_at = loader.lowest(line_len + 1, 16, LOW, "The command line")?;
    loader.write(line_at, command_line.as_bytes())?;
    loader.write(line_at + line_len, &[0])?;
    let stack = loader.lowest(0x2000, 16, LOW, "A stack")?;

    let mut put = |at: usize, bytes: &[u8]| params[at..at + bytes.len()].copy_from_slice(bytes);
    // screen_info: colour text mode 3, 80x25, characters 16 lines high, cursor at the top left.
    put(0x06, &[0x03, 80]);
    put(0x0E, &[25, 1]);
    put(0x10, &16_u16.to_le_bytes());
    put(0x70, &around.rsdp.to_le_bytes());
    put(0x1FA, &0xFFFF_u16.to_le_bytes()); // vid_mode: normal
    put(0x210, &[0xFF]); // type_of_loader: none that is registered
    put(0x214, &(LOAD_AT as u32).to_le_bytes());
    put(0x228, &(line_at as u32).to_le_bytes());
    put(0x250, &0_u64.to_le_bytes()); // setup_data: none
    put(0x218, &[0; 8]);
    if let Some(initrd) = initrds.first() {
        let len = initrd.data.len();
        if len == 0 {
            return Err(LoadError::Empty);
        }
        let at = loader.highest(
            len,
            header.initrd_max.saturating_add(1).min(1 << 32),
            "The initrd",
        )?;
        loader.copy(initrd.data, 0, len, at)?;
        put(0x218, &(at as u32).to_le_bytes());
        put(0x21C, &(len as u32).to_le_bytes());
    }
    write_memory_map(&mut params, around.e820);
    loader.write(zero_page, &params)?;

    let top = stack + 0x2000;
    let mut state = if header.has_64 && around.long_mode {
        state::long(LOAD_AT + 0x200, top, identity_map(loader)?)
    } else {
        state::protected(LOAD_AT, top)
    };
    state.rsi = zero_page;
    Ok(state)
}

fn write_memory_map(params: &mut [u8], map: &[e820::Entry]) {
    let map = &map[..map.len().min(E820_MOST)];
    params[0x1E8] = map.len() as u8;
    for (i, e) in map.iter().enumerate() {
        let at = E820_TABLE + i * 20;
        params[at..at + 8].copy_from_slice(&e.base.to_le_bytes());
        params[at + 8..at + 16].copy_from_slice(&e.len.to_le_bytes());
        params[at + 16..at + 20].copy_from_slice(&(e.kind as u32).to_le_bytes());
    }
    // The sizes that programs older than E820 look at, in KiB.
    let extended = map
        .iter()
        .find(|e| e.base == e820::EXTENDED && e.kind == Kind::Usable)
        .map_or(0, |e| e.len >> 10);
    params[0x02..0x04].copy_from_slice(&(extended.min(0xFFFF) as u16).to_le_bytes());
    params[0x1E0..0x1E4].copy_from_slice(&(extended as u32).to_le_bytes());
}

/// Page tables that map the first 4 GiB to themselves with 2 MiB pages (Intel SDM vol. 3, §4.5). Every
/// processor with long mode has those; pages of 1 GiB are optional.
fn identity_map(loader: &mut Loader<'_>) -> Result<u64, LoadError> {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 0x80;
    let root = loader.lowest(6 * 4096, 4096, LOW, "The page tables")?;
    let mut tables = vec![0_u64; 6 * 512];
    tables[0] = (root + 4096) | PRESENT_WRITABLE;
    for gib in 0..4_usize {
        tables[512 + gib] = (root + 8192 + gib as u64 * 4096) | PRESENT_WRITABLE;
        for page in 0..512 {
            tables[1024 + gib * 512 + page] =
                (gib as u64) << 30 | (page as u64) << 21 | LARGE | PRESENT_WRITABLE;
        }
    }
    let bytes: Vec<u8> = tables.iter().flat_map(|e| e.to_le_bytes()).collect();
    loader.write(root, &bytes)?;
    Ok(root)
}
