//! Instructions that save and load the floating-point state, on this machine's CPU and in the interpreter.
//!
//! Not compared: the x87 instruction and data pointers and the last opcode, which recent processors keep only
//! for unmasked exceptions.

use crate::native::guest::Guest;
use crate::native::host::Snippet;
use crate::native::values::Random;
use crate::native::{End, Machine, OPERAND};

/// Where the images lie in the operand: aligned to 64, as XSAVE wants it.
const AT: usize = 64;

/// Runs `bytes` on both sides, with states changed by `prepare`, and compares what `mask` leaves.
fn agree(bytes: &[u8], prepare: impl Fn(&mut Machine, &mut Random), mask: impl Fn(&mut Machine)) {
    let mut random = Random::new(7);
    let mut guest = Guest::new();
    let at = guest.place(bytes);
    let snippet = Snippet::new(bytes);
    for case in 0..2000 {
        let mut before = random.machine(false);
        before.general.rsi = OPERAND + AT as u64;
        prepare(&mut before, &mut random);
        let (mut host, host_end) = snippet.run(&before);
        let (mut actual, guest_end) = guest.run(at, bytes.len(), &before);
        mask(&mut host);
        mask(&mut actual);
        assert_eq!(host_end, guest_end, "case {case}: {}", before.describe());
        let found = host.differences(&actual);
        assert!(
            found.is_empty(),
            "case {case}: {}\n{}",
            before.describe(),
            found.join("\n")
        );
        assert_eq!(host_end, End::Completed);
    }
}

/// An FXSAVE image of a random state in the operand.
fn image(machine: &mut Machine, random: &mut Random) {
    let other = random.machine(true);
    machine.memory[AT..AT + 416].copy_from_slice(&other.fx[..416]);
}

/// Forgets the pointers, the opcode, what only some hosts have, and what the processor leaves or need not write in an FXSAVE image.
fn forget_pointers(machine: &mut Machine) {
    machine.memory[AT + 5..AT + 24].fill(0);
    // MXCSR_MASK: AMD's processors have a bit 17, for misaligned operands.
    machine.memory[AT + 30] &= !2;
    machine.memory[AT + 416..AT + 512].fill(0);
}

#[test]
fn fxsave_writes_the_host_s_image() {
    agree(&[0x0f, 0xae, 0x06], |_, _| (), forget_pointers);
    agree(&[0x48, 0x0f, 0xae, 0x06], |_, _| (), forget_pointers);
}

#[test]
fn fxrstor_loads_what_the_host_loads() {
    agree(&[0x0f, 0xae, 0x0e], image, |_| ());
    agree(&[0x48, 0x0f, 0xae, 0x0e], image, |_| ());
}

/// Forgets the pointers of a 28-byte environment.
fn forget_environment_pointers(machine: &mut Machine) {
    machine.memory[AT + 12..AT + 28].fill(0);
}

#[test]
fn fnstenv_and_fnsave_write_the_host_s_image_and_leave_its_state() {
    agree(&[0xd9, 0x36], |_, _| (), forget_environment_pointers);
    agree(&[0xdd, 0x36], |_, _| (), forget_environment_pointers);
}

#[test]
fn frstor_loads_what_the_host_loads() {
    agree(&[0xdd, 0x26], |_, _| (), |_| ());
}

#[test]
fn ldmxcsr_and_stmxcsr_agree_with_the_host() {
    let load = |machine: &mut Machine, random: &mut Random| {
        let value = random.next() as u32 & 0xffff;
        machine.memory[AT..AT + 4].copy_from_slice(&value.to_le_bytes());
    };
    agree(&[0x0f, 0xae, 0x16], load, |_| ());
    agree(&[0x0f, 0xae, 0x1e], |_, _| (), |_| ());
}

/// EDX:EAX asks for x87 and SSE; there is no compacted image and no state but these two.
fn components(machine: &mut Machine, requested: u64, present: u64) {
    machine.general.rax = requested;
    machine.general.rdx = 0;
    machine.memory[AT + 512..AT + 576].fill(0);
    machine.memory[AT + 512] = present as u8;
}

#[test]
fn xsave_writes_the_components_asked_for_and_nothing_else() {
    for requested in 0..4 {
        agree(
            &[0x0f, 0xae, 0x26],
            |machine, _| components(machine, requested, 3),
            |machine| {
                forget_pointers(machine);
                // XSTATE_BV: the host may know a component to be in its initial state.
                machine.memory[AT + 512] = 0;
            },
        );
    }
}

#[test]
fn xrstor_loads_the_components_present_and_initialises_the_others() {
    for requested in 0..4 {
        for present in 0..4 {
            agree(
                &[0x0f, 0xae, 0x2e],
                |machine, random| {
                    image(machine, random);
                    components(machine, requested, present);
                },
                |_| (),
            );
        }
    }
}
