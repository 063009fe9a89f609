//! What a vCPU asks of io-worker.

use super::DecodeError;
use super::wire::Fields;
use crate::addr::{GUEST_PAGE, GuestPhys};

/// Bytes of the longest command without inline data: size of the buffer for [`Command::encode`].
pub const MAX_COMMAND: usize = 32;
/// Most bytes that one string-I/O command moves: a guest page.
pub const MAX_STRING: usize = GUEST_PAGE as usize;

const NOP: u16 = 0x0000;
const SHUTDOWN: u16 = 0x0001;
const MMIO_READ: u16 = 0x0100;
const MMIO_WRITE: u16 = 0x0101;
const PORT_READ: u16 = 0x0102;
const PORT_WRITE: u16 = 0x0103;
const DISK_READ: u16 = 0x0104;
const DISK_WRITE: u16 = 0x0105;
const PCI_READ: u16 = 0x0106;
const PCI_WRITE: u16 = 0x0107;
const STRING_IN: u16 = 0x0108;
const STRING_OUT: u16 = 0x0109;
const STRING_IN_PAGE: u16 = 0x010A;
const STRING_OUT_PAGE: u16 = 0x010B;
const MODULE_CALL: u16 = 0x010C;

/// Attributes of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandFlags(u8);

impl CommandFlags {
    /// Posted: nobody waits.
    pub const POSTED: Self = Self(0);
    /// The vCPU waits for a reply: the end of a batch. Reads have it always.
    pub const REPLY: Self = Self(1);
    /// String I/O with EFLAGS.DF set: addresses go down.
    pub const BACKWARDS: Self = Self(2);
    const ALL: u8 = 3;

    /// Whether every flag of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        let bits = fields.u8("flags")?;
        if bits & !Self::ALL != 0 {
            return Err(DecodeError::InvalidEnum {
                field: "flags",
                value: u64::from(bits),
            });
        }
        Ok(Self(bits))
    }
}

/// A command. Values are in the low bytes, whatever lies above the access size is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Nothing; with a reply, a fence.
    Nop {
        /// Flags.
        flags: CommandFlags,
        /// A number of the sender's.
        seq: u32,
    },
    /// The worker is to end.
    Shutdown,
    /// Reads device memory. Replied to.
    MmioRead {
        /// Address.
        addr: GuestPhys,
        /// 1 to 8 bytes.
        size: u8,
    },
    /// Writes device memory.
    MmioWrite {
        /// Flags.
        flags: CommandFlags,
        /// Address.
        addr: GuestPhys,
        /// 1 to 8 bytes.
        size: u8,
        /// Value.
        value: u64,
    },
    /// Reads a port. Replied to.
    PortRead {
        /// Port.
        port: u16,
        /// 1, 2 or 4 bytes.
        size: u8,
    },
    /// Writes a port.
    PortWrite {
        /// Flags.
        flags: CommandFlags,
        /// Port.
        port: u16,
        /// 1, 2 or 4 bytes.
        size: u8,
        /// Value.
        value: u32,
    },
    /// Reads a disk into guest RAM without a controller (S3.51, S3.52). Replied to.
    DiskRead {
        /// Byte offset on the disk.
        disk_offset: u64,
        /// Length in bytes.
        len: u32,
        /// Guest physical address of the data.
        guest: GuestPhys,
    },
    /// Writes guest RAM to a disk without a controller. Replied to.
    DiskWrite {
        /// Byte offset on the disk.
        disk_offset: u64,
        /// Length in bytes.
        len: u32,
        /// Guest physical address of the data.
        guest: GuestPhys,
    },
    /// Reads port CFCh + `offset` under the address that the CF8h latch holds. Replied to.
    PciRead {
        /// Contents of the latch, enable bit included.
        address: u32,
        /// 0 to 3.
        offset: u8,
        /// 1, 2 or 4 bytes.
        size: u8,
    },
    /// Writes port CFCh + `offset` under the address that the CF8h latch holds.
    PciWrite {
        /// Flags.
        flags: CommandFlags,
        /// Contents of the latch, enable bit included.
        address: u32,
        /// 0 to 3.
        offset: u8,
        /// 1, 2 or 4 bytes.
        size: u8,
        /// Value.
        value: u32,
    },
    /// Reads a port `count` times; the elements come in the reply.
    StringIn {
        /// Port.
        port: u16,
        /// 1, 2 or 4 bytes.
        size: u8,
        /// Elements; `size · count` is at most [`MAX_STRING`].
        count: u16,
    },
    /// Writes the elements of `data` to a port one after another.
    StringOut {
        /// Flags.
        flags: CommandFlags,
        /// Port.
        port: u16,
        /// 1, 2 or 4 bytes; divides the length of `data`.
        size: u8,
        /// The elements, at most [`MAX_STRING`] bytes.
        data: &'a [u8],
    },
    /// Reads a port `count` times into guest RAM. Replied to with the number of elements done. All elements lie in
    /// one guest page, whose access rights the vCPU has checked.
    StringInPage {
        /// Flags: backwards or not.
        flags: CommandFlags,
        /// Port.
        port: u16,
        /// 1, 2 or 4 bytes.
        size: u8,
        /// Elements.
        count: u16,
        /// Address of the first element.
        guest: GuestPhys,
    },
    /// Writes `count` elements of guest RAM to a port. Replied to; otherwise as [`Self::StringInPage`].
    StringOutPage {
        /// Flags: backwards or not.
        flags: CommandFlags,
        /// Port.
        port: u16,
        /// 1, 2 or 4 bytes.
        size: u8,
        /// Elements.
        count: u16,
        /// Address of the first element.
        guest: GuestPhys,
    },
    /// A WebAssembly module wants something that only io-worker has. Replied to, see [`crate::wasm::service`].
    ModuleCall {
        /// Which service.
        service: u16,
        /// What for, as the service says.
        words: [u64; 3],
    },
}

