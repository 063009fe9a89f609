//! Library of the cpu-worker process of Quintet; `main.rs` is the thin process around it.
