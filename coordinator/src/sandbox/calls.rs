//! Numbers of the system calls that policies speak of.
//!
//! `libc` knows the numbers of each architecture but not the names, so the names are listed here. Older calls
//! that newer architectures lack are known everywhere and exist only on x86-64.

/// The number of a call here: `Some(None)` when this architecture lacks it, `None` when the name is not listed.
#[allow(clippy::option_option, reason = "unknown and lacking are different answers")]
pub fn call_number(name: &str) -> Option<Option<i64>> {
    if ["poll", "epoll_wait"].contains(&name) {
        return Some(x86_only(name));
    }
    Some(Some(match name {
        "mmap" => libc::SYS_mmap,
        "munmap" => libc::SYS_munmap,
        "mprotect" => libc::SYS_mprotect,
        "mremap" => libc::SYS_mremap,
        "madvise" => libc::SYS_madvise,
        "brk" => libc::SYS_brk,
        "futex" => libc::SYS_futex,
        "ppoll" => libc::SYS_ppoll,
        "epoll_create1" => libc::SYS_epoll_create1,
        "epoll_ctl" => libc::SYS_epoll_ctl,
        "epoll_pwait" => libc::SYS_epoll_pwait,
        "eventfd2" => libc::SYS_eventfd2,
        "restart_syscall" => libc::SYS_restart_syscall,
        "membarrier" => libc::SYS_membarrier,
        "clock_gettime" => libc::SYS_clock_gettime,
        "clock_getres" => libc::SYS_clock_getres,
        "clock_nanosleep" => libc::SYS_clock_nanosleep,
        "nanosleep" => libc::SYS_nanosleep,
        "gettimeofday" => libc::SYS_gettimeofday,
        "clone" => libc::SYS_clone,
        "clone3" => libc::SYS_clone3,
        "set_robust_list" => libc::SYS_set_robust_list,
        "get_robust_list" => libc::SYS_get_robust_list,
        "rseq" => libc::SYS_rseq,
        "sched_yield" => libc::SYS_sched_yield,
        "sched_getaffinity" => libc::SYS_sched_getaffinity,
        "prctl" => libc::SYS_prctl,
        "gettid" => libc::SYS_gettid,
        "getpid" => libc::SYS_getpid,
        "exit" => libc::SYS_exit,
        "exit_group" => libc::SYS_exit_group,
        "rt_sigreturn" => libc::SYS_rt_sigreturn,
        "rt_sigprocmask" => libc::SYS_rt_sigprocmask,
        "rt_sigaction" => libc::SYS_rt_sigaction,
        "sigaltstack" => libc::SYS_sigaltstack,
        "tgkill" => libc::SYS_tgkill,
        "read" => libc::SYS_read,
        "readv" => libc::SYS_readv,
        "write" => libc::SYS_write,
        "writev" => libc::SYS_writev,
        "close" => libc::SYS_close,
        "fcntl" => libc::SYS_fcntl,
        "fstat" => libc::SYS_fstat,
        "fstatfs" => libc::SYS_fstatfs,
        "newfstatat" => libc::SYS_newfstatat,
        "recvmsg" => libc::SYS_recvmsg,
        "sendmsg" => libc::SYS_sendmsg,
        "getsockopt" => libc::SYS_getsockopt,
        "shutdown" => libc::SYS_shutdown,
        "prlimit64" => libc::SYS_prlimit64,
        "getrandom" => libc::SYS_getrandom,
        "pread64" => libc::SYS_pread64,
        "pwrite64" => libc::SYS_pwrite64,
        "preadv" => libc::SYS_preadv,
        "pwritev" => libc::SYS_pwritev,
        "lseek" => libc::SYS_lseek,
        "fsync" => libc::SYS_fsync,
        "fdatasync" => libc::SYS_fdatasync,
        "fallocate" => libc::SYS_fallocate,
        "ftruncate" => libc::SYS_ftruncate,
        _ => return None,
    }))
}

#[cfg(target_arch = "x86_64")]
fn x86_only(name: &str) -> Option<i64> {
    Some(if name == "poll" {
        libc::SYS_poll
    } else {
        libc::SYS_epoll_wait
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn x86_only(_name: &str) -> Option<i64> {
    None
}
