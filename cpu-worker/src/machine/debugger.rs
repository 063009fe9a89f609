//! The guest's debugger in the life of the cpu-worker: its connection, and when it holds the vCPU.
//!
//! All of it happens on the vCPU's thread, between instructions. While nothing comes from gdb the vCPU makes no system call for it: a
//! count in a status word says whether there is something, and is looked at where the exit word leads anyway.
//!
//! A held vCPU says so in a status word of its own and parks; the coordinator then calls the machine paused and lets VM time
//! stand still. Single steps are executed while it stands, so a guest that is stepped sees no time pass and takes no interrupts, except that
//! a step from HLT lets time go on until an interrupt ends it.

use std::io::IoSlice;
use std::os::fd::OwnedFd;

use quintet_protocol::debugger::{MAX_BYTES, MAX_MESSAGE, Message, News};
use quintet_protocol::status::{GuestEvent, ResetCause, WorkerStatus};
use quintet_protocol::time::{HostTime, NANOS_PER_SEC};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use crate::exec::{Reason, Stepped, Vcpu};
use crate::gdb::{Session, Stop, Wanted};
use crate::state::Activity;

/// Longest that steps go on before the worker looks around, in nanoseconds.
const SLICE: u64 = NANOS_PER_SEC / 4;
/// Steps between two looks at the clock and at what gdb has sent.
const BURST: u32 = 64;
/// Sleep between two attempts to send, or two looks for a reset, in nanoseconds.
const RETRY: u64 = NANOS_PER_SEC / 200;
/// How long gdb's next request waits for a reset, in nanoseconds.
const RESET: u64 = 5 * NANOS_PER_SEC;
/// Most bytes that wait for a gdb that does not read.
const MOST_WAITING: usize = 4 << 20;

/// What the vCPU is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// Execute.
    Run,
    /// Stand still.
    Hold,
    /// Come back at once: a step is under way.
    Again,
    /// Sleep until something wakes a halted processor, and come back.
    Sleep,
}

/// The worker's end of the debugger's connection.
pub(super) struct Debugger {
    socket: OwnedFd,
    session: Option<Session>,
    /// Number of its connection.
    connection: u8,
    holds: bool,
    /// Packets counted when they were last taken.
    seen: u32,
    /// What the socket has not taken yet.
    out: Vec<u8>,
    /// The range of a step under way.
    step: Option<(u64, u64)>,
    /// A reset was asked for in this generation, and is awaited until then.
    reset: Option<(u32, HostTime)>,
}

impl Debugger {
    /// The end at `socket`; with `wait`, the vCPU is held from the start.
    pub(super) fn new(socket: OwnedFd, wait: bool, status: &WorkerStatus) -> Self {
        status.set_debugger_holds(wait);
        Self {
            socket,
            session: None,
            connection: 0,
            holds: wait,
            // What came for the process before this one is not for us, but a packet of ours may be counted already.
            seen: status.debugger_sent().wrapping_sub(1),
            out: Vec::new(),
            step: None,
            reset: None,
        }
    }

    /// Whether the vCPU is to stand still.
    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    /// How long a held vCPU may sleep, in nanoseconds, if nothing comes.
    pub(super) fn nap(&self, longest: u64) -> u64 {
        if self.out.is_empty() && self.reset.is_none() {
            longest
        } else {
            RETRY
        }
    }

    /// Whether something has come that can be taken.
    pub(super) fn has_news(&self, status: &WorkerStatus) -> bool {
        self.reset.is_none() && status.debugger_sent() != self.seen
    }

    /// Takes what has come, does what it asks for, sends the answers.
    pub(super) fn serve(
        &mut self,
        cpu: &mut Vcpu,
        status: &WorkerStatus,
        generation: u32,
        running: bool,
    ) -> Turn {
        if let Some((from, until)) = self.reset
            && (generation != from || HostTime::now() >= until)
        {
            self.reset = None;
        }
        if self.has_news(status) {
            self.seen = status.debugger_sent();
            self.receive(cpu, status, generation);
        }
        let turn = self.go_on(cpu, status, running);
        self.send(cpu);
        status.set_debugger_holds(self.holds);
        turn
    }

    /// The vCPU came to a breakpoint or a watchpoint.
    pub(super) fn held(&mut self, cpu: &mut Vcpu, status: &WorkerStatus) {
        if let Some(held) = cpu.take_held() {
            self.stopped(cpu, Stop::Point(held));
        }
        self.send(cpu);
        status.set_debugger_holds(self.holds);
    }

