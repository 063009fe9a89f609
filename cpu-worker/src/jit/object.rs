//! An object file for debuggers (ELF-64, System V ABI; DWARF 3): names of translations, and how to get out of them.
//!
//! It has one section without contents where the code memory is, a symbol for each translation, and unwinding rules. What the way into
//! translated code pushes ([`thunks::SAVED`] and one word more) is all that is on the stack there, but for two words at most that a
//! translation or a routine has pushed for a moment. Which of the three it is, the rule finds out by the return address: it lies in this
//! program's code. A table for each translation was rejected: what is pushed for a moment is the same everywhere.

use super::gdb::own_code;
use super::{Jit, thunks};

/// Numbers of the host's registers in DWARF (System V ABI, AMD64 supplement, figure 3.36) that the way in saves, in the order of
/// [`thunks::SAVED`].
const SAVED: [u8; thunks::SAVED.len()] = [3, 6, 12, 13, 14, 15];
/// The same of the stack pointer and the return address.
const RSP: u8 = 7;
const RETURN: u8 = 16;

/// The file for all translations that a debugger may meet.
pub(super) fn make(jit: &Jit) -> Vec<u8> {
    let code = jit.memory.address(0);
    let mut names = vec![0];
    let mut symbols = vec![0; 24];
    let mut symbol = |name: &str, at: u64, len: u64| {
        symbols.extend((names.len() as u32).to_le_bytes());
        // A function that everybody sees, in section 1.
        symbols.extend([1 << 4 | 2, 0, 1, 0]);
        symbols.extend(at.to_le_bytes());
        symbols.extend(len.to_le_bytes());
        names.extend(name.as_bytes());
        names.push(0);
    };
    symbol("quintet_routines", code, jit.routines as u64);
    for native in jit.book.natives() {
        symbol(
            &format!("guest_{:#x}", native.rip),
            native.entry,
            native.len as u64,
        );
    }
    let rules = rules(
        code + jit.routines as u64..code + jit.memory.size() as u64,
        jit.thunks.slow_return,
    );
    elf((code, jit.memory.size() as u64), &symbols, &names, &rules)
}

/// The ELF file around the parts.
fn elf((code, len): (u64, u64), symbols: &[u8], names: &[u8], rules: &[u8]) -> Vec<u8> {
    const HEADER: usize = 64;
    const HEADING: u16 = 64;
    let titles = b"\0.text\0.symtab\0.strtab\0.debug_frame\0.shstrtab\0";
    let title = |name: &[u8]| {
        let at = titles.windows(name.len()).position(|w| w == name);
        at.expect("it is there") as u32
    };
    let mut file = vec![0; HEADER];
    let mut place = |part: &[u8]| {
        file.resize(file.len().next_multiple_of(8), 0);
        let at = file.len() as u64;
        file.extend_from_slice(part);
        (at, part.len() as u64)
    };
    let (symbols, strings, frames, titles_at) = (place(symbols), place(names), place(rules), place(titles));
    // Name, type, flags, address, place, link, info, alignment, size of an entry.
    let headings = [
        (0, 0, 0, 0, (0, 0), 0, 0, 0, 0),
        (
            title(b".text\0"),
            8,
            2 | 4,
            code,
            (HEADER as u64, len),
            0,
            0,
            16,
            0,
        ),
        (title(b".symtab\0"), 2, 0, 0, symbols, 3, 1, 8, 24),
        (title(b".strtab\0"), 3, 0, 0, strings, 0, 0, 1, 0),
        (title(b".debug_frame\0"), 1, 0, 0, frames, 0, 0, 8, 0),
        (title(b".shstrtab\0"), 3, 0, 0, titles_at, 0, 0, 1, 0),
    ];
    file.resize(file.len().next_multiple_of(8), 0);
    let headings_at = file.len() as u64;
    for (name, kind, flags, address, (at, len), link, info, alignment, entry) in headings {
        let words: [u32; 2] = [name, kind];
        file.extend(words.into_iter().flat_map(u32::to_le_bytes));
        let longs: [u64; 4] = [flags, address, at, len];
        file.extend(longs.into_iter().flat_map(u64::to_le_bytes));
        let words: [u32; 2] = [link, info];
        file.extend(words.into_iter().flat_map(u32::to_le_bytes));
        let longs: [u64; 2] = [alignment, entry];
        file.extend(longs.into_iter().flat_map(u64::to_le_bytes));
    }
    let mut header = Vec::with_capacity(HEADER);
    header.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // An executable for AMD64, without an entry point and program headers.
    header.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    header.extend([0; 16]);
    header.extend(headings_at.to_le_bytes());
    header.extend([0; 4]);
    let sizes = [HEADER as u16, 0, 0, HEADING, headings.len() as u16, 5];
    header.extend(sizes.into_iter().flat_map(u16::to_le_bytes));
    file[..HEADER].copy_from_slice(&header);
    file
}

