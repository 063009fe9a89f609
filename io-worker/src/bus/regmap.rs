//! Registers declared once: where they lie, how wide they are, and what an access to them means for the
//! path between vCPU and device.
//!
//! The table decides how an access that covers part of a register, or several of them, is taken apart, so
//! that no device does it by hand. It is also what the decode map is published from. Overlaps and registers
//! outside the block are compile-time errors where the table is a `const`.

use super::{Access, Backplane, Region, RegionKind};

bitflags::bitflags! {
    /// What an access to a register means for the vCPU. No bit: writes are posted, reads are synchronous.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Attr: u8 {
        /// A write takes effect before the next instruction.
        const SYNC = 1;
        /// Reads may be answered from the mirror.
        const MIRROR = 2;
        /// A write may change what the vCPU itself sees (decode, A20, routing, reset): synchronous, and the
        /// vCPU looks at the decode map and its exit word afterwards.
        const VIEW = 4;
        /// Reading has no effect, whatever the state.
        const PURE = 8;
    }
}

/// A register of a block.
#[derive(Clone, Copy, Debug)]
pub struct Register<R> {
    /// Byte offset in the block.
    pub offset: u64,
    /// Width in bytes.
    pub width: u64,
    /// The device's name for it.
    pub id: R,
    /// Attributes.
    pub attr: Attr,
}

/// Shorthand for tables.
pub const fn reg<R>(offset: u64, width: u64, id: R, attr: Attr) -> Register<R> {
    Register {
        offset,
        width,
        id,
        attr,
    }
}

/// The registers of a block, in ascending order.
#[derive(Debug)]
pub struct RegMap<R: 'static> {
    len: u64,
    registers: &'static [Register<R>],
}

