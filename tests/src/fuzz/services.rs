//! The imports of a WebAssembly module with hostile arguments, and the io-worker's end of them.
//!
//! The functions that a module could import (WASI and the `quintet` namespace) are called as it would call them, over a
//! linear memory that the input writes, so that neither a compiler nor a process is needed. What they ask io-worker for
//! is answered by the real services over real directories; a bit of the input has calls that no honest cpu-worker makes,
//! another one answers that no honest io-worker gives.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use arbitrary::Unstructured;
use quintet_io_worker::module::{Inputs, Services};
use quintet_protocol::addr::GuestPhys;
use quintet_protocol::handshake::Role;
use quintet_protocol::input::InputEvent;
use quintet_protocol::layout::{Ends, SegmentSet};
use quintet_protocol::message::{Command, MAX_COMMAND};
use quintet_protocol::ram::{GuestRam, RamLayout, WASM_PAGE};
use quintet_protocol::wasm::{Errno, JobLimits, Service, WasmConfig};
use quintet_wasm::host::{Exited, Host, Stopped, Surroundings, TimedOut};
use quintet_wasm::memory::{GuestMemory, OutOfBounds};
use quintet_wasm::run::Runtime;
use quintet_wasm::screen::Screen;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use wasmtime::{Extern, Func, MemoryType, Store, Val, ValType};

/// Bytes of RAM; the module has the first [`MEMORY`] of them.
const RAM: u64 = 4 * WASM_PAGE;
/// Bytes of the module's memory.
const MEMORY: u64 = WASM_PAGE;
/// What lies in RAM behind the module's memory.
const BEHIND: u8 = 0xA5;
/// Most calls of an input.
const CALLS: usize = 96;
/// How often a call may look up before the machine is stopped.
const TICKS: u32 = 256;
/// Highest error number of WASI preview 1.
const LAST_ERRNO: i32 = 76;
/// Most bytes of an answer that a liar gives: what a reply has room for, about.
const LIE: usize = 128;

/// Paths that programs would not use, and some that they would; each at a multiple of [`PLACE`].
const PATHS: [&str; 16] = [
    "file",
    "sub",
    "sub/deep",
    "../outside/secret",
    "sub/../../outside",
    "/etc/hostname",
    "out",
    "out/secret",
    "up/outside/secret",
    "loop",
    "pipe",
    ".",
    "..",
    "new",
    "new/",
    "sub//./deep/.",
];
/// Bytes between two paths in memory.
const PLACE: u32 = 64;
/// Where the list of buffers lies: address, length; a subscription of `poll_oneoff` is read there too.
const LIST: u32 = 0x1000;
/// Where there is room for results.
const ROOM: u32 = 0x2000;

/// What the module's process and io-worker have, without their processes.
struct Peer {
    services: Services,
    inputs: Events,
    /// Answers are these bytes, round and round, when there are any.
    lies: Vec<u8>,
    told: usize,
    ticks: u32,
    clock: u64,
}

struct Events(Vec<InputEvent>);

impl Inputs for Events {
    fn take_event(&mut self) -> Option<InputEvent> {
        self.0.pop()
    }
}

impl Peer {
    /// As a command arrives.
    fn ask(&mut self, service: u16, words: [u64; 3]) -> Result<Vec<u8>, Errno> {
        let mut buffer = [0; MAX_COMMAND];
        let len = Command::ModuleCall { service, words }.encode(&mut buffer);
        let reply = self.services.answer(&buffer[..len], &mut self.inputs);
        let reply = reply.expect("a module's call is answered");
        let (errno, data) = reply.split_first_chunk().expect("an error number");
        match u32::from_le_bytes(*errno) {
            0 => Ok(data.to_vec()),
            errno => {
                assert!(data.is_empty(), "data with an error");
                assert!(errno <= LAST_ERRNO as u32, "error {errno}");
                Err(Errno(errno as u16))
            }
        }
    }

