//! A split virtqueue (virtio 1.2, 2.7): what the driver offers is taken from the available ring, what the device has
//! used goes into the used ring.
//!
//! Written by hand over [`Dma`], because what is told must be committed first: a used buffer waits in
//! [`Queue::finished`] until the commit that records it, and all that wait are shown by one store of the used ring's
//! index, which a successor repeats with the same value (ADR 0081). An entry of the ring that the
//! driver has seen is so never taken back.
//!
//! Whatever breaks the ring's own rules is [`Broken`]: the device then needs a reset (2.1.2). Addresses, lengths and
//! indices are the driver's, and are looked at once.

use std::fmt;

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::sync::{Ordering, fence};
use serde::{Deserialize, Serialize};

use crate::dma::{Buffer, Dma, Way};

/// Most entries of a queue.
pub(super) const QUEUE_SIZE_MAX: u16 = 256;
/// Bytes of a descriptor: address, length, flags, next (2.7.5).
const DESC: u64 = 16;
/// Flags and index in front of either ring.
const RING_HEAD: u64 = 4;
/// Bytes of an entry of the used ring: id, length.
const USED_ELEM: u64 = 8;

/// Flags of a descriptor.
pub(super) mod desc_flag {
    pub(crate) const NEXT: u16 = 1;
    pub(crate) const WRITE: u16 = 2;
    pub(crate) const INDIRECT: u16 = 4;
}
/// Flag of the available ring: the driver wants no interrupt.
const NO_INTERRUPT: u16 = 1;

/// Why a queue cannot go on until a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// A ring or a descriptor table is not RAM, or not aligned.
    Memory,
    /// The driver's index is further ahead than the queue is long.
    Index,
    /// A descriptor's number is beyond its table.
    Descriptor,
    /// A chain is longer than its queue: it has a loop.
    Loop,
    /// A table of descriptors inside one, with a next one, of no whole number of them, or without the feature.
    Indirect,
    /// What the device reads lies behind what it writes.
    Order,
    /// More than 2^32 bytes.
    Length,
    /// What every request has is missing: a header, or the byte for its status.
    Request,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "a ring or table outside RAM",
            Self::Index => "an index that is too far ahead",
            Self::Descriptor => "a descriptor beyond its table",
            Self::Loop => "a chain that does not end",
            Self::Indirect => "an indirect table that is none",
            Self::Order => "a buffer to read behind one to write",
            Self::Length => "a chain of more than 4 GiB",
            Self::Request => "a request without header or status",
        })
    }
}

/// What a chain of descriptors names, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// What the device reads.
    pub(super) readable: Vec<Buffer>,
    /// What it writes.
    pub(super) writable: Vec<Buffer>,
}

/// A used buffer: first descriptor of its chain, bytes written.
pub(super) type Used = (u16, u32);

/// A queue as the driver has set it up, and where its rings stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Queue {
    /// Entries: a power of two.
    pub(super) size: u16,
    pub(super) enabled: bool,
    /// Descriptor table.
    pub(super) desc: u64,
    /// Available ring, which the driver writes.
    pub(super) driver: u64,
    /// Used ring, which the device writes.
    pub(super) device: u64,
    /// Index of the next entry of the available ring.
    next_avail: u16,
    /// Index of the used ring, as the driver has been shown it.
    used: u16,
    /// Chains taken and not finished, in their order.
    pub(super) taken: Vec<u16>,
    /// Used buffers that the driver has not been shown.
    pub(super) finished: Vec<Used>,
}

impl Queue {
    /// After reset.
    pub(super) fn new() -> Self {
        Self {
            size: QUEUE_SIZE_MAX,
            enabled: false,
            desc: 0,
            driver: 0,
            device: 0,
            next_avail: 0,
            used: 0,
            taken: Vec::new(),
            finished: Vec::new(),
        }
    }

    /// Whether a committed queue is one that can be.
    pub(super) fn is_sound(&self) -> bool {
        let most = usize::from(self.size);
        self.size.is_power_of_two()
            && self.size <= QUEUE_SIZE_MAX
            && self.taken.len() + self.finished.len() <= most
            && self.taken.iter().all(|head| *head < self.size)
            && self.finished.iter().all(|(head, _)| *head < self.size)
    }

    fn entry(&self, index: u16) -> u64 {
        u64::from(index & (self.size - 1))
    }

    /// Whether descriptors, available and used ring lie as they must (2.7): alignment 16, 2 and 4, in RAM.
    fn is_placed(&self, dma: &Dma) -> bool {
        let size = u64::from(self.size);
        let areas = [
            (self.desc, 16, DESC * size, Way::Read),
            (self.driver, 2, RING_HEAD + 2 * size + 2, Way::Read),
            (self.device, 4, RING_HEAD + USED_ELEM * size + 2, Way::Write),
        ];
        areas.iter().all(|&(at, align, len, way)| {
            at.is_multiple_of(align) && dma.reaches_ram(GuestPhys(at), len, way)
        })
    }

    fn driver_index(&self, dma: &Dma) -> Result<u16, Broken> {
        dma.load_u16(GuestPhys(self.driver + 2)).ok_or(Broken::Memory)
    }

