//! Guest memory as a bus master sees it.
//!
//! RAM where there is RAM; below 1 MiB what the host bridge's PAM registers let through; firmware where that is; ones
//! from anywhere else, and writes there touch nothing. Pages that were written and from which the vCPU may have decoded
//! instructions are collected, to be announced before anything that tells the guest of the transfer's end.

use std::ops::Range;
use std::os::fd::BorrowedFd;

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::codemap::CodeMapReader;
use quintet_protocol::ram::{GuestRam, HIGH_RAM_BASE};
use quintet_protocol::sync::Ordering;

use crate::rom::Roms;

/// PAM registers 59h–5Fh of the host bridge: what lies at C0000h–FFFFFh (82441FX datasheet, 3.2.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Pam(pub [u8; 7]);

/// First address that PAM registers govern.
pub const PAM_START: u64 = 0xC_0000;
/// First address past them.
pub const PAM_END: u64 = 0x10_0000;
/// Start of the VGA window, which bus masters do not reach RAM behind.
pub const VGA_START: u64 = 0xA_0000;
/// Size of the pieces into which C0000h–EFFFFh is divided; F0000h–FFFFFh is one of 64 KiB.
pub const PAM_PIECE: u64 = 0x4000;

impl Pam {
    fn nibble(self, addr: u64) -> u8 {
        if addr >= 0xF_0000 {
            return self.0[0] >> 4;
        }
        let piece = (addr - PAM_START) / PAM_PIECE;
        self.0[1 + piece as usize / 2] >> (4 * (piece % 2))
    }

    /// Whether reads of `addr`, which must lie in [C0000h, 100000h), go to RAM.
    pub fn reads_ram(self, addr: u64) -> bool {
        self.nibble(addr) & 1 != 0
    }

    /// Whether writes to `addr`, which must lie in [C0000h, 100000h), go to RAM.
    pub fn writes_ram(self, addr: u64) -> bool {
        self.nibble(addr) & 2 != 0
    }
}

/// A piece of guest memory that a driver names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Its first byte.
    pub at: GuestPhys,
    /// Bytes.
    pub len: u32,
}

impl Buffer {
    /// Bytes of all of them.
    pub fn total(buffers: &[Self]) -> u64 {
        buffers.iter().map(|b| u64::from(b.len)).sum()
    }
}

/// A bus master's access to guest memory.
pub struct Dma {
    ram: GuestRam,
    pam: Pam,
    roms: Roms,
    code: Option<CodeMapReader>,
    hits: Vec<u64>,
}

impl std::fmt::Debug for Dma {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dma")
            .field("ram", &self.ram)
            .field("pam", &self.pam)
            .finish_non_exhaustive()
    }
}

/// Direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From guest memory.
    Read,
    /// Into guest memory.
    Write,
}

impl Dma {
    /// Access to `ram` with nothing shadowed and no code to watch.
    pub fn new(ram: GuestRam) -> Self {
        Self {
            ram,
            pam: Pam::default(),
            roms: Roms::default(),
            code: None,
            hits: Vec::new(),
        }
    }

    /// Sets who knows where code is.
    pub fn watch_code(&mut self, code: CodeMapReader) {
        self.code = Some(code);
    }

    /// Follows the host bridge's registers.
    pub fn set_pam(&mut self, pam: Pam) {
        self.pam = pam;
    }

    /// Sets what firmware there is.
    pub fn set_roms(&mut self, roms: Roms) {
        self.roms = roms;
    }

    /// What firmware there is.
    pub fn roms(&self) -> &Roms {
        &self.roms
    }

    /// The RAM itself, for what is not a bus master: loading a guest.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// How many bytes from `addr`, at most `len`, are of one kind, and whether that kind is RAM.
    fn run(&self, addr: u64, len: u64, way: Way) -> (u64, bool) {
        let low = self.ram.layout().low();
        let high_end = HIGH_RAM_BASE + self.ram.layout().high();
        let (end, is_ram) = match addr {
            0..VGA_START => (VGA_START.min(low.max(addr + 1)), addr < low),
            VGA_START..PAM_START => (PAM_START, false),
            PAM_START..PAM_END => {
                let open = match way {
                    Way::Read => self.pam.reads_ram(addr),
                    Way::Write => self.pam.writes_ram(addr),
                };
                ((addr / PAM_PIECE + 1) * PAM_PIECE, open && addr < low)
            }
            _ if addr < low => (low, true),
            _ if addr < HIGH_RAM_BASE => (HIGH_RAM_BASE, false),
            _ if addr < high_end => (high_end, true),
            _ => (u64::MAX, false),
        };
        (len.min(end - addr).max(1), is_ram)
    }

