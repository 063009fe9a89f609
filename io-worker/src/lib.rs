//! Library of the io-worker process of Quintet; `main.rs` is the thin process around it.
