//! Segment registers with their hidden part (SDM vol. 3, 3.4.3), and the bounds derived from it.

/// The access rights of a segment: bits 8–15 and 20–23 of a descriptor's second doubleword, shifted down
/// by 8, as LAR shows them, and an "unusable" bit for null selectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Attr(pub u32);

impl Attr {
    /// A writable, accessed data segment with DPL 0, as in real mode.
    pub const REAL_DATA: Self = Self(0x0093);
    /// Data segment of V86 mode: DPL 3.
    pub const V86: Self = Self(0x00F3);
    /// Loaded with a null selector.
    pub const UNUSABLE: Self = Self(1 << 16);

    /// From the second doubleword of a descriptor.
    pub const fn from_descriptor(high: u32) -> Self {
        Self(high >> 8 & 0xF0FF)
    }

    /// The type field, 0–15.
    pub const fn kind(self) -> u32 {
        self.0 & 15
    }

    /// S: code or data rather than system.
    pub const fn code_or_data(self) -> bool {
        self.0 & 0x10 != 0
    }

    /// Whether it is a code segment.
    pub const fn code(self) -> bool {
        self.0 & 0x18 == 0x18
    }

    /// Whether it is a conforming code segment.
    pub const fn conforming(self) -> bool {
        self.0 & 0x1C == 0x1C
    }

    /// Whether it may be read as data.
    pub const fn readable(self) -> bool {
        self.code_or_data() && (!self.code() || self.0 & 2 != 0)
    }

    /// Whether it may be written.
    pub const fn writable(self) -> bool {
        self.0 & 0x1A == 0x12
    }

    /// Whether it is an expand-down data segment.
    pub const fn expand_down(self) -> bool {
        self.0 & 0x1C == 0x14
    }

    /// Descriptor privilege level.
    pub const fn dpl(self) -> u8 {
        (self.0 >> 5 & 3) as u8
    }

    /// P.
    pub const fn present(self) -> bool {
        self.0 & 0x80 != 0
    }

    /// L: 64-bit code.
    pub const fn long(self) -> bool {
        self.0 & 0x2000 != 0
    }

    /// D/B: 32-bit code, 32-bit stack, or 4 GiB upper bound.
    pub const fn big(self) -> bool {
        self.0 & 0x4000 != 0
    }

    /// G: the limit counts pages.
    pub const fn granular(self) -> bool {
        self.0 & 0x8000 != 0
    }

    /// Whether the register cannot be used for accesses.
    pub const fn unusable(self) -> bool {
        self.0 & Self::UNUSABLE.0 != 0
    }
}

/// The offsets a segment allows: `low <= offset && offset + size - 1 <= high`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct SegmentBounds {
    /// Lowest offset.
    pub low: u32,
    /// Highest offset; below `low` when nothing is allowed.
    pub high: u32,
}

impl SegmentBounds {
    const NOTHING: Self = Self { low: 1, high: 0 };

    /// The last offset, if all from 0 on lie inside; else -1.
    pub fn last(self) -> i64 {
        if self.low == 0 { i64::from(self.high) } else { -1 }
    }

    /// Whether `size` bytes at `offset` lie inside.
    #[inline(always)]
    pub fn contain(self, offset: u64, size: u64) -> bool {
        offset >= u64::from(self.low) && offset + (size - 1) <= u64::from(self.high)
    }
}

/// A segment register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Segment {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes, scaled by G.
    pub limit: u32,
    /// Access rights.
    pub attr: Attr,
    /// What reads may touch, derived by [`Self::refresh`].
    pub read: SegmentBounds,
    /// What writes may touch, derived by [`Self::refresh`].
    pub write: SegmentBounds,
    /// The visible part.
    pub selector: u16,
}

impl Segment {
    /// A segment as real mode loads it: base = selector × 16, limit FFFFh, read and write.
    pub fn real(selector: u16) -> Self {
        Self::new(selector, u64::from(selector) << 4, 0xFFFF, Attr::REAL_DATA)
    }

    /// A segment with its bounds derived.
    pub fn new(selector: u16, base: u64, limit: u32, attr: Attr) -> Self {
        let nothing = SegmentBounds::NOTHING;
        let mut s = Self {
            base,
            limit,
            attr,
            read: nothing,
            write: nothing,
            selector,
        };
        s.refresh();
        s
    }

    /// The segment of 64-bit addressing: base zero. Its bounds are never looked at.
    pub fn flat() -> Self {
        Self::new(0, 0, u32::MAX, Attr(0xC093))
    }

    /// A register loaded with a null selector.
    pub fn null(selector: u16) -> Self {
        Self::new(selector, 0, 0, Attr::UNUSABLE)
    }

    /// Derives the bounds after `limit` or `attr` changed.
    pub fn refresh(&mut self) {
        let bounds = if self.attr.unusable() || !self.attr.present() {
            SegmentBounds::NOTHING
        } else if self.attr.expand_down() {
            let top = if self.attr.big() { u32::MAX } else { 0xFFFF };
            match self.limit.checked_add(1) {
                Some(low) if low <= top => SegmentBounds { low, high: top },
                _ => SegmentBounds::NOTHING,
            }
        } else {
            SegmentBounds {
                low: 0,
                high: self.limit,
            }
        };
        self.read = if self.attr.readable() {
            bounds
        } else {
            SegmentBounds::NOTHING
        };
        self.write = if self.attr.writable() {
            bounds
        } else {
            SegmentBounds::NOTHING
        };
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct DescriptorTable {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes: the last valid offset.
    pub limit: u16,
}
