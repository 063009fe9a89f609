//! The map as bytes: a header of 32 bytes, then entries of 32 bytes.
//!
//! Header: numbers of port ranges, memory ranges, shadows (u32 each); flags (u32, bit 0 A20); lines of PIRQ A–D (u8
//! each, FFh for none); zeros.

use super::{
    Attributes, Backing, Claim, DecodeMap, DecodeMapError, ENTRY, HEADER, MAX_CLAIMS, MAX_SHADOWS, Shadow,
};

const NO_LINE: u8 = 0xFF;

pub(super) fn encode(map: &DecodeMap) -> Vec<u8> {
    let mut out =
        Vec::with_capacity(HEADER + (map.ports.len() + map.memory.len() + map.shadows.len()) * ENTRY);
    for n in [
        map.ports.len(),
        map.memory.len(),
        map.shadows.len(),
        usize::from(map.a20),
    ] {
        out.extend((n as u32).to_le_bytes());
    }
    out.extend(map.pirq.map(|line| line.unwrap_or(NO_LINE)));
    out.resize(HEADER, 0);
    for c in map.ports.iter().chain(&map.memory) {
        out.extend(c.start.to_le_bytes());
        out.extend(c.len.to_le_bytes());
        out.extend(c.device.to_le_bytes());
        out.extend(c.attributes.bits().to_le_bytes());
        out.extend([c.mirror, c.mirror_offset, 0, 0]);
        out.extend(c.rom.to_le_bytes());
        out.extend([0; 4]);
    }
    for s in &map.shadows {
        out.extend(s.start.to_le_bytes());
        out.extend(s.len.to_le_bytes());
        for backing in [s.read, s.write] {
            let (kind, at) = match backing {
                Backing::Nowhere => (0u32, 0),
                Backing::Ram => (1, 0),
                Backing::Rom(at) => (2, at),
                Backing::Vga => (3, 0),
            };
            out.extend(kind.to_le_bytes());
            out.extend(at.to_le_bytes());
        }
        out.extend([0; 8]);
    }
    out
}

pub(super) fn decode(bytes: &[u8]) -> Result<DecodeMap, DecodeMapError> {
    let d = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let q = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let w = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let (ports, memory, shadows) = (d(0) as usize, d(4) as usize, d(8) as usize);
    let claims = ports.saturating_add(memory);
    if claims > MAX_CLAIMS || shadows > MAX_SHADOWS || HEADER + (claims + shadows) * ENTRY > bytes.len() {
        return Err(DecodeMapError::TooMany { claims, shadows });
    }
    let claim = |n: usize| {
        let at = HEADER + n * ENTRY;
        let attributes = w(at + 18);
        if attributes & !Attributes::ALL != 0 {
            return Err(DecodeMapError::Invalid {
                kind: "range",
                entry: n,
                what: "attribute",
            });
        }
        Ok(Claim {
            start: q(at),
            len: q(at + 8),
            device: w(at + 16),
            attributes: Attributes(attributes),
            mirror: bytes[at + 20],
            mirror_offset: bytes[at + 21],
            rom: d(at + 24),
        })
    };
    let backing = |at: usize, entry: usize| match d(at) {
        0 => Ok(Backing::Nowhere),
        1 => Ok(Backing::Ram),
        2 => Ok(Backing::Rom(d(at + 4))),
        3 => Ok(Backing::Vga),
        _ => Err(DecodeMapError::Invalid {
            kind: "shadow",
            entry,
            what: "backing",
        }),
    };
    let shadow = |n: usize| {
        let at = HEADER + (claims + n) * ENTRY;
        Ok(Shadow {
            start: d(at),
            len: d(at + 4),
            read: backing(at + 8, n)?,
            write: backing(at + 16, n)?,
        })
    };
    Ok(DecodeMap {
        ports: (0..ports).map(claim).collect::<Result<_, _>>()?,
        memory: (ports..claims).map(claim).collect::<Result<_, _>>()?,
        shadows: (0..shadows).map(shadow).collect::<Result<_, DecodeMapError>>()?,
        pirq: std::array::from_fn(|n| Some(bytes[16 + n]).filter(|line| *line != NO_LINE)),
        a20: d(12) & 1 != 0,
    })
}
