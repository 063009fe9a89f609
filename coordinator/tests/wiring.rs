//! Workers that are wired to other memory than the coordinator's.

mod harness;

use std::io::Read as _;
use std::sync::Arc;
use std::sync::mpsc::channel;

use quintet_coordinator::machine::{Event, Waker};
use quintet_coordinator::supervise::binaries::Binaries;
use quintet_coordinator::supervise::spawner::Spawner;
use quintet_coordinator::supervise::start::{Common, Heads, Plan, begin};
use quintet_protocol::handshake::worker::EXIT_FAILED;
use quintet_protocol::handshake::{Confinement, Role};
use quintet_protocol::layout::SegmentSet;
use quintet_protocol::ram::RamLayout;
use quintet_protocol::status::{StatusReader, StatusWord};

#[test]
fn s3_23_a_worker_wired_to_other_memory_ends_by_name_before_it_executes_anything() {
    // Two machines' files that only their contents tell apart: the coordinator looks at one, the worker has the other.
    let ram = RamLayout::new(1 << 20);
    let [ours, theirs] = [(), ()].map(|()| SegmentSet::create(ram, 7).expect("files"));
    let theirs = Arc::new(theirs);
    let status = theirs.maps(Role::Coordinator).expect("maps");
    let (parent_pipe, _lifeline) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let common = Arc::new(Common {
        heads: Heads::map(&ours).expect("heads"),
        set: Arc::clone(&theirs),
        binaries: Binaries::open_near(harness::quintet().parent().expect("a directory")).expect("workers"),
        payloads: Vec::new(),
        parent_pipe,
    });
    let spawner = Spawner::start(false).expect("a thread");
    let (sender, events) = channel();
    for role in Role::WORKERS {
        let plan = Plan {
            role,
            config: Vec::new(),
            host_fds: Vec::new(),
            confinement: Confinement::default(),
            log: String::new(),
        };
        let waker = Waker::new().expect("an eventfd");
        let begun = begin(&common, &plan, None, 1, &spawner, (sender.clone(), waker)).expect("it starts");
        let Ok(Event::Started { result, .. }) = events.recv_timeout(harness::PATIENCE) else {
            panic!("the {role} says nothing");
        };
        let reason = result.expect_err("its wiring is wrong");
        assert!(reason.contains(&format!("Wiring of the {role}")), "{reason}");
        assert!(reason.contains("coordinator to worker, offset"), "{reason}");
        let mut child = begun.spawned.child;
        let mut said = String::new();
        let stderr = child.stderr.as_mut().expect("piped");
        stderr.read_to_string(&mut said).expect("text");
        assert_eq!(
            child.wait().expect("it ended").code(),
            Some(i32::from(EXIT_FAILED)),
            "{said}"
        );
        assert!(said.contains(&reason), "{said}");
        // Whatever runs says first that it starts; this one said nothing at all in the memory that it had.
        let state = StatusReader::of(&status, role).load(StatusWord::WorkerState);
        assert_eq!(state, 0, "the {role} has run");
    }
}
