//! Linux plays a sine through the AC'97 card, and the WAV file has it: no frame more, none less, none other. Where workers
//! die meanwhile, it goes on afterwards. And a guest of ours uses the PC speaker.

#[allow(dead_code, reason = "only files are made here")]
#[path = "../xtask/src/cpio.rs"]
mod cpio;
#[path = "support/hearing.rs"]
mod hearing;
mod support;

use std::f64::consts::TAU;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cpio::Cpio;
use hearing::{QUIET, RATE, pitch, sounds};
use quintet_protocol::handshake::Role;
use support::folder::Folder;
use support::{Machine, Setup, assert_clean, guest_file, scale, variable};

/// Least ratio of the sine to everything else, in dB.
const SNR: f64 = 60.0;
/// The card for alsa-lib, which so needs none of its own files.
const CONFIG: &str = "pcm.card { type hw card 0 }\nctl.card { type hw card 0 }\n";

/// Files of a test, removed at its end.
struct Files {
    wav: PathBuf,
    /// Where it and the initramfs are.
    _folder: Folder,
}

/// A second of a sine, 16-bit stereo, in whole periods so that repetitions are seamless.
fn sine(rate: u32, hz: u32) -> Vec<u8> {
    (0..rate)
        .map(|n| (f64::from(n) * f64::from(hz) / f64::from(rate) * TAU).sin() * 16_000.0)
        .flat_map(|s| [s.round() as i16; 2])
        .flat_map(i16::to_le_bytes)
        .collect()
}

/// Boots an architecture with the card and a tone for each rate, as `/tone-RATE`, and opens the volumes.
fn start(architecture: &str, name: &str, accel: &str, tones: &[(u32, u32)]) -> Option<(Machine, Files)> {
    let quintet = support::quintet()?;
    let kernel = variable(&format!("QUINTET_KERNEL_{architecture}"))?;
    let initrd = variable(&format!("QUINTET_INITRD_SOUND_{architecture}"))?;
    let mut bytes = std::fs::read(initrd).expect("the initramfs");
    let mut more = Cpio::default();
    more.program("asound.conf", CONFIG.as_bytes());
    for &(rate, hz) in tones {
        more.program(&format!("tone-{rate}"), &sine(rate, hz));
    }
    bytes.extend(more.finish());
    let folder = Folder::new(&format!("{name}-{architecture}"));
    let initrd = folder.file("cpio");
    std::fs::write(&initrd, bytes).expect("an initramfs");
    let files = Files {
        wav: folder.file("wav"),
        _folder: folder,
    };
    let mut guest = Setup::new(quintet, kernel)
        .option("--initrd", &initrd)
        .option("--append", "console=ttyS0")
        .option("--ram", "256M")
        .option("--accel", accel)
        .option("--stable-after", "0s")
        .option("--device", "AC97")
        .option("--audio", format!("wav:{}", files.wav.display()))
        .start(&format!("{name}-{architecture}"));
    guest.shell();
    guest.command("dmesg -n 1; export ALSA_CONFIG_PATH=/asound.conf");
    let cards = guest.command("cat /proc/asound/cards");
    assert!(cards.contains("ICH"), "{cards}");
    // 0 dB each.
    guest.command("/usr/bin/amixer -q -D card sset Master 31 unmute");
    guest.command("/usr/bin/amixer -q -D card sset PCM 23 unmute");
    Some((guest, files))
}

/// Makes some seconds of a tone, and gives the command that plays them and prints what the player complains of. The buffer is as long
/// as the driver's longest, two thirds of a second: a guest that gets its processor later than that hears a gap on hardware, too.
fn prepare(guest: &mut Machine, rate: u32, seconds: u32) -> String {
    guest.command(&format!(
        "for i in $(seq {seconds}); do cat /tone-{rate}; done >/tmp/tone"
    ));
    format!(
        "/usr/bin/aplay -q -D card -t raw -f S16_LE -c 2 -r {rate} --buffer-size=32768 --period-size=4096 /tmp/tone 2>&1"
    )
}

