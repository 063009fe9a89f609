//! An empty network namespace: no interface that is up, and none of the host's abstract addresses.
//!
//! It takes a privilege that root has and everybody else gets in a user namespace of his own. A process may make one while
//! it is a single thread, so a worker does it here, before it has others; its user and group keep their numbers there, and
//! whoever could attach a debugger before still can, since who makes a user namespace owns it.
#![allow(
    unsafe_code,
    reason = "unshare has no safe interface, because of flags that are not used here"
)]

use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: descriptors stay shared.
    unsafe { unshare_unsafe(flags) }
}

/// Moves this thread, and what it starts from now on, to an empty network namespace, as root may.
///
/// # Errors
/// The host's, EPERM without CAP_SYS_ADMIN.
pub fn leave_by_privilege() -> rustix::io::Result<()> {
    unshare(UnshareFlags::NEWNET)
}

/// Moves this process, which has one thread, to an empty network namespace, by privilege or in a user namespace.
///
/// # Errors
/// Why it cannot be, and what the host's administrator could do about it, in a sentence.
pub fn leave() -> Result<(), String> {
    if leave_by_privilege().is_ok() {
        return Ok(());
    }
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET).map_err(|e| why_not(e, &setting))?;
    // What asks for its own number gets the old one. Where that cannot be, it gets that of nobody, and files still have
    // their owners.
    let _ = std::fs::write("/proc/self/setgroups", "deny");
    let (user, group) = (user.as_raw(), group.as_raw());
    let _ = std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"));
    let _ = std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"));
    Ok(())
}

/// What a setting of the kernel is, if there is such a setting.
fn setting(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    Some(text.trim().to_owned())
}

/// The reason, and the setting that is in the way.
fn why_not(error: Errno, setting: &dyn Fn(&str) -> Option<String>) -> String {
    let blockers = [
        ("user.max_user_namespaces", "0"),
        ("user.max_net_namespaces", "0"),
        ("kernel.unprivileged_userns_clone", "0"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1"),
    ];
    let found = blockers
        .iter()
        .find(|(name, value)| setting(name).is_some_and(|is| is == *value));
    match found {
        Some((name, value)) => format!("{error}; the sysctl {name} is {value}"),
        None => format!("{error}; it takes user namespaces, which containers and older kernels may refuse"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_that_is_in_the_way_is_named() {
        let found = |name: &str, value: &str| {
            let (name, value) = (name.to_owned(), value.to_owned());
            why_not(Errno::PERM, &move |asked| (asked == name).then(|| value.clone()))
        };
        assert!(
            found("kernel.apparmor_restrict_unprivileged_userns", "1")
                .ends_with("the sysctl kernel.apparmor_restrict_unprivileged_userns is 1")
        );
        assert!(found("user.max_user_namespaces", "0").contains("user.max_user_namespaces is 0"));
        assert!(found("user.max_user_namespaces", "9").contains("containers"));
    }
}
