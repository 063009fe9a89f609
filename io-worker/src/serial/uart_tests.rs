use super::*;
use crate::bus::contract::{Bench, device_contract, saved};
use crate::bus::{Line, PinTarget, Size};

fn build(bench: &mut Bench) -> Uart {
    let pin = bench.irq.pin(PinTarget::Line(Line(4)));
    Uart::new(UartConfig {
        name: "com1",
        pin,
        out: StreamOut(0),
        input: StreamIn(0),
    })
}

device_contract!(contract, build);

const IER: u64 = 1;
const IIR: u64 = 2;
const FCR: u64 = 2;
const LCR: u64 = 3;
const MCR: u64 = 4;
const LSR: u64 = 5;
const MSR: u64 = 6;

struct Rig {
    bench: Bench,
    uart: Uart,
}

impl Rig {
    /// FIFOs on, trigger 8, OUT2 set, 8n1 at 115200.
    fn new() -> Self {
        let mut bench = Bench::new();
        let uart = build(&mut bench);
        let mut rig = Self { bench, uart };
        rig.out(LCR, 0x83);
        rig.out(0, 1);
        rig.out(1, 0);
        rig.out(LCR, 0x03);
        rig.out(FCR, 0x81);
        rig.out(MCR, 0x0B);
        rig
    }
    fn out(&mut self, reg: u64, value: u8) {
        self.bench.outb(&mut self.uart, reg, value);
    }
    fn inp(&mut self, reg: u64) -> u8 {
        self.bench.inb(&mut self.uart, reg)
    }
    fn input(&mut self, bytes: &[u8]) {
        self.bench.streams.incoming[0].extend(bytes);
        self.bench.pass(&mut self.uart, 0);
    }
    fn line(&self) -> bool {
        self.bench.wire(4).high
    }
    fn edges(&self) -> u32 {
        self.bench.wire(4).edges
    }
    fn iir(&mut self) -> u8 {
        self.inp(IIR) & 0x0F
    }
}

#[test]
fn what_is_written_comes_out_in_order_and_at_once() {
    let mut r = Rig::new();
    for b in b"hello" {
        assert_eq!(r.inp(LSR) & 0x60, 0x60);
        r.out(0, *b);
    }
    assert_eq!(r.bench.streams.out[0], b"hello");
}

#[test]
fn thre_stays_low_while_the_stream_is_full_and_nothing_is_lost() {
    let mut r = Rig::new();
    r.out(IER, 0x02);
    r.inp(IIR);
    r.bench.streams.room = 2;
    for b in b"abcd" {
        r.out(0, *b);
    }
    assert_eq!(r.inp(LSR) & 0x60, 0);
    assert!(!r.line());
    assert_eq!(r.bench.streams.out[0], b"ab");
    r.bench.streams.room = 3;
    r.bench.pass(&mut r.uart, 0);
    assert_eq!(r.inp(LSR) & 0x60, 0);
    r.bench.streams.room = 100;
    r.bench.pass(&mut r.uart, TX_RETRY_NANOS);
    assert_eq!(r.bench.streams.out[0], b"abcd");
    assert_eq!(r.inp(LSR) & 0x60, 0x60);
    assert!(r.line());
    assert_eq!(r.iir(), 0x02);
    assert!(r.uart.next_deadline().is_none());
}

#[test]
fn the_transmitter_interrupt_comes_when_enabled_and_after_each_byte() {
    let mut r = Rig::new();
    r.out(IER, 0x02);
    assert!(r.line());
    assert_eq!(r.iir(), 0x02);
    assert!(!r.line(), "reading IIR takes it");
    assert_eq!(r.iir(), 0x01);
    let before = r.edges();
    r.out(0, b'x');
    assert!(r.line());
    assert_eq!(r.edges(), before + 1);
    r.out(0, b'y');
    assert_eq!(r.edges(), before + 2, "each byte gives an edge of its own");
    r.out(IER, 0x00);
    assert!(!r.line());
    r.inp(IIR);
    r.out(IER, 0x02);
    assert_eq!(r.iir(), 0x02, "enabling it anew raises it anew");
}

#[test]
fn the_receiver_interrupts_at_its_trigger_and_by_time_out_below_it() {
    let mut r = Rig::new();
    r.out(IER, 0x01);
    r.input(b"1234567");
    assert!(!r.line());
    r.bench.pass(&mut r.uart, 4 * 10 * NANOS_PER_SEC / BASE_BAUD + 1);
    assert!(r.line());
    assert_eq!(r.iir(), 0x0C);
    assert_eq!(r.inp(0), b'1');
    assert!(!r.line(), "reading a byte ends the time-out");
    r.input(b"89");
    assert!(r.line());
    assert_eq!(r.iir(), 0x04);
    assert_eq!(r.inp(0), b'2');
    assert_eq!(r.iir(), 0x01);
    for b in b"3456789" {
        assert_eq!(r.inp(LSR) & 1, 1);
        assert_eq!(r.inp(0), *b);
    }
    assert_eq!(r.inp(LSR) & 1, 0);
    r.bench.pass(&mut r.uart, NANOS_PER_SEC);
    assert!(!r.line());
    assert!(r.uart.next_deadline().is_none(), "an idle UART waits for nothing");
}

