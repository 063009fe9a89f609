//! Linear memories: the first is guest RAM from guest physical zero, a further one lies in a file of its own (S2.25).
#![allow(unsafe_code, reason = "implements wasmtime's memory traits over guest RAM")]

use std::sync::{Arc, Mutex, MutexGuard};

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::handshake::{FileId, MapSet};
use quintet_protocol::layout::{Ends, Region};
use quintet_protocol::ram::{GuestRam, RamLayout, WASM_PAGE};
use quintet_protocol::shm::RamAlias;
use quintet_protocol::wasm::MemoryWriter;
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

/// An access of an import to bytes that are not the module's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at {at:#x} are not all inside a linear memory of {size:#x} bytes")]
pub struct OutOfBounds {
    /// First byte.
    pub at: u64,
    /// Bytes.
    pub len: u64,
    /// Size of the memory in bytes.
    pub size: u64,
}

/// One linear memory, or its place.
#[derive(Debug)]
struct Place {
    ram: GuestRam,
    words: MemoryWriter,
    /// Size of the memory there is, in bytes.
    live: Option<u64>,
}

#[derive(Debug)]
struct State {
    /// In the order of a module's memories.
    places: Vec<Place>,
    /// The most that all memories of the next module may have together, in bytes.
    most: u64,
}

impl State {
    /// Bytes of all memories but the one in `place`.
    fn others(&self, place: usize) -> u64 {
        let places = self.places.iter().enumerate();
        places
            .filter(|(n, _)| *n != place)
            .filter_map(|(_, p)| p.live)
            .sum()
    }
}

/// The places of one module's linear memories at a time: guest RAM, and files of their own for further ones. Cloning is
/// cheap.
#[derive(Clone, Debug)]
pub struct GuestMemory {
    /// Guest RAM, the first memory: what imports read and write.
    ram: GuestRam,
    state: Arc<Mutex<State>>,
}

