//! gpu-, audio- and io-worker die while Linux computes, writes two disks and prints: at random instants, and at every step of the
//! commit path. Nothing is lost, doubled or leaked. A dead cpu-worker is a reset, and the guest boots again.
//!
//! The deaths follow from a seed, which is printed; `QUINTET_SEED` repeats it.

#[path = "support/drives.rs"]
mod drives;
#[path = "support/iso.rs"]
mod iso;
#[path = "support/screen.rs"]
mod screen;
mod support;
#[path = "support/trap.rs"]
mod trap;
#[path = "support/work.rs"]
mod work;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use drives::no_trouble;
use quintet_coordinator::soak::sample::{Done, Sample};
use quintet_protocol::commit::{DEVICES_AT, GLOBAL_AT, MAX_DEVICES, SLOT_SIZE};
use quintet_protocol::handshake::Role;
use quintet_protocol::handshake::files::HEAD_LEN;
use quintet_protocol::layout::Region;
use quintet_protocol::status::{MachineState, PeerState, StatusWord};
use rustix::process::{Pid, Signal, kill_process};
use screen::{Font, see, shots};
use support::folder::Folder;
use support::{Machine, PATIENCE, Setup, assert_clean, report, scale, worker};
use trap::{End, kill_at_store};
use work::Work;

/// How long a store of the commit path may let wait for itself.
const STORE: Duration = Duration::from_secs(1);
/// How long a death waits for a request.
const REQUEST: Duration = Duration::from_secs(1);

/// Numbers that follow from a seed (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn seed() -> u64 {
    let given = std::env::var("QUINTET_SEED").ok();
    let seed = given.map_or_else(
        || (support::random() * 1e15) as u64 + 1,
        |text| text.parse().expect("QUINTET_SEED is a number from 1 on"),
    );
    println!("seed {seed}");
    seed
}

/// A store of io-worker's commit path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// A device's state is being staged.
    Device,
    /// The global record is being written.
    Global,
    /// The commit is visible.
    Commit,
    /// A level or an edge of an interrupt wire is published.
    Wire,
    /// The commands of the batch are given back.
    Release,
}

const STEPS: [Step; 5] = [
    Step::Device,
    Step::Global,
    Step::Commit,
    Step::Wire,
    Step::Release,
];

#[derive(Clone, Copy, Debug)]
enum When {
    /// After some time.
    At(Duration),
    /// So many instructions behind a store of io-worker's.
    Behind(Step, u32),
}

#[derive(Clone, Copy, Debug)]
struct Death {
    role: Role,
    when: When,
    /// It waits for a request of the guest's to be under way, for a while.
    busy: bool,
}

/// The deaths that a seed leads to.
fn deaths(seed: u64, count: usize) -> Vec<Death> {
    let mut dice = Dice(seed);
    let mut death = |n: usize| {
        let pause = Duration::from_micros(dice.below(150_000));
        // Near the store most steps differ from each other; what follows is longer.
        let steps = match dice.below(3) {
            0 => dice.below(4),
            1 => dice.below(100),
            _ => dice.below(2000),
        };
        let (role, when) = match n % 10 {
            0 => (Role::Gpu, When::At(pause)),
            1 => (Role::Audio, When::At(pause)),
            2..5 => (Role::Io, When::At(pause)),
            n => (Role::Io, When::Behind(STEPS[n - 5], steps as u32)),
        };
        let busy = dice.below(8) != 0;
        Death { role, when, busy }
    };
    (0..count).map(&mut death).collect()
}

/// Where an io-worker's process has offset `at` of a region of its own.
fn address(pid: i32, region: Region, at: usize) -> Option<u64> {
    let name = format!("memfd:{}", region.file.file_name());
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let wanted = region.file.map_start() + (HEAD_LEN + region.offset + at) as u64;
    maps.lines().filter(|line| line.contains(&name)).find_map(|line| {
        let mut words = line.split_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (from, to, start) = (hex(from)?, hex(to)?, hex(words.nth(1)?)?);
        (start..start + to - from)
            .contains(&wanted)
            .then(|| from + wanted - start)
    })
}

/// What stands at an address of a process.
fn peek<const N: usize>(pid: i32, address: u64) -> Option<[u8; N]> {
    use std::os::unix::fs::FileExt as _;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut bytes = [0; N];
    memory.read_exact_at(&mut bytes, address).ok()?;
    Some(bytes)
}

