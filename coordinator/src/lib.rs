//! Library of the coordinator process of Quintet; `main.rs` is the thin process around it.
