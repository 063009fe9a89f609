//! A connection with gdb, as bytes in and bytes out.

use core::convert::Infallible;

use gdbstub::common::Signal;
use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{GdbStub, SingleThreadStopReason};
use gdbstub::target::ext::breakpoints::WatchKind;

use super::packets::{Framer, Incoming, is_sound, leaves_memory, packet};
use super::{Remote, Wanted};
use crate::exec::{Held, Vcpu, Watched};

/// Longest packet, in bytes.
const PACKET: usize = 16 << 10;

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// It sent more than a packet may have.
    #[error("a packet is longer than {PACKET} bytes")]
    TooLong,
    /// It sent what no debugger sends.
    #[error("a packet that cannot be understood: {0}")]
    Packet(String),
}

/// Why the vCPU stands still, for gdb.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// A breakpoint or a watchpoint.
    Point(Held),
    /// A step is done.
    Stepped,
}

/// What goes to gdb.
#[derive(Debug, Default)]
struct Out(Vec<u8>);

impl Connection for Out {
    type Error = Infallible;

    fn write(&mut self, byte: u8) -> Result<(), Infallible> {
        self.0.push(byte);
        Ok(())
    }

    fn write_all(&mut self, buf: &[u8]) -> Result<(), Infallible> {
        self.0.extend_from_slice(buf);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

type Stub = GdbStubStateMachine<'static, Vcpu, Out>;

/// A connection.
#[allow(missing_debug_implementations, reason = "the protocol's state has none")]
pub struct Session {
    /// Gone once it is over.
    stub: Option<Stub>,
    framer: Framer,
    /// What the protocol wrote before its state was lost, and what is answered here.
    out: Vec<u8>,
    /// Packets are not acknowledged any more.
    quiet: bool,
}

impl Session {
    /// A connection that has just been made: gdb expects the vCPU to stand still. Points of the one before are forgotten.
    pub fn new(cpu: &mut Vcpu) -> Self {
        cpu.clear_points();
        cpu.enable_points();
        cpu.remote = Remote::default();
        let stub = GdbStub::builder(Out::default())
            .packet_buffer_size(PACKET)
            .build()
            .expect("a buffer of its own has its size");
        let stub = stub.run_state_machine(cpu).ok();
        Self {
            stub,
            framer: Framer::default(),
            out: Vec::new(),
            quiet: false,
        }
    }

    /// Whether gdb believes that the vCPU stands still.
    pub fn holds(&self) -> bool {
        matches!(self.stub, Some(GdbStubStateMachine::Idle(_)))
    }

    /// Whether gdb has let go of the machine.
    pub fn is_over(&self) -> bool {
        matches!(self.stub, None | Some(GdbStubStateMachine::Disconnected(_)))
    }

    /// Takes what the vCPU is to do.
    pub fn take_wanted(&mut self, cpu: &mut Vcpu) -> Option<Wanted> {
        cpu.remote.wanted.take()
    }

    /// Takes what is to be sent.
    pub fn take_output(&mut self) -> Vec<u8> {
        let mut out = core::mem::take(&mut self.out);
        let conn = match &mut self.stub {
            Some(GdbStubStateMachine::Idle(s)) => s.borrow_conn(),
            Some(GdbStubStateMachine::Running(s)) => s.borrow_conn(),
            Some(GdbStubStateMachine::CtrlCInterrupt(s)) => s.borrow_conn(),
            Some(GdbStubStateMachine::Disconnected(s)) => s.borrow_conn(),
            None => return out,
        };
        out.append(&mut conn.0);
        out
    }

    /// Takes what gdb has sent.
    ///
    /// # Errors
    /// [`SessionError`]; the connection is over then.
    pub fn feed(&mut self, cpu: &mut Vcpu, bytes: &[u8]) -> Result<(), SessionError> {
        for &byte in bytes {
            match self.framer.take(byte, PACKET) {
                Ok(None) => {}
                // A packet that was not understood would be sent again; over TCP none is.
                Ok(Some(Incoming::Byte(b'-'))) => {}
                Ok(Some(Incoming::Byte(byte @ (b'+' | 3)))) => self.pump(cpu, &[byte])?,
                Ok(Some(Incoming::Byte(_))) => {}
                Ok(Some(Incoming::Packet { body, whole })) => self.packet(cpu, &body, &whole)?,
                Err(_) => {
                    self.stub = None;
                    return Err(SessionError::TooLong);
                }
            }
        }
        Ok(())
    }

    fn packet(&mut self, cpu: &mut Vcpu, body: &[u8], whole: &[u8]) -> Result<(), SessionError> {
        if !is_sound(whole) {
            self.out = self.take_output();
            self.out.push(b'-');
            return Ok(());
        }
        let answer = match body {
            b"qqemu.PhyMemMode" => Some(if cpu.remote.physical { "1" } else { "0" }),
            b"Qqemu.PhyMemMode:0" => {
                cpu.remote.physical = false;
                Some("OK")
            }
            b"Qqemu.PhyMemMode:1" => {
                cpu.remote.physical = true;
                Some("OK")
            }
            // EFAULT.
            _ if leaves_memory(body) => Some("E0e"),
            _ => None,
        };
        if let Some(answer) = answer {
            self.out = self.take_output();
            if !self.quiet {
                self.out.push(b'+');
            }
            self.out.extend(packet(answer));
            return Ok(());
        }
        self.quiet |= body == b"QStartNoAckMode";
        self.pump(cpu, whole)
    }

    /// Gives bytes to the protocol.
    fn pump(&mut self, cpu: &mut Vcpu, bytes: &[u8]) -> Result<(), SessionError> {
        for &byte in bytes {
            let Some(stub) = self.stub.take() else {
                return Ok(());
            };
            let mut keep = Vec::new();
            let next = match stub {
                GdbStubStateMachine::Idle(mut s) => {
                    keep.append(&mut s.borrow_conn().0);
                    // An interrupt that crosses a stop on its way: it has been obeyed.
                    if byte == 3 {
                        Ok(s.into())
                    } else {
                        s.incoming_data(cpu, byte)
                    }
                }
                GdbStubStateMachine::Running(mut s) => {
                    keep.append(&mut s.borrow_conn().0);
                    s.incoming_data(cpu, byte)
                }
                other => Ok(other),
            };
            let next = next.and_then(|next| match next {
                GdbStubStateMachine::CtrlCInterrupt(s) => {
                    cpu.remote.wanted = None;
                    s.interrupt_handled(cpu, Some(SingleThreadStopReason::Signal(Signal::SIGINT)))
                }
                next => Ok(next),
            });
            self.out.append(&mut keep);
            match next {
                Ok(next) => self.stub = Some(next),
                Err(e) => return Err(SessionError::Packet(e.to_string())),
            }
        }
        Ok(())
    }

    /// Tells gdb that the vCPU stands still; nothing if it knows.
    ///
    /// # Errors
    /// [`SessionError`]; the connection is over then.
    pub fn stopped(&mut self, cpu: &mut Vcpu, stop: Stop) -> Result<(), SessionError> {
        match self.stub.take() {
            Some(GdbStubStateMachine::Running(mut s)) => {
                self.out.append(&mut s.borrow_conn().0);
                let next = s.report_stop(cpu, reason(stop));
                self.stub = Some(next.map_err(|e| SessionError::Packet(e.to_string()))?);
            }
            other => self.stub = other,
        }
        Ok(())
    }
}

fn reason(stop: Stop) -> SingleThreadStopReason<u64> {
    match stop {
        Stop::Stepped => SingleThreadStopReason::DoneStep,
        Stop::Point(Held::Breakpoint(b)) if b.hardware => SingleThreadStopReason::HwBreak(()),
        Stop::Point(Held::Breakpoint(_)) => SingleThreadStopReason::SwBreak(()),
        Stop::Point(Held::Watchpoint(w)) => SingleThreadStopReason::Watch {
            tid: (),
            kind: match w.kind {
                Watched::Reads => WatchKind::Read,
                Watched::Writes => WatchKind::Write,
                Watched::Accesses => WatchKind::ReadWrite,
            },
            addr: w.address,
        },
    }
}
