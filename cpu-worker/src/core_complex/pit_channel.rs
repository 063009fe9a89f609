//! One counter of the 8254: its six modes as functions of the clock, not as a thing that ticks.
//!
//! Intel 8254 data sheet (order 231164). Time is counted in CLK pulses since VM time zero. A counter is
//! described by when its count was loaded; count and OUT at any pulse follow from that. In mode 3 an odd
//! count counts down from count − 1 by two in both halves, the high half being one pulse longer.

use quintet_protocol::speaker::{Wave, Waves};

/// Access through the data port, control word bits 5:4.
const LOW_BYTE: u8 = 1;
const HIGH_BYTE: u8 = 2;

/// A count that waits for the end of a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct NextCount {
    count: u32,
    /// Pulse at which it is loaded.
    at: u64,
    /// That pulse ends the high half of mode 3.
    low_half: bool,
}

impl NextCount {
    fn phase(self) -> u64 {
        if self.low_half {
            u64::from(self.count.div_ceil(2))
        } else {
            0
        }
    }
}

/// State of one counter.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChannelState {
    /// Mode 0 to 5.
    mode: u8,
    /// Counts in BCD.
    bcd: bool,
    /// 1 low byte, 2 high byte, 3 both.
    access: u8,
    /// GATE input.
    gate: bool,
    /// The count as last written, 1 to 65536; `None` since the control word.
    written: Option<u32>,
    /// The count the counting element works with.
    count: u32,
    /// Pulse at which that count was loaded; may lie one ahead. `None`: nothing has been loaded.
    loaded: Option<u64>,
    /// Pulses of the cycle that were over when the count was loaded: a count taken in the middle of mode 3
    /// starts with its low half.
    phase: u64,
    /// A count to be loaded when the running cycle, or half cycle of mode 3, ends.
    next: Option<NextCount>,
    /// Pulses counted when GATE fell (modes 0 and 4).
    frozen: Option<u64>,
    /// Low byte of a two-byte write whose high byte is awaited.
    half_written: Option<u8>,
    /// The next read of a two-byte read gives the high byte.
    read_high: bool,
    /// Latched count.
    latched: Option<u16>,
    /// Latched status byte.
    latched_status: Option<u8>,
}

impl ChannelState {
    /// Power-on: undefined on hardware; here mode 3 with nothing loaded, so that OUT is high.
    pub fn new(gate: bool) -> Self {
        Self {
            mode: 3,
            bcd: false,
            access: 3,
            gate,
            written: None,
            count: 0x1_0000,
            loaded: None,
            phase: 0,
            next: None,
            frozen: None,
            half_written: None,
            read_high: false,
            latched: None,
            latched_status: None,
        }
    }

    /// Brings values that no guest can produce into range, after a restore.
    pub fn sanitise(&mut self) {
        self.mode = self.mode.min(5);
        self.count = self.count.clamp(1, 0x1_0000);
        self.next = self.next.map(|n| NextCount {
            count: n.count.clamp(1, 0x1_0000),
            ..n
        });
        self.phase = self.phase.min(u64::from(self.count));
        self.written = self.written.map(|count| count.clamp(1, 0x1_0000));
    }

    /// The count in use, 1 to 65536, when one is loaded.
    pub fn divisor(&self) -> Option<u32> {
        self.loaded.map(|_| self.count)
    }

    /// Whether the mode produces ticks without end.
    pub fn is_periodic(&self) -> bool {
        matches!(self.mode, 2 | 3)
    }

    fn modulus(&self) -> u64 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    /// Moves a count that became due into the counting element.
    pub fn settle(&mut self, t: u64) {
        if let Some(next) = self.next
            && t >= next.at
        {
            (self.count, self.loaded, self.phase, self.next) =
                (next.count, Some(next.at), next.phase(), None);
        }
    }

    /// Pulses since the load; `None` before it.
    fn elapsed(&self, t: u64) -> Option<u64> {
        self.frozen
            .or_else(|| Some(t.checked_sub(self.loaded?)? + self.phase))
    }

    /// Whether the one-shot of mode 0, 1, 4 or 5 is under way or done, or the cycle of mode 2 or 3 runs.
    fn position(&self, t: u64) -> Option<u64> {
        let elapsed = self.elapsed(t)?;
        Some(if self.is_periodic() {
            elapsed % u64::from(self.count)
        } else {
            elapsed
        })
    }

