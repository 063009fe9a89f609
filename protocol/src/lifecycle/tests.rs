//! Lives of machines, without a process.

use super::*;

struct Sim {
    life: Lifecycle,
    now: Now,
}

fn secs(s: f64) -> Duration {
    Duration::from_secs_f64(s)
}

impl Sim {
    fn new(policy: Policy) -> Self {
        Self {
            life: Lifecycle::new(policy, 1),
            now: Duration::ZERO,
        }
    }

    fn input(&mut self, input: Input) -> Vec<Action> {
        self.life.step(self.now, input)
    }

    /// Lets time pass, ticking when the machine asks for it, and answers all actions.
    fn pass(&mut self, seconds: f64) -> Vec<Action> {
        let end = self.now + secs(seconds);
        let mut out = Vec::new();
        while let Some(at) = self.life.next_deadline().filter(|d| *d <= end) {
            self.now = self.now.max(at);
            out.extend(self.input(Input::Tick));
        }
        self.now = end;
        out
    }

    fn ready(&mut self, role: Role) -> Vec<Action> {
        let generation = self.life.generation(role);
        let mut out = self.input(Input::Ready(role, generation));
        let reset = self.life.reset_generation();
        if essential(role) {
            out.extend(self.input(Input::ResetDone(role, reset)));
        }
        out
    }

    fn running(policy: Policy) -> Self {
        let mut sim = Self::new(policy);
        sim.input(Input::Start);
        for role in Role::WORKERS {
            sim.ready(role);
        }
        assert_eq!(sim.life.machine(), MachineState::Running);
        sim
    }

    fn kill(&mut self, role: Role) -> Vec<Action> {
        let generation = self.life.generation(role);
        self.input(Input::Died(
            role,
            generation,
            Death::Crashed("killed by signal 9".into()),
        ))
    }
}

fn spawns(actions: &[Action]) -> Vec<(Role, u32)> {
    actions
        .iter()
        .filter_map(|a| {
            if let Action::Spawn(r, g) = a {
                Some((*r, *g))
            } else {
                None
            }
        })
        .collect()
}

#[test]
fn s3_100_a_machine_runs_when_all_workers_are_ready_and_the_reset_is_done() {
    let mut sim = Sim::new(Policy::default());
    let actions = sim.input(Input::Start);
    assert_eq!(spawns(&actions), Role::WORKERS.map(|r| (r, 1)));
    assert_eq!(sim.life.machine(), MachineState::Starting);
    for role in Role::WORKERS {
        assert_ne!(sim.life.machine(), MachineState::Running);
        sim.input(Input::Ready(role, 1));
    }
    assert_eq!(sim.life.machine(), MachineState::Resetting);
    sim.input(Input::ResetDone(Role::Io, 1));
    let actions = sim.input(Input::ResetDone(Role::Cpu, 1));
    assert_eq!(actions, [Action::Publish, Action::Clock(true)]);
    assert_eq!(sim.life.machine(), MachineState::Running);
}

#[test]
fn the_clock_stands_before_a_death_is_published_and_runs_after_the_successor_is() {
    let mut sim = Sim::running(Policy::default());
    assert_eq!(sim.kill(Role::Io)[..2], [Action::Clock(false), Action::Publish]);
    assert_eq!(sim.life.peer(Role::Io), PeerState::Restarting);
    sim.pass(0.4);
    assert_eq!(sim.ready(Role::Io).last(), Some(&Action::Clock(true)));
    assert_eq!(sim.life.machine(), MachineState::Running);
}

#[test]
fn s3_101_gpu_and_audio_restart_alone_and_time_goes_on() {
    for role in [Role::Gpu, Role::Audio] {
        let mut sim = Sim::running(Policy::default());
        let mut actions = sim.kill(role);
        actions.extend(sim.pass(0.4));
        assert_eq!(spawns(&actions), [(role, 2)]);
        assert!(!actions.contains(&Action::Clock(false)));
        assert_eq!(sim.life.machine(), MachineState::Running);
    }
}

