//! Display memory as the renderer sees it: the shared segment, or a slice in a test.

use quintet_protocol::vram::{PLANE_BYTES, VRAM_BYTES, VramReader, plane_index};

/// Something with the bytes of display memory.
pub trait Memory {
    /// Copies bytes from `offset` on. What lies past the end reads as zero.
    fn read(&self, offset: usize, into: &mut [u8]);

    /// Copies the byte of all four planes at each of `into.len()` plane offsets from `first` on, wrapping at 64 KiB.
    fn read_planes(&self, first: u16, into: &mut [[u8; 4]]) {
        let first = usize::from(first);
        let before_wrap = into.len().min(PLANE_BYTES - first);
        let (head, mut tail) = into.split_at_mut(before_wrap);
        self.read(plane_index(first as u16, 0), head.as_flattened_mut());
        while !tail.is_empty() {
            let n = tail.len().min(PLANE_BYTES);
            let (part, rest) = tail.split_at_mut(n);
            self.read(0, part.as_flattened_mut());
            tail = rest;
        }
    }
}

impl Memory for VramReader {
    fn read(&self, offset: usize, into: &mut [u8]) {
        let inside = VRAM_BYTES.saturating_sub(offset).min(into.len());
        into[inside..].fill(0);
        VramReader::read(self, offset, into);
    }
}

impl Memory for [u8] {
    fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.get(offset..).unwrap_or_default();
        let n = from.len().min(into.len());
        into[..n].copy_from_slice(&from[..n]);
        into[n..].fill(0);
    }
}

impl Memory for Vec<u8> {
    fn read(&self, offset: usize, into: &mut [u8]) {
        self.as_slice().read(offset, into);
    }
}
