//! Keyboard, mouse, their controller, and the pointer behind the VMware backdoor.

mod i8042;
mod keyboard;
mod keymap;
mod mouse;
#[cfg(test)]
mod mouse_tests;
#[cfg(test)]
mod tests;
mod vmmouse;

pub use i8042::I8042;