#[test]
fn a_dead_cpu_worker_resets_the_guest_and_a_dead_io_worker_does_not() {
    let mut sim = Sim::running(Policy::default());
    sim.kill(Role::Io);
    sim.pass(0.4);
    sim.ready(Role::Io);
    assert_eq!(sim.life.reset_generation(), 1);
    sim.kill(Role::Cpu);
    assert_eq!(sim.life.reset_generation(), 2);
    sim.pass(0.4);
    let generation = sim.life.generation(Role::Cpu);
    sim.input(Input::Ready(Role::Cpu, generation));
    assert_eq!(sim.life.machine(), MachineState::Resetting);
    sim.input(Input::ResetDone(Role::Io, 2));
    sim.input(Input::ResetDone(Role::Cpu, 2));
    assert_eq!(sim.life.machine(), MachineState::Running);
}

#[test]
fn s3_103_what_an_older_process_says_is_ignored() {
    let mut sim = Sim::running(Policy::default());
    sim.kill(Role::Gpu);
    sim.pass(0.4);
    sim.input(Input::Ready(Role::Gpu, 1));
    assert_eq!(sim.life.peer(Role::Gpu), PeerState::Starting);
    assert_eq!(
        sim.input(Input::Died(Role::Gpu, 1, Death::Crashed(String::new()))),
        []
    );
}

#[test]
fn five_deaths_in_a_row_before_ten_seconds_are_final() {
    let mut sim = Sim::running(Policy::default());
    for death in 1..=4 {
        sim.kill(Role::Io);
        assert_eq!(sim.life.peer(Role::Io), PeerState::Restarting, "death {death}");
        sim.pass(9.0);
        sim.ready(Role::Io);
    }
    sim.pass(9.9);
    let actions = sim.kill(Role::Io);
    assert_eq!(sim.life.peer(Role::Io), PeerState::Failed);
    assert_eq!(sim.life.machine(), MachineState::Failed);
    assert!(actions.contains(&Action::RequestStop(Role::Cpu)), "{actions:?}");
    assert_eq!(sim.life.outcome().map(Outcome::exit_status), Some(2));
}

#[test]
fn ten_seconds_of_readiness_forgive_earlier_deaths() {
    let mut sim = Sim::running(Policy::default());
    for _ in 0..20 {
        sim.pass(10.0);
        sim.kill(Role::Io);
        sim.pass(0.4);
        sim.ready(Role::Io);
    }
    assert_eq!(sim.life.machine(), MachineState::Running);
    assert_eq!(sim.life.generation(Role::Io), 21);
}

#[test]
fn s3_101_delays_grow_while_a_worker_does_not_become_ready_and_shrink_when_all_are() {
    let mut sim = Sim::running(Policy::default());
    let mut delays = Vec::new();
    for _ in 0..3 {
        sim.kill(Role::Io);
        let at = sim.life.next_deadline().expect("a restart is due");
        delays.push(at - sim.now);
        sim.pass((at - sim.now).as_secs_f64());
    }
    assert!(delays[1] > delays[0] && delays[2] > delays[1], "{delays:?}");
    sim.ready(Role::Io);
    sim.kill(Role::Io);
    let at = sim.life.next_deadline().expect("a restart is due");
    assert!(at - sim.now <= secs(0.3));
}

#[test]
fn s3_102_a_configuration_error_ends_the_machine_at_once() {
    let mut sim = Sim::new(Policy::default());
    sim.input(Input::Start);
    let actions = sim.input(Input::Died(Role::Io, 1, Death::Config("no kernel".into())));
    assert!(spawns(&actions).is_empty());
    assert_eq!(sim.life.outcome(), Some(&Outcome::Config("no kernel".into())));
    assert_eq!(sim.life.outcome().map(Outcome::exit_status), Some(1));
}

