//! Library of the gpu-worker process of Quintet; `main.rs` is the thin process around it.

pub mod png;
pub mod render;