    /// The OUT pin at pulse `t`. [`Self::settle`] must have been called for `t`.
    pub fn out(&self, t: u64) -> bool {
        let count = u64::from(self.count);
        match (self.mode, self.position(t)) {
            (0, None) => false,
            (0, Some(n)) => n >= count,
            // The trigger takes effect at the next pulse: until then OUT is as it was, high.
            (1, Some(n)) => n >= count,
            (2 | 3, Some(_)) if !self.gate => true,
            (2, Some(n)) => n != count - 1,
            (3, Some(n)) => n < count.div_ceil(2),
            (4 | 5, Some(n)) => n != count,
            (_, _) => true,
        }
    }

    /// How OUT goes on from pulse `t` if nothing is written. [`Self::settle`] must have been called for `t`.
    pub fn waves(&self, t: u64) -> Waves {
        let now = Wave::rest(t, self.out(t));
        let Some(loaded) = self.loaded.filter(|_| self.frozen.is_none()) else {
            return [Some(now), None, None];
        };
        let end = loaded + u64::from(self.count);
        let edge = |at: u64, high: bool| (at > t).then(|| Wave::rest(at, high));
        let next = match self.mode {
            0 => [None, edge(end, true)],
            1 => [edge(loaded, false), edge(end, true)],
            4 | 5 => [edge(end, false), edge(end + 1, true)],
            _ if !self.gate => [None; 2],
            _ => {
                let running = self.cycles(loaded, self.count, self.phase);
                let new = self.next.map(|n| self.cycles(n.at, n.count, n.phase()));
                return if loaded > t {
                    [Some(now), Some(running), new]
                } else {
                    [Some(running.going_on(t)), new, None]
                };
            }
        };
        match next {
            [None, last] => [Some(now), last, None],
            [first, last] => [Some(now), first, last],
        }
    }

    /// The cycles of mode 2 or 3 with `count`, loaded at `from` when `phase` pulses of them were over.
    fn cycles(&self, from: u64, count: u32, phase: u64) -> Wave {
        let high = if self.mode == 2 {
            count - 1
        } else {
            count.div_ceil(2)
        };
        Wave {
            from,
            phase: phase as u32,
            high,
            period: count,
        }
    }

    /// The counting element at pulse `t`, in the counter's own number system.
    fn element(&self, t: u64) -> u16 {
        let count = u64::from(self.count);
        let value = match (self.mode, self.position(t)) {
            (_, None) => count,
            (2, Some(n)) => count - n,
            (3, Some(n)) => {
                let high = count.div_ceil(2);
                let n = if n < high { n } else { n - high };
                (count & !1) - 2 * n
            }
            (_, Some(n)) => {
                let m = self.modulus();
                (count % m + m - n % m) % m
            }
        } % self.modulus();
        let value = value as u16;
        if !self.bcd {
            return value;
        }
        (0..4).fold(0, |bcd, digit| {
            bcd | (value / 10u16.pow(digit) % 10) << (4 * digit)
        })
    }

    /// The first pulse after `t` at which OUT rises, if nothing is written until then.
    pub fn next_rise(&self, t: u64) -> Option<u64> {
        if let Some(next) = self.next
            && next.at > t
        {
            let low = u64::from(next.count / 2);
            return Some(if next.low_half { next.at + low } else { next.at });
        }
        let loaded = self.loaded?;
        let count = u64::from(self.count);
        let once = |at: u64| (at > t).then_some(at);
        match self.mode {
            _ if self.frozen.is_some() => None,
            0 | 1 => once(loaded + count),
            4 | 5 => once(loaded + count + 1),
            // A count of 1 is illegal in modes 2 and 3: OUT never moves.
            _ if !self.gate || count == 1 => None,
            _ => {
                let cycles = (t.saturating_sub(loaded) + self.phase) / count + 1;
                Some(loaded + cycles * count - self.phase)
            }
        }
    }

    /// How often OUT rises after `from` up to `to`, and settles at `to`.
    pub fn rises(&mut self, from: u64, to: u64) -> u64 {
        let (mut rises, mut from) = (0, from);
        if let Some(next) = self.next
            && next.at <= to
        {
            if next.at > from {
                // A cycle that ends at the switch rises there; a high half falls there.
                rises += u64::from(!next.low_half);
                from = next.at;
            }
            self.settle(to);
        }
        if !self.is_periodic() {
            return rises + u64::from(self.next_rise(from).is_some_and(|at| at <= to));
        }
        if let Some(loaded) = self.loaded
            && self.gate
            && self.count > 1
        {
            let cycles = |t: u64| (t.saturating_sub(loaded) + self.phase) / u64::from(self.count);
            rises += cycles(to) - cycles(from);
        }
        rises
    }

