//! `quintet watch`: the linear memory of a machine's module, live, in another process, as picture and hex.
//!
//! Three files are mapped, all opened read-only by the machine; from then on nothing is asked: what is shown and when a view
//! detaches comes out of the shared memory itself (S2.33).

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quintet_protocol::clock::VmClock;
use quintet_protocol::control::Request;
use quintet_protocol::handshake::{FileId, Role};
use quintet_protocol::layout::{Ends, Region};
use quintet_protocol::shm::View;
use quintet_protocol::status::StatusReader;
use quintet_protocol::wasm::{
    LiveMemory, MEMORIES, MemoryReader, MemoryState, MemoryView, ViewError, memory_file,
};

use crate::config::UsageError;
use crate::control::{attach, client};

/// Longest time between two pictures.
const FRAME: Duration = Duration::from_millis(100);
/// How often the machine is asked whether it is still there.
const LOOK: Duration = Duration::from_secs(1);
/// Cells of the picture: columns and rows.
const PICTURE: (usize, usize) = (64, 16);
/// Most bytes of a cell that are looked at: a picture of 3.5 GiB takes no longer than one of 4 MiB.
const MOST_OF_CELL: u64 = 4096;
/// From nothing to everything set.
const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];
/// Lines of hex, 16 bytes each.
const HEX_LINES: u64 = 8;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct WatchArgs {
    /// First byte of the hex.
    pub at: u64,
    /// How long to watch; without it until the machine ends.
    pub time: Option<Duration>,
    /// Which of the module's memories, from 0.
    pub memory: usize,
}

/// A machine's memory, mapped here, read-only.
#[derive(Debug)]
pub struct Watched {
    /// A linear memory of the module that it runs.
    pub memory: LiveMemory,
    /// VM time.
    pub clock: VmClock,
}

/// Maps what is needed of the machine `name` to see its module's memory number `memory`.
///
/// # Errors
/// [`UsageError`] when there is no such machine or memory, or it does not let its files be looked at.
pub fn attach(name: &str, memory: usize) -> Result<Watched, UsageError> {
    if memory >= MEMORIES {
        return Err(UsageError(format!(
            "A module has {MEMORIES} memories at most, 0 to {}",
            MEMORIES - 1
        )));
    }
    let file = memory_file(memory);
    let control = [Role::Coordinator, Role::Cpu].map(FileId::Control);
    let maps = attach::attach(name, &[control[0], control[1], file])?;
    let ends = Ends::new(&maps);
    let words = MemoryReader::new(ends.view(Region::guest_memory(memory)));
    let status = StatusReader::of(&maps, Role::Coordinator);
    let bytes = maps.map(file).expect("mapped above");
    Ok(Watched {
        memory: LiveMemory::read_only(words, Some(status), View::new(Arc::clone(bytes))),
        clock: ends.clock(),
    })
}