impl GuestMemory {
    /// Over `ram`, a shared map of guest RAM, and the further memories among `maps`; `owner` is the number of the process
    /// that publishes their states.
    pub fn attach(ram: GuestRam, maps: &MapSet, owner: u32) -> Self {
        let ends = Ends::new(maps);
        let layout = RamLayout::new(ram.layout().low());
        let further = FileId::MEMORIES.into_iter().filter_map(|file| maps.map(file));
        // Behind the head of its file, as guest physical zero lies behind that of guest RAM.
        let further = further.map(|map| GuestRam::of_map(Arc::clone(map), layout));
        let places = std::iter::once(ram.clone()).chain(further).enumerate();
        let places = places.map(|(n, ram)| Place {
            ram,
            words: MemoryWriter::attach(ends.view_mut(Region::guest_memory(n)), n, owner),
            live: None,
        });
        let state = State {
            places: places.collect(),
            most: layout.low(),
        };
        Self {
            ram,
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this")
    }

    /// The next module may have `bytes` of memory at most, and as much as RAM in any case.
    pub fn limit(&self, bytes: u64) {
        self.state().most = bytes.min(self.ram.layout().low());
    }

    /// Size of the first linear memory in bytes; `None` without one.
    pub fn size(&self) -> Option<u64> {
        self.state().places[0].live
    }

    /// A memory has grown, maybe by nothing: every view of it everywhere detaches (S2.3, S2.20), and no other memory's
    /// (S2.25).
    pub fn grown(&self, memory: usize) {
        if let Some(place) = self.state().places.get_mut(memory)
            && let Some(size) = place.live
        {
            place.words.grown(pages(size));
        }
    }

    /// Whether bytes are the module's.
    ///
    /// # Errors
    /// [`OutOfBounds`].
    pub fn check(&self, at: u32, len: usize) -> Result<(), OutOfBounds> {
        let (at, len, size) = (u64::from(at), len as u64, self.size().unwrap_or(0));
        if at + len <= size {
            Ok(())
        } else {
            Err(OutOfBounds { at, len, size })
        }
    }

    /// Copies bytes of the module out.
    ///
    /// # Errors
    /// [`OutOfBounds`]; nothing has been read then.
    pub fn read(&self, at: u32, into: &mut [u8]) -> Result<(), OutOfBounds> {
        self.check(at, into.len())?;
        self.ram
            .read(GuestPhys(at.into()), into)
            .expect("the memory lies inside RAM");
        Ok(())
    }

    /// Copies bytes in for the module.
    ///
    /// # Errors
    /// [`OutOfBounds`]; nothing has been written then.
    pub fn write(&self, at: u32, from: &[u8]) -> Result<(), OutOfBounds> {
        self.check(at, from.len())?;
        self.ram
            .write(GuestPhys(at.into()), from)
            .expect("the memory lies inside RAM");
        Ok(())
    }

    /// Reads a little-endian word.
    ///
    /// # Errors
    /// [`OutOfBounds`].
    pub fn word(&self, at: u32) -> Result<u32, OutOfBounds> {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Writes a little-endian word.
    ///
    /// # Errors
    /// [`OutOfBounds`].
    pub fn set_word(&self, at: u32, value: u32) -> Result<(), OutOfBounds> {
        self.write(at, &value.to_le_bytes())
    }
}

fn pages(bytes: u64) -> u32 {
    (bytes / WASM_PAGE) as u32
}

struct Linear {
    alias: RamAlias,
    size: usize,
    place: usize,
    memory: GuestMemory,
}

impl Drop for Linear {
    fn drop(&mut self) {
        // Views detach before the memory goes (S2.7): the alias is unmapped after this body.
        let mut state = self.memory.state();
        let place = &mut state.places[self.place];
        place.live = None;
        place.words.end();
    }
}

// SAFETY: the memory is zero at creation (its file is hole-punched), its base never moves, what lies behind its size up to
// the end of reservation and guard is inaccessible (`RamAlias` exposes exactly what `grow_to` asks for), and wasmtime
// is the only one in this process that dereferences the alias. Other processes write the same pages, which is what
// guest RAM is for: compiled code makes no assumption about the bytes.
unsafe impl LinearMemory for Linear {
    fn byte_size(&self) -> usize {
        self.size
    }

    fn byte_capacity(&self) -> usize {
        self.alias.capacity()
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        let mut state = self.memory.state();
        if state.others(self.place) + new_size as u64 > state.most {
            return Err(wasmtime::Error::msg("the module has no more memory"));
        }
        self.alias.expose(new_size).map_err(wasmtime::Error::new)?;
        self.size = new_size;
        // Published by the hook behind `memory.grow`, or by the host function that grows: also a growth by nothing is
        // one, and is not seen here.
        state.places[self.place].live = Some(new_size as u64);
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.alias.base()
    }
}

// SAFETY: as for the memory above; reservation and guard are as asked for.
unsafe impl MemoryCreator for GuestMemory {
    /// Memories come in the order of their numbers: the next one takes the first place that is free.
    fn new_memory(
        &self,
        _ty: MemoryType,
        minimum: usize,
        maximum: Option<usize>,
        reserved_size_in_bytes: Option<usize>,
        guard_size_in_bytes: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let mut state = self.state();
        let n = state.places.iter().position(|p| p.live.is_none());
        let n = n.ok_or_else(|| format!("{} linear memories are the most", state.places.len()))?;
        let low = self.ram.layout().low();
        let others = state.others(n);
        let wanted = others + minimum as u64;
        if wanted > low {
            return Err(format!(
                "the module asks for {wanted} bytes of memory, guest RAM below 4 GiB has {low}; try a larger --ram"
            ));
        }
        if wanted > state.most {
            let most = state.most;
            return Err(format!(
                "the module asks for {wanted} bytes of memory, the job may have {most}"
            ));
        }
        let capacity = maximum.unwrap_or(usize::MAX).min((state.most - others) as usize);
        let reserved = reserved_size_in_bytes.ok_or("no reservation is asked for")?;
        let reserve = reserved
            .checked_add(guard_size_in_bytes)
            .ok_or("the reservation is too large")?;
        let place = &mut state.places[n];
        place
            .ram
            .zero()
            .map_err(|e| format!("the memory cannot be zeroed: {e}"))?;
        let mut alias = RamAlias::reserve(&place.ram, capacity, reserve).map_err(|e| e.to_string())?;
        alias.expose(minimum).map_err(|e| e.to_string())?;
        place.live = Some(minimum as u64);
        place.words.begin(pages(minimum as u64), pages(capacity as u64));
        drop(state);
        Ok(Box::new(Linear {
            alias,
            size: minimum,
            place: n,
            memory: self.clone(),
        }))
    }
}