#[test]
fn a_reset_by_the_guest_restarts_no_process() {
    let mut sim = Sim::running(Policy::default());
    let actions = sim.input(Input::Guest(GuestEvent::Reset(ResetCause::TripleFault)));
    assert_eq!(actions, [Action::Clock(false), Action::Publish]);
    assert_eq!(
        (sim.life.machine(), sim.life.reset_generation()),
        (MachineState::Resetting, 2)
    );
    sim.input(Input::ResetDone(Role::Io, 2));
    sim.input(Input::ResetDone(Role::Cpu, 2));
    assert_eq!(sim.life.machine(), MachineState::Running);
    assert!(Role::WORKERS.iter().all(|r| sim.life.generation(*r) == 1));
}

#[test]
fn with_no_reboot_a_reset_ends_the_machine_with_status_3() {
    let mut sim = Sim::running(Policy {
        no_reboot: true,
        ..Policy::default()
    });
    sim.input(Input::Guest(GuestEvent::Reset(ResetCause::Port92)));
    assert_eq!(sim.life.outcome().map(Outcome::exit_status), Some(3));
}

#[test]
fn what_a_successor_cannot_open_is_tried_again() {
    let mut sim = Sim::running(Policy::default());
    sim.kill(Role::Gpu);
    sim.pass(1.0);
    sim.input(Input::Died(Role::Gpu, 2, Death::Config("no display".into())));
    assert_eq!(sim.life.outcome(), None);
    assert_eq!(sim.life.peer(Role::Gpu), PeerState::Restarting);
}

#[test]
fn where_the_machine_ends_with_its_cpu_worker_the_first_death_is_the_last() {
    let mut sim = Sim::running(Policy {
        ends_with_cpu: true,
        ..Policy::default()
    });
    sim.kill(Role::Io);
    assert_eq!(sim.life.outcome(), None);
    sim.kill(Role::Cpu);
    assert_eq!(sim.life.outcome().map(Outcome::exit_status), Some(2));
}

#[test]
fn a_reset_that_is_not_carried_out_in_ten_seconds_kills_who_owes_it() {
    let mut sim = Sim::running(Policy::default());
    sim.input(Input::Reset);
    sim.input(Input::ResetDone(Role::Io, 2));
    let actions = sim.pass(10.0);
    assert!(
        matches!(actions[..], [Action::Kill(Role::Cpu, 1, _)]),
        "{actions:?}"
    );
}

#[test]
fn a_worker_that_never_becomes_ready_is_killed() {
    let mut sim = Sim::new(Policy::default());
    sim.input(Input::Start);
    for role in [Role::Cpu, Role::Gpu, Role::Audio] {
        sim.ready(role);
    }
    assert!(matches!(sim.pass(10.0)[..], [Action::Kill(Role::Io, 1, _)]));
}

#[test]
fn a_held_worker_stops_time_only_if_the_guest_needs_it() {
    let mut sim = Sim::running(Policy::default());
    assert_eq!(sim.input(Input::Held(Role::Gpu, true)), [Action::Publish]);
    assert_eq!(sim.life.peer(Role::Gpu), PeerState::Held);
    assert_eq!(
        sim.input(Input::Held(Role::Io, true)),
        [Action::Clock(false), Action::Publish]
    );
    assert_eq!(sim.life.machine(), MachineState::Running);
    assert_eq!(
        sim.input(Input::Held(Role::Io, false)),
        [Action::Publish, Action::Clock(true)]
    );
}

#[test]
fn a_pause_outlasts_a_restart() {
    let mut sim = Sim::running(Policy::default());
    assert_eq!(sim.input(Input::Pause), [Action::Clock(false), Action::Publish]);
    sim.kill(Role::Io);
    sim.pass(0.4);
    sim.ready(Role::Io);
    assert_eq!(sim.life.machine(), MachineState::Paused);
    assert_eq!(sim.input(Input::Resume), [Action::Publish, Action::Clock(true)]);
}

