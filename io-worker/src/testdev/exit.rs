//! `isa-debug-exit`: a write of v ends the machine; the coordinator makes the status `(v << 1) | 1` of it.

use crate::bus::regmap::{Attr, RegMap, Registers, reg};
use crate::bus::{
    Access, Backplane, Device, MachineRequest, Region, RegionKind, StateError, load_state, save_state,
};

#[derive(Clone, Copy, Debug)]
struct Code;

/// Four ports, as kernels' test suites ask for: they write 32 bits.
const MAP: RegMap<Code> = RegMap::new(4, &[reg(0, 4, Code, Attr::VIEW)]);

/// The exit port.
#[derive(Debug, Default)]
pub struct DebugExit;

impl Registers<Code> for DebugExit {
    fn read_reg(&mut self, _bp: &mut Backplane<'_>, _reg: Code) -> u64 {
        0
    }

    fn write_reg(&mut self, bp: &mut Backplane<'_>, _reg: Code, value: u64) {
        bp.requests.ask(MachineRequest::Exit(value as u32));
    }
}

impl Device for DebugExit {
    fn name(&self) -> &'static str {
        "debug-exit"
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

    fn save(&self, out: &mut Vec<u8>) {
        save_state(&0_u8, out);
    }

    fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        load_state::<u8>(self.name(), self.state_version(), version, bytes).map(|_| ())
    }
}