    /// Whether all of `len` bytes at `addr` are RAM for a bus master that goes that way.
    pub fn reaches_ram(&self, addr: GuestPhys, len: u64, way: Way) -> bool {
        let mut done = 0;
        while done < len {
            let Some(at) = addr.checked_add(done) else {
                return false;
            };
            let (n, is_ram) = self.run(at.0, len - done, way);
            if !is_ram {
                return false;
            }
            done += n;
        }
        true
    }

    /// Reads an aligned word of 16 bits in one access; `None` where there is no RAM. What is read afterwards is not older.
    pub fn load_u16(&self, addr: GuestPhys) -> Option<u16> {
        let is_ram = self.reaches_ram(addr, 2, Way::Read);
        is_ram.then(|| self.ram.load_u16(addr, Ordering::Acquire).ok())?
    }

    /// Writes an aligned word of 16 bits in one access, seen after all that was written before it; `false` where there is
    /// no RAM.
    pub fn store_u16(&mut self, addr: GuestPhys, value: u16) -> bool {
        let is_ram = self.reaches_ram(addr, 2, Way::Write);
        let stored = is_ram && self.ram.store_u16(addr, value, Ordering::Release).is_ok();
        if stored {
            self.note(addr.0, 2);
        }
        stored
    }

    /// Reads `into.len()` bytes at `addr`; what is neither RAM nor firmware gives ones, and so does what passes 2^64.
    pub fn read(&self, addr: GuestPhys, into: &mut [u8]) {
        let mut done = 0;
        while done < into.len() {
            let rest = (into.len() - done) as u64;
            let Some(at) = addr.checked_add(done as u64) else {
                into[done..].fill(0xFF);
                return;
            };
            let (n, is_ram) = self.run(at.0, rest, Way::Read);
            let piece = &mut into[done..done + n as usize];
            if !is_ram || self.ram.read(at, piece).is_err() {
                piece.fill(0xFF);
                self.roms.read(at.0, piece);
            }
            done += n as usize;
        }
    }

    /// Copies bytes `part` of what is in `buffers`, one after the other, to the end of `into`, as [`Self::read`] reads them.
    pub fn gather(&self, buffers: &[Buffer], part: Range<usize>, into: &mut Vec<u8>) {
        let mut before = 0;
        for buffer in buffers {
            let after = before + buffer.len as usize;
            let (from, to) = (part.start.clamp(before, after), part.end.clamp(before, after));
            if from < to {
                self.append(buffer.at.checked_add((from - before) as u64), to - from, into);
            }
            before = after;
        }
    }

    /// Copies what is at `addr`, if that is an address at all.
    fn append(&self, addr: Option<GuestPhys>, len: usize, into: &mut Vec<u8>) {
        if let Some(addr) = addr
            && self.reaches_ram(addr, len as u64, Way::Read)
            && self.ram.append(addr, len, into).is_ok()
        {
            return;
        }
        let behind = into.len();
        into.resize(behind + len, 0xFF);
        if let Some(addr) = addr {
            self.read(addr, &mut into[behind..]);
        }
    }

    /// Writes `from` into `buffers`, one after the other, as [`Self::write`] does; answers how much of it found room.
    pub fn scatter(&mut self, buffers: &[Buffer], from: &[u8]) -> usize {
        let mut rest = from;
        for buffer in buffers {
            let (piece, behind) = rest.split_at(rest.len().min(buffer.len as usize));
            self.write(buffer.at, piece);
            rest = behind;
        }
        from.len() - rest.len()
    }

    /// As [`Self::scatter`] with what `file` holds from byte `offset` on, without a copy of our own: if all of `buffers` is RAM and
    /// the host has all of it in memory ([`GuestRam::fill_from_cache`]). `false` otherwise; some of the RAM may have been
    /// written then.
    pub fn fill_from_cache(&mut self, buffers: &[Buffer], file: BorrowedFd<'_>, offset: u64) -> bool {
        let mut ranges = Vec::with_capacity(buffers.len());
        for buffer in buffers {
            if !self.reaches_ram(buffer.at, u64::from(buffer.len), Way::Write) {
                return false;
            }
            ranges.push((buffer.at, buffer.len as usize));
        }
        let Ok(filled) = self.ram.fill_from_cache(&ranges, file, offset) else {
            return false;
        };
        for (addr, len) in ranges {
            self.note(addr.0, len as u64);
        }
        filled
    }