/// Writes fields to the front of a buffer.
struct Out<'b> {
    into: &'b mut [u8; MAX_COMMAND],
    len: usize,
}

impl Out<'_> {
    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> &mut Self {
        self.into[self.len..self.len + N].copy_from_slice(&bytes);
        self.len += N;
        self
    }
    #[inline]
    fn tag(&mut self, tag: u16) -> &mut Self {
        self.put(tag.to_le_bytes())
    }
    #[inline]
    fn b(&mut self, v: u8) -> &mut Self {
        self.put([v])
    }
    #[inline]
    fn w(&mut self, v: u16) -> &mut Self {
        self.put(v.to_le_bytes())
    }
    #[inline]
    fn d(&mut self, v: u32) -> &mut Self {
        self.put(v.to_le_bytes())
    }
    #[inline]
    fn q(&mut self, v: u64) -> &mut Self {
        self.put(v.to_le_bytes())
    }
}

impl<'a> Command<'a> {
    /// Writes the command to `into` and returns how many bytes of it are used. The data of a
    /// [`Self::StringOut`] is not copied: push the two with [`crate::ring::Producer::stage_two`], its second part
    /// being [`Self::data`].
    #[inline]
    pub fn encode(&self, into: &mut [u8; MAX_COMMAND]) -> usize {
        let mut o = Out { into, len: 0 };
        match *self {
            Self::PortWrite {
                flags,
                port,
                size,
                value,
            } => {
                o.tag(PORT_WRITE).b(flags.0).b(size).w(port).d(value);
            }
            Self::MmioWrite {
                flags,
                addr,
                size,
                value,
            } => {
                o.tag(MMIO_WRITE).b(flags.0).b(size).q(addr.0).q(value);
            }
            Self::Nop { flags, seq } => {
                o.tag(NOP).b(flags.0).d(seq);
            }
            Self::Shutdown => {
                o.tag(SHUTDOWN);
            }
            Self::MmioRead { addr, size } => {
                o.tag(MMIO_READ).b(size).q(addr.0);
            }
            Self::PortRead { port, size } => {
                o.tag(PORT_READ).b(size).w(port);
            }
            Self::DiskRead {
                disk_offset,
                len,
                guest,
            } => {
                o.tag(DISK_READ).q(disk_offset).d(len).q(guest.0);
            }
            Self::DiskWrite {
                disk_offset,
                len,
                guest,
            } => {
                o.tag(DISK_WRITE).q(disk_offset).d(len).q(guest.0);
            }
            Self::PciRead {
                address,
                offset,
                size,
            } => {
                o.tag(PCI_READ).b(size).b(offset).d(address);
            }
            Self::PciWrite {
                flags,
                address,
                offset,
                size,
                value,
            } => {
                o.tag(PCI_WRITE).b(flags.0).b(size).b(offset).d(address).d(value);
            }
            Self::StringIn { port, size, count } => {
                o.tag(STRING_IN).b(size).w(port).w(count);
            }
            Self::StringOut {
                flags, port, size, ..
            } => {
                o.tag(STRING_OUT).b(flags.0).b(size).w(port);
            }
            Self::StringInPage {
                flags,
                port,
                size,
                count,
                guest,
            } => {
                o.tag(STRING_IN_PAGE)
                    .b(flags.0)
                    .b(size)
                    .w(port)
                    .w(count)
                    .q(guest.0);
            }
            Self::StringOutPage {
                flags,
                port,
                size,
                count,
                guest,
            } => {
                o.tag(STRING_OUT_PAGE)
                    .b(flags.0)
                    .b(size)
                    .w(port)
                    .w(count)
                    .q(guest.0);
            }
            Self::ModuleCall {
                service,
                words: [a, b, c],
            } => {
                o.tag(MODULE_CALL).w(service).q(a).q(b).q(c);
            }
        }
        o.len
    }

