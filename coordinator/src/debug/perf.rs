//! `quintet debug NAME perf-map`: names for translated code in `perf report`.
//!
//! perf reads `/tmp/perf-PID.map` for code that is in no file, when it reports and not before. So the map is written on request, by this
//! process, from what the cpu-worker shows of its translations ([`quintet_cpu_worker::jit::shown`]): the confined worker
//! opens nothing and does nothing for it, and any machine can be asked at any time. A map that the worker writes as it translates was
//! rejected: a descriptor more for the one process that executes guest code, and a system call for every translation, for a file
//! that is seldom wanted. What was evicted before the map was written has no name.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use object::read::elf::ElfFile64;
use object::read::{Object as _, ObjectSection as _, ReadCache};
use object::{Endianness, ObjectKind};
use quintet_cpu_worker::jit::shown;

/// Tries to read translations that the vCPU is adding to.
const TRIES: usize = 1000;
/// Most bytes of the text and of one region's translations: what a worker claims beyond that is not believed.
const MOST: u64 = 1 << 30;

/// A translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Native {
    rip: u64,
    entry: u64,
    len: u64,
}

/// Why no map was made.
#[derive(Debug, thiserror::Error)]
pub(super) enum PerfError {
    /// The process cannot be read, or the map cannot be written.
    #[error("Cannot {0}: {1}")]
    Io(&'static str, std::io::Error),
    /// The process shows no vCPU.
    #[error(
        "The cpu-worker shows no translated code: it runs modules, interprets everything (--accel), or is of another build"
    )]
    Nothing,
    /// What it shows contradicts itself.
    #[error("What the cpu-worker shows of its code is damaged ({0})")]
    Damaged(&'static str),
    /// It never stood still long enough.
    #[error("The translations changed at every look; pause the machine and try again")]
    Busy,
}

/// The memory of another process.
struct Memory(File);

impl Memory {
    fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, PerfError> {
        if len > MOST {
            return Err(PerfError::Damaged("a length"));
        }
        let mut bytes = vec![0; len as usize];
        let read = self.0.read_exact_at(&mut bytes, at);
        read.map_err(|e| PerfError::Io("read the worker's memory", e))?;
        Ok(bytes)
    }

    fn words(&self, at: u64, count: usize) -> Result<Vec<u64>, PerfError> {
        let bytes = self.read(at, count as u64 * 8)?;
        let (words, _) = bytes.as_chunks::<8>();
        Ok(words.iter().map(|w| u64::from_le_bytes(*w)).collect())
    }
}