    /// Writes `from` at `addr`; what is not RAM takes nothing.
    pub fn write(&mut self, addr: GuestPhys, from: &[u8]) {
        let mut done = 0;
        while done < from.len() {
            let rest = (from.len() - done) as u64;
            let Some(at) = addr.checked_add(done as u64) else {
                return;
            };
            let (n, is_ram) = self.run(at.0, rest, Way::Write);
            if is_ram && self.ram.write(at, &from[done..done + n as usize]).is_ok() {
                self.note(at.0, n);
            }
            done += n as usize;
        }
    }

    /// Writes `len` bytes of zero at `addr`; what is not RAM takes nothing and costs nothing.
    pub fn zero(&mut self, addr: GuestPhys, len: u64) {
        let zeros = [0; 4096];
        let mut done = 0;
        while done < len {
            let Some(at) = addr.checked_add(done) else { return };
            let (mut n, is_ram) = self.run(at.0, len - done, Way::Write);
            if is_ram {
                n = n.min(zeros.len() as u64);
                self.write(at, &zeros[..n as usize]);
            }
            done += n;
        }
    }

    fn note(&mut self, addr: u64, len: u64) {
        let (Some(code), Ok(offset)) = (&self.code, self.ram.layout().translate(GuestPhys(addr), len)) else {
            return;
        };
        let hits = &mut self.hits;
        code.hits(offset, len, |page| {
            if !hits.contains(&page) {
                hits.push(page);
            }
        });
    }