/// Shows a machine's memory until it ends.
///
/// # Errors
/// As [`attach()`].
pub fn watch(name: &str, args: &WatchArgs) -> Result<u8, UsageError> {
    let watched = attach(name, args.memory)?;
    let screen = std::io::stdout().is_terminal();
    let mut out = std::io::stdout().lock();
    let begun = Instant::now();
    let mut looked = begun;
    let mut last = None;
    let mut events: Vec<String> = Vec::new();
    let mut view: Option<MemoryView> = None;
    // A write that fails is a reader who has gone: `quintet watch N | head`.
    let mut open = true;
    while open && args.time.is_none_or(|time| begun.elapsed() < time) {
        let (state, picture) = match &view {
            Some(v) => (heading(&watched, v), picture(v) + &hex(v, args.at)),
            None => ("no memory".to_owned(), String::new()),
        };
        if screen {
            let shown = events
                .iter()
                .rev()
                .take(6)
                .rev()
                .fold(String::new(), |s, e| s + e + "\n");
            open = write!(out, "\x1b[H\x1b[J{name}: {state}\n{picture}{shown}").is_ok();
        } else if last.as_ref() != Some(&picture) && !picture.is_empty() {
            open = write!(out, "{state}\n{picture}").is_ok();
        }
        last = Some(picture);
        let event = match view.take() {
            Some(old) => {
                let begun = Instant::now();
                if watched.memory.wait_detached(&old, FRAME) {
                    // No more pictures than the eye can follow, however often it grows.
                    std::thread::sleep(Duration::from_millis(20).saturating_sub(begun.elapsed()));
                    Some(detached(&watched, &old))
                } else {
                    view = Some(old);
                    None
                }
            }
            None => None,
        };
        if view.is_none() {
            match watched.memory.view() {
                Ok(new) => view = Some(new),
                Err(_) if event.is_none() => std::thread::sleep(FRAME),
                Err(_) => {}
            }
        }
        if let Some(event) = event {
            if !screen {
                open = writeln!(out, "{event}").is_ok();
            }
            events.push(event);
            let old = events.len().saturating_sub(6);
            events.drain(..old);
        }
        open = open && out.flush().is_ok();
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            if client::ask(name, &Request::Status).is_err() {
                let _ = writeln!(out, "the machine has ended");
                break;
            }
        }
    }
    Ok(0)
}

fn heading(watched: &Watched, view: &MemoryView) -> String {
    format!(
        "{} bytes, generation {}, {:.3} s",
        view.len(),
        view.generation(),
        watched.clock.now().0 as f64 / 1e9
    )
}

/// What became of a view.
fn detached(watched: &Watched, view: &MemoryView) -> String {
    let now = watched.clock.now().0 as f64 / 1e9;
    let had = view.generation();
    match (view.check(), watched.memory.words()) {
        (Err(ViewError::OwnerGone), _) => format!("{now:.3} s: the process that had the memory is gone"),
        (_, Ok(words)) if words.state == MemoryState::Live => format!(
            "{now:.3} s: detached, generation {had} -> {}, now {} bytes",
            words.generation,
            words.bytes()
        ),
        (_, Ok(words)) => format!(
            "{now:.3} s: detached, generation {had} -> {}, the memory is gone",
            words.generation
        ),
        (_, Err(e)) => format!("{now:.3} s: {e}"),
    }
}

/// The whole memory, a character for each part of it, the darker the more of its bytes are not zero.
fn picture(view: &MemoryView) -> String {
    let (columns, rows) = PICTURE;
    let len = view.len();
    let cell = len.div_ceil((columns * rows) as u64).max(1);
    let mut bytes = vec![0; cell.min(MOST_OF_CELL) as usize];
    let mut s = String::new();
    for row in 0..rows {
        s.push('|');
        for column in 0..columns {
            let at = (row * columns + column) as u64 * cell;
            let n = len.saturating_sub(at).min(bytes.len() as u64) as usize;
            // One that has been detached meanwhile shows nothing more; the next picture is of the new one.
            let set = match view.read(at, &mut bytes[..n]) {
                Ok(()) => bytes[..n].iter().filter(|b| **b != 0).count(),
                Err(_) => 0,
            };
            s.push(SHADES[(set * (SHADES.len() - 1)).div_ceil(n.max(1))]);
        }
        s.push_str("|\n");
    }
    s
}

/// Some lines of hex from `at` on.
fn hex(view: &MemoryView, at: u64) -> String {
    let mut s = String::new();
    for line in 0..HEX_LINES {
        let at = at.saturating_add(line * 16);
        let mut bytes = [0; 16];
        if view.read(at, &mut bytes).is_err() {
            break;
        }
        let _ = write!(s, "{at:08x}  ");
        for byte in bytes {
            let _ = write!(s, "{byte:02x} ");
        }
        let text: String = bytes
            .iter()
            .map(|b| {
                if b.is_ascii_graphic() || *b == b' ' {
                    *b as char
                } else {
                    '.'
                }
            })
            .collect();
        let _ = writeln!(s, " {text}");
    }
    s
}