    /// The data that follows the encoded fields: empty but for [`Self::StringOut`].
    pub fn data(&self) -> &'a [u8] {
        match self {
            Self::StringOut { data, .. } => data,
            _ => &[],
        }
    }

    /// Whether the vCPU waits for a reply.
    pub fn wants_reply(&self) -> bool {
        match *self {
            Self::Shutdown => false,
            Self::Nop { flags, .. }
            | Self::PortWrite { flags, .. }
            | Self::MmioWrite { flags, .. }
            | Self::PciWrite { flags, .. }
            | Self::StringOut { flags, .. } => flags.contains(CommandFlags::REPLY),
            _ => true,
        }
    }

    /// Reads a command.
    ///
    /// # Errors
    /// [`DecodeError`]; sizes, counts and page bounds are checked here, addresses are the devices' business.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const PORT: &[u8] = &[1, 2, 4];
        const MEMORY: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8];
        let mut f = Fields::new(bytes);
        let tag = f.u16("tag")?;
        let command = match tag {
            PORT_WRITE => {
                let (flags, size) = (CommandFlags::decode(&mut f)?, f.size(PORT)?);
                Self::PortWrite {
                    flags,
                    size,
                    port: f.u16("port")?,
                    value: f.u32("value")?,
                }
            }
            MMIO_WRITE => {
                let (flags, size) = (CommandFlags::decode(&mut f)?, f.size(MEMORY)?);
                Self::MmioWrite {
                    flags,
                    size,
                    addr: GuestPhys(f.u64("address")?),
                    value: f.u64("value")?,
                }
            }
            NOP => Self::Nop {
                flags: CommandFlags::decode(&mut f)?,
                seq: f.u32("sequence number")?,
            },
            SHUTDOWN => Self::Shutdown,
            MMIO_READ => Self::MmioRead {
                size: f.size(MEMORY)?,
                addr: GuestPhys(f.u64("address")?),
            },
            PORT_READ => Self::PortRead {
                size: f.size(PORT)?,
                port: f.u16("port")?,
            },
            DISK_READ | DISK_WRITE => {
                let (disk_offset, len) = (f.u64("disk offset")?, f.u32("length")?);
                let guest = GuestPhys(f.u64("address")?);
                if tag == DISK_READ {
                    Self::DiskRead {
                        disk_offset,
                        len,
                        guest,
                    }
                } else {
                    Self::DiskWrite {
                        disk_offset,
                        len,
                        guest,
                    }
                }
            }
            PCI_READ => {
                let (size, offset) = (f.size(PORT)?, pci_offset(&mut f)?);
                Self::PciRead {
                    size,
                    offset,
                    address: f.u32("address")?,
                }
            }
            PCI_WRITE => {
                let (flags, size) = (CommandFlags::decode(&mut f)?, f.size(PORT)?);
                let (offset, address) = (pci_offset(&mut f)?, f.u32("address")?);
                Self::PciWrite {
                    flags,
                    size,
                    offset,
                    address,
                    value: f.u32("value")?,
                }
            }
            STRING_IN => {
                let (size, port, count) = (f.size(PORT)?, f.u16("port")?, f.u16("count")?);
                string_len(size, count)?;
                Self::StringIn { port, size, count }
            }
            STRING_OUT => {
                let (flags, size) = (CommandFlags::decode(&mut f)?, f.size(PORT)?);
                let (port, data) = (f.u16("port")?, f.rest("string data", MAX_STRING)?);
                if !data.len().is_multiple_of(usize::from(size)) {
                    return Err(DecodeError::UnexpectedEof { field: "string data" });
                }
                Self::StringOut {
                    flags,
                    port,
                    size,
                    data,
                }
            }
            STRING_IN_PAGE | STRING_OUT_PAGE => {
                let (flags, size) = (CommandFlags::decode(&mut f)?, f.size(PORT)?);
                let (port, count) = (f.u16("port")?, f.u16("count")?);
                let guest = GuestPhys(f.u64("address")?);
                one_page(flags, size, count, guest)?;
                if tag == STRING_IN_PAGE {
                    Self::StringInPage {
                        flags,
                        port,
                        size,
                        count,
                        guest,
                    }
                } else {
                    Self::StringOutPage {
                        flags,
                        port,
                        size,
                        count,
                        guest,
                    }
                }
            }
            MODULE_CALL => Self::ModuleCall {
                service: f.u16("service")?,
                words: [f.u64("a")?, f.u64("b")?, f.u64("c")?],
            },
            tag => return Err(DecodeError::UnknownTag { tag, trailing: 0 }),
        };
        f.end(tag)?;
        Ok(command)
    }
}

