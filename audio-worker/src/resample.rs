//! From the rate of a stream to the rate of a sink: a windowed sinc, exact in time.
//!
//! Positions are integers in units of an input frame divided by the output rate, so that nothing drifts but what is to follow
//! another clock ([`Resampler::set_pace`]). The kernel is read from a
//! table and interpolated between its points, so that any ratio costs the same memory; the error of that lies 100 dB
//! below the signal.

use std::f64::consts::PI;

/// Zero crossings of the kernel on each side.
const CROSSINGS: usize = 32;
/// Points of the table between two crossings.
const POINTS: usize = 512;
/// Shape of the Kaiser window: 90 dB of rejection.
const BETA: f64 = 9.0;
/// Where the pass band ends, as a part of the lower of the two Nyquist frequencies.
const PASS: f64 = 0.92;

/// Parts of an output frame's share, so that a pace can be told in them.
const MILLION: u64 = 1_000_000;

/// A stereo stream on its way from one rate to another.
#[derive(Debug)]
pub struct Resampler {
    /// Input frames for an output frame, in parts of `to`.
    step: u64,
    from: u64,
    to: u64,
    /// Right half of the kernel.
    table: Vec<f32>,
    /// Input frames that the kernel reaches on each side.
    reach: usize,
    /// Points of the table for an input frame.
    points: f64,
    /// Input that may still be needed.
    input: Vec<[f32; 2]>,
    /// Where in it the next output frame lies, and the rest of it in parts of `to`.
    at: usize,
    rest: u64,
}

impl Resampler {
    /// From `from` to `to` frames per second, neither of which may be zero.
    pub fn new(from: u32, to: u32) -> Self {
        let scale = (f64::from(to) / f64::from(from)).min(1.0);
        let reach = (CROSSINGS as f64 / scale).ceil() as usize;
        let table = (0..=CROSSINGS * POINTS + 1).map(|n| {
            let t = n as f64 / POINTS as f64;
            (kernel(t) * scale) as f32
        });
        Self {
            step: u64::from(from) * MILLION,
            from: from.into(),
            to: u64::from(to) * MILLION,
            table: table.collect(),
            reach,
            points: scale * POINTS as f64,
            input: vec![[0.0; 2]; reach],
            at: reach,
            rest: 0,
        }
    }

    /// Takes the input faster by so many parts in a million; slower, if less than none. The kernel stays as it is, so it is for small
    /// changes.
    pub fn set_pace(&mut self, faster: i32) {
        self.step = self.from * MILLION.saturating_add_signed(faster.into());
    }

    /// Takes frames, and gives those that can be told from them to `out`.
    pub fn push(&mut self, frames: impl Iterator<Item = [f32; 2]>, mut out: impl FnMut([f32; 2])) {
        self.input.extend(frames);
        while self.at + self.reach < self.input.len() {
            out(self.frame());
            self.rest += self.step;
            self.at += (self.rest / self.to) as usize;
            self.rest %= self.to;
        }
        let past = (self.at - self.reach).min(self.input.len());
        self.input.drain(..past);
        self.at -= past;
    }

    /// The stream has ended: gives what is still under way, and begins anew.
    pub fn finish(&mut self, out: impl FnMut([f32; 2])) {
        let silence = vec![[0.0; 2]; self.reach];
        self.push(silence.iter().copied(), out);
        (self.input, self.at, self.rest) = (silence, self.reach, 0);
    }

    fn frame(&self) -> [f32; 2] {
        let rest = self.rest as f64 / self.to as f64;
        let first = self.at + 1 - self.reach;
        let mut sum = [0.0; 2];
        for (n, frame) in self.input[first..=self.at + self.reach].iter().enumerate() {
            let distance = ((first + n) as f64 - self.at as f64 - rest).abs() * self.points;
            let (point, part) = (distance as usize, distance.fract() as f32);
            let Some(&[a, b]) = self.table.get(point..point + 2) else {
                continue;
            };
            let weight = a + (b - a) * part;
            sum[0] += frame[0] * weight;
            sum[1] += frame[1] * weight;
        }
        sum
    }
}