#[test]
fn input_waits_in_its_stream_and_never_overruns() {
    let mut r = Rig::new();
    r.out(IER, 0x01);
    let text: Vec<u8> = (0..=255).cycle().take(1000).collect();
    r.input(&text);
    assert_eq!(r.bench.streams.incoming[0].len(), 1000 - 16);
    let mut got = Vec::new();
    while got.len() < text.len() {
        while r.inp(LSR) & 1 != 0 {
            assert_eq!(r.inp(LSR) & 0x1E, 0);
            got.push(r.inp(0));
        }
        r.bench.pass(&mut r.uart, 16 * RX_CHAR_NANOS);
    }
    assert_eq!(got, text);
}

#[test]
fn each_refill_is_an_edge_for_a_handler_that_reads_one_byte() {
    let mut r = Rig::new();
    r.out(FCR, 0x00);
    r.out(IER, 0x01);
    r.input(b"ab");
    assert_eq!(r.edges(), 1);
    assert_eq!(r.inp(0), b'a');
    assert!(!r.line(), "paced");
    r.bench.pass(&mut r.uart, RX_CHAR_NANOS);
    assert!(r.line());
    assert_eq!(r.edges(), 2);
    assert_eq!(r.inp(0), b'b');
}

#[test]
fn line_status_comes_before_data_before_transmitter_before_modem() {
    let mut r = Rig::new();
    r.out(MCR, 0x10);
    assert_eq!(r.inp(MSR), 0x0B, "the peer's lines fell away");
    r.out(IER, 0x0F);
    r.out(LCR, 0x43);
    for _ in 0..8 {
        r.out(0, b'x');
    }
    r.out(MCR, 0x12);
    assert_eq!(r.iir(), 0x06);
    assert_eq!(r.inp(LSR) & 0x9F, 0x91, "break at the head");
    assert_eq!(r.iir(), 0x04);
    assert_eq!(r.inp(0), 0, "the break's character");
    assert_eq!(r.inp(0), b'x');
    assert_eq!(r.iir(), 0x02);
    assert_eq!(r.iir(), 0x00);
    assert_eq!(r.inp(MSR) & 0x0F, 0x01);
    assert_eq!(r.iir(), 0x01);
}

#[test]
fn loop_back_connects_modem_outputs_and_data_and_gates_the_line() {
    let mut r = Rig::new();
    assert_eq!(r.inp(MSR) & 0xF0, 0xB0);
    r.out(MCR, 0x1A);
    assert_eq!(r.inp(MSR) & 0xF0, 0x90, "RTS and OUT2 as CTS and DCD");
    r.out(IER, 0x01);
    for b in 0..20 {
        r.out(0, b);
    }
    assert!(r.bench.streams.out[0].is_empty());
    assert!(!r.line(), "OUT2 is forced off");
    assert_eq!(r.iir(), 0x04);
    assert_eq!(r.inp(LSR) & 0x02, 0x02, "overrun past sixteen");
    for b in 0..16 {
        assert_eq!(r.inp(0), b);
    }
    assert_eq!(r.inp(LSR) & 0x03, 0);
}

#[test]
fn ring_indicator_counts_its_trailing_edge_only() {
    let mut r = Rig::new();
    r.out(MCR, 0x10);
    r.inp(MSR);
    r.out(MCR, 0x14);
    assert_eq!(r.inp(MSR), 0x40);
    r.out(MCR, 0x10);
    assert_eq!(r.inp(MSR), 0x04);
    assert_eq!(r.inp(MSR), 0x00);
}

#[test]
fn the_divisor_and_the_scratch_register_hold() {
    let mut r = Rig::new();
    r.out(LCR, 0x80);
    r.bench.write(&mut r.uart, 0, 0, Size::WORD, 0x1234);
    assert_eq!(r.bench.read(&mut r.uart, 0, 0, Size::WORD), 0x1234);
    r.out(LCR, 0x03);
    assert_eq!(r.inp(IER), 0);
    r.out(7, 0xA5);
    assert_eq!(r.inp(7), 0xA5);
    assert_eq!(r.inp(IIR), 0xC1);
    r.out(FCR, 0);
    assert_eq!(r.inp(IIR), 0x01);
}

#[test]
fn without_out2_the_line_stays_low() {
    let mut r = Rig::new();
    r.out(MCR, 0x03);
    r.out(IER, 0x02);
    assert!(!r.line());
    r.out(MCR, 0x0B);
    assert!(r.line());
}

#[test]
fn bytes_under_way_survive_a_reset_and_a_successor() {
    let mut r = Rig::new();
    r.bench.streams.room = 1;
    r.out(0, b'a');
    r.out(0, b'b');
    r.uart.reset(&mut r.bench.backplane());
    let bytes = saved(&r.uart);
    let mut next = build(&mut Bench::new());
    next.load(1, &bytes).expect("state");
    r.uart = next;
    r.bench.streams.room = 9;
    r.bench.pass(&mut r.uart, TX_RETRY_NANOS);
    assert_eq!(r.bench.streams.out[0], b"ab");
}
