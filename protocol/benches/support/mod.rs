//! The two ends of a machine's rings for the benchmarks.
//!
//! The peer is a thread with its own map of the same files: for cache lines and non-private futexes that is what
//! another process is.

use std::sync::Arc;
use std::thread::JoinHandle;

use quintet_protocol::handshake::Role;
use quintet_protocol::layout::{Ends, SegmentSet};
use quintet_protocol::ram::RamLayout;
use quintet_protocol::sync::{AtomicBool, Ordering};

pub struct Machine {
    pub cpu: Ends,
    pub io: Ends,
}

pub fn machine() -> Machine {
    let set = segments();
    Machine {
        cpu: ends(&set, Role::Cpu),
        io: ends(&set, Role::Io),
    }
}

pub fn segments() -> SegmentSet {
    SegmentSet::create(RamLayout::new(1 << 20), 1).expect("segments")
}

pub fn ends(set: &SegmentSet, role: Role) -> Ends {
    Ends::new(&set.maps(role).expect("maps"))
}

/// A peer thread that runs until the value is dropped.
pub struct Peer {
    pub stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    pub fn new(run: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || run(&stop)
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
