//! The stub of the guest's debugger: gdb's remote protocol, spoken by a vCPU that stands still.
//!
//! `gdbstub` has the protocol; the vCPU is its target (`target`), and [`Session`] feeds it bytes from wherever they come. What
//! makes the vCPU stop is not here but in `exec::hold`, and the life of a connection is in `machine::debugger`.
//! [docs/adr/0100](../../../docs/adr/0100-guest-debugger.md) says why the stub lives on the vCPU's thread.
//!
//! - `layout`: the registers that gdb is told of. `registers`: their values.
//! - `target`, `monitor`: what gdb can do.
//! - `packets`: what `gdbstub` does not know or would trip over. `session`: a connection from its first byte to its last.

mod layout;
mod monitor;
mod packets;
mod registers;
mod session;
mod target;

pub use session::{Session, SessionError, Stop};

/// What gdb wants of the vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// Go on.
    Continue,
    /// Execute instructions while rIP stays in this range, but one at least: `start` up to, not including, `end`.
    Step {
        /// First address.
        start: u64,
        /// One past the last.
        end: u64,
    },
}

/// What a connection has changed of how its requests are understood, and what it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Remote {
    /// What the vCPU is to do, until that is taken up.
    pub(crate) wanted: Option<Wanted>,
    /// Addresses of memory are physical.
    pub(crate) physical: bool,
    /// Reads of memory may go to devices.
    pub(crate) devices: bool,
    /// The machine is to be reset.
    pub(crate) reset: bool,
}