#[test]
fn the_guests_debugger_pauses_and_so_does_the_user_whoever_lets_go_first() {
    let mut sim = Sim::running(Policy::default());
    assert_eq!(
        sim.input(Input::Debugged(true)),
        [Action::Clock(false), Action::Publish]
    );
    assert_eq!(sim.life.machine(), MachineState::Paused);
    assert_eq!(sim.input(Input::Pause), []);
    assert_eq!(sim.input(Input::Debugged(false)), []);
    assert_eq!(sim.input(Input::Debugged(true)), []);
    assert_eq!(sim.input(Input::Resume), []);
    assert_eq!(
        sim.input(Input::Debugged(false)),
        [Action::Publish, Action::Clock(true)]
    );
}

#[test]
fn the_guests_debugger_resets_even_where_the_guest_may_not() {
    let mut sim = Sim::running(Policy {
        no_reboot: true,
        ..Policy::default()
    });
    sim.input(Input::Guest(GuestEvent::Reset(ResetCause::User)));
    assert_eq!(sim.life.machine(), MachineState::Resetting);
    assert_eq!(sim.life.outcome(), None);
}

#[test]
fn resume_cuts_a_backoff_short() {
    let mut sim = Sim::running(Policy::default());
    sim.kill(Role::Audio);
    assert_eq!(spawns(&sim.input(Input::Resume)), [(Role::Audio, 2)]);
}

#[test]
fn an_orderly_stop_goes_cpu_io_then_the_rest_and_reports_last() {
    let mut sim = Sim::running(Policy::default());
    let mut asked: Vec<Role> = Vec::new();
    let mut actions = sim.input(Input::Guest(GuestEvent::PowerOff));
    loop {
        let stops: Vec<Role> = actions
            .iter()
            .filter_map(|a| {
                if let Action::RequestStop(r) = a {
                    Some(*r)
                } else {
                    None
                }
            })
            .collect();
        if actions.iter().any(|a| matches!(a, Action::Finished(_))) {
            break;
        }
        asked.extend(&stops);
        actions = stops
            .iter()
            .flat_map(|&r| {
                let g = sim.life.generation(r);
                sim.input(Input::Died(r, g, Death::Stopped))
            })
            .collect();
    }
    assert_eq!(asked, [Role::Cpu, Role::Io, Role::Gpu, Role::Audio]);
    assert_eq!(actions.last(), Some(&Action::Finished(Outcome::PoweredOff)));
}

#[test]
fn a_worker_that_does_not_stop_is_killed() {
    let mut sim = Sim::running(Policy::default());
    sim.input(Input::Stop(Outcome::Asked(0)));
    assert!(matches!(sim.pass(2.0)[..], [Action::Kill(Role::Cpu, 1, _)]));
}

#[test]
fn io_worker_may_take_longer_to_stop_unless_it_is_held() {
    let stopping = |held: bool| {
        let mut sim = Sim::running(Policy::default());
        if held {
            sim.input(Input::Held(Role::Io, true));
        }
        sim.input(Input::Stop(Outcome::Asked(0)));
        sim.input(Input::Died(Role::Cpu, 1, Death::Stopped));
        sim
    };
    assert!(stopping(false).pass(29.0).is_empty());
    let mut sim = stopping(false);
    sim.pass(29.0);
    assert!(matches!(sim.pass(1.0)[..], [Action::Kill(Role::Io, 1, _)]));
    assert!(matches!(
        stopping(true).pass(2.0)[..],
        [Action::Kill(Role::Io, 1, _)]
    ));
}

#[test]
fn nothing_is_spawned_once_the_machine_ends() {
    let mut sim = Sim::running(Policy::default());
    sim.kill(Role::Gpu);
    sim.input(Input::Stop(Outcome::Asked(0)));
    sim.kill(Role::Io);
    assert!(spawns(&sim.pass(20.0)).is_empty());
}

