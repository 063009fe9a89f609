//! Requests of a block device (virtio 1.2, 5.2.6): from a chain of descriptors to what is asked of the image.

use quintet_protocol::addr::GuestPhys;

use super::queue::{Broken, Chain};
use crate::block::{Data, Operation, SECTOR};
use crate::dma::{Buffer, Dma, Way};

/// Most pieces of data in a request (5.2.4, `seg_max`): the queue's length without header and status.
pub(super) const SEG_MAX: u32 = 254;
/// Most bytes of a piece (5.2.4, `size_max`).
pub(super) const SIZE_MAX: u32 = 16 << 10;
/// Most bytes of a request: whoever keeps to both never has more.
const LEN_MAX: u64 = SEG_MAX as u64 * SIZE_MAX as u64;
/// Most sectors that are discarded, or made zero, by one request.
pub(super) const RANGE_SECTORS_MAX: u32 = 1 << 22;
/// Bytes of a header: type, reserved, sector.
const HEADER: usize = 16;
/// Bytes of the range that is to be discarded or made zero: sector, sectors, flags.
const RANGE: u64 = 16;
/// Bytes of the identity.
pub(super) const ID_BYTES: usize = 20;

/// Types of requests.
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}
/// How a request ended.
pub(super) mod status {
    pub(crate) const OK: u8 = 0;
    pub(crate) const IOERR: u8 = 1;
    pub(crate) const UNSUPP: u8 = 2;
}
/// Flag of a range: what is made zero may be given back to the host.
const UNMAP: u32 = 1;

/// What a device does with requests, of its features and its image.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// Bytes of the disk.
    pub(super) len: u64,
    pub(super) read_only: bool,
    /// A write ends only when it is where a loss of power leaves it.
    pub(super) durable: bool,
    /// DISCARD and WRITE_ZEROES are negotiated.
    pub(super) discard: bool,
    pub(super) write_zeroes: bool,
    /// Zero-padded.
    pub(super) id: [u8; ID_BYTES],
}

/// What a request comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// To be asked of the image.
    Ask(Operation),
    /// Ends at once: status, and data for the driver.
    Answer(u8, Data),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    kind: u32,
    sector: u64,
    /// Data from the driver.
    from: Vec<Buffer>,
    /// Room for data to it.
    to: Vec<Buffer>,
    /// Where the status goes.
    status: GuestPhys,
}

fn in_ram(dma: &Dma, buffers: &[Buffer], way: Way) -> bool {
    buffers
        .iter()
        .all(|b| dma.reaches_ram(b.at, u64::from(b.len), way))
}

/// Moves past the first `len` bytes of `buffers`.
fn skip(buffers: &mut Vec<Buffer>, mut len: u32) {
    let mut whole = 0;
    for buffer in buffers.iter_mut() {
        let n = buffer.len.min(len);
        // Only where all of the buffer is RAM, so that nothing wraps.
        buffer.at = GuestPhys(buffer.at.0.wrapping_add(u64::from(n)));
        buffer.len -= n;
        len -= n;
        if buffer.len > 0 {
            break;
        }
        whole += 1;
    }
    buffers.drain(..whole);
}

/// Copies the first `len` bytes of what is in `buffers`.
fn first(dma: &Dma, buffers: &[Buffer], len: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(len);
    dma.gather(buffers, 0..len, &mut data);
    data
}

impl Request {
    /// The request of a chain, whose descriptors may cut it anywhere (2.7.4.2).
    ///
    /// # Errors
    /// [`Broken`] when there is no header, or nowhere to put the status.
    pub(super) fn parse(dma: &Dma, chain: Chain) -> Result<Self, Broken> {
        let Chain {
            readable: mut from,
            writable: mut to,
        } = chain;
        to.retain(|buffer| buffer.len > 0);
        let last = to.last_mut().ok_or(Broken::Request)?;
        last.len -= 1;
        let status = GuestPhys(last.at.0.wrapping_add(u64::from(last.len)));
        if last.len == 0 {
            to.pop();
        }
        if Buffer::total(&from) < HEADER as u64 {
            return Err(Broken::Request);
        }
        let mut head = from.clone();
        let mut left = HEADER as u32;
        for buffer in &mut head {
            buffer.len = buffer.len.min(left);
            left -= buffer.len;
        }
        if !in_ram(dma, &head, Way::Read) || !dma.reaches_ram(status, 1, Way::Write) {
            return Err(Broken::Memory);
        }
        let header = first(dma, &head, HEADER);
        skip(&mut from, HEADER as u32);
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Ok(Self {
            kind: word(0),
            sector: u64::from(word(8)) | u64::from(word(12)) << 32,
            from,
            to,
            status,
        })
    }