/// Where io-worker's process says how many requests of the guest's are under way.
fn requests(pid: i32) -> Option<u64> {
    let at = StatusWord::DiskRequests.index() * 4;
    address(pid, Region::status(Role::Io), at)
}

/// Waits a while until requests are under way.
fn wait_for_request(pid: i32) {
    let Some(at) = requests(pid) else { return };
    let start = Instant::now();
    while start.elapsed() < REQUEST && peek(pid, at) == Some([0; 4]) {
        std::hint::spin_loop();
    }
}

/// The number in a slot of the commit store.
fn number(pid: i32, at: usize) -> Option<u64> {
    peek(pid, address(pid, Region::commit(), at)?).map(u64::from_le_bytes)
}

/// The slot, of those that begin at `from`, that is written next: the older one of the pair with the newest number.
fn next_slot(pid: i32, from: usize, pairs: usize) -> Option<usize> {
    let pairs = (0..pairs).map(|n| from + 2 * n * SLOT_SIZE);
    let newest = |at: &usize| number(pid, *at).max(number(pid, at + SLOT_SIZE));
    let at = pairs.max_by_key(newest)?;
    let older = number(pid, at)? < number(pid, at + SLOT_SIZE)?;
    Some(if older { at } else { at + SLOT_SIZE })
}

fn address_of(step: Step, pid: i32) -> Option<u64> {
    match step {
        Step::Device => address(pid, Region::commit(), next_slot(pid, DEVICES_AT, MAX_DEVICES)?),
        Step::Global => address(pid, Region::commit(), next_slot(pid, GLOBAL_AT, 1)?),
        Step::Commit => address(pid, Region::commit(), 0),
        Step::Wire => address(pid, Region::wires(), 0),
        Step::Release => address(pid, Region::command_head(0), 0),
    }
}

/// What came of the deaths.
#[derive(Debug, Default)]
struct Tally {
    by: BTreeMap<String, usize>,
    under_way: usize,
    late: usize,
}

/// Carries the deaths out, one after the other, each when the machine runs; `done` counts them.
fn carry_out(name: &str, deaths: &[Death], done: &AtomicUsize) -> Tally {
    let mut tally = Tally::default();
    for &Death { role, when, busy } in deaths {
        let (pid, generation) = alive(name, role, 0);
        let (io, _) = alive(name, Role::Io, 0);
        let process = Pid::from_raw(pid).expect("a process");
        if let When::At(pause) = when {
            std::thread::sleep(pause);
        }
        let kind = match when {
            When::At(_) => {
                if busy {
                    wait_for_request(io);
                }
                let _ = kill_process(process, Signal::KILL);
                role.to_string()
            }
            When::Behind(step, steps) => {
                let word = requests(pid);
                let now = || !busy || word.is_none_or(|at| peek(pid, at) != Some([0; 4]));
                let end = address_of(step, pid).map(|at| kill_at_store(pid, at, steps, STORE, now));
                tally.late += usize::from(end != Some(End::AtTheStore));
                format!("{step:?}")
            }
        };
        *tally.by.entry(kind).or_default() += 1;
        alive(name, role, generation);
        let report = report(name).expect("it answers");
        let of_role = report.workers.iter().find(|w| w.role == role).expect("all");
        tally.under_way += usize::from(of_role.left_under_way > 0);
        done.fetch_add(1, Ordering::Relaxed);
    }
    tally
}