/// The kernel at `t` crossings from its middle.
fn kernel(t: f64) -> f64 {
    let edge = t / CROSSINGS as f64;
    if edge >= 1.0 {
        return 0.0;
    }
    let x = PI * PASS * t;
    let sinc = if t == 0.0 { 1.0 } else { x.sin() / x };
    PASS * sinc * bessel(BETA * (1.0 - edge * edge).sqrt()) / bessel(BETA)
}

/// The modified Bessel function of the first kind and order zero, by its series.
fn bessel(x: f64) -> f64 {
    let (mut sum, mut term, mut n) = (1.0, 1.0, 1.0);
    while term > sum * 1e-17 {
        term *= (x / 2.0 / n) * (x / 2.0 / n);
        sum += term;
        n += 1.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Level of what is not the sine of `hz` in `samples` of `rate`, in dB below it; the edges are left out.
    fn snr(samples: &[f32], hz: f64, rate: f64) -> f64 {
        let middle = &samples[samples.len() / 8..samples.len() * 7 / 8];
        let angle = |n: usize| 2.0 * PI * hz / rate * n as f64;
        let (mut s, mut c) = (0.0, 0.0);
        for (n, &x) in middle.iter().enumerate() {
            s += f64::from(x) * angle(n).sin();
            c += f64::from(x) * angle(n).cos();
        }
        let (s, c) = (s * 2.0 / middle.len() as f64, c * 2.0 / middle.len() as f64);
        let noise: f64 = middle
            .iter()
            .enumerate()
            .map(|(n, &x)| (f64::from(x) - s * angle(n).sin() - c * angle(n).cos()).powi(2))
            .sum();
        10.0 * ((s * s + c * c) / 2.0 / (noise / middle.len() as f64)).log10()
    }

    /// A second of a sine through the resampler, in pieces.
    fn through(from: u32, to: u32, hz: f64) -> Vec<f32> {
        let mut resampler = Resampler::new(from, to);
        let sine: Vec<[f32; 2]> = (0..from)
            .map(|n| (2.0 * PI * hz / f64::from(from) * f64::from(n)).sin() as f32 * 0.5)
            .map(|s| [s, -s])
            .collect();
        let mut out = Vec::new();
        for piece in sine.chunks(511) {
            resampler.push(piece.iter().copied(), |f| out.push(f));
        }
        resampler.finish(|f| out.push(f));
        assert!(out.iter().all(|[l, r]| *l == -*r));
        out.into_iter().map(|[l, _]| l).collect()
    }

    #[test]
    fn a_sine_stays_a_sine_at_any_rate() {
        for (from, to, hz) in [
            (44_100, 48_000, 1000.0),
            (44_100, 48_000, 15_000.0),
            (8000, 48_000, 440.0),
            (11_025, 48_000, 3000.0),
            (47_999, 48_000, 1000.0),
            (96_000, 48_000, 1000.0),
        ] {
            let out = through(from, to, hz);
            assert_eq!(out.len(), to as usize, "{from} to {to}");
            let snr = snr(&out, hz, f64::from(to));
            assert!(snr > 80.0, "{from} to {to}, {hz} Hz: {snr} dB");
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_carry_is_gone() {
        let out = through(96_000, 48_000, 30_000.0);
        let loudest = out[2000..46_000].iter().fold(0.0_f32, |a, s| a.max(s.abs()));
        assert!(loudest < 0.5e-4, "{loudest}");
    }

    #[test]
    fn a_stream_after_another_begins_anew() {
        let mut resampler = Resampler::new(44_100, 48_000);
        let mut first = Vec::new();
        resampler.push((0..4410).map(|n| [n as f32; 2]), |f| first.push(f));
        resampler.finish(|f| first.push(f));
        let mut second = Vec::new();
        resampler.push((0..4410).map(|n| [n as f32; 2]), |f| second.push(f));
        resampler.finish(|f| second.push(f));
        assert_eq!(first, second);
    }
}