#[test]
fn a_headless_machine_goes_on_without_sound_and_picture() {
    let mut sim = Sim::running(Policy::default());
    for _ in 0..5 {
        sim.kill(Role::Audio);
        sim.pass(9.0);
        if sim.life.peer(Role::Audio) != PeerState::Failed {
            sim.ready(Role::Audio);
        }
    }
    assert_eq!(sim.life.peer(Role::Audio), PeerState::Failed);
    assert_eq!(sim.life.machine(), MachineState::Running);
}

#[test]
fn exit_statuses_are_those_of_the_command_line() {
    assert_eq!(Outcome::PoweredOff.exit_status(), 0);
    assert_eq!(Outcome::Config(String::new()).exit_status(), 1);
    assert_eq!(Outcome::NoReboot(ResetCause::Cf9).exit_status(), 3);
    assert_eq!(Outcome::TimeLimit.exit_status(), 124);
    assert_eq!(Outcome::ExitPort(0x10).exit_status(), 0x21);
    assert_eq!(Outcome::ExitPort(0).exit_status(), 1);
}

fn by_hand(role: Role) -> Policy {
    let mut policy = Policy::default();
    policy.by_hand[role.index() - 1] = true;
    policy
}

#[test]
fn a_worker_that_is_started_by_hand_is_waited_for_without_a_deadline_and_the_others_are_not() {
    let mut sim = Sim::new(by_hand(Role::Io));
    let actions = sim.input(Input::Start);
    assert_eq!(spawns(&actions).len(), 4, "it is announced like the others");
    for role in [Role::Cpu, Role::Gpu] {
        sim.ready(role);
    }
    let actions = sim.pass(10.0);
    assert!(
        matches!(actions[..], [Action::Kill(Role::Audio, 1, _)]),
        "{actions:?}"
    );
    sim.kill(Role::Audio);
    sim.pass(0.4);
    sim.ready(Role::Audio);
    assert!(sim.pass(100_000.0).is_empty());
    assert_eq!(sim.life.machine(), MachineState::Starting);
    assert!(sim.life.awaits(Role::Io, 1) && !sim.life.awaits(Role::Audio, 2));

    sim.input(Input::Joined(Role::Io, 1));
    assert!(!sim.life.awaits(Role::Io, 1));
    sim.ready(Role::Io);
    assert_eq!(sim.life.machine(), MachineState::Running);
}

#[test]
fn one_that_is_there_has_more_time_and_not_for_ever() {
    let mut sim = Sim::new(by_hand(Role::Gpu));
    sim.input(Input::Start);
    for role in [Role::Cpu, Role::Io, Role::Audio] {
        sim.ready(role);
    }
    sim.input(Input::Joined(Role::Gpu, 1));
    assert!(sim.pass(119.0).is_empty());
    let actions = sim.pass(1.0);
    assert!(
        matches!(actions[..], [Action::Kill(Role::Gpu, 1, _)]),
        "{actions:?}"
    );
}

#[test]
fn the_successor_of_one_is_announced_by_the_usual_policy_and_waited_for() {
    let mut sim = Sim::new(by_hand(Role::Cpu));
    sim.input(Input::Start);
    sim.input(Input::Joined(Role::Cpu, 1));
    for role in Role::WORKERS {
        sim.ready(role);
    }
    assert_eq!(sim.life.machine(), MachineState::Running);
    sim.kill(Role::Cpu);
    assert!(
        !sim.life.awaits(Role::Cpu, 1),
        "nobody can take the place of the dead"
    );
    assert_eq!(spawns(&sim.pass(0.4)), [(Role::Cpu, 2)]);
    assert!(sim.pass(1000.0).is_empty());
    // A reset meanwhile kills nobody: nobody is there.
    sim.input(Input::Reset);
    assert!(sim.pass(1000.0).is_empty());
    sim.input(Input::Joined(Role::Cpu, 1));
    assert!(sim.life.awaits(Role::Cpu, 2), "of the wrong number");
    sim.input(Input::Joined(Role::Cpu, 2));
    sim.ready(Role::Cpu);
    sim.ready(Role::Io);
    assert_eq!(sim.life.machine(), MachineState::Running);
}

