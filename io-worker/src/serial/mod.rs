//! Serial lines.

mod uart16550;

pub use uart16550::{Uart, UartConfig};
