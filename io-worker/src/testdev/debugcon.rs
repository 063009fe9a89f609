//! The debug console: bytes written to a port go to a stream; reading gives E9h, by which a guest finds it.

use std::collections::VecDeque;

use quintet_protocol::time::VmTime;

use crate::bus::regmap::{Attr, RegMap, Registers, reg};
use crate::bus::{
    Access, Backplane, Device, Region, RegionKind, StateError, StreamOut, load_state, save_state,
};

/// What a read gives.
const READBACK: u8 = 0xE9;
/// Bytes that wait for room before further ones are lost, with a warning: the port has no status register
/// with which a guest could be told to wait.
const PENDING_MAX: usize = 4096;
const RETRY_NANOS: u64 = 20_000_000;

#[derive(Clone, Copy, Debug)]
struct Data;

const MAP: RegMap<Data> = RegMap::new(1, &[reg(0, 1, Data, Attr::PURE)]);

/// A debug console.
#[derive(Debug)]
pub struct Debugcon {
    name: &'static str,
    out: StreamOut,
    pending: VecDeque<u8>,
    retry: Option<VmTime>,
}

impl Debugcon {
    /// A console that writes to `out`.
    pub fn new(name: &'static str, out: StreamOut) -> Self {
        Self {
            name,
            out,
            pending: VecDeque::new(),
            retry: None,
        }
    }
}

impl Registers<Data> for Debugcon {
    fn read_reg(&mut self, _bp: &mut Backplane<'_>, _reg: Data) -> u64 {
        u64::from(READBACK)
    }

    fn write_reg(&mut self, bp: &mut Backplane<'_>, _reg: Data, value: u64) {
        let byte = value as u8;
        if self.pending.is_empty() && bp.streams.put(self.out, byte) {
            return;
        }
        if self.pending.len() < PENDING_MAX {
            self.pending.push_back(byte);
            self.retry.get_or_insert(bp.now + RETRY_NANOS);
        } else {
            tracing::warn!(device = self.name, "byte lost: nobody takes the output");
        }
    }
}

impl Device for Debugcon {
    fn name(&self) -> &'static str {
        self.name
    }

    fn regions(&self) -> Vec<Region> {
        vec![MAP.region(RegionKind::Port)]
    }

    fn read(&mut self, bp: &mut Backplane<'_>, at: Access) -> u64 {
        MAP.read(self, bp, at)
    }

    fn write(&mut self, bp: &mut Backplane<'_>, at: Access, value: u64) {
        MAP.write(self, bp, at, value);
    }

    fn reset(&mut self, _bp: &mut Backplane<'_>) {}

    fn next_deadline(&self) -> Option<VmTime> {
        self.retry
    }

    fn advance(&mut self, bp: &mut Backplane<'_>) -> bool {
        let before = (self.pending.len(), self.retry);
        while let Some(&byte) = self.pending.front() {
            if !bp.streams.put(self.out, byte) {
                break;
            }
            self.pending.pop_front();
        }
        if self.pending.is_empty() {
            self.retry = None;
        } else if self.retry.is_none_or(|t| t <= bp.now) {
            self.retry = Some(bp.now + RETRY_NANOS);
        }
        before != (self.pending.len(), self.retry)
    }

    fn save(&self, out: &mut Vec<u8>) {
        save_state(&(&self.pending, self.retry), out);
    }

    fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        (self.pending, self.retry) = load_state(self.name, self.state_version(), version, bytes)?;
        Ok(())
    }
}
