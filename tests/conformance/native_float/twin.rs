//! The x87 arithmetic in integers against the host's x87.

use crate::native::values::Random;
use quintet_cpu_worker::fp::F80;
use quintet_cpu_worker::fp::x87::{Env, host, soft, status};

type Binary = fn(&Env, &F80, &F80, &mut F80) -> u16;
type Unary = fn(&Env, &F80, &mut F80) -> u16;
type Compare = fn(&Env, &F80, &F80) -> u16;

const CASES: usize = 100_000;

/// A control word with every rounding and precision, and exceptions unmasked half of the time.
fn control(random: &mut Random) -> u16 {
    let masks = if random.below(2) == 0 {
        0x3f
    } else {
        random.next() as u16 & 0x3f
    };
    let precision = [0, 2, 3][random.below(3) as usize];
    masks | 0x40 | precision << 8 | (random.below(4) as u16) << 10
}

/// The flags that this operation raised; C1 unless the exception leaves it undefined.
fn flags(word: u16) -> u16 {
    word & (status::EXCEPTIONS | status::C1)
}

fn f80(random: &mut Random) -> F80 {
    F80::from_bytes(&random.f80())
}

/// A second operand that is now and then close to the first.
fn near(random: &mut Random, a: F80) -> F80 {
    match random.below(4) {
        0 => F80::new(
            a.sign_exponent
                .wrapping_add(random.below(5) as u16)
                .wrapping_sub(2)
                ^ (random.next() as u16 & 0x8000),
            f80(random).mantissa | a.mantissa & 1 << 63,
        ),
        _ => f80(random),
    }
}

fn binary(name: &str, slow: Binary, fast: Binary) {
    let mut random = Random::new(11);
    for _ in 0..CASES {
        let env = Env::new(control(&mut random), 0);
        let a = f80(&mut random);
        let b = near(&mut random, a);
        let (mut x, mut y) = (a, a);
        let (s, f) = (slow(&env, &a, &b, &mut x), fast(&env, &a, &b, &mut y));
        assert_eq!(
            (flags(s), x),
            (flags(f), y),
            "{name} {a:?} {b:?} control {:04x}",
            env.control
        );
    }
}

fn unary(name: &str, slow: Unary, fast: Unary) {
    let mut random = Random::new(12);
    for _ in 0..CASES {
        let env = Env::new(control(&mut random), 0);
        let a = f80(&mut random);
        let (mut x, mut y) = (a, a);
        let (s, f) = (slow(&env, &a, &mut x), fast(&env, &a, &mut y));
        assert_eq!(
            (flags(s), x),
            (flags(f), y),
            "{name} {a:?} control {:04x}",
            env.control
        );
    }
}

fn compare(name: &str, slow: Compare, fast: Compare) {
    let mut random = Random::new(13);
    let codes = status::EXCEPTIONS | status::C0 | status::C2 | status::C3;
    for _ in 0..CASES {
        let env = Env::new(control(&mut random), 0);
        let a = f80(&mut random);
        let b = if random.below(8) == 0 {
            a
        } else {
            near(&mut random, a)
        };
        let (s, f) = (slow(&env, &a, &b), fast(&env, &a, &b));
        assert_eq!(
            s & codes,
            f & codes,
            "{name} {a:?} {b:?} control {:04x}",
            env.control
        );
    }
}

#[test]
fn addition_and_subtraction_in_integers_agree_with_the_host() {
    binary("fadd", soft::add, host::add);
    binary("fsub", soft::sub, host::sub);
    binary("fsubr", soft::subr, host::subr);
}

#[test]
fn multiplication_and_division_in_integers_agree_with_the_host() {
    binary("fmul", soft::mul, host::mul);
    binary("fdiv", soft::div, host::div);
    binary("fdivr", soft::divr, host::divr);
}

#[test]
fn roots_and_rounding_in_integers_agree_with_the_host() {
    unary("fsqrt", soft::sqrt, host::sqrt);
    unary("frndint", soft::rndint, host::rndint);
}

#[test]
fn comparisons_in_integers_agree_with_the_host() {
    compare("fcom", soft::com, host::com);
    compare("fucom", soft::ucom, host::ucom);
}

/// Loads and stores of one format.
macro_rules! format {
    ($ty:ty, $make:expr, [$($load:ident)*], [$($store:ident)*]) => {{
        let mut random = Random::new(14);
        for _ in 0..CASES {
            let env = Env::new(control(&mut random), 0);
            $({
                let make: fn(&mut Random) -> $ty = $make;
                let bits = make(&mut random);
                let (mut x, mut y) = (F80::ONE, F80::ONE);
                let (s, f) = (soft::$load(&env, &bits, &mut x), host::$load(&env, &bits, &mut y));
                let case = concat!(stringify!($load), " of");
                assert_eq!((flags(s), x), (flags(f) & !status::C1, y), "{case} {bits:x} {:04x}", env.control);
            })*
            $({
                let a = f80(&mut random);
                let (mut x, mut y): ($ty, $ty) = (7, 7);
                let (s, f) = (soft::$store(&env, &a, &mut x), host::$store(&env, &a, &mut y));
                let case = stringify!($store);
                assert_eq!((flags(s), x), (flags(f), y), "{case} {a:?} {:04x}", env.control);
            })*
        }
    }};
}

#[test]
fn conversions_in_integers_agree_with_the_host() {
    format!(u32, Random::f32, [load_m32], [store_m32]);
    format!(u64, Random::f64, [load_m64], [store_m64]);
    format!(u16, |r| r.next() as u16, [load_i16], [store_i16 truncate_i16]);
    format!(u32, |r| r.next() as u32, [load_i32], [store_i32 truncate_i32]);
    format!(u64, |r| r.next() >> r.below(64), [load_i64], [store_i64 truncate_i64]);
}