/// Left and right of a WAV file, with its header checked.
fn read_wav(path: &Path) -> (Vec<i16>, Vec<i16>) {
    let bytes = std::fs::read(path).expect("the WAV file");
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
    assert_eq!((&bytes[..4], &bytes[8..16]), (&b"RIFF"[..], &b"WAVEfmt "[..]));
    // PCM, two channels, 16 bits; one chunk of data.
    assert_eq!((word(20), word(24)), (2 << 16 | 1, RATE));
    assert_eq!((word(32) >> 16, &bytes[36..40]), (16, &b"data"[..]));
    let data = &bytes[44..44 + word(40) as usize];
    let samples: Vec<i16> = data
        .chunks_exact(2)
        .map(|b| i16::from_le_bytes([b[0], b[1]]))
        .collect();
    samples.chunks_exact(2).map(|f| (f[0], f[1])).unzip()
}

/// How far a sine of `hz` is above everything else in `samples`, in dB: a frame that is missing or too much anywhere
/// turns its phase, and what follows is noise.
fn snr(samples: &[i16], hz: u32) -> f64 {
    let angle = |n: usize| TAU * f64::from(hz) / f64::from(RATE) * n as f64;
    // Least squares for both phases and a constant; whole periods make them independent.
    let period = (RATE / hz) as usize;
    let samples = &samples[..samples.len() / period * period];
    let (mut s, mut c, mut mean) = (0.0, 0.0, 0.0);
    for (n, &x) in samples.iter().enumerate() {
        s += f64::from(x) * angle(n).sin();
        c += f64::from(x) * angle(n).cos();
        mean += f64::from(x);
    }
    let count = samples.len() as f64;
    let (s, c, mean) = (s * 2.0 / count, c * 2.0 / count, mean / count);
    let noise: f64 = samples
        .iter()
        .enumerate()
        .map(|(n, &x)| (f64::from(x) - s * angle(n).sin() - c * angle(n).cos() - mean).powi(2))
        .sum();
    10.0 * ((s * s + c * c) / 2.0 / (noise / count)).log10()
}

/// Checks that a sound is a sine of so many seconds, its edges (where a filter rings) aside.
fn assert_sine(sound: &[i16], hz: u32, seconds: u32) {
    let (frames, wanted) = (sound.len() as i64, i64::from(seconds * RATE));
    assert!((frames - wanted).abs() < 200, "{frames} frames for {wanted}");
    let snr = snr(&sound[1000..sound.len() - 1000], hz);
    println!("{hz} Hz: {frames} frames, {snr:.1} dB");
    assert!(snr > SNR, "{snr} dB");
}

fn finish(mut guest: Machine) {
    assert_clean(&guest.command("dmesg"));
    assert_clean(&guest.power_off());
}

/// A tone beside busy loops, without a gap.
fn plays(architecture: &str) {
    let seconds = scale(10, 60);
    let Some((mut guest, files)) = start(architecture, "sound", "jit", &[(RATE, 1000), (44_100, 600)]) else {
        return;
    };
    guest.command(
        "nice -n 10 sh -c 'while :; do :; done' & nice -n 10 sh -c 'while :; do cat /bin/busybox | md5sum >/dev/null; done' & true",
    );
    for (rate, seconds) in [(RATE, seconds), (44_100, 3)] {
        let play = prepare(&mut guest, rate, seconds);
        let said = guest.command(&play);
        assert_eq!(said, "", "at {rate}");
    }
    let report = guest.report().expect("answers");
    assert_eq!((report.sound.missing, report.sound.dropped), (0, 0));
    finish(guest);
    let (left, right) = read_wav(&files.wav);
    for side in [&left, &right] {
        let sounds = sounds(side);
        assert_eq!(
            sounds.len(),
            2,
            "{:?}",
            sounds.iter().map(|s| s.len()).collect::<Vec<_>>()
        );
        assert_sine(sounds[0], 1000, seconds);
        assert_sine(sounds[1], 600, 3);
    }
}

#[test]
fn the_amd64_kernel_plays_a_sine_without_a_gap() {
    plays("AMD64");
}

#[test]
fn the_i686_kernel_plays_a_sine_without_a_gap() {
    plays("I686");
}

