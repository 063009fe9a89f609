//! Shared memory: segments, maps of them, and the views through which they are accessed.
//!
//! This folder is the one place in the project that calls `mmap`. Names in a file system were rejected:
//! whatever has a name survives a SIGKILL and needs a janitor.

mod alias;
mod map;
mod memfd;
pub mod portable;
mod view;

pub use alias::RamAlias;
pub use map::{Map, MapError};
pub use memfd::{Segment, SegmentError};
pub use view::{View, ViewMut, Word};
pub(crate) use view::{load_u16, store_u16, volatile_copy};