fn pci_offset(f: &mut Fields<'_>) -> Result<u8, DecodeError> {
    match f.u8("offset")? {
        offset @ 0..=3 => Ok(offset),
        value => Err(DecodeError::InvalidEnum {
            field: "offset",
            value: u64::from(value),
        }),
    }
}

fn string_len(size: u8, count: u16) -> Result<usize, DecodeError> {
    let len = usize::from(size) * usize::from(count);
    if len > MAX_STRING {
        return Err(DecodeError::OversizedPayload {
            field: "string",
            len,
            max: MAX_STRING,
        });
    }
    Ok(len)
}

/// Checks that all elements of a string lie in the page of the first.
fn one_page(flags: CommandFlags, size: u8, count: u16, guest: GuestPhys) -> Result<(), DecodeError> {
    let len = string_len(size, count)?;
    let offset = guest.page_offset() as usize;
    let fits = if flags.contains(CommandFlags::BACKWARDS) {
        // The first element is the highest.
        offset + usize::from(size) <= MAX_STRING && len <= offset + usize::from(size)
    } else {
        offset + len <= MAX_STRING
    };
    if fits {
        Ok(())
    } else {
        Err(DecodeError::OversizedPayload {
            field: "string in a page",
            len: offset + len,
            max: MAX_STRING,
        })
    }
}
