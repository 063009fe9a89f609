//! Numbers of the system calls that policies speak of, by name.

use std::str::FromStr as _;

use syscalls::Sysno;

/// The number of a call here: `Some(None)` when this architecture lacks it, as newer ones do many of x86-64's;
/// `None` when no such call is known.
#[allow(clippy::option_option, reason = "unknown and lacking are different answers")]
pub fn call_number(name: &str) -> Option<Option<i64>> {
    match Sysno::from_str(name) {
        Ok(call) => Some(Some(i64::from(call.id()))),
        Err(_) => syscalls::x86_64::Sysno::from_str(name).ok().map(|_| None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_the_numbers_of_the_c_library() {
        assert_eq!(call_number("openat"), Some(Some(libc::SYS_openat)));
        assert_eq!(call_number("landlock_restrict_self"), Some(Some(446)));
        let older = cfg!(target_arch = "x86_64").then_some(2);
        assert_eq!(call_number("open"), Some(older));
        assert_eq!(call_number("opener"), None);
    }
}