    /// Pages with code that were written since the last call, by their number in RAM, each once.
    pub fn take_hits(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.hits)
    }

    /// Whether [`Self::take_hits`] would give any.
    pub fn has_hits(&self) -> bool {
        !self.hits.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use quintet_protocol::codemap::{CODE_MAP_SIZE, CodeMapWriter};
    use quintet_protocol::ram::RamLayout;

    use super::*;

    fn dma(bytes: u64) -> Dma {
        Dma::new(GuestRam::anonymous(RamLayout::new(bytes)).expect("anonymous RAM"))
    }

    #[test]
    fn holes_read_as_ones_and_writes_there_touch_nothing() {
        let mut d = dma(2 << 20);
        d.write(GuestPhys((2 << 20) - 2), &[1, 2, 3, 4]);
        let mut b = [0; 4];
        d.read(GuestPhys((2 << 20) - 2), &mut b);
        assert_eq!(b, [1, 2, 0xFF, 0xFF]);
        d.write(GuestPhys(0x9_FFFF), &[5, 6]);
        d.read(GuestPhys(0x9_FFFF), &mut b[..2]);
        assert_eq!(b[..2], [5, 0xFF]);
        assert_eq!(d.ram().read_array::<1>(GuestPhys(0xA_0000)), Ok([0]));
        for at in [0xE000_0000, 0xFFFF_FFFE, 1 << 32, u64::MAX - 1] {
            d.write(GuestPhys(at), &[9; 4]);
            d.read(GuestPhys(at), &mut b);
            assert_eq!(b, [0xFF; 4], "{at:#x}");
        }
        assert_eq!(d.ram().read_array::<2>(GuestPhys(0)), Ok([0, 0]));
    }

    #[test]
    fn what_is_ram_is_told_apart_by_direction() {
        let mut d = dma(2 << 20);
        d.set_pam(Pam([0x20, 0, 0, 0, 0, 0, 0]));
        let at = GuestPhys(0xF_FFFE);
        assert!(d.reaches_ram(at, 4, Way::Write) && !d.reaches_ram(at, 4, Way::Read));
        assert_eq!((d.store_u16(at, 7), d.load_u16(at)), (true, None));
        assert_eq!(d.load_u16(GuestPhys(0x10_0000)), Some(0));
        for hole in [(2 << 20) - 2, 0x9_FFFE, u64::MAX - 1] {
            assert!(!d.reaches_ram(GuestPhys(hole), 4, Way::Read), "{hole:#x}");
        }
        assert!(!d.store_u16(GuestPhys(2 << 20), 1) && !d.store_u16(GuestPhys(3), 1));
        assert!(d.reaches_ram(GuestPhys(0), 0xA_0000, Way::Write));
    }

    #[test]
    fn high_ram_is_reached_across_four_gib() {
        let mut d = dma((3584 << 20) + (1 << 20));
        d.write(GuestPhys((1 << 32) - 2), &[1, 2, 3, 4]);
        let mut b = [0; 4];
        d.read(GuestPhys((1 << 32) - 2), &mut b);
        assert_eq!(b, [0xFF, 0xFF, 3, 4]);
    }

    #[test]
    fn pam_decides_reads_and_writes_apart_and_per_piece() {
        let mut d = dma(2 << 20);
        let mut b = [0; 2];
        // C4000–C7FFF: write only; F0000–FFFFF: read and write.
        d.set_pam(Pam([0x30, 0x20, 0, 0, 0, 0, 0]));
        d.write(GuestPhys(0xC_3FFF), &[1, 2]);
        assert_eq!(d.ram().read_array::<2>(GuestPhys(0xC_3FFF)), Ok([0, 2]));
        d.read(GuestPhys(0xC_3FFF), &mut b);
        assert_eq!(b, [0xFF, 0xFF]);
        d.write(GuestPhys(0xF_FFFF), &[7, 8]);
        d.read(GuestPhys(0xF_FFFF), &mut b);
        assert_eq!(b, [7, 8]);
        // E8000–EBFFF read only, EC000–EFFFF closed.
        d.set_pam(Pam([0, 0, 0, 0, 0, 0, 0x01]));
        d.read(GuestPhys(0xE_BFFF), &mut b);
        assert_eq!(b, [0, 0xFF]);
    }

    #[test]
    fn firmware_is_read_where_no_ram_covers_it() {
        let map = quintet_protocol::shm::Map::anonymous(quintet_protocol::decode_map::ROM_SIZE as u64);
        let window = quintet_protocol::shm::ViewMut::new(std::sync::Arc::new(map.expect("map")));
        let mut d = dma(2 << 20);
        d.set_roms(Roms::load(&window, Some(&[0x5A; 64 << 10]), None).expect("loaded"));
        let mut b = [0; 2];
        for (at, expected) in [
            (0xE_FFFF, [0xFF, 0x5A]),
            (0xFFFE_FFFF, [0xFF, 0x5A]),
            (0xFFFF_FFFF, [0x5A, 0xFF]),
        ] {
            d.read(GuestPhys(at), &mut b);
            assert_eq!(b, expected, "{at:#x}");
        }
        d.set_pam(Pam([0x10, 0, 0, 0, 0, 0, 0]));
        d.read(GuestPhys(0xF_0000), &mut b);
        assert_eq!(b, [0, 0]);
    }

    #[test]
    fn buffers_are_gathered_and_scattered_in_their_order_holes_and_all() {
        let mut d = dma(2 << 20);
        let buffer = |at, len| Buffer {
            at: GuestPhys(at),
            len,
        };
        let buffers = [buffer(0x5000, 3), buffer(0x9_FFFE, 4), buffer(0x4000, 9)];
        assert_eq!(Buffer::total(&buffers), 16);
        assert_eq!(d.scatter(&buffers, &[1, 2, 3, 4, 5, 6, 7, 8]), 8);
        let whole = [1, 2, 3, 4, 5, 0xFF, 0xFF, 8, 0];
        for (start, end) in (0..9).flat_map(|start| (start..=9).map(move |end| (start, end))) {
            let mut bytes = vec![0x55];
            d.gather(&buffers, start..end, &mut bytes);
            assert_eq!((bytes[0], &bytes[1..]), (0x55, &whole[start..end]));
        }
        let mut bytes = Vec::new();
        d.gather(&[buffer(u64::MAX - 1, 4)], 1..4, &mut bytes);
        assert_eq!(bytes, [0xFF; 3]);
        assert_eq!(d.scatter(&buffers, &[9; 20]), 16);
    }

    #[test]
    fn pages_with_code_are_collected_once() {
        let mut d = dma(2 << 20);
        let map = quintet_protocol::shm::Map::anonymous(CODE_MAP_SIZE as u64).expect("map");
        let words = quintet_protocol::shm::ViewMut::new(std::sync::Arc::new(map));
        CodeMapWriter::new(words.clone()).mark(5);
        d.watch_code(CodeMapReader::new(words.view().clone()));
        d.write(GuestPhys(0x4FFF), &[0; 1]);
        assert!(!d.has_hits());
        d.write(GuestPhys(0x4FFF), &[0; 0x1002]);
        d.write(GuestPhys(0x5800), &[0]);
        assert_eq!(d.take_hits(), [5]);
        let file = rustix::fs::memfd_create("file", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
        rustix::io::write(&file, &[0; 2]).expect("written");
        let into = [Buffer {
            at: GuestPhys(0x5FFF),
            len: 2,
        }];
        // Whether the host could or not: it may have written.
        d.fill_from_cache(&into, file.as_fd(), 0);
        assert_eq!(d.take_hits(), [5]);
        assert!(!d.has_hits());
    }
}
