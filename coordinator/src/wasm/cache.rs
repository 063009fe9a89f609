//! Artefacts that may be wanted again, by what they were made of.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quintet_protocol::payload::{Digest, TransportChoice};
use quintet_protocol::wasm::CompileLimits;

use super::compile::Product;

/// Sketches that are kept; then one begins anew.
const MOST_SKETCHES: usize = 1 << 14;

/// What an artefact depends on. The compiler's settings are those of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Digest of the module.
    pub digest: Digest,
    /// What the compilation may cost: it decides what is refused.
    pub limits: CompileLimits,
    /// How the module travelled: the report says it.
    pub transport: TransportChoice,
    /// Whether the compiler was to copy it.
    pub refuse_map: bool,
}

/// One artefact, or its place while somebody makes it.
type Slot = Arc<Mutex<Option<Arc<Product>>>>;

#[derive(Debug, Default)]
struct Slots {
    slots: HashMap<Key, (Slot, u64)>,
    /// Of what was asked for.
    sketches: HashSet<u64>,
    clock: u64,
}

/// Artefacts in memory, the least recently used given up first. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Cache {
    slots: Arc<Mutex<Slots>>,
    most: u64,
}

impl Cache {
    /// Keeps `most` bytes of artefacts.
    pub fn new(most: u64) -> Self {
        Self {
            slots: Arc::default(),
            most,
        }
    }

    /// Whether a payload of this sketch ([`Relay::sketch`]) is asked for the first time. A guess: then its artefact is hardly there.
    ///
    /// [`Relay::sketch`]: quintet_protocol::payload::Relay::sketch
    pub fn is_new(&self, sketch: u64) -> bool {
        let mut slots = lock(&self.slots);
        if slots.sketches.len() >= MOST_SKETCHES {
            slots.sketches.clear();
        }
        slots.sketches.insert(sketch)
    }

    /// Lets `work` look at the place of the artefact for `key`, and fill it when it is empty. Whoever asks for one that is being made
    /// waits for it. A place that stays empty is given up: the next one tries again.
    pub fn with<T>(&self, key: Key, work: impl FnOnce(&mut Option<Arc<Product>>) -> T) -> T {
        let slot = {
            let mut slots = lock(&self.slots);
            slots.clock += 1;
            let now = slots.clock;
            let entry = slots.slots.entry(key).or_default();
            entry.1 = now;
            Arc::clone(&entry.0)
        };
        let mut place = lock(&slot);
        let was_there = place.is_some();
        let done = work(&mut place);
        let is_there = place.is_some();
        drop(place);
        match (was_there, is_there) {
            (false, true) => self.shrink(),
            (false, false) => self.forget(&key, &slot),
            (true, _) => {}
        }
        done
    }

    /// Gives up a place that nothing came into. Whoever waits for it fills it for himself.
    fn forget(&self, key: &Key, slot: &Slot) {
        let mut slots = lock(&self.slots);
        if slots.slots.get(key).is_some_and(|(s, _)| Arc::ptr_eq(s, slot)) {
            slots.slots.remove(key);
        }
    }

    /// Gives up the oldest until the rest fits.
    fn shrink(&self) {
        let mut slots = lock(&self.slots);
        let mut sizes: Vec<(u64, Key, u64)> = slots
            .slots
            .iter()
            .map(|(key, (slot, used))| {
                // One that is being made is of no size yet, and locked.
                let len = slot
                    .try_lock()
                    .ok()
                    .and_then(|p| p.as_ref().map(|p| p.payload.len()))
                    .unwrap_or(0);
                (*used, *key, len)
            })
            .collect();
        sizes.sort_by_key(|(used, ..)| *used);
        let mut total: u64 = sizes.iter().map(|(.., len)| len).sum();
        for (_, key, len) in sizes {
            if total <= self.most {
                break;
            }
            if len != 0 {
                slots.slots.remove(&key);
                total -= len;
            }
        }
    }

    /// Bytes and artefacts that are there.
    #[cfg(test)]
    fn contents(&self) -> (u64, usize) {
        let slots = lock(&self.slots);
        let lens = slots.slots.values().filter_map(|(slot, _)| {
            slot.try_lock()
                .ok()
                .and_then(|p| p.as_ref().map(|p| p.payload.len()))
        });
        lens.fold((0, 0), |(bytes, n), len| (bytes + len, n + 1))
    }
}

/// What a thread that panicked has left is whole: places are filled in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests {
    use quintet_protocol::payload::{Outgoing, PayloadKind, Strategy, TransportTrace, digest};
    use quintet_protocol::wasm::Compiled;

    use super::*;

    fn key(n: u8) -> Key {
        Key {
            digest: digest(&[n]),
            limits: CompileLimits::default(),
            transport: TransportChoice::BySize,
            refuse_map: false,
        }
    }

    /// An artefact of `len` bytes.
    pub fn product(len: usize) -> Product {
        let bytes = vec![1; len];
        Product {
            payload: Outgoing::new(PayloadKind::WasmArtefact, &bytes, TransportChoice::Memfd)
                .expect("payload"),
            compiled: Compiled {
                len: len as u64,
                digest: digest(&bytes),
                micros: [0; 3],
                instrumented: false,
            },
            strategy: Strategy::Inline,
            trace: TransportTrace::default(),
        }
    }

    /// Asks for an artefact that `made` brings if it is not there.
    fn get(cache: &Cache, n: u8, made: impl FnOnce() -> Option<Product>) -> Option<(Arc<Product>, bool)> {
        cache.with(key(n), |place| {
            if let Some(product) = place {
                return Some((Arc::clone(product), true));
            }
            *place = made().map(Arc::new);
            place.as_ref().map(|product| (Arc::clone(product), false))
        })
    }

    #[test]
    fn s1_36_the_same_module_gives_the_same_artefact_and_a_failure_is_not_kept() {
        let cache = Cache::new(1000);
        assert!(get(&cache, 1, || None).is_none());
        assert_eq!(cache.contents(), (0, 0));
        assert!(lock(&cache.slots).slots.is_empty(), "a failure has no place");
        let (first, cached) = get(&cache, 1, || Some(product(10))).expect("made");
        assert!(!cached);
        let (second, cached) = get(&cache, 1, || None).expect("kept");
        assert!(cached && Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn s1_36_whoever_asks_meanwhile_waits_for_the_same_artefact() {
        let cache = Cache::new(1000);
        let made = Arc::new(Mutex::new(0));
        let threads: Vec<_> = (0..32)
            .map(|_| {
                let (cache, made) = (cache.clone(), Arc::clone(&made));
                std::thread::spawn(move || {
                    let make = || {
                        *made.lock().expect("lock") += 1;
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Some(product(10))
                    };
                    get(&cache, 1, make).expect("made").0.payload.digest()
                })
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().expect("thread"), digest(&[1; 10]));
        }
        assert_eq!(*made.lock().expect("lock"), 1);
    }

    #[test]
    fn the_least_recently_used_is_given_up() {
        let cache = Cache::new(250);
        for n in [1, 2, 1, 3] {
            get(&cache, n, || Some(product(100))).expect("made");
        }
        assert_eq!(cache.contents(), (200, 2));
        assert!(get(&cache, 1, || None).is_some(), "used since");
        assert!(get(&cache, 2, || None).is_none(), "the oldest");
    }

    #[test]
    fn a_sketch_is_new_once_until_too_many_are_known() {
        let cache = Cache::new(1000);
        assert!(cache.is_new(7) && !cache.is_new(7));
        assert!((100..).take(MOST_SKETCHES).all(|n| cache.is_new(n)));
        assert!(cache.is_new(7), "forgotten");
    }
}