/// The contents of `.debug_frame` (DWARF 3, 6.4) for translations, and for what the handlers return to.
fn rules(translations: core::ops::Range<u64>, slow_return: u64) -> Vec<u8> {
    let mut all = Vec::new();
    // The common entry: version 3, no augmentation, factors 1 and -8, and nothing that holds for both.
    record(&mut all, &[0xFF, 0xFF, 0xFF, 0xFF, 3, 0, 1, 0x78, RETURN]);
    let entry = |all: &mut Vec<u8>, from: u64, to: u64, program: &[u8]| {
        let mut entry = vec![0; 4];
        entry.extend(from.to_le_bytes());
        entry.extend((to - from).to_le_bytes());
        entry.extend_from_slice(program);
        record(all, &entry);
    };

    let expression = frame_address(SAVED.len());
    let mut program = vec![0x0F, expression.len() as u8];
    program.extend(&expression);
    // The return address, then what was pushed after it.
    for (n, register) in [RETURN].into_iter().chain(SAVED).enumerate() {
        program.extend([0x80 | register, n as u8 + 1]);
    }
    entry(&mut all, translations.start, translations.end, &program);

    // A site's number, then the way back into the translation. Debuggers look one byte before where a call returns to.
    let program = [0x0C, RSP, 16, 0x80 | RETURN, 1];
    entry(&mut all, slow_return - 1, slow_return + 1, &program);
    all
}

/// Adds a record behind its length, padded with DW_CFA_nop.
fn record(all: &mut Vec<u8>, body: &[u8]) {
    let len = body.len().next_multiple_of(8);
    all.extend((len as u32).to_le_bytes());
    all.extend_from_slice(body);
    all.resize(all.len() + len - body.len(), 0);
}

/// A DWARF expression (DWARF 3, 2.5) for the stack pointer before the call of the way in, which then pushed `saved` registers and one word.
fn frame_address(saved: usize) -> Vec<u8> {
    let program = own_code();
    let back = 8 + 8 * saved as u8;
    // Whether the word above so many bytes more is not an address in this program: breg7, deref, dup, ge, swap, lt, and, eq 0.
    let absent = |more: u8| {
        let mut code = vec![0x77];
        let at = back + more;
        // A signed LEB128 number of up to 13 bits.
        code.extend([at & 0x7F | 0x80, at >> 7]);
        code.extend([0x06, 0x12, 0x0E]);
        code.extend(program.start.to_le_bytes());
        code.extend([0x2A, 0x16, 0x0E]);
        code.extend(program.end.to_le_bytes());
        code.extend([0x2D, 0x1A, 0x30, 0x29]);
        code
    };
    let mut code = absent(0);
    code.extend(absent(8));
    // over, and, plus: how many words more there are; by 8; plus breg7.
    code.extend([0x14, 0x1A, 0x22, 0x38, 0x1E, 0x77]);
    let bottom = back + 8;
    code.extend([bottom & 0x7F | 0x80, bottom >> 7, 0x22]);
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_where_the_headings_say() {
        let file = elf((0x7000_0000, 0x1000), &[1; 48], b"\0name\0", &[2; 20]);
        let word = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("8 bytes")) as usize;
        let headings = word(40);
        assert_eq!(file.len(), headings + 6 * 64);
        assert_eq!(word(headings + 64 + 16), 0x7000_0000);
        let part = |n: usize| {
            let heading = headings + n * 64;
            &file[word(heading + 24)..word(heading + 24) + word(heading + 32)]
        };
        assert_eq!(part(2), [1; 48]);
        assert_eq!(part(3), b"\0name\0");
        assert_eq!(part(4), [2; 20]);
        assert!(part(5).ends_with(b".shstrtab\0"));
    }

    #[test]
    fn records_of_the_rules_fill_their_section() {
        let rules = rules(0x1000..0x2000, 0x900);
        let (mut at, mut records) = (0, 0);
        while at < rules.len() {
            let len = u32::from_le_bytes(rules[at..at + 4].try_into().expect("4 bytes"));
            (at, records) = (at + 4 + len as usize, records + 1);
        }
        assert_eq!((at, records), (rules.len(), 3));
        assert!(frame_address(SAVED.len()).len() < 128, "its length is one byte");
    }
}
