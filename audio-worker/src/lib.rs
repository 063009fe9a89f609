//! Library of the audio-worker process of Quintet; `main.rs` is the thin process around it.
//!
//! [`mod@run`] is the loop, [`player`] takes frames out of the playback ring at the pace of VM time, [`speaker`] makes them of the
//! PC speaker's line, [`sink`] is where they go.

pub mod player;
pub mod resample;
pub mod run;
pub mod sink;
pub mod speaker;

pub use run::run;
