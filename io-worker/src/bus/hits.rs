//! Who answers the pieces of one access.

use super::Access;
use super::pio::Target;

/// The pieces of one access; at most one per byte.
#[derive(Default)]
pub(crate) struct Hits {
    list: [Option<(Target, Access, u32)>; 8],
    len: usize,
}

impl Hits {
    /// Adds a piece: who answers, where, and how far its value is shifted in the access's.
    pub(crate) fn push(&mut self, target: Target, access: Access, shift: u32) {
        self.list[self.len] = Some((target, access, shift));
        self.len += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Target, Access, u32)> {
        self.list.iter().flatten()
    }
}
