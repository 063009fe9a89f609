//! A machine's memory and a runtime in one process: modules from text to report without any other process.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::sync::{Arc, Mutex};

use quintet_protocol::handshake::Role;
use quintet_protocol::layout::{Ends, Region, SegmentSet};
use quintet_protocol::payload::{Payload, PayloadKind};
use quintet_protocol::ram::{RamLayout, WASM_PAGE};
use quintet_protocol::shm::View;
use quintet_protocol::wasm::{
    CompileLimits, JobLimits, JobOutcome, LiveMemory, MemoryReader, WasmConfig, memory_file,
};
use quintet_wasm::host::{Stopped, Surroundings};
use quintet_wasm::memory::GuestMemory;
use quintet_wasm::run::Runtime;
use quintet_wasm_compile::compile;

/// Pages of guest RAM.
pub const PAGES: u64 = 64;

/// What the module sees of its process; shared with the test.
#[derive(Clone, Default)]
pub struct Recorder {
    pub out: Arc<Mutex<[Vec<u8>; 2]>>,
    pub input: Arc<Mutex<Vec<u8>>>,
    /// Looks at the machine until it is stopped; `None` never stops it.
    pub ticks: Arc<Mutex<Option<u32>>>,
    /// VM time: every look takes 20 ms.
    pub clock: Arc<Mutex<u64>>,
}

impl Surroundings for Recorder {
    fn tick(&mut self) -> Result<(), Stopped> {
        *self.clock.lock().unwrap() += 20_000_000;
        match self.ticks.lock().unwrap().as_mut() {
            Some(0) => Err(Stopped),
            Some(n) => {
                *n -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn write(&mut self, stream: usize, bytes: &[u8]) -> Result<usize, Stopped> {
        self.out.lock().unwrap()[stream].extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn read(&mut self, into: &mut [u8]) -> Result<Option<usize>, Stopped> {
        let mut input = self.input.lock().unwrap();
        let n = input.len().min(into.len());
        into[..n].copy_from_slice(&input[..n]);
        input.drain(..n);
        Ok((n != 0).then_some(n))
    }

    fn now(&self) -> u64 {
        *self.clock.lock().unwrap()
    }

    fn doze(&mut self, _nanos: u64) {}
}

/// The rig.
pub struct Rig {
    pub set: SegmentSet,
    pub runtime: Runtime,
    pub around: Recorder,
}

impl Rig {
    pub fn new() -> Self {
        Self::with_pages(PAGES)
    }

    pub fn with_pages(pages: u64) -> Self {
        let set = SegmentSet::create(RamLayout::new(pages * WASM_PAGE), 3).expect("files");
        let set = set.with_memories().expect("files");
        let maps = set.maps(Role::Cpu).expect("maps");
        let memory = GuestMemory::attach(set.guest_ram().expect("ram"), &maps, 1);
        Self {
            runtime: Runtime::new(memory).expect("engine"),
            set,
            around: Recorder::default(),
        }
    }

    /// The memory through other maps of the same files, as another process has them.
    pub fn peer(&self) -> LiveMemory {
        let maps = self.set.maps(Role::Io).expect("maps");
        let words = MemoryReader::new(Ends::new(&maps).view(Region::guest_memory(0)));
        LiveMemory::new(words, None, self.set.guest_ram().expect("ram"))
    }

    /// As [`Self::peer`], one of the module's memories, read-only.
    pub fn peer_of(&self, memory: usize) -> LiveMemory {
        let maps = self.set.maps(Role::Gpu).expect("maps");
        let words = MemoryReader::new(Ends::new(&maps).view(Region::guest_memory(memory)));
        let map = maps.map(memory_file(memory)).expect("mapped");
        LiveMemory::read_only(words, None, View::new(Arc::clone(map)))
    }

    pub fn run(&self, module: &[u8], config: &WasmConfig) -> Option<JobOutcome> {
        self.run_limited(module, config, JobLimits::NONE)
    }

    pub fn run_limited(&self, module: &[u8], config: &WasmConfig, limits: JobLimits) -> Option<JobOutcome> {
        let artefact = compile(module, &CompileLimits::default()).expect("compiles");
        let payload = Payload::from_vec(PayloadKind::WasmArtefact, artefact.bytes);
        self.runtime
            .run(&payload, config, limits, Box::new(self.around.clone()))
    }

    pub fn wat(&self, text: &str) -> JobOutcome {
        let module = wat::parse_str(text).expect("assembles");
        self.run(&module, &WasmConfig::default())
            .expect("nobody stops it")
    }

    /// The generation that the last memory ended with; its end counts one.
    pub fn generations(&self) -> u32 {
        self.peer().words().expect("words").generation
    }
}
