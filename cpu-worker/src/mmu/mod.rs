//! From linear addresses to bytes: page walks, TLBs, the physical map.

mod access;
mod fetch;
mod peek;
mod phys;
mod tlb;
mod walk;

pub use access::Access;
pub(crate) use access::canonical;
pub use fetch::{Fetched, MAX_INSTRUCTION};
pub use phys::{PageKind, PhysMemory};
pub(crate) use phys::{copy_up, fill, load, store};
pub use tlb::{Tlb, TlbIndex};
pub use walk::{MAXPHYADDR, Translation, pf};