/// What a device with a [`RegMap`] implements: whole registers only.
pub trait Registers<R> {
    /// Reads a whole register, with its effect.
    fn read_reg(&mut self, bp: &mut Backplane<'_>, reg: R) -> u64;

    /// Writes a whole register.
    fn write_reg(&mut self, bp: &mut Backplane<'_>, reg: R, value: u64);

    /// What the bytes of a register that a partial write does not cover keep. No effect.
    fn held(&self, _reg: R) -> u64 {
        0
    }
}

const fn ones(bytes: u64) -> u64 {
    if bytes >= 8 {
        u64::MAX
    } else {
        (1 << (8 * bytes)) - 1
    }
}

/// Part of an access that falls into one register.
struct Piece<R> {
    id: R,
    /// First byte of the piece in the access.
    in_access: u64,
    /// First byte of the piece in the register.
    in_register: u64,
    /// Length in bytes.
    len: u64,
    whole: bool,
}

impl<R: Copy + 'static> RegMap<R> {
    /// A block of `len` bytes. Panics, at compile time in a `const`, when registers overlap, are not in
    /// ascending order, are wider than 8 bytes or do not lie inside.
    pub const fn new(len: u64, registers: &'static [Register<R>]) -> Self {
        let mut at = 0;
        let mut i = 0;
        while i < registers.len() {
            let r = &registers[i];
            assert!(r.width > 0 && r.width <= 8, "a register has one to eight bytes");
            assert!(r.offset >= at, "registers overlap or are out of order");
            at = r.offset + r.width;
            i += 1;
        }
        assert!(at <= len, "a register lies outside its block");
        Self { len, registers }
    }

    /// Length of the block in bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether the block has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All registers: offset, width, name.
    pub fn all(&self) -> impl Iterator<Item = (usize, usize, R)> {
        self.registers
            .iter()
            .map(|r| (r.offset as usize, r.width as usize, r.id))
    }

    /// The block as a bus region.
    pub fn region(&self, kind: RegionKind) -> Region {
        let mut runs: Vec<(u64, u64, Attr)> = Vec::new();
        for r in self.registers {
            match runs.last_mut() {
                Some((start, len, attr)) if *start + *len == r.offset && *attr == r.attr => *len += r.width,
                _ => runs.push((r.offset, r.width, r.attr)),
            }
        }
        Region {
            kind,
            len: self.len,
            runs,
        }
    }

    fn pieces(&self, offset: u64, size: u64) -> impl Iterator<Item = Piece<R>> {
        let end = offset + size;
        let first = self.registers.partition_point(|r| r.offset + r.width <= offset);
        self.registers[first..]
            .iter()
            .take_while(move |r| r.offset < end)
            .map(move |r| {
                let from = r.offset.max(offset);
                let to = (r.offset + r.width).min(end);
                Piece {
                    id: r.id,
                    in_access: from - offset,
                    in_register: from - r.offset,
                    len: to - from,
                    whole: to - from == r.width,
                }
            })
    }

    /// Reads: each register touched is read once, in ascending order; bytes without a register are ones.
    pub fn read<D: Registers<R>>(&self, device: &mut D, bp: &mut Backplane<'_>, at: Access) -> u64 {
        let mut value = at.size.ones();
        for p in self.pieces(at.offset, u64::from(at.size.bytes())) {
            let part = (device.read_reg(bp, p.id) >> (8 * p.in_register)) & ones(p.len);
            value &= !(ones(p.len) << (8 * p.in_access));
            value |= part << (8 * p.in_access);
        }
        value
    }

    /// Writes: each register touched is written once, in ascending order, its uncovered bytes with what
    /// [`Registers::held`] says; bytes without a register go nowhere.
    pub fn write<D: Registers<R>>(&self, device: &mut D, bp: &mut Backplane<'_>, at: Access, value: u64) {
        for p in self.pieces(at.offset, u64::from(at.size.bytes())) {
            let mut part = ((value >> (8 * p.in_access)) & ones(p.len)) << (8 * p.in_register);
            if !p.whole {
                part |= device.held(p.id) & !(ones(p.len) << (8 * p.in_register));
            }
            device.write_reg(bp, p.id, part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::Bench;
    use super::super::{Access, Backplane, RegionKind, Size};
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum R {
        Byte,
        Word,
        Dword,
    }

    const MAP: RegMap<R> = RegMap::new(
        16,
        &[
            reg(0, 1, R::Byte, Attr::empty()),
            reg(2, 2, R::Word, Attr::SYNC),
            reg(4, 4, R::Dword, Attr::SYNC),
            reg(12, 4, R::Dword, Attr::MIRROR),
        ],
    );

    #[derive(Default)]
    struct Dev {
        log: Vec<(R, Option<u64>)>,
    }

    impl Registers<R> for Dev {
        fn read_reg(&mut self, _: &mut Backplane<'_>, reg: R) -> u64 {
            self.log.push((reg, None));
            match reg {
                R::Byte => 0x11,
                R::Word => 0x2221,
                R::Dword => 0x4443_4241,
            }
        }
        fn write_reg(&mut self, _: &mut Backplane<'_>, reg: R, value: u64) {
            self.log.push((reg, Some(value)));
        }
        fn held(&self, _: R) -> u64 {
            0xAABB_CCDD
        }
    }

    fn at(offset: u64, size: Size) -> Access {
        Access {
            region: 0,
            offset,
            size,
        }
    }

    fn read(offset: u64, size: Size) -> (u64, Vec<R>) {
        let (mut bench, mut dev) = (Bench::new(), Dev::default());
        let v = MAP.read(&mut dev, &mut bench.backplane(), at(offset, size));
        (v, dev.log.iter().map(|l| l.0).collect())
    }

    fn write(offset: u64, size: Size, value: u64) -> Vec<(R, Option<u64>)> {
        let (mut bench, mut dev) = (Bench::new(), Dev::default());
        MAP.write(&mut dev, &mut bench.backplane(), at(offset, size), value);
        dev.log
    }

    #[test]
    fn reads_take_parts_cross_registers_and_fill_gaps_with_ones() {
        assert_eq!(read(5, Size::BYTE), (0x42, vec![R::Dword]));
        assert_eq!(read(3, Size::WORD), (0x4122, vec![R::Word, R::Dword]));
        assert_eq!(read(0, Size::DWORD), (0x2221_FF11, vec![R::Byte, R::Word]));
        assert_eq!(read(8, Size::QWORD), (0x4443_4241_FFFF_FFFF, vec![R::Dword]));
        assert_eq!(read(9, Size::WORD), (0xFFFF, vec![]));
    }

    #[test]
    fn writes_take_parts_and_keep_what_they_do_not_cover() {
        assert_eq!(write(5, Size::WORD, 0x1234), [(R::Dword, Some(0xAA12_34DD))]);
        assert_eq!(
            write(3, Size::DWORD, 0x0102_0304),
            [(R::Word, Some(0xAABB_04DD)), (R::Dword, Some(0xAA01_0203))]
        );
        assert_eq!(
            write(4, Size::DWORD, 0x0102_0304),
            [(R::Dword, Some(0x0102_0304))]
        );
        assert_eq!(write(10, Size::BYTE, 1), []);
    }

    #[test]
    fn runs_join_neighbours_of_one_kind_only() {
        let runs = MAP.region(RegionKind::Port).runs;
        assert_eq!(
            runs,
            [(0, 1, Attr::empty()), (2, 6, Attr::SYNC), (12, 4, Attr::MIRROR)]
        );
    }
}
