//! The record rings of a machine: which two regions make one.
//!
//! For whoever looks at rings from outside, by name: reports, soaks, a debugger. The ends themselves are given by
//! [`Ends`](super::Ends).

use super::{MAX_VCPUS, Region};
use crate::handshake::Role;
use crate::sync::CACHE_LINE;

/// A ring by its two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingRegions {
    /// What it carries.
    pub name: String,
    /// The producer's part: tail word and records.
    pub producer: Region,
    /// The consumer's part: head word.
    pub head: Region,
}

impl RingRegions {
    fn new(name: impl Into<String>, producer: Region, head: Region) -> Self {
        let name = name.into();
        Self { name, producer, head }
    }

    /// The rings that a PC with one processor uses, by the names that reports have for them.
    pub fn reported() -> [(&'static str, Self); 5] {
        // A counter of its own lies before that ring.
        let all = Region::invalidation();
        let invalidations = Region {
            offset: all.offset + CACHE_LINE,
            len: all.len - CACHE_LINE,
            ..all
        };
        [
            ("commands", Region::command(0), Region::command_head(0)),
            ("events", Region::event(), Region::event_head()),
            ("invalidations", invalidations, Region::invalidation_head()),
            ("input", Region::input(), Region::input_head()),
            (
                "keys",
                Region::lifecycle_to(Role::Gpu),
                Region::lifecycle_to_head(Role::Gpu),
            ),
        ]
        .map(|(name, producer, head)| (name, Self::new(name, producer, head)))
    }

    /// Every record ring, those of [`Self::reported`] first.
    pub fn all() -> Vec<Self> {
        let mut all: Vec<Self> = Self::reported().into_iter().map(|(_, ring)| ring).collect();
        for n in 1..MAX_VCPUS {
            let name = format!("commands {n}");
            all.push(Self::new(name, Region::command(n), Region::command_head(n)));
        }
        for role in Role::WORKERS {
            if role != Role::Gpu {
                let (to, head) = (Region::lifecycle_to(role), Region::lifecycle_to_head(role));
                all.push(Self::new(format!("to {}", role.name()), to, head));
            }
            let (from, head) = (Region::lifecycle_from(role), Region::lifecycle_from_head(role));
            all.push(Self::new(format!("from {}", role.name()), from, head));
        }
        for role in Role::ALL {
            let name = format!("trace {}", role.name());
            all.push(Self::new(name, Region::trace(role), Region::trace_head(role)));
        }
        all
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::layout::regions;
    use crate::ring::ring_size;
    use std::collections::BTreeSet;

    #[test]
    fn every_ring_lies_in_listed_regions_and_has_a_name_of_its_own() {
        let (all, regions) = (RingRegions::all(), regions());
        let names: BTreeSet<_> = all.iter().map(|r| r.name.clone()).collect();
        assert_eq!(names.len(), all.len());
        for ring in &all {
            for part in [ring.producer, ring.head] {
                let inside = |r: &&Region| {
                    r.file == part.file
                        && (r.offset..=r.offset + r.len).contains(&part.offset)
                        && part.offset + part.len <= r.offset + r.len
                };
                assert!(regions.iter().any(|r| inside(&r)), "{}: {part:?}", ring.name);
            }
            assert!(
                (ring.producer.len - ring_size(0)).is_power_of_two(),
                "{}",
                ring.name
            );
        }
        // Whatever the layout calls a ring is here.
        let listed = regions.iter().filter(|r| r.name.ends_with(" ring"));
        for region in listed {
            assert!(all.iter().any(|ring| ring.producer == *region), "{region:?}");
        }
    }
}
