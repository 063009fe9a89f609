//! The decode map: who answers which port and which address, as io-worker publishes it for cpu-worker.
//!
//! io-worker owns the registers that decide this (BARs, command registers, PAM, SMRAM, PIRQ routing); cpu-worker
//! must know the outcome before the next instruction, and answer what nobody claims without asking. So the whole
//! map is published as one seqlocked record, whose sequence number is its version; a reader rebuilds its own
//! tables when that moves. Publishing changes was rejected: a reader that is restarted needs the whole anyway.
//!
//! Everything in it is validated by the reader: ranges are ordered, apart and within bounds, numbers name
//! things that exist.

mod wire;

use crate::mirror::MIRRORS;
use crate::seqlock::{SEQ_HEADER, SeqError, SeqReader, SeqWriter, seq_size};
use crate::shm::{View, ViewMut};
use crate::sync::Ordering;
use crate::words::{ReadWords, WriteWords};

/// Most claims, ports and memory together.
pub const MAX_CLAIMS: usize = 1024;
/// Most shadow ranges.
pub const MAX_SHADOWS: usize = 64;
/// Bytes of the ROM window of the ioIpc segment, which [`Claim::rom`] and [`Backing::Rom`] refer to: first what lies in
/// the last [`ROM_TOP`] bytes below 4 GiB, at the same distance from their start, then ROMs of PCI functions.
pub const ROM_SIZE: usize = 20 << 20;
/// Bytes below 4 GiB that firmware may take.
pub const ROM_TOP: usize = 16 << 20;
const ENTRY: usize = 32;
const HEADER: usize = 32;
/// Bytes of the seqlock that holds the map.
pub const DECODE_MAP_SIZE: usize = seq_size(HEADER + (MAX_CLAIMS + MAX_SHADOWS) * ENTRY);

/// Device number of the VGA's linear frame buffer. io-worker's registers say where it lies, cpu-worker serves it;
/// so with the two that follow.
pub const DEVICE_VRAM: u16 = 63;
/// Device number of the VGA's register window in memory.
pub const DEVICE_VGA_REGISTERS: u16 = 62;
/// Device number of the ACPI power-management ports (PMBASE).
pub const DEVICE_POWER: u16 = 61;
/// Device number of ROM that no device writes.
pub const DEVICE_ROM: u16 = 60;

/// What the vCPU must know about an access to a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(u16);

impl Attributes {
    /// Reads ask, writes wait for their reply.
    pub const SYNC: Self = Self(0);
    /// Writes are posted.
    pub const POSTED: Self = Self(1);
    /// A write may change the vCPU's own view (decode, A20, PAM, routing, reset …): it is synchronous, and the map's
    /// version, A20 and the exit word are looked at before the next instruction.
    pub const AFFECTS_VIEW: Self = Self(2);
    /// Reads may be answered from the mirror.
    pub const MIRRORED: Self = Self(4);
    /// Reads come from the ROM window; writes are dropped, unless they affect the view.
    pub const ROM: Self = Self(8);
    const ALL: u16 = 15;

    /// Whether every attribute of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The attributes of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits.
    pub const fn bits(self) -> u16 {
        self.0
    }
}

/// A range of ports or of guest physical memory that somebody answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// First port or address.
    pub start: u64,
    /// Length; not zero.
    pub len: u64,
    /// Number of the device: the unit of posted-write accounting for mirrors.
    pub device: u16,
    /// Attributes.
    pub attributes: Attributes,
    /// With [`Attributes::MIRRORED`]: number of the mirror.
    pub mirror: u8,
    /// With [`Attributes::MIRRORED`]: offset in the mirror of the range's first byte.
    pub mirror_offset: u8,
    /// With [`Attributes::ROM`]: offset in the ROM window of the range's first byte.
    pub rom: u32,
}

/// What lies behind a range below 1 MiB for one direction of access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backing {
    /// Nothing: all ones, or lost.
    #[default]
    Nowhere,
    /// Guest RAM.
    Ram,
    /// The ROM window, from this offset. As a target of writes: lost.
    Rom(u32),
    /// VGA memory.
    Vga,
}

/// A range below 1 MiB that PAM or SMRAM registers steer. Whatever no shadow names is RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shadow {
    /// First guest physical address.
    pub start: u32,
    /// Length in bytes; a multiple of 4 KiB, as is `start`.
    pub len: u32,
    /// Where reads and instruction fetches go.
    pub read: Backing,
    /// Where writes go.
    pub write: Backing,
}

/// The map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecodeMap {
    /// Port ranges, ascending and apart.
    pub ports: Vec<Claim>,
    /// Memory ranges, ascending and apart. Where one overlaps RAM, RAM wins.
    pub memory: Vec<Claim>,
    /// Steered ranges below 1 MiB, ascending and apart.
    pub shadows: Vec<Shadow>,
    /// The interrupt line, 0–15, to which PIRQ A–D are routed; `None` when disabled.
    pub pirq: [Option<u8>; 4],
    /// A20 as the keyboard controller drives it; line 20 is open if this or port 92h opens it.
    pub a20: bool,
}

impl DecodeMap {
    /// The claim on `port`.
    pub fn port(&self, port: u16) -> Option<&Claim> {
        find(&self.ports, u64::from(port))
    }

    /// The claim on a guest physical address.
    pub fn address(&self, address: u64) -> Option<&Claim> {
        find(&self.memory, address)
    }

