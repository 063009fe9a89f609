//! Linear memory as guest RAM from guest physical zero.
#![allow(unsafe_code, reason = "implements wasmtime's memory traits over guest RAM")]

use std::sync::{Arc, Mutex, MutexGuard};

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::ram::{GuestRam, WASM_PAGE};
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

#[derive(Debug)]
struct State {
    words: MemoryWriter,
    /// Size of the memory there is, in bytes.
    live: Option<u64>,
    /// The most that the next memory may have, in bytes.
    most: u64,
}

/// Guest RAM as the place of one linear memory at a time. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct GuestMemory {
    ram: GuestRam,
    state: Arc<Mutex<State>>,
}

impl GuestMemory {
    /// Over a shared map of guest RAM; `words` publish its state.
    pub fn new(ram: GuestRam, words: MemoryWriter) -> Self {
        let state = State {
            words,
            live: None,
            most: u64::MAX,
        };
        Self {
            ram,
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this")
    }

    /// The next memory may have `bytes` at most, and as much as RAM in any case.
    pub fn limit(&self, bytes: u64) {
        self.state().most = bytes;
    }

    /// Size of the linear memory in bytes; `None` without one.
    pub fn size(&self) -> Option<u64> {
        self.state().live
    }

    /// The memory has grown, maybe by nothing: every view everywhere detaches (S2.3, S2.20).
    pub fn grown(&self) {
        let mut state = self.state();
        if let Some(size) = state.live {
            state.words.grown(pages(size));
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
    memory: GuestMemory,
}

impl Drop for Linear {
    fn drop(&mut self) {
        // Views detach before the memory goes (S2.7): the alias is unmapped after this body.
        let mut state = self.memory.state();
        state.live = None;
        state.words.end();
    }
}

// SAFETY: the memory is zero at creation (RAM is hole-punched), its base never moves, what lies behind its size up to
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
        self.alias.expose(new_size).map_err(wasmtime::Error::new)?;
        self.size = new_size;
        // Published by the hook behind `memory.grow`, or by the host function that grows: also a growth by nothing is
        // one, and is not seen here.
        self.memory.state().live = Some(new_size as u64);
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.alias.base()
    }
}

// SAFETY: as for the memory above; reservation and guard are as asked for.
unsafe impl MemoryCreator for GuestMemory {
    fn new_memory(
        &self,
        _ty: MemoryType,
        minimum: usize,
        maximum: Option<usize>,
        reserved_size_in_bytes: Option<usize>,
        guard_size_in_bytes: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        if self.size().is_some() {
            return Err("a second linear memory; guest RAM is the first".to_owned());
        }
        let low = self.ram.layout().low() as usize;
        if minimum > low {
            return Err(format!(
                "the module asks for {minimum} bytes of memory, guest RAM below 4 GiB has {low}; try a larger --ram"
            ));
        }
        let most = usize::try_from(self.state().most).unwrap_or(usize::MAX);
        if minimum > most {
            return Err(format!(
                "the module asks for {minimum} bytes of memory, the job may have {most}"
            ));
        }
        let capacity = maximum.unwrap_or(usize::MAX).min(low).min(most);
        let reserved = reserved_size_in_bytes.ok_or("no reservation is asked for")?;
        let reserve = reserved
            .checked_add(guard_size_in_bytes)
            .ok_or("the reservation is too large")?;
        self.ram
            .zero()
            .map_err(|e| format!("guest RAM cannot be zeroed: {e}"))?;
        let mut alias = RamAlias::reserve(&self.ram, capacity, reserve).map_err(|e| e.to_string())?;
        alias.expose(minimum).map_err(|e| e.to_string())?;
        let mut state = self.state();
        state.live = Some(minimum as u64);
        state.words.begin(pages(minimum as u64), pages(capacity as u64));
        drop(state);
        Ok(Box::new(Linear {
            alias,
            size: minimum,
            memory: self.clone(),
        }))
    }
}
