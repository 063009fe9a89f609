//! Reader of the MOO format: single-instruction tests as chunks (see the vectors' own description).

/// Registers by the order of their bits in a chunk of 16-bit registers.
pub const REGS16: [&str; 14] = [
    "ax", "bx", "cx", "dx", "cs", "ss", "ds", "es", "sp", "bp", "si", "di", "ip", "flags",
];
/// Registers by the order of their bits in a chunk of 32-bit registers.
pub const REGS32: [&str; 20] = [
    "cr0", "cr3", "eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp", "cs", "ds", "es", "fs", "gs", "ss",
    "eip", "eflags", "dr6", "dr7",
];

/// Registers and memory before or after.
#[derive(Debug, Default, Clone)]
pub struct Snapshot {
    /// Whether the registers are those of [`REGS32`].
    pub wide: bool,
    /// Values by index into the list of names; `None` when the chunk does not name it.
    pub regs: [Option<u32>; 20],
    /// Bytes of memory.
    pub ram: Vec<(u32, u8)>,
    /// The mask of FLAGS that this case carries.
    pub flags_mask: Option<u32>,
}

/// One case.
#[derive(Debug, Default, Clone)]
pub struct Case {
    /// Disassembly.
    pub name: String,
    /// Instruction bytes.
    pub bytes: Vec<u8>,
    /// Before.
    pub init: Snapshot,
    /// What changed.
    pub fina: Snapshot,
    /// Vector and address of the pushed FLAGS of an exception.
    pub exception: Option<(u8, u32)>,
    /// Upstream's id.
    pub hash: String,
}

/// A file of cases.
#[derive(Debug, Default)]
pub struct File {
    /// FLAGS mask of the whole file.
    pub flags_mask: Option<u32>,
    /// The cases.
    pub cases: Vec<Case>,
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(n);
        self.0 = tail;
        head
    }
    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }
    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take(2).try_into().expect("two bytes"))
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().expect("four bytes"))
    }
    /// The next chunk: id and payload.
    fn chunk(&mut self) -> Option<(&'a [u8], Cursor<'a>)> {
        if self.0.is_empty() {
            return None;
        }
        let id = self.take(4);
        let len = self.u32() as usize;
        Some((id, Cursor(self.take(len))))
    }
}

fn registers(c: &mut Cursor<'_>, wide: bool, into: &mut [Option<u32>; 20]) {
    let present = if wide { c.u32() } else { u32::from(c.u16()) };
    let count = if wide { REGS32.len() } else { REGS16.len() };
    for (n, slot) in into.iter_mut().enumerate().take(count) {
        if present >> n & 1 != 0 {
            *slot = Some(if wide { c.u32() } else { u32::from(c.u16()) });
        }
    }
}

/// The FLAGS value of a mask chunk, when it has one.
fn mask(c: &mut Cursor<'_>) -> Option<u32> {
    let mut regs = [None; 20];
    registers(c, false, &mut regs);
    regs[13]
}

fn snapshot(mut c: Cursor<'_>) -> Snapshot {
    let mut s = Snapshot::default();
    while let Some((id, mut c)) = c.chunk() {
        match id {
            b"REGS" => registers(&mut c, false, &mut s.regs),
            b"RG32" => {
                s.wide = true;
                registers(&mut c, true, &mut s.regs);
            }
            b"RAM " => {
                let n = c.u32();
                s.ram = (0..n).map(|_| (c.u32(), c.u8())).collect();
            }
            b"RMSK" => s.flags_mask = mask(&mut c),
            _ => {}
        }
    }
    s
}

fn case(mut c: Cursor<'_>) -> Case {
    let mut t = Case::default();
    c.u32();
    while let Some((id, mut c)) = c.chunk() {
        match id {
            b"NAME" => {
                let n = c.u32() as usize;
                t.name = String::from_utf8_lossy(c.take(n)).into_owned();
            }
            b"BYTS" => {
                let n = c.u32() as usize;
                t.bytes = c.take(n).to_vec();
            }
            b"INIT" => t.init = snapshot(c),
            b"FINA" => t.fina = snapshot(c),
            b"EXCP" => t.exception = Some((c.u8(), c.u32())),
            b"HASH" => t.hash = c.0.iter().map(|b| format!("{b:02x}")).collect(),
            _ => {}
        }
    }
    t
}

/// Reads a whole file.
///
/// # Panics
/// When it is not a MOO file: vectors are data we trust to be well formed, and a broken one must not pass.
pub fn parse(bytes: &[u8]) -> File {
    let mut file = File::default();
    let mut c = Cursor(bytes);
    let (id, _) = c.chunk().expect("a MOO file begins with a chunk");
    assert_eq!(id, b"MOO ", "not a MOO file");
    while let Some((id, mut c)) = c.chunk() {
        match id {
            b"RMSK" => file.flags_mask = mask(&mut c),
            b"TEST" => file.cases.push(case(c)),
            _ => {}
        }
    }
    file
}