    fn receive(&mut self, cpu: &mut Vcpu, status: &WorkerStatus, generation: u32) {
        let mut packet = [0; MAX_MESSAGE];
        while self.reset.is_none() {
            let n = match rustix::io::read(&self.socket, &mut packet) {
                Ok(0) => return self.end(cpu),
                Ok(n) => n,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    tracing::debug!(%error, "the debugger's socket");
                    return self.end(cpu);
                }
            };
            let Some(Message { connection, news }) = Message::decode(&packet[..n]) else {
                tracing::debug!("a packet of the debugger's socket has no meaning");
                continue;
            };
            match news {
                News::Opened => {
                    self.end(cpu);
                    self.connection = connection;
                    self.session = Some(Session::new(cpu));
                    self.holds = true;
                }
                News::Bytes(bytes) => self.feed(cpu, bytes),
                News::Closed => self.end(cpu),
            }
            if core::mem::take(&mut cpu.remote.reset) {
                self.reset = Some((generation, HostTime::after(RESET)));
                // Looked at again when the reset is over.
                self.seen = self.seen.wrapping_sub(1);
                status.report(GuestEvent::Reset(ResetCause::User));
            }
        }
    }

    fn feed(&mut self, cpu: &mut Vcpu, bytes: &[u8]) {
        let Some(session) = &mut self.session else { return };
        if let Err(error) = session.feed(cpu, bytes) {
            tracing::warn!("the debugger's connection is closed: {error}");
        }
        self.out.extend(session.take_output());
        if session.is_over() {
            return self.close(cpu);
        }
        if session.holds() {
            self.step = None;
            self.holds = true;
            return;
        }
        match session.take_wanted(cpu) {
            Some(Wanted::Continue) => self.holds = false,
            Some(Wanted::Step { start, end }) => self.step = Some((start, end)),
            None => {}
        }
    }

    /// Goes on with a step.
    fn go_on(&mut self, cpu: &mut Vcpu, status: &WorkerStatus, running: bool) -> Turn {
        let Some((start, end)) = self.step else {
            return if self.holds { Turn::Hold } else { Turn::Run };
        };
        // A halted processor was let go so that time passes; not all of the machine may have noticed.
        if !self.holds && !running {
            return Turn::Hold;
        }
        let until = HostTime::after(SLICE);
        for n in 1u32.. {
            if cpu.step_held() == Stepped::Asleep {
                self.holds = false;
                return if running { Turn::Sleep } else { Turn::Hold };
            }
            let point = cpu.take_held().map(Stop::Point);
            let inside = (start..end).contains(&cpu.rip());
            let here = cpu
                .breakpoint_here()
                .map(|b| Stop::Point(crate::exec::Held::Breakpoint(b)));
            let stop = match point {
                Some(point) => Some(point),
                None if inside => here,
                None => Some(Stop::Stepped),
            };
            if let Some(stop) = stop {
                self.step = None;
                self.stopped(cpu, stop);
                return Turn::Hold;
            }
            if cpu.state.activity == Activity::Shutdown {
                // What follows is a reset, as ever.
                self.step = None;
                self.holds = false;
                return Turn::Run;
            }
            let look = n % BURST == 0 && (self.has_news(status) || HostTime::now() >= until);
            if look || cpu.reasons.contains(Reason::STOP) {
                break;
            }
        }
        Turn::Again
    }

    fn stopped(&mut self, cpu: &mut Vcpu, stop: Stop) {
        let Some(session) = &mut self.session else { return };
        self.holds = true;
        if let Err(error) = session.stopped(cpu, stop) {
            tracing::warn!("the debugger's connection is closed: {error}");
        }
        self.out.extend(session.take_output());
        if session.is_over() {
            self.close(cpu);
        }
    }

    /// Forgets the session: the guest goes on as if there had been none.
    fn end(&mut self, cpu: &mut Vcpu) {
        cpu.clear_points();
        cpu.remote = crate::gdb::Remote::default();
        self.session = None;
        self.holds = false;
        self.step = None;
        self.out.clear();
    }

    /// Ends the session from this side, after what is to be said.
    fn close(&mut self, cpu: &mut Vcpu) {
        self.send(cpu);
        self.end(cpu);
        // If the socket takes nothing, gdb does not read, and goes by itself.
        let _ = self.packet(News::Closed);
    }

    fn send(&mut self, cpu: &mut Vcpu) {
        while !self.out.is_empty() {
            let n = self.out.len().min(MAX_BYTES);
            match self.packet(News::Bytes(&self.out[..n])) {
                Ok(()) => drop(self.out.drain(..n)),
                Err(Errno::AGAIN) if self.out.len() <= MOST_WAITING => return,
                Err(error) => {
                    tracing::warn!("the debugger's connection is closed: {error}");
                    return self.end(cpu);
                }
            }
        }
    }

    fn packet(&self, news: News<'_>) -> Result<(), Errno> {
        let message = Message {
            connection: self.connection,
            news,
        };
        let packet = message.encode();
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            let sent = sendmsg(
                &self.socket,
                &[IoSlice::new(&packet)],
                &mut SendAncillaryBuffer::default(),
                flags,
            );
            match sent {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