/// `N` bytes at `at`.
fn field<const N: usize>(bytes: &[u8], at: u64) -> Option<[u8; N]> {
    let at = usize::try_from(at).ok()?;
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn long(bytes: &[u8], at: u64) -> Option<u64> {
    field(bytes, at).map(u64::from_le_bytes)
}

/// Whether a program lies at fixed addresses, and the address of [`shown::SECTION`] by its headers.
fn section(program: &File) -> Option<(bool, u64)> {
    let cache = ReadCache::new(program);
    let elf: ElfFile64<'_, Endianness, _> = ElfFile64::parse(&cache).ok()?;
    let at = elf.section_by_name(shown::SECTION)?.address();
    Some((elf.kind() == ObjectKind::Executable, at))
}

/// Where the program is in the address space that `maps` lists.
fn base(maps: &str, program: &Path) -> Option<u64> {
    let program = program.to_str()?;
    let line = maps.lines().find(|l| {
        let mut words = l.splitn(6, ' ');
        words.nth(2) == Some("00000000") && words.nth(2).is_some_and(|name| name.trim_start() == program)
    })?;
    u64::from_str_radix(line.split('-').next()?, 16).ok()
}

/// The translations of process `pid`, and the code memory with the bytes of its routines.
fn translations(pid: i32) -> Result<(Vec<Native>, u64, u64), PerfError> {
    let proc = Path::new("/proc").join(pid.to_string());
    let io = |what| move |e| PerfError::Io(what, e);
    let program = File::open(proc.join("exe")).map_err(io("open the worker's program"))?;
    let maps = std::fs::read_to_string(proc.join("maps")).map_err(io("read the worker's maps"))?;
    let name = std::fs::read_link(proc.join("exe")).map_err(io("find the worker's program"))?;
    let memory = Memory(File::open(proc.join("mem")).map_err(io("open the worker's memory"))?);
    let (fixed, at) = section(&program).ok_or(PerfError::Nothing)?;
    let at = if fixed {
        at
    } else {
        at + base(&maps, &name).ok_or(PerfError::Nothing)?
    };
    if memory.read(at, 8)? != shown::MAGIC {
        return Err(PerfError::Nothing);
    }
    let words = memory.words(at + 8, shown::words().len())?;
    let words: HashMap<&str, u64> = shown::words().iter().copied().zip(words).collect();
    if words["natives_table"] == 0 {
        return Err(PerfError::Nothing);
    }
    let text = memory.read(words["text"], words["text_len"])?;
    let text = String::from_utf8(text).map_err(|_| PerfError::Damaged("the text"))?;
    let number = |line: &str| -> Result<u64, PerfError> {
        let found = text
            .lines()
            .find_map(|l| l.strip_prefix(line)?.split(' ').nth(1)?.parse().ok());
        found.ok_or(PerfError::Damaged("the text"))
    };
    let (size, step) = (number("size native")?, number("size shown")?);
    let fields = [
        number("native rip")?,
        number("native entry")?,
        number("native len")?,
    ];
    let (first, count) = (number("shown first")?, number("shown count")?);
    let code = words["code"]..words["code"].saturating_add(words["code_len"]);
    let mut all = Vec::new();
    for region in 0..number("size regions")?.min(1 << 10) {
        let at = words["natives_table"] + region * step;
        all.extend(read_region(&memory, (at + first, at + count), size, fields)?);
    }
    let whole = |n: &Native| code.contains(&n.entry) && n.entry + n.len.min(MOST) <= code.end;
    if !all.iter().all(whole) {
        return Err(PerfError::Damaged("a translation outside the code memory"));
    }
    Ok((all, code.start, words["routines"]))
}

/// The translations of one region, whose address and count are at `shown`. Once entered they do not change, but they move.
fn read_region(
    memory: &Memory,
    shown: (u64, u64),
    size: u64,
    fields: [u64; 3],
) -> Result<Vec<Native>, PerfError> {
    let look = || Ok::<_, PerfError>((memory.words(shown.0, 1)?[0], memory.words(shown.1, 1)?[0]));
    for _ in 0..TRIES {
        let (first, count) = look()?;
        // What was freed meanwhile may be unmapped.
        let bytes = memory.read(first, count.saturating_mul(size));
        let (again, grown) = look()?;
        // Nothing is shown for an instant while one is added.
        if again != first || grown < count || (count == 0 && grown != 0) {
            continue;
        }
        let bytes = bytes?;
        let natives = bytes.chunks_exact(size.max(1) as usize).map(|one| {
            let [rip, entry, len] = fields.map(|at| long(one, at));
            Some(Native {
                rip: rip?,
                entry: entry?,
                len: len?,
            })
        });
        return natives
            .collect::<Option<_>>()
            .ok_or(PerfError::Damaged("a length"));
    }
    Err(PerfError::Busy)
}

/// The map's text: start and length in hexadecimal, and a name (perf's jit-interface.txt).
fn text((natives, code, routines): &(Vec<Native>, u64, u64)) -> String {
    let mut text = format!("{code:x} {routines:x} quintet_routines\n");
    for n in natives {
        let _ = writeln!(text, "{:x} {:x} guest_{:#x}", n.entry, n.len, n.rip);
    }
    text
}

/// Writes the map of process `pid`, and answers where, and how many names it has. What is there under that name is replaced, not followed.
pub(super) fn write(pid: i32) -> Result<(String, usize), PerfError> {
    let translations = translations(pid)?;
    let path = format!("/tmp/perf-{pid}.map");
    let io = |e| PerfError::Io("write the map to /tmp", e);
    let mut file = tempfile::NamedTempFile::new_in("/tmp").map_err(io)?;
    file.write_all(text(&translations).as_bytes()).map_err(io)?;
    file.persist(&path).map_err(|e| io(e.error))?;
    Ok((path, translations.0.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_contains_the_anchor_and_is_found_in_its_own_maps() {
        let program = File::open("/proc/self/exe").expect("this program");
        let (fixed, at) = section(&program).expect("the section");
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let name = std::fs::read_link("/proc/self/exe").expect("a name");
        let at = if fixed {
            at
        } else {
            at + base(&maps, &name).expect("mapped")
        };
        let memory = Memory(File::open("/proc/self/mem").expect("memory"));
        assert_eq!(memory.read(at, 8).expect("readable"), shown::MAGIC);
        // No vCPU has been published here.
        let error = translations(std::process::id() as i32)
            .expect_err("nothing")
            .to_string();
        assert!(error.contains("shows no translated code"), "{error}");
    }

    #[test]
    fn lines_are_start_length_and_name() {
        let one = Native {
            rip: 0xFFFF_0000,
            entry: 0x7000_0040,
            len: 0x1C,
        };
        assert_eq!(
            text(&(vec![one], 0x7000_0000, 0x40)),
            "70000000 40 quintet_routines\n70000040 1c guest_0xffff0000\n"
        );
    }
}
