//! What a worker tells.

use super::wire::Fields;
use super::{DecodeError, MAX_MESSAGE};

/// Severity of a [`Event::Log`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LogLevel {
    /// Of interest to whoever debugs that very line.
    Trace = 0,
    /// Of interest to developers.
    Debug = 1,
    /// Of interest to users.
    Info = 2,
    /// Something is not as it should be.
    Warn = 3,
    /// Something failed.
    Error = 4,
}

/// Why a disk command failed (S3.52).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DiskError {
    /// There is no disk.
    NoDisk = 1,
    /// The guest physical range is not RAM.
    GuestRange = 2,
    /// The offset cannot be represented.
    Offset = 3,
    /// The host could not carry it out.
    Io = 4,
}

/// An event. Texts and data are bounded by [`MAX_MESSAGE`] less the other fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A command without an answer of its own has been carried out.
    Ack {
        /// The number in the command.
        seq: u32,
    },
    /// Answer to an MMIO read.
    MmioReadResp {
        /// Number of the command.
        id: u32,
        /// Bytes read.
        data: Vec<u8>,
    },
    /// Answer to an MMIO write.
    MmioWriteResp {
        /// Number of the command.
        id: u32,
    },
    /// Answer to a port read.
    PortReadResp {
        /// Number of the command.
        id: u32,
        /// Value read.
        value: u32,
    },
    /// Answer to a port write.
    PortWriteResp {
        /// Number of the command.
        id: u32,
    },
    /// Answer to a disk read.
    DiskReadResp {
        /// Number of the command.
        id: u32,
        /// Bytes moved, or why none.
        result: Result<u32, DiskError>,
    },
    /// Answer to a disk write.
    DiskWriteResp {
        /// Number of the command.
        id: u32,
        /// Bytes moved, or why none.
        result: Result<u32, DiskError>,
    },
    /// A frame can be shown.
    FrameReady {
        /// Its number.
        frame: u64,
    },
    /// An interrupt line rose.
    IrqRaise {
        /// The line.
        line: u8,
    },
    /// An interrupt line fell.
    IrqLower {
        /// The line.
        line: u8,
    },
    /// The A20 gate as the keyboard controller drives it.
    A20 {
        /// Whether line 20 is open.
        enabled: bool,
    },
    /// The guest asked for a reset.
    ResetRequest,
    /// A line for the log.
    Log {
        /// Severity.
        level: LogLevel,
        /// The line.
        message: String,
    },
    /// Bytes of a serial port.
    Serial {
        /// Its base port.
        port: u16,
        /// The bytes.
        data: Vec<u8>,
    },
    /// The worker is about to end because of a fault of its own.
    Panic {
        /// What it says.
        message: String,
    },
    /// A vCPU shut down.
    TripleFault,
}

const ACK: u16 = 0x1000;
const MMIO_READ_RESP: u16 = 0x1100;
const MMIO_WRITE_RESP: u16 = 0x1101;
const PORT_READ_RESP: u16 = 0x1102;
const PORT_WRITE_RESP: u16 = 0x1103;
const DISK_READ_RESP: u16 = 0x1104;
const DISK_WRITE_RESP: u16 = 0x1105;
const FRAME_READY: u16 = 0x1200;
const IRQ_RAISE: u16 = 0x1300;
const IRQ_LOWER: u16 = 0x1301;
const A20: u16 = 0x1302;
const RESET_REQUEST: u16 = 0x1303;
const LOG: u16 = 0x1400;
const SERIAL: u16 = 0x1500;
const PANIC: u16 = 0x1FFE;
const TRIPLE_FAULT: u16 = 0x1FFF;

/// Most bytes of a text or data field: what is left of a message after the longest other fields.
const MAX_FIELD: usize = MAX_MESSAGE - 16;

