//! x87 arithmetic: kernels, the register stack they work on, and the portable twin.
//!
//! [`host`] executes one instruction on given operands; [`Unit`] is the architectural state and the rules
//! around the arithmetic: register stack faults, masked and unmasked responses, condition codes, tags.

#[cfg(target_arch = "x86_64")]
pub mod host;
pub mod image;
mod ops;
pub mod soft;
mod unit;

#[cfg(target_arch = "x86_64")]
pub use host as kernel;
pub use ops::{Compare, Stored};
pub use unit::{Unit, control, status};

/// The control word after FINIT, and the one that compiled host code runs under.
pub const CONTROL_DEFAULT: u16 = 0x037f;

/// What a kernel must know of the guest's unit, laid out for the assembly of [`host`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Env {
    /// The guest's control word: rounding, precision and masks.
    pub control: u16,
    default: u16,
    /// Exception flags that must not be pending in the host's status word when the operation starts.
    dirty: u8,
    /// Not zero if the host's control word must be exchanged.
    switch: u8,
}

impl Env {
    /// The environment of an operation under control word `control` with the flags of `status` set.
    ///
    /// Flags that the guest has set already, and masked, cannot be told from fresh ones and need not be: they
    /// are sticky. That saves clearing the host's flags, the most expensive step by far (75 ns).
    #[inline]
    pub const fn new(control: u16, status: u16) -> Self {
        let sticky = status & (control | 0x40);
        Self {
            control,
            default: CONTROL_DEFAULT,
            dirty: !sticky as u8 & 0x7f,
            switch: (control != CONTROL_DEFAULT) as u8,
        }
    }
}
