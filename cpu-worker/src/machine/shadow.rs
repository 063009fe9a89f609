//! What lies behind each page below 1 MiB: RAM, ROM, VGA or nothing, for reads and writes apart.

use quintet_protocol::decode_map::{Backing, Shadow};

use crate::mmu::PageKind;

/// Pages below 1 MiB.
pub(super) const LOW_PAGES: usize = 256;

/// The kind of each page below 1 MiB that is not simply RAM, and where its ROM lies in the ROM window.
#[derive(Clone, Debug)]
pub(super) struct LowMap {
    kinds: [Option<PageKind>; LOW_PAGES],
    rom: [Option<u32>; LOW_PAGES],
}

impl Default for LowMap {
    /// Before io-worker has said anything: the VGA window is no RAM.
    fn default() -> Self {
        let mut kinds = [None; LOW_PAGES];
        kinds[0xA0..0xC0].fill(Some(PageKind::Device));
        Self {
            kinds,
            rom: [None; LOW_PAGES],
        }
    }
}

impl LowMap {
    /// The map that `shadows` make.
    pub(super) fn new(shadows: &[Shadow]) -> Self {
        let mut this = Self {
            kinds: [None; LOW_PAGES],
            rom: [None; LOW_PAGES],
        };
        for s in shadows {
            let (first, last) = (s.start / 4096, (s.start + s.len - 1) / 4096);
            for page in first..=last.min(LOW_PAGES as u32 - 1) {
                let n = page as usize;
                this.kinds[n] = match (s.read, s.write) {
                    (Backing::Ram, Backing::Ram) => None,
                    (Backing::Ram, Backing::Nowhere | Backing::Rom(_)) => {
                        Some(PageKind::Rom(u64::from(page)))
                    }
                    (Backing::Nowhere | Backing::Rom(_), Backing::Ram) => {
                        Some(PageKind::WriteOnly(u64::from(page)))
                    }
                    _ => Some(PageKind::Device),
                };
                if let Backing::Rom(at) = s.read {
                    this.rom[n] = Some(at + (page - first) * 4096);
                }
            }
        }
        this
    }

    /// The kind of `page`, when it is not what the RAM layout says.
    pub(super) fn kind(&self, page: u64) -> Option<PageKind> {
        *self.kinds.get(usize::try_from(page).ok()?)?
    }

    /// Offset in the ROM window that reads of `page` come from.
    pub(super) fn rom(&self, page: u64) -> Option<u32> {
        *self.rom.get(usize::try_from(page).ok()?)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pam_registers_give_each_of_their_four_kinds() {
        let shadow = |start, read, write| Shadow {
            start,
            len: 0x4000,
            read,
            write,
        };
        let map = LowMap::new(&[
            shadow(0xC0000, Backing::Ram, Backing::Ram),
            shadow(0xC4000, Backing::Ram, Backing::Nowhere),
            shadow(0xC8000, Backing::Rom(0x1000), Backing::Ram),
            shadow(0xCC000, Backing::Nowhere, Backing::Nowhere),
        ]);
        assert_eq!(map.kind(0x10), None);
        assert_eq!(map.kind(0xC0), None);
        assert_eq!(map.kind(0xC5), Some(PageKind::Rom(0xC5)));
        assert_eq!(map.kind(0xC9), Some(PageKind::WriteOnly(0xC9)));
        assert_eq!(map.rom(0xC9), Some(0x2000));
        assert_eq!(map.kind(0xCF), Some(PageKind::Device));
        assert_eq!(map.kind(0x100), None);
    }
}
