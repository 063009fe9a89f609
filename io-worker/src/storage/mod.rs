//! Disk controllers. What holds their sectors is in [`crate::block`].

pub mod ide;
