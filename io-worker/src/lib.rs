//! Library of the io-worker process of Quintet; `main.rs` is the thin process around it.
//!
//! Devices ([`serial`], …) sit on buses ([`bus`], [`pci`]) and reach guest memory through [`dma`]. Nothing
//! here knows of rings or processes; what binds the devices to those is apart from them.

pub mod block;
pub mod bus;
pub mod dma;
pub mod firmware;
pub mod fw_cfg;
pub mod input;
pub mod isa_dma;
pub mod machine;
pub mod module;
pub mod parts;
pub mod pci;
pub mod processes;
pub mod rom;
pub mod run;
pub mod serial;
pub mod sound;
pub mod storage;
pub mod testdev;
