//! The shared-memory ABI of Quintet.
//!
//! Every other crate needs this one and it needs none of them. It is the only place where a byte offset
//! of a shared segment is written down, the only place that maps memory, and the only place that touches
//! atomics (`sync`), so that the algorithms can be model-checked. It holds no device logic and no policy.
//!
//! Rules that hold throughout: no Rust reference points into shared memory (typed volatile or atomic
//! access through [`shm::View`] and [`shm::ViewMut`] only), one writer per word, and every reader assumes
//! that the writer lies.
//!
//! # Where to find what
//!
//! | need | module |
//! |---|---|
//! | every shared end of a process, typed | [`layout::Ends`] over the maps of the worker's context |
//! | all files of a machine, for tests and one process | [`layout::SegmentSet`] |
//! | what lies where; who sleeps on which word | [`layout`]; `docs/protocol.md` |
//! | commands cpu → io: bytes and ring | [`message::Command`], [`ring`] |
//! | replies io → cpu | [`reply`] |
//! | interrupt lines io → cpu | [`wires`] |
//! | polled registers, who decodes what, PAM and SMRAM, PIRQ routing | [`mirror`], [`decode_map`] |
//! | DMA against decoded code | [`codemap`], [`invalidation`] |
//! | how a vCPU starts | [`boot_state`] |
//! | restartable devices | [`commit`] |
//! | serial lines and debug consoles | [`stream`] |
//! | sleeping, waking, the exit word | [`doorbell`] |
//! | VM time and host time | [`clock`], [`time`] |
//! | a record of several words with one writer | [`seqlock`] |
//! | how a process starts and ends | [`handshake`], [`probe`], [`payload`], [`status`], [`lifecycle`], [`control`] |
//! | picture, input, sound | [`vram`], [`scanout`], [`framebuffer`], [`font`], [`input`], [`audio`] |
//!
//! # Order of publication
//!
//! io-worker takes a batch of commands, commits ([`commit::CommitStore::commit`]), and only then publishes, in this
//! order: invalidations, mirrors, decode map, wires, heads of the command rings ([`ring::Consumer::release`]),
//! replies, tails of the outgoing streams; last it rings the exit word. A vCPU that sees a reply, or its ring
//! drained, therefore sees every wire that its commands moved. The vCPU, in turn, clears its exit word first
//! ([`doorbell::Sleeper::take`]), then takes invalidations, then looks at the rest.
//!
//! # A synchronous command
//!
//! The vCPU pushes the command and keeps its number, nudges io-worker's doorbell, waits on its own sleeper with
//! [`reply::ReplyReader::is_ready`] as the condition and a deadline, and takes the reply under the number. A passed
//! deadline is no answer: look at the peer's state, then wait on.

pub mod addr;
pub mod audio;
pub mod boot_state;
pub mod clock;
pub mod codemap;
pub mod commit;
pub mod control;
pub mod debugger;
pub mod decode_map;
pub mod doorbell;
pub mod font;
pub mod framebuffer;
pub mod handshake;
pub mod input;
pub mod invalidation;
pub mod layout;
pub mod lifecycle;
pub mod message;
pub mod mirror;
pub mod payload;
pub mod probe;
pub mod profile;
pub mod ram;
pub mod reply;
pub mod ring;
pub mod scanout;
pub mod seqlock;
pub mod shm;
pub mod speaker;
pub mod status;
pub mod stream;
pub mod sync;
pub mod time;
pub mod trace;
pub mod vram;
pub mod wasm;
pub mod window;
pub mod wires;
pub mod words;
