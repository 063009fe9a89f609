//! What an image's thread is told to do, and does, one thing after the other.
//!
//! A request that moves much comes to the thread in pieces ([`orders`]): it writes one while the devices' thread collects the next.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::{DiskError, Image, ImageError, Operation, Ticket};
use crate::dma::{Buffer, Dma};

/// How long an image may keep what only its successor would find, while nothing is asked of it.
const SETTLE: Duration = Duration::from_secs(1);
/// Bytes that are collected from guest memory before the thread gets the first of them: it sleeps, and takes longer to wake than to be
/// given the next.
pub(super) const FIRST_PIECE: usize = 16 << 10;
/// Most bytes of a later piece, each of which is twice the one before: enough that handing over is little beside writing them (some
/// 20 µs).
pub(super) const PIECE: usize = 128 << 10;

/// What an image is told to do.
#[derive(Debug)]
pub(super) enum Order {
    Read {
        offset: u64,
        len: usize,
    },
    Write {
        offset: u64,
        data: Vec<u8>,
        place: Place,
    },
    Flush,
    Discard {
        offset: u64,
        len: u64,
    },
    Zero {
        offset: u64,
        len: u64,
        unmap: bool,
        durable: bool,
    },
    /// Nothing, and to say that it failed.
    Refuse,
}

/// Where what is written stands in its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The next order is of the same request.
    Before,
    /// Behind it the request is done; lastingly so, if it is durable.
    Last { durable: bool },
}

/// Has `give` take the orders that an operation comes to, in their order. What is to be written is collected for each when it is its
/// turn.
pub(super) fn orders(operation: Operation, dma: &Dma, mut give: impl FnMut(Order)) {
    give(match operation {
        Operation::Read { offset, len } => Order::Read { offset, len },
        Operation::ReadInto { offset, into } => Order::Read {
            offset,
            len: Buffer::total(&into) as usize,
        },
        Operation::Write {
            offset,
            data,
            durable,
        } => Order::Write {
            offset,
            data,
            place: Place::Last { durable },
        },
        Operation::WriteFrom {
            offset,
            from,
            durable,
        } => return pieces(offset, &from, durable, dma, give),
        Operation::Flush => Order::Flush,
        Operation::Discard { offset, len } => Order::Discard { offset, len },
        Operation::Zero {
            offset,
            len,
            unmap,
            durable,
        } => Order::Zero {
            offset,
            len,
            unmap,
            durable,
        },
    });
}

fn pieces(offset: u64, from: &[Buffer], durable: bool, dma: &Dma, mut give: impl FnMut(Order)) {
    let total = Buffer::total(from) as usize;
    let (mut done, mut most) = (0, FIRST_PIECE);
    loop {
        let end = total.min(done + most);
        let mut data = Vec::with_capacity(end - done);
        dma.gather(from, done..end, &mut data);
        let place = match end == total {
            true => Place::Last { durable },
            false => Place::Before,
        };
        give(Order::Write {
            offset: offset + done as u64,
            data,
            place,
        });
        if end == total {
            return;
        }
        done = end;
        most = PIECE.min(2 * most);
    }
}

/// Who does it: an image, and what went wrong with it.
#[derive(Debug)]
pub(super) struct Hands {
    image: Box<dyn Image>,
    log: Log,
    /// A piece of the request could not be written; nor are those behind it.
    cut: bool,
}

impl Hands {
    /// `name` is for the log.
    pub(super) fn new(name: &str, image: Box<dyn Image>) -> Self {
        Self {
            image,
            log: Log::new(name.to_owned()),
            cut: false,
        }
    }

    /// Does what comes, until nobody can ask any more or `report` says that nobody listens.
    pub(super) fn run(
        &mut self,
        orders: &Receiver<(Ticket, Order)>,
        mut report: impl FnMut(Ticket, Result<Vec<u8>, DiskError>) -> bool,
    ) {
        while let Some((ticket, order)) = self.next(orders) {
            if let Some(result) = self.carry_out(order)
                && !report(ticket, result)
            {
                break;
            }
        }
        // Whoever stopped asking may not come back.
        if self.image.is_unsettled() {
            self.settle();
        }
    }

    /// The next order; while none comes, an image that has something to put in a safe place gets to do that.
    fn next(&mut self, orders: &Receiver<(Ticket, Order)>) -> Option<(Ticket, Order)> {
        if self.image.is_unsettled() {
            match orders.recv_timeout(SETTLE) {
                Ok(order) => return Some(order),
                Err(RecvTimeoutError::Disconnected) => return None,
                // What failed is tried again when the guest asks for it, and not every second.
                Err(RecvTimeoutError::Timeout) => self.settle(),
            }
        }
        orders.recv().ok()
    }

    fn settle(&mut self) {
        if let Err(error) = self.image.flush() {
            let _ = self.log.failed("flush", &error);
        }
    }

    /// Does what it is told. `None` for what does not end a request.
    pub(super) fn carry_out(&mut self, order: Order) -> Option<Result<Vec<u8>, DiskError>> {
        let ends = !matches!(
            order,
            Order::Write {
                place: Place::Before,
                ..
            }
        );
        // Whoever set it was of the same request.
        let result = match std::mem::take(&mut self.cut) {
            true => Err(DiskError),
            false => self.attempt(order),
        };
        if !ends {
            self.cut = result.is_err();
            return None;
        }
        Some(result)
    }

    fn attempt(&mut self, order: Order) -> Result<Vec<u8>, DiskError> {
        let what = match order {
            Order::Read { .. } => "read",
            Order::Write { .. } => "write",
            Order::Flush => "flush",
            Order::Discard { .. } => "discard",
            Order::Zero { .. } => "write zeros",
            Order::Refuse => return Err(DiskError),
        };
        self.ask(order).map_err(|error| {
            let _ = self.log.failed(what, &error);
            DiskError
        })
    }

    fn ask(&mut self, order: Order) -> Result<Vec<u8>, ImageError> {
        let image = &mut *self.image;
        let mut data = Vec::new();
        let mut lasting = false;
        match order {
            Order::Read { offset, len } => {
                data = vec![0; len];
                image.read(offset, &mut data)?;
            }
            Order::Write { offset, data, place } => {
                image.write(offset, &data)?;
                lasting = place == Place::Last { durable: true };
            }
            Order::Flush => lasting = true,
            Order::Discard { offset, len } => image.discard(offset, len)?,
            Order::Zero {
                offset,
                len,
                unmap,
                durable,
            } => {
                image.zero(offset, len, unmap)?;
                lasting = durable;
            }
            Order::Refuse => {}
        }
        if lasting {
            image.flush()?;
        }
        Ok(data)
    }
}

/// What went wrong with one image: each cause is told once, since a full disk fails every write of a guest that goes on.
#[derive(Debug)]
pub(super) struct Log {
    disk: String,
    pub(super) told: HashSet<(&'static str, String)>,
}

impl Log {
    pub(super) fn new(disk: String) -> Self {
        let told = HashSet::new();
        Self { disk, told }
    }

    /// Answers whether it was told.
    pub(super) fn failed(&mut self, what: &'static str, error: &ImageError) -> bool {
        // An image can invent only so many causes.
        let new = self.told.len() < 64 && self.told.insert((what, error.cause()));
        if new {
            tracing::warn!(
                disk = self.disk,
                %error,
                "the host could not {what}; the guest sees a device error, this time and whenever it happens again"
            );
        }
        new
    }
}