#[test]
fn a_machine_that_waits_for_somebody_can_end() {
    let mut sim = Sim::new(by_hand(Role::Io));
    sim.input(Input::Start);
    for role in [Role::Cpu, Role::Gpu, Role::Audio] {
        sim.ready(role);
    }
    sim.input(Input::Stop(Outcome::Asked(0)));
    assert!(!sim.life.awaits(Role::Io, 1), "nobody can join any more");
    let mut last = Vec::new();
    for role in [Role::Cpu, Role::Gpu, Role::Audio] {
        last = sim.input(Input::Died(role, 1, Death::Stopped));
    }
    assert_eq!(last.last(), Some(&Action::Finished(Outcome::Asked(0))));
}

#[test]
fn a_worker_that_makes_room_has_not_died() {
    let mut sim = Sim::running(Policy::default());
    for round in 1..=8 {
        let asked = sim.input(Input::Replace(Role::Io));
        assert_eq!(asked[0], Action::Clock(false), "time stands first");
        assert!(asked.contains(&Action::RequestStop(Role::Io)));
        assert!(sim.life.is_replaced(Role::Io));
        assert_eq!(sim.life.machine(), MachineState::Restarting);
        // Asked again meanwhile: once is enough.
        assert_eq!(sim.input(Input::Replace(Role::Io)), []);
        let generation = sim.life.generation(Role::Io);
        let ended = sim.input(Input::Died(Role::Io, generation, Death::Stopped));
        assert_eq!(spawns(&ended), [(Role::Io, round + 1)], "at once");
        assert!(!sim.life.is_replaced(Role::Io));
        assert_eq!(sim.life.deaths(Role::Io), 0);
        sim.ready(Role::Io);
        assert_eq!(sim.life.machine(), MachineState::Running);
        assert_eq!(sim.life.reset_generation(), 1, "the guest is not reset");
    }
}

#[test]
fn one_that_does_not_make_room_is_killed_when_it_had_time_to_flush() {
    let policy = Policy::default();
    let mut sim = Sim::running(policy);
    sim.input(Input::Replace(Role::Io));
    assert_eq!(sim.pass(policy.flush.as_secs_f64() - 0.1), []);
    let late = sim.pass(0.2);
    assert_eq!(late, [Action::Kill(Role::Io, 1, "it did not end in time")]);
    assert_eq!(spawns(&sim.kill(Role::Io)), [(Role::Io, 2)]);
    assert_eq!(sim.life.deaths(Role::Io), 0);
}

#[test]
fn who_is_held_or_not_there_or_ending_is_not_replaced() {
    let mut sim = Sim::running(Policy::default());
    sim.input(Input::Held(Role::Io, true));
    assert_eq!(sim.input(Input::Replace(Role::Io)), []);
    sim.input(Input::Held(Role::Io, false));
    sim.kill(Role::Io);
    assert_eq!(sim.input(Input::Replace(Role::Io)), []);
    assert!(!sim.life.can_be_replaced(Role::Io));
    let mut sim = Sim::running(Policy::default());
    // An end that comes meanwhile goes on from there.
    sim.input(Input::Replace(Role::Io));
    sim.input(Input::Stop(Outcome::Asked(0)));
    let ended = sim.input(Input::Died(Role::Io, 1, Death::Stopped));
    assert_eq!(spawns(&ended), []);
    sim.input(Input::Replace(Role::Io));
    for role in [Role::Cpu, Role::Gpu, Role::Audio] {
        sim.input(Input::Died(role, 1, Death::Stopped));
    }
    assert_eq!(sim.life.outcome(), Some(&Outcome::Asked(0)));
}