/// Waits until all run and the role has a process newer than `generation`; its number and generation.
fn alive(name: &str, role: Role, generation: u32) -> (i32, u32) {
    let start = Instant::now();
    loop {
        let now = report(name).filter(|r| {
            r.state == MachineState::Running && r.workers.iter().all(|w| w.state == PeerState::Running)
        });
        match now.and_then(|r| worker(&r, role)).filter(|w| w.1 > generation) {
            Some(found) => return found,
            None => assert!(start.elapsed() < PATIENCE, "{role} is not back"),
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// What the host says of the five processes when nothing changes any more.
fn at_rest(name: &str) -> Sample {
    let look = || {
        let report = report(name).expect("it answers");
        // The socket of the answer is closed after it was sent.
        std::thread::sleep(Duration::from_millis(100));
        Sample::new(&report, 0, true, Done::default())
    };
    let mut last = look();
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = look();
        let same = |a: &Sample, b: &Sample| {
            a.processes.len() == 5
                && a.descriptors() == b.descriptors()
                && a.processes.len() == b.processes.len()
        };
        if same(&now, &last) {
            return now;
        }
        last = now;
    }
}

fn dies_all_the_time(architecture: &str) {
    let count = scale(60, 1000);
    let seed = seed();
    let Some((mut guest, work)) = Work::start("recovery", architecture) else {
        return;
    };
    let done = AtomicUsize::new(0);
    let deaths = deaths(seed, count);
    // What allocators and caches of the host take once is taken by then.
    let (first, rest) = deaths.split_at(count / 5);
    let start = Instant::now();
    let mut tally = carry_out(&guest.name, first, &done);
    let settled = at_rest(&guest.name);
    let more = carry_out(&guest.name, rest, &done);
    let after = at_rest(&guest.name);
    for (kind, n) in more.by {
        *tally.by.entry(kind).or_default() += n;
    }
    tally.under_way += more.under_way;
    tally.late += more.late;
    println!(
        "seed {seed}: {count} deaths in {:.0} s: {:?}; requests under way at {}, {} were not at their store",
        start.elapsed().as_secs_f64(),
        tally.by,
        tally.under_way,
        tally.late
    );

    println!("passes of disks, sums and screen: {:?}", work.end(&mut guest));
    shows(&mut guest);
    leaked_nothing(&settled, &after, &guest.pids());
    assert!(
        tally.under_way * 2 >= count,
        "requests were under way at {}",
        tally.under_way
    );
    // Of few deaths a crowded host takes more than its share; they count as deaths at random instants.
    let most = count / scale(4, 10);
    assert!(tally.late <= most, "{} were not at their store", tally.late);
    no_trouble(&mut guest);
    assert_eq!(guest.report().expect("answers").resets, 1);
    assert_clean(&guest.power_off());
}

/// The screen shows what the guest prints on it.
fn shows(guest: &mut Machine) {
    guest.command("printf '\\033[2J\\033[Hall is well\\n' > /dev/tty1");
    let folder = Folder::new("recovery-screen");
    let quintet = support::quintet().expect("found before");
    let shot = folder.file("screen.png");
    let look = shots(&quintet, &guest.name, &shot);
    see(look, &Font::own(), PATIENCE, "line", |text| {
        text.lines().next() == Some("all is well")
    });
}

/// What a process has open.
fn open_files(pid: i32) -> Vec<String> {
    let list = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives");
    let target = |entry: std::fs::DirEntry| std::fs::read_link(entry.path()).ok();
    let mut files: Vec<_> = list
        .flatten()
        .filter_map(target)
        .map(|file| file.display().to_string())
        .collect();
    files.sort();
    files
}

/// The processes have what they had when a fifth of the deaths was over.
fn leaked_nothing(settled: &Sample, after: &Sample, pids: &[i32]) {
    for process in &after.processes {
        let before = settled.process(process.role).expect("all five");
        println!("{before:?}\n{process:?}");
        assert_eq!(
            process.descriptors,
            before.descriptors,
            "{}: {:#?}",
            process.role,
            open_files(pids[process.role.index()])
        );
        assert_eq!(process.threads, before.threads, "{}", process.role);
    }
    let memory = |s: &Sample| s.process(Role::Coordinator).expect("all five").memory;
    assert!(
        memory(after) < memory(settled) + (1 << 20),
        "{} became {}",
        memory(settled),
        memory(after)
    );
}

#[test]
fn the_amd64_kernel_notices_no_death() {
    dies_all_the_time("AMD64");
}

#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn the_i686_kernel_notices_no_death() {
    dies_all_the_time("I686");
}

/// A cpu-worker that dies takes the guest's registers with it: the guest is reset, and boots.
#[test]
fn a_dead_cpu_worker_resets_the_guest_and_it_boots_again() {
    let count = scale(2, 100);
    let Some(setup) = Setup::linux("AMD64") else {
        return;
    };
    let mut guest = setup
        .option("--ram", "256M")
        .option("--stable-after", "0s")
        .start("recovery-cpu");
    guest.shell();
    for n in 1..=count {
        let before = guest.report().expect("answers");
        guest.kill(Role::Cpu);
        guest.shell();
        assert_eq!(guest.command("echo $((6 * 7))").trim(), "42");
        let now = guest.report().expect("answers");
        assert_eq!((before.resets, now.resets), (n, n + 1));
    }
    println!("{count} deaths, {count} boots");
    assert_clean(&guest.power_off());
}
