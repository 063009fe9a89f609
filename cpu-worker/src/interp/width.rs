//! Choice of a generic handler by operand width.

/// Picks `$f::<…, T>` for the width `$bytes` of the operands: 1, 2, 4 or 8 bytes.
macro_rules! by_width {
    ($bytes:expr, $f:ident $(, $g:ty)*) => {
        match $bytes {
            1 => $f::<$($g,)* u8> as $crate::exec::Handler,
            2 => $f::<$($g,)* u16>,
            4 => $f::<$($g,)* u32>,
            _ => $f::<$($g,)* u64>,
        }
    };
}
pub(crate) use by_width;
