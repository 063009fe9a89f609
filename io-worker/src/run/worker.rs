//! One life of io-worker over the shared files: take commands, apply, commit, and only then publish.
//!
//! The order within [`Worker::turn`] is the whole of exactly-once:
//! 1. commands are applied to the machine in this process's memory, and bytes are staged beyond the
//!    published tails;
//! 2. changed parts and the global record are committed: one word makes all of it count;
//! 3. pages of code that were written are announced, then completions are written into guest memory and
//!    committed as done;
//! 4. mirrors, wires, decode map and streams are published, then the reply and the head of the ring.
//!
//! A successor loads the commit and does 3 and 4 again, which shows nobody anything new; commands behind the
//! committed position are still in the ring and are applied as if for the first time.

use quintet_protocol::boot_state::BootStateWriter;
use quintet_protocol::clock::VmClock;
use quintet_protocol::commit::{CommitError, CommitStore};
use quintet_protocol::decode_map::DecodeMapWriter;
use quintet_protocol::doorbell::Doorbell;
use quintet_protocol::handshake::config::{DiskConfig, IoConfig};
use quintet_protocol::handshake::{Role, WorkerContext, WorkerError};
use quintet_protocol::invalidation::InvalidationWriter;
use quintet_protocol::layout::{Ends, MAX_VCPUS, STREAMS, SleeperId};
use quintet_protocol::mirror::{MIRROR_BYTES, MirrorWriter};
use quintet_protocol::reply::{Reply, ReplyStatus, ReplyWriter};
use quintet_protocol::ring::{Consumer, Position};
use quintet_protocol::status::{GuestEvent, MachineState, PeerState, ResetCause, StatusWord, WorkerStatus};
use quintet_protocol::time::HostTime;
use quintet_protocol::trace::{Begun, Kind, Tracer};
use quintet_protocol::wires::{Wire, WireWriter};
use quintet_protocol::words::{NoSteps, Steps};
use serde::{Deserialize, Serialize};

use super::boot::boot;
use super::build::build;
use super::decode::{Mirrored, decode_map, mirrored};
use super::figures;
use super::outside::{Outside, Positions};
use super::playback::PlaybackOut;
use crate::bus::MachineRequest;
use crate::machine::{Env, Machine};
use crate::module::Services;
use crate::parts::Parts;

/// Most commands of one vCPU between two commits.
const BATCH: usize = 256;
/// Most batches that are still served between the vCPU's stop and a reset.
const LAST_ROUNDS: usize = 64;
/// How long after its deadline a device may be served without being called late, in nanoseconds.
const LATE: u64 = 1_000_000;
/// How long a part of a turn takes that a timeline shows, in nanoseconds.
const LONG_PART: u64 = 20_000;
/// Longest record of a command ring, in bytes.
const MAX_RECORD: usize = 8 << 10;

/// What is committed of a vCPU's path.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Path {
    /// Commands applied.
    at: Position,
    /// The last reply.
    reply: Reply,
}

/// The global record of a commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Global {
    /// Digest of the machine's parts: a commit of another machine is not taken up.
    shape: u32,
    paths: Vec<Path>,
    pub(super) outside: Positions,
    /// The reset generation that has been carried out.
    reset: u32,
}

struct Vcpu {
    ring: Consumer,
    reply: ReplyWriter,
    exit: Doorbell,
    /// A reply has been committed or is about to be, and is not published.
    answered: bool,
    /// The ring was skipped, which is to be published.
    skipped: bool,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There was something to do: look again.
    Served,
    /// Nothing to do until a command, a ring of the bell or a deadline.
    Idle,
    /// This worker is to end.
    Stop,
}

