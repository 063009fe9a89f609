//! The keyboard and its controller.

mod i8042;
mod keyboard;
mod keymap;
#[cfg(test)]
mod tests;

pub use i8042::I8042;
