//! The doorbell on maps of one memfd, as two processes see it.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::shm::{Map, Segment};
use crate::sync::Ordering;

/// A shared word and a flag file: the ringer's ends and the sleeper's.
fn pair(policy: SpinPolicy) -> (Doorbell, Sleeper) {
    let words = Segment::create("doorbells", 4096).unwrap();
    let flags = Segment::create("flags", 4096).unwrap();
    let rw = |s: &Segment| ViewMut::new(Arc::new(Map::read_write(s.writer(), 0, 4096).unwrap()));
    let ro = View::new(Arc::new(
        Map::read_only(std::os::fd::AsFd::as_fd(&flags.reader().unwrap()), 0, 4096).unwrap(),
    ));
    (
        Doorbell::new(rw(&words), ro),
        Sleeper::new(rw(&words), rw(&flags), policy),
    )
}

#[test]
fn a_ring_before_the_wait_is_not_lost() {
    let (bell, sleeper) = pair(SpinPolicy::NEVER);
    bell.ring();
    assert_eq!(
        sleeper.wait(HostTime::after(60_000_000_000), || false),
        Woken::Rung
    );
    assert!(!sleeper.rung(), "the wait clears the word");
}

#[test]
fn a_sleeping_peer_is_woken_by_ring_and_by_nudge() {
    for nudge in [false, true] {
        let (bell, sleeper) = pair(SpinPolicy::NEVER);
        let asleep = sleeper.ear.asleep.clone();
        let waiter = std::thread::spawn(move || sleeper.wait(HostTime::after(60_000_000_000), || false));
        while asleep.load_u32(0, Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        if nudge {
            bell.nudge();
        } else {
            bell.ring();
        }
        assert_eq!(waiter.join().unwrap(), Woken::Rung);
        assert_eq!(asleep.load_u32(0, Ordering::Relaxed), 0);
    }
}

#[test]
fn who_rests_is_woken_by_a_ring_alone() {
    let (bell, sleeper) = pair(SpinPolicy::NEVER);
    let asleep = sleeper.ear.asleep.clone();
    let late = HostTime::after(60_000_000_000);
    let waiter = std::thread::spawn(move || (sleeper.rest(late), sleeper.rung()));
    while asleep.load_u32(0, Ordering::Relaxed) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    for _ in 0..20 {
        bell.nudge();
        std::thread::sleep(Duration::from_millis(1));
        assert!(bell.0.sleeping() && !bell.0.listening());
        assert_eq!(bell.0.word.load_u32(0, Ordering::Relaxed), 0);
    }
    bell.ring();
    assert_eq!(waiter.join().unwrap(), (Woken::Rung, false));
    assert_eq!(asleep.load_u32(0, Ordering::Relaxed), 0);

    let (bell, sleeper) = pair(SpinPolicy::NEVER);
    assert_eq!(sleeper.rest(HostTime::after(1_000_000)), Woken::Deadline);
    bell.ring();
    assert_eq!(sleeper.rest(late), Woken::Rung, "rung before");
}

#[test]
fn a_nudge_leaves_the_word_of_a_waking_peer_alone() {
    let (bell, sleeper) = pair(SpinPolicy::NEVER);
    bell.nudge();
    assert!(!sleeper.rung());
    bell.ring();
    assert!(sleeper.rung());
}

#[test]
fn a_passed_deadline_ends_the_wait_but_not_before_it() {
    let (_bell, sleeper) = pair(SpinPolicy::NEVER);
    let start = HostTime::now();
    assert_eq!(
        sleeper.wait(HostTime(start.0 + 20_000_000), || false),
        Woken::Deadline
    );
    assert!(HostTime::now().since(start) >= 20_000_000);
}

#[test]
fn a_condition_that_holds_needs_no_ring() {
    let (_bell, sleeper) = pair(SpinPolicy::LONG);
    let mut looks = 0;
    let ready = || {
        looks += 1;
        looks == 5
    };
    assert_eq!(sleeper.wait(HostTime::after(60_000_000_000), ready), Woken::Ready);
}

#[test]
fn a_flag_left_by_a_dead_predecessor_is_lowered() {
    let (bell, sleeper) = pair(SpinPolicy::NEVER);
    sleeper.ear.announce();
    assert!(bell.0.sleeping());
    let _successor = Sleeper::new(
        sleeper.ear.word.clone(),
        sleeper.ear.asleep.clone(),
        SpinPolicy::NEVER,
    );
    assert!(!bell.0.sleeping());
}

#[test]
fn one_core_never_spins() {
    assert_eq!(SpinPolicy::for_cores(1), SpinPolicy::NEVER);
    assert!(SpinPolicy::for_cores(2).tries() > 20_000);
}
