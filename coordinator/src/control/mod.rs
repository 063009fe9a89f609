//! The control socket: how `ps`, `status`, `pause` … find a running machine and talk to it.

pub mod attach;
pub mod client;
pub mod server;
pub mod show;
