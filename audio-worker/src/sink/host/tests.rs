//! The way to a device, with devices whose crystals are wrong, that come, go, and are late.

use std::f64::consts::TAU;
use std::sync::mpsc::channel;

use super::feed::{Feed, Line};
use super::*;
use crate::player::PERIOD;

/// Frames per second of the stream.
const RATE: u32 = 48_000;
/// Frames that the devices take at a time.
const BLOCK: usize = 512;

/// A sink whose device is simulated, and what it is told.
struct Host {
    sink: HostSink,
    devices: Sender<Filler>,
    orders: Receiver<Order>,
}

impl Host {
    fn new() -> Self {
        let (orders, inbox) = channel();
        let (devices, opened) = channel();
        let mut sink = HostSink::with(orders, opened);
        sink.start(Format::new(RATE, 2));
        Self {
            sink,
            devices,
            orders: inbox,
        }
    }

    fn plug(&self, rate: u32) -> Feed {
        let (filler, feed) = Line::open(rate);
        self.devices.send(filler).expect("it listens");
        feed
    }
}

/// Plays a sine of 1 kHz for so many seconds to a device of `rate` whose clock runs `ppm` parts in a million too fast, and answers
/// what that heard and the levels of the queue.
fn listen(rate: u32, ppm: f64, seconds: usize) -> (Vec<f32>, Vec<u32>, u32) {
    let mut host = Host::new();
    let mut feed = host.plug(rate);
    let (mut heard, mut levels, mut asked) = (Vec::new(), Vec::new(), 0.0);
    for period in 0..seconds * RATE as usize / PERIOD {
        let samples: Vec<f32> = (0..PERIOD)
            .map(|n| ((period * PERIOD + n) as f64 / f64::from(RATE) * 1000.0 * TAU).sin() as f32 * 0.5)
            .flat_map(|s| [s, s])
            .collect();
        host.sink.play(&samples, PERIOD);
        levels.push(host.sink.waiting());
        asked += PERIOD as f64 * f64::from(rate) / f64::from(RATE) * (1.0 + ppm / 1e6);
        while asked >= BLOCK as f64 {
            asked -= BLOCK as f64;
            feed.fill(BLOCK, |frame| heard.push(frame[0]));
        }
    }
    (heard, levels, host.sink.unheard())
}

/// Largest step from sample to sample, behind the first second.
fn largest_step(heard: &[f32], rate: u32) -> f32 {
    let steady = &heard[rate as usize..];
    steady
        .windows(2)
        .fold(0.0, |most, pair| most.max((pair[1] - pair[0]).abs()))
}

#[test]
fn devices_whose_crystals_are_wrong_hear_no_gap_in_five_minutes() {
    for ppm in [-300.0, 300.0] {
        let (heard, levels, unheard) = listen(RATE, ppm, 300);
        assert_eq!(unheard, 0, "{ppm}");
        let steady = &levels[levels.len() / 10..];
        let (least, most) = (steady.iter().min(), steady.iter().max());
        assert!(least.is_some_and(|l| *l > 600), "{ppm}: {least:?}");
        assert!(most.is_some_and(|m| *m < 4000), "{ppm}: {most:?}");
        // A sine of 1 kHz and half of full scale steps by 0.0655 at the most; what is left out or doubled would show.
        let step = largest_step(&heard, RATE);
        assert!(step < 0.067, "{ppm}: {step}");
    }
}

#[test]
fn a_device_of_another_rate_hears_the_same_pitch() {
    let (heard, _, unheard) = listen(44_100, 0.0, 40);
    assert_eq!(unheard, 0);
    // The first seconds bring the queue to its length.
    let steady = &heard[30 * 44_100..38 * 44_100];
    let crossings = steady.windows(2).filter(|w| w[0] < 0.0 && w[1] >= 0.0).count();
    assert!(
        crossings.abs_diff(8000) <= 2,
        "{crossings} periods in eight seconds"
    );
    assert!(largest_step(&heard, 44_100) < 0.0725);
}

#[test]
fn what_comes_late_and_at_once_is_passed_over() {
    let mut host = Host::new();
    let mut feed = host.plug(RATE);
    let period = [0.25; 2 * PERIOD];
    host.sink.play(&period, PERIOD);
    for _ in 0..94 {
        host.sink.play(&period, PERIOD);
        feed.fill(PERIOD, |_| {});
    }
    // Half a second at once, then the usual pace.
    for _ in 0..47 {
        host.sink.play(&period, PERIOD);
    }
    for _ in 0..200 {
        host.sink.play(&period, PERIOD);
        feed.fill(PERIOD, |_| {});
    }
    assert!(host.sink.waiting() < 5000, "{}", host.sink.waiting());
}

#[test]
fn a_pause_is_no_gap_and_the_device_is_told_to_rest() {
    let mut host = Host::new();
    let mut feed = host.plug(RATE);
    for _ in 0..20 {
        host.sink.play(&[0.25; 2 * PERIOD], PERIOD);
    }
    feed.fill(4096, |_| {});
    host.sink.hold();
    // As often as time stands still.
    host.sink.hold();
    feed.fill(RATE as usize, |_| {});
    assert_eq!((host.sink.waiting(), host.sink.unheard()), (0, 0));
    host.sink.play(&[0.25; 2 * PERIOD], PERIOD);
    let orders: Vec<Order> = host.orders.try_iter().collect();
    assert_eq!(orders, [Order::Play, Order::Rest, Order::Play]);
    drop(host.sink);
    assert_eq!(host.orders.recv(), Ok(Order::End));
}

#[test]
fn devices_come_and_go_and_what_each_missed_is_counted() {
    let mut host = Host::new();
    let period = [0.25; 2 * PERIOD];
    for _ in 0..100 {
        host.sink.play(&period, PERIOD);
    }
    assert_eq!((host.sink.waiting(), host.sink.unheard()), (0, 0), "nowhere");
    for devices in 1..=3 {
        let mut feed = host.plug(RATE);
        for _ in 0..10 {
            host.sink.play(&period, PERIOD);
        }
        let level = host.sink.waiting();
        assert!(level > 0);
        // It asks for a hundred frames more than there are.
        let asked = level as usize + 100;
        for block in (0..asked).step_by(BLOCK) {
            feed.fill(BLOCK.min(asked - block), |_| {});
        }
        assert_eq!(host.sink.unheard(), devices * 100);
        drop(feed);
        host.sink.play(&period, PERIOD);
        assert_eq!(host.sink.waiting(), 0);
    }
}
