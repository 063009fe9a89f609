//! Library of the gpu-worker process of Quintet; `main.rs` is the thin process around it.
//!
//! [`render`] makes pixels of registers and display memory, [`scanout`] makes presented frames of them, [`mod@run`] is the
//! loop around that, [`input`] passes host input on, [`png`] encodes screenshots, `window` shows it all to a person.

pub mod input;
pub mod png;
pub mod render;
pub mod run;
pub mod scanout;
mod window;

pub use run::run;
pub use window::check_display;