    /// A control word for this counter, not a latch command.
    pub fn control(&mut self, value: u8) {
        let mode = value >> 1 & 7;
        let gate = self.gate;
        *self = Self {
            mode: if mode > 5 { mode - 4 } else { mode },
            bcd: value & 1 != 0,
            access: value >> 4 & 3,
            count: self.count,
            ..Self::new(gate)
        };
    }

    /// A write of the data port at pulse `t`.
    pub fn write(&mut self, t: u64, value: u8) {
        self.settle(t);
        let raw = match self.access {
            LOW_BYTE => u16::from(value),
            HIGH_BYTE => u16::from(value) << 8,
            _ => match self.half_written.take() {
                None => {
                    self.half_written = Some(value);
                    if self.mode == 0 {
                        // The first byte stops the counting and OUT goes low.
                        self.loaded = None;
                        self.frozen = None;
                    }
                    return;
                }
                Some(low) => u16::from_le_bytes([low, value]),
            },
        };
        let count = if self.bcd {
            (0..4)
                .map(|d| u32::from(raw >> (4 * d) & 15) * 10u32.pow(d))
                .sum::<u32>()
        } else {
            u32::from(raw)
        };
        let count = if count == 0 { self.modulus() as u32 } else { count };
        self.written = Some(count);
        match self.mode {
            // Loaded by the trigger.
            1 | 5 => {}
            2 | 3 if self.loaded.is_some_and(|at| at <= t) && self.gate => {
                self.next = Some(self.at_cycle_end(t, count));
            }
            _ => self.load(t, count),
        }
    }

    /// `new` waiting for the end of the running cycle of mode 2, or half cycle of mode 3.
    fn at_cycle_end(&self, t: u64, new: u32) -> NextCount {
        let (count, n) = (u64::from(self.count), self.position(t).unwrap_or(0));
        let half = count.div_ceil(2);
        let low_half = self.mode == 3 && n < half && count > 1;
        NextCount {
            count: new,
            at: t + if low_half { half - n } else { count - n },
            low_half,
        }
    }

    fn load(&mut self, t: u64, count: u32) {
        self.count = count;
        self.loaded = Some(t + 1);
        (self.phase, self.next) = (0, None);
        // In modes 0 and 4 a low GATE lets the count load but not count.
        self.frozen = (matches!(self.mode, 0 | 4) && !self.gate).then_some(0);
    }

    /// A read of the data port at pulse `t`.
    pub fn read(&mut self, t: u64) -> u8 {
        self.settle(t);
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let value = self.latched.unwrap_or_else(|| self.element(t));
        let high = match self.access {
            LOW_BYTE => false,
            HIGH_BYTE => true,
            _ => {
                self.read_high = !self.read_high;
                !self.read_high
            }
        };
        // A latched count goes with its last byte.
        if self.access != 3 || high {
            self.latched = None;
        }
        (if high { value >> 8 } else { value }) as u8
    }

    /// The counter latch command; ignored while a latched count has not been read.
    pub fn latch(&mut self, t: u64) {
        self.settle(t);
        if self.latched.is_none() {
            self.latched = Some(self.element(t));
        }
    }

    /// Latches the status byte for read-back; ignored while one has not been read.
    pub fn latch_status(&mut self, t: u64) {
        self.settle(t);
        let loaded = self.next.is_none() && self.written.is_some() && self.loaded.is_some_and(|at| t >= at);
        if self.latched_status.is_none() {
            self.latched_status = Some(
                u8::from(self.out(t)) << 7
                    | u8::from(!loaded) << 6
                    | self.access << 4
                    | self.mode << 1
                    | u8::from(self.bcd),
            );
        }
    }

    /// Drives the GATE input at pulse `t`.
    pub fn set_gate(&mut self, t: u64, gate: bool) {
        self.settle(t);
        let was = core::mem::replace(&mut self.gate, gate);
        if was == gate {
            return;
        }
        match (self.mode, gate) {
            (0 | 4, false) => self.frozen = self.loaded.map(|at| t.saturating_sub(at)),
            (0 | 4, true) => {
                if let Some(done) = self.frozen.take() {
                    self.loaded = Some((t + 1).saturating_sub(done));
                }
            }
            // A rise of GATE loads the newest count at the next pulse.
            (1 | 2 | 3 | 5, true) => {
                if let Some(count) = self.written {
                    self.load(t, count);
                }
            }
            _ => self.next = None,
        }
    }
}

#[cfg(test)]
#[path = "pit_channel_tests.rs"]
mod tests;
