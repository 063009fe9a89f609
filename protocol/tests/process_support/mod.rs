//! A second process for a test: the test binary runs itself again with one test selected, and that test finds in
//! its environment what to do and where the shared file is.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::Arc;

use quintet_protocol::shm::{Map, Segment, ViewMut};
use quintet_protocol::words::Steps;

const JOB: &str = "QUINTET_TEST_JOB";
const FILE: &str = "QUINTET_TEST_FILE";
const ARGUMENT: &str = "QUINTET_TEST_ARGUMENT";

/// Shared memory of a test, by name of its file so that a child can open it.
pub struct Shared {
    segment: Segment,
    pub memory: ViewMut,
}

impl Shared {
    pub fn new(len: u64) -> Self {
        let segment = Segment::create("process-test", len).unwrap();
        let memory = ViewMut::new(Arc::new(Map::read_write(segment.writer(), 0, len).unwrap()));
        Self { segment, memory }
    }

    /// Starts a child that runs `job` with `argument`; the test named `helper_process` must call [`job`].
    pub fn spawn(&self, job: &str, argument: u32) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "helper_process", "--nocapture", "--test-threads=1"])
            .env(JOB, job)
            .env(
                FILE,
                format!(
                    "/proc/{}/fd/{}",
                    std::process::id(),
                    self.segment.writer().as_raw_fd()
                ),
            )
            .env(ARGUMENT, argument.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Runs a child to its end, and tells whether it was killed.
    pub fn run_until_killed(&self, job: &str, argument: u32) -> bool {
        let status = self.spawn(job, argument).wait().unwrap();
        was_killed(status)
    }
}

/// Whether a child was killed by its own step; anything else than that or success is a failure.
pub fn was_killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    match status.signal() {
        Some(9) => true,
        _ => {
            assert!(status.success(), "the helper failed: {status}");
            false
        }
    }
}

/// In a child: the job, its argument, and the shared memory. `None` in the test run itself.
pub fn job() -> Option<(String, u32, ViewMut)> {
    let job = std::env::var(JOB).ok()?;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(std::env::var(FILE).unwrap())
        .unwrap();
    let map = Map::read_write(file.as_fd(), 0, file.metadata().unwrap().len()).unwrap();
    let argument = std::env::var(ARGUMENT).unwrap().parse().unwrap();
    Some((job, argument, ViewMut::new(Arc::new(map))))
}

/// Kills its process with SIGKILL at the n-th step from now, counted over all clones.
#[derive(Clone, Debug)]
pub struct KillAt(Rc<Cell<u32>>);

impl KillAt {
    pub fn new(steps: u32) -> Self {
        Self(Rc::new(Cell::new(steps)))
    }
}

impl Steps for KillAt {
    fn step(&self) {
        match self.0.get() {
            0 => {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                    .unwrap();
                unreachable!("SIGKILL cannot be waited for");
            }
            n => self.0.set(n - 1),
        }
    }
}
