//! DMA against decoded code under the model checker: no vCPU runs a block decoded from bytes that a completed
//! transfer has replaced.
#![cfg(loom)]

mod loom_support;

use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use loom::thread;
use loom_support::{Words, model};
use quintet_protocol::addr::RamOffset;
use quintet_protocol::codemap::{CodeMapReader, CodeMapWriter};
use quintet_protocol::doorbell::{Bell, Ear};
use quintet_protocol::words::{ReadWords, WriteWords};

const PAGE: u64 = 5;

/// A decoder and a device meet at one page; either may forget its fence.
fn meet(decoder_fences: bool, device_fences: bool) {
    model(move || {
        let (bits, ram) = (Words::new(8), Words::new(8));
        let side = |fences| {
            if fences {
                bits.clone()
            } else {
                bits.without_fences()
            }
        };
        let (code, data) = (CodeMapReader::new(side(device_fences)), ram.clone());
        let device = thread::spawn(move || {
            data.store_u32(0, 1, Relaxed);
            let mut hit = false;
            code.hits(RamOffset(PAGE * 4096), 4, |_| hit = true);
            hit
        });
        CodeMapWriter::new(side(decoder_fences)).mark(PAGE);
        let decoded = ram.load_u32(0, Relaxed);
        let hit = device.join().unwrap();
        assert!(hit || decoded == 1, "stale code and nobody told");
    });
}

#[test]
fn either_the_writer_sees_the_bit_or_the_decoder_sees_the_bytes() {
    meet(true, true);
}

#[test]
#[should_panic(expected = "stale code and nobody told")]
fn the_decoders_fence_is_needed() {
    meet(false, true);
}

#[test]
#[should_panic(expected = "stale code and nobody told")]
fn the_devices_fence_is_needed() {
    meet(true, false);
}

#[test]
fn a_vcpu_that_knows_of_the_completion_has_its_exit_word_set_and_finds_the_invalidation() {
    model(|| {
        let (bits, ram, done) = (Words::new(8), Words::new(8), Words::new(8));
        let (word, asleep, sent) = (Words::new(8), Words::new(8), Words::new(8));
        let bell = Bell {
            word: word.clone(),
            asleep: asleep.clone(),
        };
        let ear = Ear { word, asleep };
        let device = {
            let (code, ram, done, sent) = (
                CodeMapReader::new(bits.clone()),
                ram.clone(),
                done.clone(),
                sent.clone(),
            );
            thread::spawn(move || {
                ram.store_u32(0, 1, Relaxed);
                code.hits(RamOffset(PAGE * 4096), 4, |_| {
                    sent.store_u32(0, 1, Relaxed);
                    bell.set();
                });
                // The completion: a word in RAM that the guest polls without leaving translated code.
                done.store_u32(0, 1, Release);
            })
        };
        CodeMapWriter::new(bits).mark(PAGE);
        let block = ram.load_u32(0, Relaxed);
        if done.load_u32(0, Acquire) == 1 && block == 0 {
            // At the next block boundary the exit word is looked at.
            assert!(
                ear.take(),
                "the guest saw the completion and would run the old block"
            );
            assert_eq!(sent.load_u32(0, Relaxed), 1);
        }
        device.join().unwrap();
    });
}