    /// Bytes that it moves.
    pub(super) fn len(&self) -> u64 {
        Buffer::total(&self.from) + Buffer::total(&self.to)
    }

    /// What it comes to.
    pub(super) fn plan(&self, dma: &Dma, terms: &Terms) -> Plan {
        let answer = |status| Plan::Answer(status, Data::Held(Vec::new()));
        match self.kind {
            kind::IN => match self.range(terms, Buffer::total(&self.to)) {
                _ if !in_ram(dma, &self.to, Way::Write) => answer(status::IOERR),
                Some((_, 0)) => answer(status::OK),
                Some((offset, _)) => Plan::Ask(Operation::ReadInto {
                    offset,
                    into: self.to.clone(),
                }),
                None => answer(status::IOERR),
            },
            kind::OUT => match self.range(terms, Buffer::total(&self.from)) {
                _ if terms.read_only || !in_ram(dma, &self.from, Way::Read) => answer(status::IOERR),
                Some((_, 0)) => answer(status::OK),
                Some((offset, _)) => Plan::Ask(Operation::WriteFrom {
                    offset,
                    from: self.from.clone(),
                    durable: terms.durable,
                }),
                None => answer(status::IOERR),
            },
            kind::FLUSH => Plan::Ask(Operation::Flush),
            kind::GET_ID if !in_ram(dma, &self.to, Way::Write) => answer(status::IOERR),
            kind::GET_ID => Plan::Answer(status::OK, Data::Held(terms.id.to_vec())),
            kind::DISCARD if terms.discard => self.plan_range(dma, terms),
            kind::WRITE_ZEROES if terms.write_zeroes => self.plan_range(dma, terms),
            _ => answer(status::UNSUPP),
        }
    }

    /// Byte offset and length of `len` bytes from the request's sector on, if that is whole sectors of the disk.
    fn range(&self, terms: &Terms, len: u64) -> Option<(u64, usize)> {
        let offset = self.sector.checked_mul(SECTOR)?;
        let inside = offset.checked_add(len)? <= terms.len;
        (inside && len.is_multiple_of(SECTOR) && len <= LEN_MAX).then_some((offset, len as usize))
    }

    /// DISCARD and WRITE_ZEROES, of one range (5.2.6.2).
    fn plan_range(&self, dma: &Dma, terms: &Terms) -> Plan {
        let answer = |status| Plan::Answer(status, Data::Held(Vec::new()));
        if terms.read_only || Buffer::total(&self.from) != RANGE || !in_ram(dma, &self.from, Way::Read) {
            return answer(status::IOERR);
        }
        let bytes = first(dma, &self.from, RANGE as usize);
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let sector = u64::from(word(0)) | u64::from(word(4)) << 32;
        let (sectors, flags) = (word(8), word(12));
        let discards = self.kind == kind::DISCARD;
        // A flag that is not known; and what is discarded is unmapped anyway.
        if flags & !UNMAP != 0 || discards && flags & UNMAP != 0 {
            return answer(status::UNSUPP);
        }
        let inside = sector
            .checked_add(u64::from(sectors))
            .is_some_and(|end| end <= terms.len / SECTOR);
        if !inside || sectors > RANGE_SECTORS_MAX {
            return answer(status::IOERR);
        }
        let (offset, len) = (sector * SECTOR, u64::from(sectors) * SECTOR);
        match sectors {
            0 => answer(status::OK),
            _ if discards => Plan::Ask(Operation::Discard { offset, len }),
            _ => Plan::Ask(Operation::Zero {
                offset,
                len,
                unmap: flags & UNMAP != 0,
                durable: terms.durable,
            }),
        }
    }

    /// Gives the driver data, if it has not got it, and status; answers how many bytes from the start of what it let the
    /// device write were written (2.7.8.2).
    pub(super) fn answer(&self, dma: &mut Dma, status: u8, data: &Data) -> u32 {
        let room = Buffer::total(&self.to);
        let written = match data {
            Data::Held(data) => dma.scatter(&self.to, data) as u64,
            Data::Placed => room,
        };
        dma.write(self.status, &[status]);
        // The status lies behind all room for data.
        match written == room {
            true => written as u32 + 1,
            false => written as u32,
        }
    }
}
