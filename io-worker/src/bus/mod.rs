//! The buses: who answers which port and which address, and what a device sees of the machine around it.
//!
//! A device is a struct, a table of registers and a handful of methods ([`Device`]). It gets offsets, never
//! addresses, and reaches the rest of the machine only through the [`Backplane`] it is lent for the time of a
//! call: interrupt pins, guest memory, byte streams, requests to the machine. Handles kept by the device were
//! rejected: what a device keeps is what is committed, and a handle cannot be.

mod backplane;
#[cfg(test)]
pub(crate) mod contract;
mod device;
pub(crate) mod hits;
mod irq;
pub mod mmio;
pub mod pio;
mod ranges;
pub mod regmap;

pub use backplane::{Backplane, MachineRequest, Requests, StreamIn, StreamOut, Streams};
pub use device::{Access, Device, PointerKind, Region, RegionKind, Size, StateError, load_state, save_state};
pub use irq::{Interrupts, LINES, Line, Pin, PinTarget, Wire};
pub use ranges::{RangeError, Ranges};
