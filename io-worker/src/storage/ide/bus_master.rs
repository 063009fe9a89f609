//! A channel's bus-master registers and its walk through the table of physical regions (PIIX3 data sheet, 2.6;
//! "Programming Interface for Bus Master IDE Controller", 1.0).

use quintet_protocol::addr::GuestPhys;
use serde::{Deserialize, Serialize};

use crate::dma::{Buffer, Dma};

/// Bits of the command register.
pub(super) mod command {
    pub(crate) const START: u8 = 0x01;
    pub(crate) const TO_MEMORY: u8 = 0x08;
}
/// Bits of the status register.
pub(super) mod status {
    pub(crate) const ACTIVE: u8 = 0x01;
    pub(crate) const ERROR: u8 = 0x02;
    pub(crate) const INTERRUPT: u8 = 0x04;
    /// What drivers note about the drives; without effect.
    pub(crate) const CAPABLE: u8 = 0x60;
}
/// Last entry of a table.
const END_OF_TABLE: u32 = 1 << 31;

/// The registers, and where the walk stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BusMaster {
    pub(super) command: u8,
    pub(super) status: u8,
    /// Address of the table.
    pub(super) table: u32,
    next: u32,
    /// What is left of the region being filled.
    address: u32,
    left: u32,
    last: bool,
}

impl BusMaster {
    pub(super) fn is_active(&self) -> bool {
        self.status & status::ACTIVE != 0
    }

    /// A write of the command register; answers whether the engine was started or stopped by it.
    pub(super) fn write_command(&mut self, value: u8) -> Option<bool> {
        let was = self.command & command::START != 0;
        self.command = value & (command::START | command::TO_MEMORY);
        let starts = value & command::START != 0;
        if starts && !was {
            self.status |= status::ACTIVE;
            (self.next, self.left, self.last) = (self.table, 0, false);
        } else if !starts {
            self.status &= !status::ACTIVE;
        }
        (was != starts).then_some(starts)
    }

    pub(super) fn write_status(&mut self, value: u8) {
        let kept = self.status & status::ACTIVE;
        let cleared = self.status & !value & (status::ERROR | status::INTERRUPT);
        self.status = kept | cleared | value & status::CAPABLE;
    }

    /// Hands out the regions of the next `len` bytes and moves past them; answers how many bytes the table had.
    pub(super) fn walk(
        &mut self,
        dma: &mut Dma,
        len: usize,
        mut each: impl FnMut(&mut Dma, GuestPhys, usize),
    ) -> usize {
        let mut done = 0;
        while done < len {
            if self.left == 0 {
                if self.last {
                    break;
                }
                let mut entry = [0; 8];
                dma.read(GuestPhys(u64::from(self.next)), &mut entry);
                self.next = self.next.wrapping_add(8);
                let [a, b, c, d, e, f, g, h] = entry;
                self.address = u32::from_le_bytes([a, b, c, d]) & !1;
                let word = u32::from_le_bytes([e, f, g, h]);
                self.last = word & END_OF_TABLE != 0;
                self.left = match word & 0xFFFE {
                    0 => 0x1_0000,
                    len => len,
                };
            }
            let n = (self.left as usize).min(len - done);
            each(dma, GuestPhys(u64::from(self.address)), n);
            self.address = self.address.wrapping_add(n as u32);
            self.left -= n as u32;
            done += n;
        }
        done
    }

    /// Puts `data` into the regions; answers how much of it found room.
    pub(super) fn scatter(&mut self, dma: &mut Dma, data: &[u8]) -> usize {
        let mut at = 0;
        self.walk(dma, data.len(), |dma, to, n| {
            dma.write(to, &data[at..at + n]);
            at += n;
        })
    }

    /// Where the next `len` bytes lie, without moving past them; fewer when the table ends before.
    pub(super) fn regions(&self, dma: &mut Dma, len: usize) -> Vec<Buffer> {
        let mut regions = Vec::new();
        self.clone().walk(dma, len, |_, at, n| {
            let len = n as u32;
            regions.push(Buffer { at, len });
        });
        regions
    }

    /// Moves past `len` bytes.
    pub(super) fn skip(&mut self, dma: &mut Dma, len: usize) {
        self.walk(dma, len, |_, _, _| {});
    }

    /// The drive has what it wants: the engine stays active when the table had more.
    pub(super) fn finish(&mut self) {
        if self.left == 0 && self.last {
            self.status &= !status::ACTIVE;
        }
    }

    /// The table was too short, or the drive gave up.
    pub(super) fn give_up(&mut self) {
        self.status &= !status::ACTIVE;
    }
}