impl Event {
    /// The event as bytes. Texts and data longer than a message allows are cut at the limit, texts at a
    /// character.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        let tag = |out: &mut Vec<u8>, tag: u16| out.extend(tag.to_le_bytes());
        let d = |out: &mut Vec<u8>, v: u32| out.extend(v.to_le_bytes());
        match self {
            Self::Ack { seq } => {
                tag(&mut out, ACK);
                d(&mut out, *seq);
            }
            Self::MmioReadResp { id, data } => {
                tag(&mut out, MMIO_READ_RESP);
                d(&mut out, *id);
                put_bytes(&mut out, data);
            }
            Self::MmioWriteResp { id } => {
                tag(&mut out, MMIO_WRITE_RESP);
                d(&mut out, *id);
            }
            Self::PortReadResp { id, value } => {
                tag(&mut out, PORT_READ_RESP);
                d(&mut out, *id);
                d(&mut out, *value);
            }
            Self::PortWriteResp { id } => {
                tag(&mut out, PORT_WRITE_RESP);
                d(&mut out, *id);
            }
            Self::DiskReadResp { id, result } => {
                tag(&mut out, DISK_READ_RESP);
                put_result(&mut out, *id, *result);
            }
            Self::DiskWriteResp { id, result } => {
                tag(&mut out, DISK_WRITE_RESP);
                put_result(&mut out, *id, *result);
            }
            Self::FrameReady { frame } => {
                tag(&mut out, FRAME_READY);
                out.extend(frame.to_le_bytes());
            }
            Self::IrqRaise { line } => {
                tag(&mut out, IRQ_RAISE);
                out.push(*line);
            }
            Self::IrqLower { line } => {
                tag(&mut out, IRQ_LOWER);
                out.push(*line);
            }
            Self::A20 { enabled } => {
                tag(&mut out, A20);
                out.push(u8::from(*enabled));
            }
            Self::ResetRequest => tag(&mut out, RESET_REQUEST),
            Self::Log { level, message } => {
                tag(&mut out, LOG);
                out.push(*level as u8);
                put_text(&mut out, message);
            }
            Self::Serial { port, data } => {
                tag(&mut out, SERIAL);
                out.extend(port.to_le_bytes());
                put_bytes(&mut out, data);
            }
            Self::Panic { message } => {
                tag(&mut out, PANIC);
                put_text(&mut out, message);
            }
            Self::TripleFault => tag(&mut out, TRIPLE_FAULT),
        }
        out
    }

    /// Reads an event.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(DecodeError::OversizedPayload {
                field: "message",
                len: bytes.len(),
                max: MAX_MESSAGE,
            });
        }
        let mut f = Fields::new(bytes);
        let tag = f.u16("tag")?;
        let event = match tag {
            ACK => Self::Ack {
                seq: f.u32("sequence number")?,
            },
            MMIO_READ_RESP => Self::MmioReadResp {
                id: f.u32("id")?,
                data: f.bytes("data", MAX_FIELD)?.to_vec(),
            },
            MMIO_WRITE_RESP => Self::MmioWriteResp { id: f.u32("id")? },
            PORT_READ_RESP => Self::PortReadResp {
                id: f.u32("id")?,
                value: f.u32("value")?,
            },
            PORT_WRITE_RESP => Self::PortWriteResp { id: f.u32("id")? },
            DISK_READ_RESP => Self::DiskReadResp {
                id: f.u32("id")?,
                result: disk_result(&mut f)?,
            },
            DISK_WRITE_RESP => Self::DiskWriteResp {
                id: f.u32("id")?,
                result: disk_result(&mut f)?,
            },
            FRAME_READY => Self::FrameReady {
                frame: f.u64("frame")?,
            },
            IRQ_RAISE => Self::IrqRaise { line: f.u8("line")? },
            IRQ_LOWER => Self::IrqLower { line: f.u8("line")? },
            A20 => Self::A20 {
                enabled: f.bool("A20 state")?,
            },
            RESET_REQUEST => Self::ResetRequest,
            LOG => Self::Log {
                level: level(f.u8("log level")?)?,
                message: f.text("log message", MAX_FIELD)?,
            },
            SERIAL => Self::Serial {
                port: f.u16("port")?,
                data: f.bytes("data", MAX_FIELD)?.to_vec(),
            },
            PANIC => Self::Panic {
                message: f.text("panic message", MAX_FIELD)?,
            },
            TRIPLE_FAULT => Self::TripleFault,
            tag => return Err(DecodeError::UnknownTag { tag, trailing: 0 }),
        };
        f.end(tag)?;
        Ok(event)
    }
}

fn put_bytes(out: &mut Vec<u8>, data: &[u8]) {
    let data = &data[..data.len().min(MAX_FIELD)];
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(MAX_FIELD);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    put_bytes(out, &text.as_bytes()[..end]);
}

fn put_result(out: &mut Vec<u8>, id: u32, result: Result<u32, DiskError>) {
    out.extend(id.to_le_bytes());
    let (ok, value) = match result {
        Ok(bytes) => (1, bytes),
        Err(error) => (0, error as u32),
    };
    out.push(ok);
    out.extend(value.to_le_bytes());
}

fn disk_result(f: &mut Fields<'_>) -> Result<Result<u32, DiskError>, DecodeError> {
    let ok = f.bool("disk status")?;
    let value = f.u32("disk result")?;
    if ok {
        return Ok(Ok(value));
    }
    match value {
        1 => Ok(Err(DiskError::NoDisk)),
        2 => Ok(Err(DiskError::GuestRange)),
        3 => Ok(Err(DiskError::Offset)),
        4 => Ok(Err(DiskError::Io)),
        value => Err(DecodeError::InvalidEnum {
            field: "disk error",
            value: u64::from(value),
        }),
    }
}

fn level(value: u8) -> Result<LogLevel, DecodeError> {
    Ok(match value {
        0 => LogLevel::Trace,
        1 => LogLevel::Debug,
        2 => LogLevel::Info,
        3 => LogLevel::Warn,
        4 => LogLevel::Error,
        value => {
            return Err(DecodeError::InvalidEnum {
                field: "log level",
                value: u64::from(value),
            });
        }
    })
}