    /// Takes the next chain that the driver has made available: the number of its first descriptor. No more are taken
    /// than the queue has entries; a driver reuses no descriptor before it is told of its end.
    pub(super) fn take(&mut self, dma: &Dma) -> Result<Option<u16>, Broken> {
        if self.taken.len() + self.finished.len() >= usize::from(self.size) {
            return Ok(None);
        }
        if !self.is_placed(dma) {
            return Err(Broken::Memory);
        }
        let index = self.driver_index(dma)?;
        match index.wrapping_sub(self.next_avail) {
            0 => return Ok(None),
            ahead if ahead > self.size => return Err(Broken::Index),
            _ => {}
        }
        let at = self.driver + RING_HEAD + 2 * self.entry(self.next_avail);
        let head = dma.load_u16(GuestPhys(at)).ok_or(Broken::Memory)?;
        if head >= self.size {
            return Err(Broken::Descriptor);
        }
        self.next_avail = self.next_avail.wrapping_add(1);
        self.taken.push(head);
        Ok(Some(head))
    }

    /// Walks the chain that begins at `head`. `indirect` is whether the feature is there.
    pub(super) fn chain(&self, dma: &Dma, head: u16, indirect: bool) -> Result<Chain, Broken> {
        let mut chain = Chain::default();
        let (mut table, mut entries) = (self.desc, u32::from(self.size));
        let mut in_table = false;
        let (mut next, mut seen, mut total) = (head, 0_u16, 0_u64);
        loop {
            // A chain, its indirect table included, has at most as many descriptors as the queue (2.7.5.3.1).
            seen += 1;
            if seen > self.size + u16::from(in_table) {
                return Err(Broken::Loop);
            }
            if u32::from(next) >= entries {
                return Err(Broken::Descriptor);
            }
            let at = table.checked_add(DESC * u64::from(next)).ok_or(Broken::Memory)?;
            let (buffer, flags, follower) = descriptor(dma, at)?;
            if flags & desc_flag::INDIRECT != 0 {
                let whole = buffer.len != 0 && u64::from(buffer.len).is_multiple_of(DESC);
                if !indirect || in_table || flags & desc_flag::NEXT != 0 || !whole {
                    return Err(Broken::Indirect);
                }
                (table, entries) = (buffer.at.0, buffer.len / DESC as u32);
                (next, in_table) = (0, true);
                continue;
            }
            total += u64::from(buffer.len);
            if total > 1 << 32 {
                return Err(Broken::Length);
            }
            match flags & desc_flag::WRITE != 0 {
                true => chain.writable.push(buffer),
                false if chain.writable.is_empty() => chain.readable.push(buffer),
                false => return Err(Broken::Order),
            }
            if flags & desc_flag::NEXT == 0 {
                return Ok(chain);
            }
            next = follower;
        }
    }

    /// Takes a chain off those under way: the driver is to be told that `len` bytes of it were written.
    pub(super) fn finish(&mut self, head: u16, len: u32) {
        if let Some(place) = self.taken.iter().position(|taken| *taken == head) {
            self.taken.remove(place);
            self.finished.push((head, len));
        }
    }

    /// Shows the driver what is finished, after the commit that records it; answers whether it wants an interrupt for
    /// that (2.7.7.2). Done twice, nothing is different.
    pub(super) fn publish(&mut self, dma: &mut Dma, event_index: bool) -> Result<bool, Broken> {
        if self.finished.is_empty() {
            return Ok(false);
        }
        if !self.is_placed(dma) {
            return Err(Broken::Memory);
        }
        let before = self.used;
        let mut index = before;
        for (head, len) in std::mem::take(&mut self.finished) {
            let mut entry = [0; USED_ELEM as usize];
            entry[..4].copy_from_slice(&u32::from(head).to_le_bytes());
            entry[4..].copy_from_slice(&len.to_le_bytes());
            let at = self.device + RING_HEAD + USED_ELEM * self.entry(index);
            dma.write(GuestPhys(at), &entry);
            index = index.wrapping_add(1);
        }
        self.used = index;
        dma.store_u16(GuestPhys(self.device + 2), index);
        // What the driver says of interrupts is read after it can see the index; it looks at the index again after it
        // has said so.
        fence(Ordering::SeqCst);
        if event_index {
            let at = self.driver + RING_HEAD + 2 * u64::from(self.size);
            let event = dma.load_u16(GuestPhys(at)).ok_or(Broken::Memory)?;
            // Whether the entry that it waits for is among the new ones.
            Ok(index.wrapping_sub(event).wrapping_sub(1) < index.wrapping_sub(before))
        } else {
            let flags = dma.load_u16(GuestPhys(self.driver)).ok_or(Broken::Memory)?;
            Ok(flags & NO_INTERRUPT == 0)
        }
    }

    /// Asks to be notified of the next chain (2.7.10); answers whether there is one already.
    pub(super) fn listen(&mut self, dma: &mut Dma, event_index: bool) -> Result<bool, Broken> {
        if event_index {
            let at = self.device + RING_HEAD + USED_ELEM * u64::from(self.size);
            if !dma.store_u16(GuestPhys(at), self.next_avail) {
                return Err(Broken::Memory);
            }
            fence(Ordering::SeqCst);
        }
        Ok(self.driver_index(dma)? != self.next_avail)
    }
}

/// The descriptor at `at`: buffer, flags, number of the next.
fn descriptor(dma: &Dma, at: u64) -> Result<(Buffer, u16, u16), Broken> {
    let mut bytes = [0; DESC as usize];
    if !dma.reaches_ram(GuestPhys(at), DESC, Way::Read) {
        return Err(Broken::Memory);
    }
    dma.read(GuestPhys(at), &mut bytes);
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
    let buffer = Buffer {
        at: GuestPhys(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
        len: u32::from_le_bytes([i, j, k, l]),
    };
    Ok((buffer, u16::from_le_bytes([m, n]), u16::from_le_bytes([o, p])))
}
