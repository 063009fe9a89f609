//! A source of interrupts that is acknowledged by a posted write: the case in which a level interrupt would
//! arrive twice if the vCPU did not drain its writes before an EOI. Ours; it comes with `pc-testdev`.
//!
//! | port | width | access | what |
//! |---|---|---|---|
//! | +0 | 1 | write, synchronous | raises the level line 5 |
//! | +1 | 1 | write, posted | acknowledges: lowers line 5 |
//! | +2 | 1 | write, posted | pulses the edge line 7 |
//! | +4 | 4 | read | how often line 5 was raised; write sets it |
//! | +8 | 4 | read and write | delay in ns after which an acknowledged line rises again; 0: does not |
//! | +C | 4 | read and write | how often it still rises by itself |

use quintet_protocol::time::VmTime;
use serde::{Deserialize, Serialize};

use crate::bus::regmap::{Attr, RegMap, Registers, reg};
use crate::bus::{
    Access, Backplane, Device, Interrupts, Line, Pin, PinTarget, Region, RegionKind, StateError, load_state,
    save_state,
};

/// First port.
pub const SOURCE_PORT: u64 = 0x2020;
const LEVEL_LINE: Line = Line(5);
const EDGE_LINE: Line = Line(7);

#[derive(Clone, Copy, Debug)]
enum Reg {
    Raise,
    Ack,
    Pulse,
    Raised,
    Delay,
    Left,
}

const MAP: RegMap<Reg> = RegMap::new(
    16,
    &[
        reg(0, 1, Reg::Raise, Attr::SYNC),
        reg(1, 1, Reg::Ack, Attr::empty()),
        reg(2, 1, Reg::Pulse, Attr::empty()),
        reg(4, 4, Reg::Raised, Attr::PURE),
        reg(8, 4, Reg::Delay, Attr::PURE),
        reg(12, 4, Reg::Left, Attr::PURE),
    ],
);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    high: bool,
    raised: u32,
    delay: u32,
    left: u32,
    next: Option<VmTime>,
}

/// The source.
#[derive(Debug)]
pub struct IrqSource {
    level: Pin,
    edge: Pin,
    state: State,
}

impl IrqSource {
    /// A source that is silent.
    pub fn new(irq: &mut Interrupts) -> Self {
        let level = irq.pin(PinTarget::Line(LEVEL_LINE));
        Self {
            level,
            edge: irq.pin(PinTarget::Line(EDGE_LINE)),
            state: State::default(),
        }
    }

    fn raise(&mut self, bp: &mut Backplane<'_>) {
        let s = &mut self.state;
        if !s.high {
            s.high = true;
            s.raised = s.raised.wrapping_add(1);
            bp.irq.set(self.level, true);
        }
    }
}

impl Registers<Reg> for IrqSource {
    fn read_reg(&mut self, _bp: &mut Backplane<'_>, reg: Reg) -> u64 {
        match reg {
            Reg::Raise | Reg::Ack | Reg::Pulse => 0xFF,
            Reg::Raised | Reg::Delay | Reg::Left => self.held(reg),
        }
    }

    fn write_reg(&mut self, bp: &mut Backplane<'_>, reg: Reg, value: u64) {
        match reg {
            Reg::Raise => self.raise(bp),
            Reg::Ack => {
                let s = &mut self.state;
                s.high = false;
                bp.irq.set(self.level, false);
                if s.left > 0 && s.delay > 0 {
                    s.next = Some(bp.now + u64::from(s.delay));
                }
            }
            Reg::Pulse => bp.irq.pulse(self.edge),
            Reg::Raised => self.state.raised = value as u32,
            Reg::Delay => self.state.delay = value as u32,
            Reg::Left => self.state.left = value as u32,
        }
    }

    fn held(&self, reg: Reg) -> u64 {
        u64::from(match reg {
            Reg::Raise | Reg::Ack | Reg::Pulse => 0,
            Reg::Raised => self.state.raised,
            Reg::Delay => self.state.delay,
            Reg::Left => self.state.left,
        })
    }
}

impl Device for IrqSource {
    fn name(&self) -> &'static str {
        "irq-source"
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

    fn reset(&mut self, bp: &mut Backplane<'_>) {
        self.state = State::default();
        bp.irq.set(self.level, false);
    }

    fn next_deadline(&self) -> Option<VmTime> {
        self.state.next
    }

    fn advance(&mut self, bp: &mut Backplane<'_>) -> bool {
        if self.state.next.is_none_or(|t| t > bp.now) {
            return false;
        }
        self.state.next = None;
        self.state.left = self.state.left.saturating_sub(1);
        self.raise(bp);
        true
    }

    fn save(&self, out: &mut Vec<u8>) {
        save_state(&self.state, out);
    }

    fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        self.state = load_state(self.name(), self.state_version(), version, bytes)?;
        Ok(())
    }
}
