//! Disk controllers, and flash. What holds the sectors of disks is in [`crate::block`].

pub mod diskette;
pub mod floppy;
pub mod ide;
pub mod pflash;
pub mod virtio;