#[test]
fn the_interpreted_i686_kernel_plays_a_sine_without_a_gap() {
    let Some((mut guest, files)) = start("I686", "sound-interpreted", "interp", &[(RATE, 1000)]) else {
        return;
    };
    let play = prepare(&mut guest, RATE, 4);
    assert_eq!(guest.command(&play), "");
    finish(guest);
    let (left, _) = read_wav(&files.wav);
    let sounds = sounds(&left);
    assert_eq!(sounds.len(), 1);
    assert_sine(sounds[0], 1000, 4);
}

#[test]
fn sound_goes_on_when_io_worker_and_audio_worker_die() {
    let (seconds, pause) = (scale(20, 60), Duration::from_secs(4));
    let Some((mut guest, files)) = start("AMD64", "sound-killed", "jit", &[(RATE, 1000)]) else {
        return;
    };
    let play = prepare(&mut guest, RATE, seconds);
    guest.command(&format!("({play}; echo =$?) >/tmp/said & true"));
    let mut kills = 0;
    for role in [Role::Io, Role::Audio].into_iter().cycle().take(scale(4, 12)) {
        std::thread::sleep(pause);
        guest.kill(role);
        kills += 1;
    }
    guest.command("while ! grep -q = /tmp/said; do sleep 0.2; done");
    // A guest that gets no processor for the length of its buffer says so, and goes on.
    let said = guest.command("cat /tmp/said");
    println!("{said}");
    assert!(said.trim().ends_with("=0"), "{said}");
    let report = guest.report().expect("answers");
    assert_eq!(report.resets, 1);
    finish(guest);
    let (left, _) = read_wav(&files.wav);
    let sounds = sounds(&left);
    println!("{:?} frames", sounds.iter().map(|s| s.len()).collect::<Vec<_>>());
    // In pieces of a tenth of a second: good but for what was lost with a worker, at most a second and a half each.
    let pieces = sounds.iter().flat_map(|s| s.chunks_exact(RATE as usize / 10));
    let good = pieces.filter(|piece| snr(piece, 1000) > SNR).count();
    println!("{:?}", report.sound);
    println!("{good} of {} pieces are good after {kills} kills", seconds * 10);
    assert!(good >= seconds as usize * 10 - 15 * kills, "{good}");
    let end = &sounds.last().expect("a sound");
    assert!(snr(&end[end.len() - RATE as usize..], 1000) > SNR);
}

/// Where a sound rises through zero, which what is quiet does not.
fn rises(sound: &[i16]) -> impl Iterator<Item = usize> + '_ {
    let mut below = false;
    sound.iter().enumerate().filter_map(move |(n, s)| {
        let rises = below && *s > QUIET;
        below = *s < -QUIET || below && !rises;
        rises.then_some(n)
    })
}

/// The PC speaker by counter 2 and by its line alone.
fn speaks(accel: &str) {
    let Some(quintet) = support::quintet() else { return };
    let name = format!("speaker-{accel}");
    let folder = Folder::new(&name);
    let wav = folder.file("wav");
    let guest = Setup::new(quintet, guest_file(&name, quintet_guests::SPEAKER))
        .option("--ram", "16M")
        .option("--accel", accel)
        .option("--exit-port", "0xf4")
        .option("--audio", format!("wav:{}", wav.display()))
        .start(&name);
    let (status, text) = guest.end();
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("speaker: done"), "{text}");
    let (left, right) = read_wav(&wav);
    assert_eq!(left, right);
    let tone = sounds(&left)[0];
    println!("tone: {} frames, {:.1} Hz", tone.len(), pitch(tone));
    assert!(tone.len() > RATE as usize * 99 / 100, "{} frames", tone.len());
    assert!((pitch(tone) / 440.0 - 1.0).abs() < 0.005, "{} Hz", pitch(tone));
    // A guest that moves the line itself is as even as its host lets it be, but each move is heard.
    let end = tone.as_ptr_range().end.addr() - left.as_ptr().addr();
    let rest = &left[end / size_of::<i16>()..];
    let moves = rises(rest).count();
    println!("line: {moves} rises in {} frames", rest.len());
    assert!((995..=1010).contains(&moves), "{moves} rises");
}

#[test]
fn the_speaker_speaks_by_counter_two_and_by_its_line() {
    speaks("jit");
}

#[test]
fn the_speaker_speaks_by_counter_two_and_by_its_line_interpreted() {
    speaks("interp");
}