    /// Checks what a reader relies on; a writer may use it to find its own mistakes.
    ///
    /// # Errors
    /// [`DecodeMapError::Invalid`].
    pub fn validate(&self) -> Result<(), DecodeMapError> {
        claims(&self.ports, 1 << 16, "port range")?;
        claims(&self.memory, u64::MAX, "memory range")?;
        let mut end = 0;
        for (entry, s) in self.shadows.iter().enumerate() {
            let bad = |what| DecodeMapError::Invalid {
                kind: "shadow",
                entry,
                what,
            };
            let past = u64::from(s.start) + u64::from(s.len);
            if s.len == 0 || past > 1 << 20 || s.start % 4096 != 0 || s.len % 4096 != 0 {
                return Err(bad("bounds"));
            }
            if u64::from(s.start) < end {
                return Err(bad("order"));
            }
            end = past;
            for backing in [s.read, s.write] {
                if let Backing::Rom(at) = backing
                    && u64::from(at) + u64::from(s.len) > ROM_SIZE as u64
                {
                    return Err(bad("ROM offset"));
                }
            }
        }
        if self.pirq.iter().flatten().any(|line| *line > 15) {
            return Err(DecodeMapError::Invalid {
                kind: "PIRQ",
                entry: 0,
                what: "line",
            });
        }
        Ok(())
    }
}

fn find(claims: &[Claim], at: u64) -> Option<&Claim> {
    let after = claims.partition_point(|c| c.start <= at);
    let claim = claims.get(after.checked_sub(1)?)?;
    (at - claim.start < claim.len).then_some(claim)
}

fn claims(claims: &[Claim], limit: u64, kind: &'static str) -> Result<(), DecodeMapError> {
    let mut end = 0;
    for (entry, c) in claims.iter().enumerate() {
        let bad = |what| DecodeMapError::Invalid { kind, entry, what };
        let past = c.start.checked_add(c.len).ok_or_else(|| bad("bounds"))?;
        if c.len == 0 || past > limit {
            return Err(bad("bounds"));
        }
        if c.start < end {
            return Err(bad("order"));
        }
        end = past;
        if usize::from(c.device) >= crate::commit::MAX_DEVICES {
            return Err(bad("device"));
        }
        if c.attributes.contains(Attributes::MIRRORED)
            && (usize::from(c.mirror) >= MIRRORS
                || u64::from(c.mirror_offset).saturating_add(c.len) > crate::mirror::MIRROR_BYTES as u64)
        {
            return Err(bad("mirror"));
        }
        if c.attributes.contains(Attributes::ROM) && u64::from(c.rom).saturating_add(c.len) > ROM_SIZE as u64
        {
            return Err(bad("ROM offset"));
        }
    }
    Ok(())
}

/// Why a map could not be read or published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeMapError {
    /// The writer died or stopped inside the record.
    #[error("The decode map stayed busy")]
    Busy(#[from] SeqError),
    /// More entries than the segment holds.
    #[error("A decode map of {claims} ranges and {shadows} shadows passes the limits")]
    TooMany {
        /// Port and memory ranges together.
        claims: usize,
        /// Shadow ranges.
        shadows: usize,
    },
    /// An entry is impossible.
    #[error("Entry {entry} of kind {kind} has an impossible {what}")]
    Invalid {
        /// Kind of entry.
        kind: &'static str,
        /// Its index.
        entry: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// The writing end, in io-worker.
#[derive(Debug)]
pub struct DecodeMapWriter<W = ViewMut>(SeqWriter<W>);

impl<W: WriteWords> DecodeMapWriter<W> {
    /// The map in the seqlock that starts `words`.
    pub fn new(words: W) -> Self {
        Self(SeqWriter::new(words))
    }

    /// Publishes a map and returns its version.
    ///
    /// # Errors
    /// [`DecodeMapError`]; the last map stands then.
    pub fn publish(&mut self, map: &DecodeMap) -> Result<u32, DecodeMapError> {
        let counts = (map.ports.len() + map.memory.len(), map.shadows.len());
        if counts.0 > MAX_CLAIMS || counts.1 > MAX_SHADOWS {
            return Err(DecodeMapError::TooMany {
                claims: counts.0,
                shadows: counts.1,
            });
        }
        map.validate()?;
        let bytes = wire::encode(map);
        Ok(self.0.write(&bytes))
    }
}

/// The reading end, in cpu-worker.
#[derive(Clone, Debug)]
pub struct DecodeMapReader<R = View>(SeqReader<R>);

impl<R: ReadWords> DecodeMapReader<R> {
    /// The map in the seqlock that starts `words`.
    pub fn new(words: R) -> Self {
        Self(SeqReader::new(words))
    }

    /// The version: one load. 0 before the first map; odd while one is being written.
    #[inline]
    pub fn version(&self) -> u32 {
        self.0.sequence()
    }

    /// The newest map and its version. An unpublished map is empty and has version 0.
    ///
    /// # Errors
    /// [`DecodeMapError`]; the reader keeps the tables it has.
    pub fn read(&self) -> Result<(u32, DecodeMap), DecodeMapError> {
        let mut bytes = vec![0; HEADER + (MAX_CLAIMS + MAX_SHADOWS) * ENTRY];
        let (version, len) = self.0.read_with(|w| {
            let count = |n: usize| w.load_u32(SEQ_HEADER + n * 4, Ordering::Relaxed) as usize;
            let entries = (0..3)
                .map(|n| count(n).min(MAX_CLAIMS + MAX_SHADOWS))
                .sum::<usize>();
            let len = (HEADER + entries * ENTRY).min(bytes.len());
            w.read_bytes(SEQ_HEADER, &mut bytes[..len]);
            len
        })?;
        let map = wire::decode(&bytes[..len])?;
        map.validate()?;
        Ok((version, map))
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
