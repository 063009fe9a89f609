//! What can be traced: the one list from which writers, readers and the documentation take names and shapes.

use crate::handshake::Role;

/// What an event looks like on the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Takes time on the thread's own track; such spans nest.
    Span,
    /// Takes time beside others, on a track named by the event.
    Beside,
    /// A moment.
    Instant,
}

/// How an event's value is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Not at all.
    Nothing,
    /// In decimal, under this name.
    Number(&'static str),
    /// In hexadecimal, under this name.
    Hex(&'static str),
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $role:ident, $shape:ident, $name:literal, $show:expr;)*) => {
        /// A kind of event. Its number goes with the build, as every offset does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// Every kind, by number.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// Who writes it.
            pub const fn role(self) -> Role {
                match self { $(Self::$kind => Role::$role,)* }
            }

            /// What it looks like.
            pub const fn shape(self) -> Shape {
                match self { $(Self::$kind => Shape::$shape,)* }
            }

            /// Its name on the timeline: printable ASCII without quotes.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// What its value is.
            pub const fn show(self) -> Show {
                match self { $(Self::$kind => $show,)* }
            }
        }
    };
}

kinds! {
    /// The vCPU executes.
    Run = Cpu, Span, "runs", Show::Number("instructions");
    /// HLT.
    Idle = Cpu, Span, "idle", Show::Nothing;
    /// Nothing is executed: paused, being reset, or the guest has ended.
    Stands = Cpu, Span, "stands still", Show::Nothing;
    /// A port read that io-worker answers.
    PortRead = Cpu, Span, "port read", Show::Hex("port");
    /// A port write that waits for io-worker.
    PortWrite = Cpu, Span, "port write", Show::Hex("port");
    /// A read of device memory that io-worker answers.
    MmioRead = Cpu, Span, "device memory read", Show::Hex("address");
    /// A write to device memory that waits for io-worker.
    MmioWrite = Cpu, Span, "device memory write", Show::Hex("address");
    /// Another command that waits for io-worker: PCI configuration.
    OtherWait = Cpu, Span, "waits for io-worker", Show::Nothing;
    /// The command ring is full.
    RingFull = Cpu, Span, "command ring full", Show::Nothing;
    /// Waits until everything posted has been carried out.
    Drain = Cpu, Span, "drains posted writes", Show::Nothing;
    /// An interrupt is delivered.
    Interrupt = Cpu, Instant, "interrupt", Show::Hex("vector");
    /// A block is translated.
    Translate = Cpu, Span, "translates", Show::Hex("linear address");
    /// The vCPU starts the guest anew.
    Start = Cpu, Instant, "guest starts", Show::Number("reset");
    /// A WebAssembly module runs.
    Module = Cpu, Span, "module", Show::Number("job");
    /// A module waits for io-worker's services.
    Service = Cpu, Span, "service", Show::Nothing;

    /// io-worker serves: commands, time, commit, publication.
    Turn = Io, Span, "turn", Show::Number("commands");
    /// Changed state is committed.
    Commit = Io, Span, "commit", Show::Nothing;
    /// What was committed is shown to the others.
    Publish = Io, Span, "publish", Show::Nothing;
    /// The devices are reset and the guest is put into memory.
    Reset = Io, Span, "reset", Show::Number("reset");
    /// A successor takes the last commit up.
    Recover = Io, Span, "takes over", Show::Nothing;
    /// An interrupt line goes up.
    IrqHigh = Io, Instant, "IRQ line high", Show::Number("line");
    /// An interrupt line goes down, or an edge passed.
    IrqLow = Io, Instant, "IRQ line low", Show::Number("line");
    /// A device's deadline was seen late.
    TimerLate = Io, Instant, "timer late", Show::Number("ns");
    /// A disk request, from its asking to its end.
    DiskRead = Io, Beside, "read", Show::Number("bytes");
    /// As [`Self::DiskRead`].
    DiskWrite = Io, Beside, "write", Show::Number("bytes");
    /// As [`Self::DiskRead`].
    DiskFlush = Io, Beside, "flush", Show::Nothing;
    /// As [`Self::DiskRead`].
    DiskDiscard = Io, Beside, "discard", Show::Number("bytes");
    /// As [`Self::DiskRead`].
    DiskZero = Io, Beside, "write zeros", Show::Number("bytes");

    /// A frame is drawn, and published if it differs.
    Draw = Gpu, Span, "draw", Show::Number("frame");
    /// A frame is put on the window.
    Present = Gpu, Span, "present", Show::Nothing;
    /// A screenshot is made.
    Shot = Gpu, Span, "screenshot", Show::Nothing;
    /// Input is passed on to io-worker.
    Input = Gpu, Instant, "input", Show::Number("events");

    /// Sound is played.
    Play = Audio, Span, "period", Show::Number("frames");
    /// Sound was missing.
    Underrun = Audio, Instant, "underrun", Show::Number("frames");
}

impl Kind {
    /// The kind numbered `number`.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}
