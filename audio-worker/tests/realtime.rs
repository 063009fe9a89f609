//! The consumer's path allocates nothing: what a real-time callback may call.
#![allow(unsafe_code, reason = "an allocator that counts is an unsafe trait")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use quintet_audio_worker::player::Player;
use quintet_audio_worker::sink::NullSink;
use quintet_protocol::audio::{Format, HEAD_BYTES, PlaybackConsumer, PlaybackProducer, RING_BYTES};
use quintet_protocol::shm::{Map, ViewMut};
use quintet_protocol::time::VmTime;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn part(len: usize) -> ViewMut {
    ViewMut::new(Arc::new(Map::anonymous(len as u64).expect("anonymous map")))
}

fn allocations(during: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    during();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn filling_a_buffer_allocates_nothing_full_empty_or_broken() {
    let (ours, theirs) = (part(RING_BYTES), part(HEAD_BYTES));
    let mut producer = PlaybackProducer::attach(ours.clone(), theirs.view().clone(), Format::new(48_000, 2));
    let mut ring = PlaybackConsumer::attach(theirs, ours.view().clone(), 48_000);
    ring.refresh().expect("a good ring");
    let mut out = [0.0; 1024];
    producer.push(&[0.5; 2000]);
    assert!(
        allocations(|| drop(std::hint::black_box(Box::new(1)))) > 0,
        "the counter counts"
    );
    let count = allocations(|| {
        for _ in 0..10 {
            ring.fill(&mut out);
        }
        producer.set_format(Format::new(44_100, 1));
        ring.fill(&mut out);
        let _ = ring.refresh();
        ring.fill(&mut out);
    });
    assert_eq!(count, 0);
}

#[test]
fn a_step_of_the_player_allocates_nothing() {
    let (ours, theirs) = (part(RING_BYTES), part(HEAD_BYTES));
    let mut producer = PlaybackProducer::attach(ours.clone(), theirs.view().clone(), Format::new(48_000, 2));
    let ring = PlaybackConsumer::attach(theirs, ours.view().clone(), 48_000);
    let mut player = Player::new(ring, support::no_speaker(), Box::new(NullSink), 48_000);
    producer.set_running(true);
    player.step(VmTime(0));
    producer.push(&[0.5; 4000]);
    let count = allocations(|| {
        let step = player.step(VmTime(100_000_000));
        assert!(step.played > 0 && step.missing > 0);
    });
    assert_eq!(count, 0);
}
