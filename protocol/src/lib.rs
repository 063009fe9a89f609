//! The shared-memory ABI of Quintet.
//!
//! Every other crate needs this one and it needs none of them. It is the only place where a byte offset
//! of a shared segment is written down, the only place that maps memory, and the only place that touches
//! atomics (`sync`), so that the algorithms can be model-checked. It holds no device logic and no policy.
//!
//! Rules that hold throughout: no Rust reference points into shared memory (typed volatile or atomic
//! access through [`shm::View`] and [`shm::ViewMut`] only), one writer per word, and every reader assumes
//! that the writer lies.

pub mod addr;
pub mod audio;
pub mod clock;
pub mod control;
pub mod doorbell;
pub mod font;
pub mod framebuffer;
pub mod handshake;
pub mod input;
pub mod lifecycle;
pub mod payload;
pub mod probe;
pub mod ram;
pub mod reply;
pub mod ring;
pub mod scanout;
pub mod seqlock;
pub mod shm;
pub mod status;
pub mod stream;
pub mod sync;
pub mod time;
pub mod vram;
pub mod words;