    /// The next lie.
    fn lie(&mut self) -> Result<Vec<u8>, Errno> {
        let mut next = || {
            self.told += 1;
            self.lies[self.told % self.lies.len()]
        };
        match next() {
            errno @ 1..64 => Err(Errno(errno.into())),
            len => {
                let len = usize::from(len) % LIE;
                Ok((0..len).map(|_| next()).collect())
            }
        }
    }
}

/// The surroundings, which the target has as well.
struct Around {
    peer: Arc<Mutex<Peer>>,
    screen: Screen,
}

impl Around {
    fn peer(&self) -> MutexGuard<'_, Peer> {
        self.peer.lock().expect("one thread")
    }
}

impl Surroundings for Around {
    fn tick(&mut self) -> Result<(), Stopped> {
        let mut peer = self.peer();
        peer.clock += 1_000_000;
        peer.ticks = peer.ticks.checked_sub(1).ok_or(Stopped)?;
        Ok(())
    }

    fn write(&mut self, stream: usize, bytes: &[u8]) -> Result<usize, Stopped> {
        assert!(stream < 2 && !bytes.is_empty());
        Ok(bytes.len().min(4096))
    }

    fn read(&mut self, into: &mut [u8]) -> Result<Option<usize>, Stopped> {
        let n = into.len().min(3);
        into[..n].copy_from_slice(&b"in\n"[..n]);
        Ok(Some(n))
    }

    fn now(&self) -> u64 {
        self.peer().clock
    }

    fn doze(&mut self, nanos: u64) {
        let mut peer = self.peer();
        peer.clock = peer.clock.saturating_add(nanos);
    }

    fn service(&mut self, service: Service) -> Result<Result<Vec<u8>, Errno>, Stopped> {
        let mut peer = self.peer();
        peer.ticks = peer.ticks.checked_sub(1).ok_or(Stopped)?;
        if !peer.lies.is_empty() {
            return Ok(peer.lie());
        }
        let (number, words) = service.to_words();
        assert_eq!(
            Service::from_words(number, words),
            Some(service),
            "a call that is cut"
        );
        Ok(peer.ask(number, words))
    }

    fn screen(&mut self) -> Option<&mut Screen> {
        Some(&mut self.screen)
    }
}

/// A folder that is given, and one beside it that is not.
struct Folders(PathBuf);