/// io-worker at work.
pub struct Worker<S = NoSteps> {
    pub(super) machine: Machine,
    pub(super) outside: Outside,
    services: Option<Services>,
    playback: PlaybackOut,
    vcpus: Vec<Vcpu>,
    wires: WireWriter,
    mirrors: Vec<(Mirrored, MirrorWriter)>,
    decode: DecodeMapWriter,
    decode_seen: Option<(u64, bool)>,
    invalidations: InvalidationWriter,
    boot_state: BootStateWriter,
    store: CommitStore,
    /// What is committed of each part, to tell whether it changed.
    saved: Vec<Vec<u8>>,
    global: Global,
    pub(super) status: WorkerStatus,
    cpu_status: quintet_protocol::status::StatusReader,
    pub(super) clock: VmClock,
    tracer: Tracer,
    context: WorkerContext,
    config: IoConfig,
    epoch: Option<u32>,
    /// Run epoch and state when no reset was owed.
    settled: (u32, MachineState),
    reported: bool,
    stop: bool,
    /// Something may have come in from outside.
    look: bool,
    steps: S,
    record: Vec<u8>,
    /// A part's state being saved.
    state: Vec<u8>,
}

impl<S> std::fmt::Debug for Worker<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("machine", &self.machine)
            .field("reset", &self.global.reset)
            .finish_non_exhaustive()
    }
}

fn failed(error: impl std::fmt::Display) -> WorkerError {
    WorkerError::Failed(error.to_string())
}

impl Worker<NoSteps> {
    /// Takes up the machine of `context`: from power-on, or where the last commit left it.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn open(context: WorkerContext) -> Result<Self, WorkerError> {
        Worker::open_with_steps(context, NoSteps)
    }
}

