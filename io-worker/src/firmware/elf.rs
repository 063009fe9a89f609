//! ELF program headers, read with suspicion: what multiboot and PVH kernels are made of.
//!
//! The `linux-loader` crate was weighed and rejected. It reads ELF64 only, while multiboot kernels and Xen's
//! PVH images are ELF32; it has no multiboot; its boot-protocol structures exist only when the *host* is
//! x86; and it loads into a `vm-memory` address space, of which ours, with its refusals that name what is
//! wrong, would have to become one.

use super::payload::{self, LoadError, Loader, Source};

const MAGIC: [u8; 4] = *b"\x7fELF";
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
/// More program headers than any kernel has.
const MOST_SEGMENTS: u64 = 256;
/// Longer than any kernel's notes, in bytes.
const MOST_NOTES: u64 = 1 << 20;

/// A program header (System V ABI, chapter 5), whichever class it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    kind: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    file_len: u64,
    mem_len: u64,
    align: u64,
}

/// The parts of an ELF file that matter to a loader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// Entry point, a virtual address.
    pub entry: u64,
    /// Whether the file is of the 64-bit class.
    pub is_64: bool,
    segments: Vec<Segment>,
}

/// A note of an ELF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Owner, without the NUL at its end.
    pub name: Vec<u8>,
    /// Type, defined by the owner.
    pub kind: u32,
    /// Contents.
    pub desc: Vec<u8>,
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

pub(super) fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32
}

/// Whether the file begins as an ELF file does.
pub fn is_elf(source: &dyn Source) -> bool {
    payload::head(source, 4) == MAGIC
}

impl Elf {
    /// Reads the headers of an x86 executable.
    ///
    /// # Errors
    /// [`LoadError::Truncated`] or [`LoadError::Field`].
    pub fn parse(source: &dyn Source) -> Result<Self, LoadError> {
        let ident: [u8; 16] = payload::array(source, 0, "the ELF header")?;
        let is_64 = match ident[4] {
            1 => false,
            2 => true,
            class => {
                return Err(LoadError::Field {
                    what: "ELF class",
                    value: u64::from(class),
                });
            }
        };
        if ident[5] != 1 {
            return Err(LoadError::Field {
                what: "ELF byte order",
                value: u64::from(ident[5]),
            });
        }
        let header_len = if is_64 { 64 } else { 52 };
        let h = payload::bytes(source, 0, header_len, "the ELF header")?;
        let machine = u16_at(&h, 18);
        if machine != EM_386 && machine != EM_X86_64 {
            return Err(LoadError::Field {
                what: "ELF machine (not an x86)",
                value: u64::from(machine),
            });
        }
        let (entry, phoff, phentsize, phnum) = if is_64 {
            (u64_at(&h, 24), u64_at(&h, 32), u16_at(&h, 54), u16_at(&h, 56))
        } else {
            (
                u64::from(u32_at(&h, 24)),
                u64::from(u32_at(&h, 28)),
                u16_at(&h, 42),
                u16_at(&h, 44),
            )
        };
        let entry_len = if is_64 { 56 } else { 32 };
        if u64::from(phentsize) < entry_len {
            return Err(LoadError::Field {
                what: "ELF program header size",
                value: u64::from(phentsize),
            });
        }
        if u64::from(phnum) > MOST_SEGMENTS {
            return Err(LoadError::Field {
                what: "Number of ELF program headers",
                value: u64::from(phnum),
            });
        }
        let mut segments = Vec::new();
        for i in 0..u64::from(phnum) {
            let at = phoff.saturating_add(i * u64::from(phentsize));
            let p = payload::bytes(source, at, entry_len, "the ELF program headers")?;
            segments.push(if is_64 {
                Segment {
                    kind: u32_at(&p, 0),
                    offset: u64_at(&p, 8),
                    vaddr: u64_at(&p, 16),
                    paddr: u64_at(&p, 24),
                    file_len: u64_at(&p, 32),
                    mem_len: u64_at(&p, 40),
                    align: u64_at(&p, 48),
                }
            } else {
                let field = |at| u64::from(u32_at(&p, at));
                Segment {
                    kind: u32_at(&p, 0),
                    offset: field(4),
                    vaddr: field(8),
                    paddr: field(12),
                    file_len: field(16),
                    mem_len: field(20),
                    align: field(28),
                }
            });
        }
        Ok(Self {
            entry,
            is_64,
            segments,
        })
    }

    /// Loads every loadable segment at its physical address and clears what the file does not fill.
    ///
    /// # Errors
    /// [`LoadError::Truncated`], [`LoadError::Field`] or [`LoadError::NotFree`].
    pub fn load(&self, source: &dyn Source, loader: &mut Loader<'_>) -> Result<(), LoadError> {
        let mut any = false;
        for s in self
            .segments
            .iter()
            .filter(|s| s.kind == PT_LOAD && s.mem_len > 0)
        {
            if s.file_len > s.mem_len {
                return Err(LoadError::Field {
                    what: "ELF segment's length in the file",
                    value: s.file_len,
                });
            }
            payload::check(source, s.offset, s.file_len, "an ELF segment")?;
            loader.take(s.paddr, s.mem_len, "An ELF segment")?;
            loader.copy(source, s.offset, s.file_len, s.paddr)?;
            loader.zero(s.paddr + s.file_len, s.mem_len - s.file_len)?;
            any = true;
        }
        if any {
            Ok(())
        } else {
            Err(LoadError::Field {
                what: "Number of loadable ELF segments",
                value: 0,
            })
        }
    }

    /// The physical address of a virtual one, by the segment it lies in; itself when it lies in none.
    pub fn physical(&self, vaddr: u64) -> u64 {
        self.segments
            .iter()
            .find(|s| s.kind == PT_LOAD && vaddr >= s.vaddr && vaddr - s.vaddr < s.mem_len)
            .map_or(vaddr, |s| s.paddr.wrapping_add(vaddr - s.vaddr))
    }

    /// All notes that can be read; broken ones end the list.
    pub fn notes(&self, source: &dyn Source) -> Vec<Note> {
        let mut notes = Vec::new();
        for s in self
            .segments
            .iter()
            .filter(|s| s.kind == PT_NOTE && s.file_len <= MOST_NOTES)
        {
            let Ok(bytes) = payload::bytes(source, s.offset, s.file_len, "notes") else {
                continue;
            };
            let align = if s.align == 8 { 8 } else { 4 };
            let mut at = 0;
            while let Some(note) = note_at(&bytes, at, align) {
                at = note.1;
                notes.push(note.0);
            }
        }
        notes
    }
}

/// The note at `at` and where the next one starts.
fn note_at(bytes: &[u8], at: usize, align: usize) -> Option<(Note, usize)> {
    let header = bytes.get(at..at.checked_add(12)?)?;
    let (name_len, desc_len) = (u32_at(header, 0) as usize, u32_at(header, 4) as usize);
    let name_at = at + 12;
    let name = bytes.get(name_at..name_at.checked_add(name_len)?)?;
    let desc_at = (name_at + name_len).next_multiple_of(align);
    let desc = bytes.get(desc_at..desc_at.checked_add(desc_len)?)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name).to_vec();
    let next = (desc_at + desc_len).next_multiple_of(align);
    Some((
        Note {
            name,
            kind: u32_at(header, 8),
            desc: desc.to_vec(),
        },
        next,
    ))
}