impl Folders {
    fn new() -> Self {
        let root = std::env::temp_dir().join(format!("quintet-services-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for dir in ["given/sub/deep", "outside"] {
            fs::create_dir_all(root.join(dir)).expect("a folder");
        }
        fs::write(root.join("outside/secret"), "secret").expect("a file");
        fs::write(root.join("given/file"), "contents").expect("a file");
        let given = root.join("given");
        for (to, name) in [
            (root.join("outside").as_path(), "out"),
            (Path::new(".."), "up"),
            (Path::new("loop"), "loop"),
        ] {
            symlink(to, given.join(name)).expect("a link");
        }
        mknodat(CWD, given.join("pipe"), FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
        Self(root)
    }

    /// What is outside is as it was.
    fn check(&self) {
        let names = |dir: &Path| -> Vec<_> {
            let entries = fs::read_dir(dir).expect("a folder");
            entries.map(|e| e.expect("an entry").file_name()).collect()
        };
        let outside = self.0.join("outside");
        assert_eq!(names(&outside), ["secret"]);
        assert_eq!(fs::read(outside.join("secret")).expect("a file"), b"secret");
        let mut beside = names(&self.0);
        beside.sort();
        assert_eq!(beside, ["given", "outside"]);
    }

    /// Descriptors of this process that lead into these folders.
    fn descriptors(&self) -> usize {
        let entries = fs::read_dir("/proc/self/fd").expect("procfs");
        let targets = entries.flatten().filter_map(|e| fs::read_link(e.path()).ok());
        targets.filter(|target| target.starts_with(&self.0)).count()
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What stays from one input to the next: files, maps, and an engine with its thread.
struct Rig {
    set: SegmentSet,
    ram: GuestRam,
    runtime: Runtime,
}

impl Rig {
    fn new() -> Self {
        let set = SegmentSet::create(RamLayout::new(RAM), 1).expect("files");
        let set = set.with_memories().expect("files");
        let ram = set.guest_ram().expect("ram");
        let maps = set.maps(Role::Cpu).expect("maps");
        let memory = GuestMemory::attach(ram.clone(), &maps, 1);
        Self {
            runtime: Runtime::new(memory).expect("an engine"),
            set,
            ram,
        }
    }
}

thread_local! {
    static RIG: RefCell<Option<Rig>> = const { RefCell::new(None) };
}

/// Arguments as hostile modules have them.
struct Arguments {
    /// Length of the path whose address was the last argument.
    path: Option<u32>,
}

impl Arguments {
    fn word(&mut self, u: &mut Unstructured<'_>) -> u32 {
        let byte = u.arbitrary::<u8>().unwrap_or(0);
        let low = u32::from(byte & 15);
        let path = self.path.take();
        match (byte >> 4, path) {
            // Behind an address, its length more often than not.
            (0..8, Some(len)) => len,
            (0..3, None) => low,
            (3..6, None) => {
                self.path = Some(PATHS[low as usize].len() as u32);
                PLACE * low
            }
            (6 | 7, None) => LIST + 8 * low,
            (8..10, _) => ROOM + 32 * low,
            (10 | 11, _) => MEMORY as u32 - low,
            (12, _) => low.wrapping_neg(),
            (13, _) => 1 << (2 * low),
            _ => u.arbitrary().unwrap_or(0),
        }
    }

    /// A descriptor: mostly the directory or one of the first that were opened.
    fn descriptor(&mut self, u: &mut Unstructured<'_>) -> Val {
        match u.arbitrary::<u8>().unwrap_or(0) {
            0..128 => Val::I32(3),
            byte @ 128..224 => Val::I32(4 + i32::from(byte & 3)),
            _ => Val::I32(self.word(u) as i32),
        }
    }

    fn value(&mut self, u: &mut Unstructured<'_>, ty: &ValType) -> Val {
        match ty {
            ValType::I64 => Val::I64(match self.word(u) {
                word if word & 1 == 0 => word.into(),
                word => i64::from(word as i32),
            }),
            _ => Val::I32(self.word(u) as i32),
        }
    }
}

/// What a module's imports do with an input.
///
/// # Panics
/// When a call ends as none may, or when something has changed that no module reaches: RAM that is not its own, and what
/// lies beside the directory that it was given.
pub fn services(data: &[u8]) {
    RIG.with_borrow_mut(|rig| with_rig(rig.get_or_insert_with(Rig::new), data));
}

fn with_rig(rig: &Rig, data: &[u8]) {
    let u = &mut Unstructured::new(data);
    let kind = u.arbitrary::<u8>().unwrap_or(0);
    let (forged, lying) = (kind & 3 == 1, kind & 3 == 2);
    let folders = Folders::new();
    let ends = Ends::new(&rig.set.maps(Role::Io).expect("maps"));
    let given = fs::File::open(folders.0.join("given")).expect("a directory");
    let dirs = vec![("data".to_owned(), given.into())];
    let lies = match lying {
        true => u.bytes(u.len().min(64)).unwrap_or_default().to_vec(),
        false => Vec::new(),
    };
    let peer = Arc::new(Mutex::new(Peer {
        services: Services::new(dirs, u32::from(kind >> 2), rig.ram.clone(), ends),
        inputs: Events(vec![InputEvent::ReleaseAll, InputEvent::Motion { dx: -1, dy: 2 }]),
        lies,
        told: 0,
        ticks: TICKS,
        clock: 0,
    }));
    let screen = Ends::new(&rig.set.maps(Role::Cpu).expect("maps")).vram_writer();
    let around = Around {
        peer: Arc::clone(&peer),
        screen: Screen::new(screen.expect("display memory")),
    };
    let config = WasmConfig {
        args: vec!["program".into(), "--option".into()],
        seed: 1,
        ..WasmConfig::default()
    };
    let limits = JobLimits {
        millis: 10_000,
        ..JobLimits::NONE
    };
    let prepared = rig.runtime.prepare(&config, limits, Box::new(around));
    let Ok((mut store, linker)) = prepared else {
        assert!(lying, "an honest io-worker lets a module begin");
        return;
    };
    let memory = wasmtime::Memory::new(&mut store, MemoryType::new(1, Some(1)));
    memory.expect("a memory of one page");
    let mut functions: Vec<(String, Func)> = linker
        .iter(&mut store)
        .filter_map(|(module, name, item)| match item {
            Extern::Func(f) => Some((format!("{module} {name}"), f)),
            _ => None,
        })
        .collect();
    functions.sort_by(|a, b| a.0.cmp(&b.0));
    let put = |at: u32, bytes: &[u8]| rig.ram.write(GuestPhys(at.into()), bytes).expect("inside");
    for (n, path) in PATHS.iter().enumerate() {
        put(PLACE * n as u32, path.as_bytes());
    }
    let behind = vec![BEHIND; (RAM - MEMORY) as usize];
    put(MEMORY as u32, &behind);
    for _ in 0..CALLS {
        if u.is_empty() {
            break;
        }
        peer.lock().expect("one thread").ticks = TICKS;
        match u.arbitrary::<u8>().unwrap_or(0) {
            // The module writes its memory.
            op @ 0..32 => put(
                LIST + 4 * u32::from(op),
                &Arguments { path: None }.word(u).to_le_bytes(),
            ),
            // Something else wears the cpu-worker's clothes.
            op @ 32..64 if forged => {
                let words = std::array::from_fn(|_| u.arbitrary::<u64>().unwrap_or(0));
                let _ = peer.lock().expect("one thread").ask(u16::from(op - 32), words);
            }
            op => {
                let (name, function) = &functions[usize::from(op) % functions.len()];
                call(&mut store, name, *function, u);
            }
        }
    }
    drop(store);
    if !forged {
        let mut now = vec![0; behind.len()];
        rig.ram.read(GuestPhys(MEMORY), &mut now).expect("inside");
        assert!(now == behind, "RAM behind the module's memory has changed");
    }
    folders.check();
    let begun = peer.lock().expect("one thread").ask(0, [0; 3]);
    begun.expect("another module may begin");
    assert_eq!(
        folders.descriptors(),
        1,
        "files of a module that is gone are open"
    );
}

/// Calls a function, which ends with an answer of the standard, or ends the module in one of the ways there are.
fn call(store: &mut Store<Host>, name: &str, function: Func, u: &mut Unstructured<'_>) {
    let ty = function.ty(&*store);
    let mut arguments = Arguments { path: None };
    let of_file = name.contains(" fd_") || name.contains(" path_");
    let parameters: Vec<Val> = ty
        .params()
        .enumerate()
        .map(|(n, ty)| match n {
            0 if of_file => arguments.descriptor(u),
            _ => arguments.value(u, &ty),
        })
        .collect();
    let mut results: Vec<Val> = ty.results().filter_map(|ty| Val::default_for_ty(&ty)).collect();
    match function.call(&mut *store, &parameters, &mut results) {
        Ok(()) => {
            if let (true, [Val::I32(errno)]) = (name.starts_with("wasi"), &results[..]) {
                assert!((0..=LAST_ERRNO).contains(errno), "{name} answers {errno}");
            }
        }
        Err(e) => assert!(
            e.is::<OutOfBounds>() || e.is::<Exited>() || e.is::<Stopped>() || e.is::<TimedOut>(),
            "{name}: {e:?}"
        ),
    }
}
