//! Library of the audio-worker process of Quintet; `main.rs` is the thin process around it.
