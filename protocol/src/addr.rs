//! Addresses as types that cannot be mixed.
//!
//! A plain `u64` was rejected: the classic fault of an emulator with several address spaces is a host
//! offset used as a guest address, and the compiler can rule it out for nothing.

use core::fmt;

/// Size of a guest page, the unit of paging, of code tracking and of string I/O messages, in bytes.
///
/// This is the x86 page. Host pages may be larger: nothing here depends on the host's.
pub const GUEST_PAGE: u64 = 4096;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The address `n` bytes on, or `None` when it passes 2^64.
            pub const fn checked_add(self, n: u64) -> Option<Self> {
                match self.0.checked_add(n) {
                    Some(v) => Some(Self(v)),
                    None => None,
                }
            }

            /// The number of the guest page the address lies in.
            pub const fn page(self) -> u64 {
                self.0 / GUEST_PAGE
            }

            /// The offset within its guest page, 0 to 4095.
            pub const fn page_offset(self) -> u64 {
                self.0 % GUEST_PAGE
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address!(
    /// A guest physical address: what leaves the MMU and what a device uses for DMA.
    GuestPhys
);
address!(
    /// A guest linear address: after segmentation, before paging.
    GuestLinear
);
address!(
    /// An offset into guest RAM, contiguous across the hole below 4 GiB. Zero is guest physical zero and
    /// lies at file offset [`crate::ram::GUEST_BASE`] of the guest-RAM segment.
    RamOffset
);