impl<S: Steps> Worker<S> {
    /// The same with a hook between the steps of a turn.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn open_with_steps(mut context: WorkerContext, steps: S) -> Result<Self, WorkerError> {
        let config: IoConfig = context.config()?;
        let ends = Ends::new(&context.maps);
        let mut files = std::mem::take(&mut context.host_fds);
        let of_disks: usize = config.disks.iter().map(DiskConfig::descriptors).sum();
        let folders = files.split_off(of_disks.min(files.len()));
        let services = config.module.as_ref().map(|module| {
            let dirs = module.dirs.iter().cloned().zip(folders).collect();
            Services::new(dirs, context.generation, context.ram.clone(), ends.clone())
        });
        let store = ends.commit_store();
        let storage = super::disks::open(&config.disks, files, &ends.doorbell(SleeperId::Io))?;
        let machine = build(&config, &context, &ends, storage)?;
        let names: Vec<_> = (0..machine.part_count()).map(|p| machine.part_name(p)).collect();
        let shape = crc32fast::hash(names.join(" ").as_bytes());
        let global: Option<Global> = store.load_global().map_err(failed)?;
        let count = config.vcpus.clamp(1, MAX_VCPUS as u32) as usize;
        if global
            .as_ref()
            .is_some_and(|g| g.shape != shape || g.paths.len() != count)
        {
            return Err(WorkerError::Config(
                "The committed state is that of another machine".into(),
            ));
        }
        let successor = global.is_some();
        let global = global.unwrap_or_else(|| Global {
            shape,
            paths: vec![Path::default(); count],
            outside: Positions::default(),
            reset: 0,
        });
        let vcpus: Result<Vec<Vcpu>, WorkerError> = (0..)
            .zip(&global.paths)
            .map(|(n, path)| {
                Ok(Vcpu {
                    ring: ends.command_consumer(n, path.at).map_err(failed)?,
                    reply: ends.reply_writer(n),
                    exit: ends.doorbell(SleeperId::Vcpu(n as u8)),
                    answered: path.reply.number != 0,
                    skipped: false,
                })
            })
            .collect();
        let mirrors = mirrored(&machine);
        let mut outside = connect(&ends, global.outside)?;
        if services.is_some() {
            outside.keep_input();
        }
        let tracer = ends.tracer(Role::Io, context.generation);
        let mut this = Self {
            outside,
            services,
            playback: PlaybackOut::new(ends.clone()),
            vcpus: vcpus?,
            wires: ends.wire_writer(),
            mirrors: mirrors
                .into_iter()
                .enumerate()
                .map(|(n, m)| (m, ends.mirror_writer(n)))
                .collect(),
            decode: ends.decode_map_writer(),
            decode_seen: None,
            invalidations: ends.invalidation_writer().map_err(failed)?,
            boot_state: ends.boot_state_writer(),
            store,
            saved: vec![Vec::new(); machine.part_count()],
            machine,
            global,
            status: WorkerStatus::new(&context),
            cpu_status: quintet_protocol::status::StatusReader::of(&context.maps, Role::Cpu),
            clock: ends.clock(),
            tracer,
            config,
            epoch: None,
            settled: (0, MachineState::Stopped),
            reported: false,
            stop: false,
            // What came in while nobody was there has rung for nobody.
            look: true,
            context,
            steps,
            record: vec![0; MAX_RECORD],
            state: Vec::new(),
        };
        this.machine.disks().trace(this.tracer.clone());
        let begun = this.tracer.begin();
        this.recover(successor)?;
        if successor {
            this.tracer.end(Kind::Recover, begun, 0);
        }
        Ok(this)
    }

    /// Brings everything shared to what is committed, or commits the power-on state.
    fn recover(&mut self, successor: bool) -> Result<(), WorkerError> {
        if successor {
            for part in 0..self.machine.part_count() {
                let name = self.machine.part_name(part);
                let bytes = self
                    .store
                    .load_bytes(part)
                    .ok_or_else(|| failed(format!("No committed state of {name}")))?;
                let (version, state) = bytes
                    .split_first_chunk::<2>()
                    .ok_or_else(|| failed(format!("The committed state of {name} is empty")))?;
                self.machine
                    .load_part(part, u16::from_le_bytes(*version), state)
                    .map_err(failed)?;
                self.saved[part] = bytes;
            }
            // Nobody knows what the predecessor had written into guest memory when it died.
            self.invalidations.send_all();
        }
        self.machine.start(&mut Env {
            now: self.clock.now(),
            streams: &mut self.outside,
        });
        let generation = self.status.reset_generation();
        if !successor || generation != self.global.reset {
            self.carry_out_reset(generation)?;
        } else {
            self.commit()?;
            self.publish(Parts::first(self.machine.part_count()));
            self.say_reset_done();
        }
        Ok(())
    }

    /// One round: orders of the coordinator, commands, time, commit, publication.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn turn(&mut self) -> Result<Turn, WorkerError> {
        if self.stop || self.status.stop_requested() {
            return Ok(Turn::Stop);
        }
        // In this order: the coordinator stores the generation first, then the state, then the epoch.
        let orders = (self.status.run_epoch(), self.status.machine_state());
        if self.epoch != Some(orders.0) {
            self.obey(orders.1);
            self.epoch = Some(orders.0);
            self.status.epoch_seen(orders.0);
        }
        let generation = self.status.reset_generation();
        if generation == self.global.reset {
            self.settled = orders;
        }
        if generation != self.global.reset && !self.vcpu_may_run() {
            // A vCPU that stopped inside an instruction waits for its reply: the life before ends in order.
            for _ in 0..LAST_ROUNDS {
                if !self.has_commands() {
                    break;
                }
                self.round()?;
            }
            self.carry_out_reset(generation)?;
            return Ok(Turn::Served);
        }
        self.round()
    }

    /// Commands, time, commit, publication.
    fn round(&mut self) -> Result<Turn, WorkerError> {
        let begun = self.tracer.begin();
        let served = self.serve();
        let now = self.clock.now();
        let deadline = self.machine.next_deadline().filter(|at| *at <= now);
        let due = deadline.is_some();
        if let Some(at) = deadline.filter(|at| now.since(*at) > LATE) {
            self.tracer.instant(Kind::TimerLate, now.since(at));
        }
        if std::mem::take(&mut self.look) || due || served == 0 {
            self.machine.advance(&mut Env {
                now,
                streams: &mut self.outside,
            });
        }
        for peer in self.outside.take_broken() {
            self.status.peer_broke(peer);
        }
        self.steps.step();
        let touched = self.machine.take_touched();
        let changed = self.stage(touched)?;
        let asked = self.machine.disks().has_staged();
        if served == 0 && !changed && !self.outside.moved() && !asked {
            return Ok(Turn::Idle);
        }
        let touched = self.commit_staged(touched)?;
        self.publish(touched);
        self.tracer.end(Kind::Turn, begun, served as u64);
        Ok(if self.stop { Turn::Stop } else { Turn::Served })
    }

    /// Whether a vCPU may still post commands of the life before a reset, which are served as ever: it has not said
    /// that it obeyed the state that the reset goes with.
    fn vcpu_may_run(&self) -> bool {
        let (epoch, state) = (self.status.run_epoch(), self.status.machine_state());
        // The generation may be ahead of the state that it goes with.
        let ordered = epoch != self.settled.0 || self.settled.1 != MachineState::Running;
        let stopped =
            ordered && state != MachineState::Running && self.cpu_status.load(StatusWord::EpochSeen) == epoch;
        self.status.peer(Role::Cpu) == PeerState::Running && !stopped
    }

    /// Pauses or resumes as the coordinator says.
    fn obey(&mut self, state: MachineState) {
        match state {
            MachineState::Paused => self.machine.pause(),
            MachineState::Running => self.machine.resume(),
            _ => {}
        }
    }

    /// Whether a reset waits for the vCPU to stop, of which nobody rings.
    pub fn owes_reset(&self) -> bool {
        self.status.reset_generation() != self.global.reset
    }

    /// Somebody rang: the next turn looks at input even if it serves commands.
    pub fn look(&mut self) {
        self.look = true;
    }

    /// Whether a command waits: one load per vCPU.
    pub fn has_commands(&self) -> bool {
        self.vcpus.iter().any(|v| v.ring.has_pending())
    }

    /// Applies waiting commands; answers how many.
    fn serve(&mut self) -> usize {
        let mut served = 0;
        for n in 0..self.vcpus.len() {
            for _ in 0..BATCH {
                let Some((number, len)) = self.next_command(n) else {
                    break;
                };
                served += 1;
                let command = &self.record[..len];
                let called = self.services.as_mut();
                let reply = match called.and_then(|s| s.answer(command, &mut self.outside)) {
                    Some(data) => Ok(Some((ReplyStatus::Done, data))),
                    None => {
                        let mut env = Env {
                            now: self.clock.now(),
                            streams: &mut self.outside,
                        };
                        super::commands::apply(&mut self.machine, &mut env, command)
                    }
                };
                let (vcpu, path) = (&mut self.vcpus[n], &mut self.global.paths[n]);
                path.at = vcpu.ring.position();
                self.steps.step();
                match reply {
                    Ok(None) => {}
                    Ok(Some((status, data))) => {
                        path.reply = Reply { number, status, data };
                        vcpu.answered = true;
                        break;
                    }
                    Err(super::commands::Stop) => {
                        self.stop = true;
                        break;
                    }
                }
            }
        }
        served
    }

    /// Copies the next command of a vCPU out: its number and length.
    fn next_command(&mut self, n: usize) -> Option<(u64, usize)> {
        let vcpu = &mut self.vcpus[n];
        loop {
            match vcpu.ring.next(&mut self.record) {
                Ok(record) => return record.map(|r| (r.number, r.len)),
                Err(error) if error.is_corrupt() => {
                    tracing::debug!(vcpu = n, %error, "command ring skipped");
                    self.status.peer_broke(Role::Cpu);
                    self.global.paths[n].at = vcpu.ring.skip_to_tail();
                    vcpu.skipped = true;
                    return None;
                }
                Err(error) => tracing::error!(vcpu = n, %error, "command dropped"),
            }
        }
    }

    /// Stages parts for the next commit; answers whether any of them changed.
    fn stage(&mut self, touched: Parts) -> Result<bool, WorkerError> {
        let mut changed = false;
        for part in touched.iter() {
            self.state.clear();
            self.state.extend(self.machine.part_version(part).to_le_bytes());
            self.machine.save_part(part, &mut self.state);
            if self.state != self.saved[part] {
                self.store.stage_bytes(part, &self.state).map_err(failed)?;
                std::mem::swap(&mut self.state, &mut self.saved[part]);
                changed = true;
            }
        }
        Ok(changed)
    }

    fn commit_once(&mut self) -> Result<(), CommitError> {
        self.global.outside = self.outside.positions();
        self.steps.step();
        self.store.commit(&self.global)?;
        self.steps.step();
        Ok(())
    }

    /// Commits what is staged and what completions change. Answers the parts whose mirrors are to be
    /// published.
    fn commit_staged(&mut self, mut touched: Parts) -> Result<Parts, WorkerError> {
        let begun = self.begin();
        self.commit_once().map_err(failed)?;
        self.announce_code();
        if self.machine.completed(
            touched,
            &mut Env {
                now: self.clock.now(),
                streams: &mut self.outside,
            },
        ) {
            self.steps.step();
            self.announce_code();
            let more = self.machine.take_touched();
            self.stage(more)?;
            touched = touched.with(more);
            self.commit_once().map_err(failed)?;
        }
        // What was asked of disks is recorded now. What is done already is taken up in the next turn.
        self.look |= self.machine.submit_disks();
        self.steps.step();
        // Of what was read into guest memory.
        self.announce_code();
        self.end_if_long(Kind::Commit, begun);
        Ok(touched)
    }

    fn commit(&mut self) -> Result<(), WorkerError> {
        let touched = self.machine.take_touched();
        self.stage(touched)?;
        self.commit_staged(touched).map(|_| ())
    }

    /// Sends pages of code that were written, before anything tells that they were.
    fn announce_code(&mut self) {
        let hits = self.machine.dma().take_hits();
        if hits.is_empty() {
            return;
        }
        for page in hits {
            self.invalidations.send(page);
        }
        self.vcpus.iter().for_each(|v| v.exit.ring());
        self.steps.step();
    }

    /// A part of a turn begins, for [`Self::end_if_long`].
    fn begin(&self) -> Option<(Begun, HostTime)> {
        let tracer = &self.tracer;
        tracer.is_on().then(|| (tracer.begin(), HostTime::now()))
    }

    /// Tells of a part of a turn that took long; all of them would be more than the turn's own work.
    fn end_if_long(&self, kind: Kind, begun: Option<(Begun, HostTime)>) {
        if let Some((begun, at)) = begun
            && HostTime::now().since(at) >= LONG_PART
        {
            self.tracer.end(kind, begun, 0);
        }
    }

    fn publish(&mut self, touched: Parts) {
        let begun = self.begin();
        let mut applied = [0; MAX_VCPUS];
        for (to, path) in applied.iter_mut().zip(&self.global.paths) {
            *to = path.at.number;
        }
        for (block, mirror) in &mut self.mirrors {
            if touched.contains(block.part) {
                let (mut bytes, mut all) = ([0; 16], [0; MIRROR_BYTES]);
                let valid = self.machine.mirror(block.part, block.region, &mut bytes);
                all[..16].copy_from_slice(&bytes);
                mirror.publish(&applied, u32::from(valid), &all);
            }
        }
        self.steps.step();
        // An interrupt handler must find in the registers what it was called for.
        let mut look = false;
        for (line, wire) in self.machine.wires().iter().enumerate() {
            let (high, edges) = (wire.high, wire.edges);
            if self.wires.publish(line, Wire { high, edges }) {
                look = true;
                let kind = if high { Kind::IrqHigh } else { Kind::IrqLow };
                self.tracer.instant(kind, line as u64);
            }
        }
        self.steps.step();
        self.playback.publish(self.machine.playback());
        self.outside.publish();
        let decode = (self.machine.decode_version(), self.machine.a20());
        if self.decode_seen != Some(decode) {
            let blocks: Vec<Mirrored> = self.mirrors.iter().map(|(block, _)| *block).collect();
            match self.decode.publish(&decode_map(&self.machine, &blocks)) {
                Ok(_) => self.decode_seen = Some(decode),
                Err(error) => tracing::error!(%error, "decode map not published"),
            }
            look = true;
        }
        self.steps.step();
        self.pass_request_on();
        if look {
            self.vcpus.iter().for_each(|v| v.exit.ring());
        }
        self.steps.step();
        for (vcpu, path) in self.vcpus.iter_mut().zip(&self.global.paths) {
            let answered = std::mem::take(&mut vcpu.answered);
            if answered {
                vcpu.reply.publish_reply(&path.reply);
            }
            self.steps.step();
            if std::mem::take(&mut vcpu.skipped) {
                vcpu.ring.release_skipped(path.at);
            } else {
                vcpu.ring.release(path.at);
            }
            vcpu.exit.nudge();
        }
        let overruns = self.playback.overruns();
        figures::show(
            self.status.own(),
            &mut self.machine,
            self.outside.counts(),
            overruns,
        );
        self.steps.step();
        self.end_if_long(Kind::Publish, begun);
    }

    /// Tells the coordinator what a device asked of the machine. A successor tells it again: ending twice is
    /// ending, and a reset withdraws the request.
    fn pass_request_on(&mut self) {
        let Some(request) = self.machine.request() else {
            self.reported = false;
            return;
        };
        if !self.reported {
            self.reported = true;
            self.status.report(match request {
                MachineRequest::Reset => GuestEvent::Reset(ResetCause::KeyboardController),
                MachineRequest::Exit(status) => GuestEvent::ExitPort(status),
            });
        }
    }

    /// Power-on and every later reset of the guest: devices, firmware, boot state, commit.
    fn carry_out_reset(&mut self, generation: u32) -> Result<(), WorkerError> {
        let begun = self.tracer.begin();
        for (vcpu, path) in self.vcpus.iter_mut().zip(&mut self.global.paths) {
            path.at = vcpu.ring.skip_to_tail();
            vcpu.skipped = true;
        }
        let ram = self.context.ram.clone();
        self.machine.reset(&mut Env {
            now: self.clock.now(),
            streams: &mut self.outside,
        });
        let state = boot(
            &mut self.machine,
            &ram,
            &self.config,
            &self.context.payloads,
            generation,
        )
        .map_err(|error| WorkerError::Config(error.to_string()))?;
        self.steps.step();
        if let Some(state) = &state {
            self.boot_state.publish(state);
        }
        // Guest memory was written past the code bitmap.
        self.invalidations.send_all();
        self.global.reset = generation;
        self.steps.step();
        self.commit()?;
        self.publish(Parts::first(self.machine.part_count()));
        self.tracer.end(Kind::Reset, begun, generation.into());
        self.say_reset_done();
        Ok(())
    }

    /// The vCPU's leave to start: everything else is there.
    fn say_reset_done(&self) {
        self.status.set_reset_done(self.global.reset);
        self.vcpus.iter().for_each(|v| v.exit.ring());
    }
}

fn connect(ends: &Ends, at: Positions) -> Result<Outside, WorkerError> {
    let mut out = Vec::new();
    let mut input = Vec::new();
    for n in 0..STREAMS {
        out.push(ends.stream_out_writer(n, at.out[n]).map_err(failed)?);
        input.push(ends.stream_in_reader(n, at.input[n]).map_err(failed)?);
    }
    let [window, line] = at.keys;
    let typed = Consumer::attach(
        ends.view_mut(quintet_protocol::layout::Region::lifecycle_to_head(Role::Io)),
        ends.view(quintet_protocol::layout::Region::lifecycle_to(Role::Io)),
        line,
    );
    let keys = vec![
        ends.input_consumer(window).map_err(failed)?,
        typed.map_err(failed)?,
    ];
    Ok(Outside::new(
        out,
        input,
        keys,
        ends.doorbell(SleeperId::Coordinator),
        at,
    ))
}
