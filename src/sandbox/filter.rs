//! The system calls that a program may make: what computing, reading and printing need.
//!
//! A list of what is allowed, so that a call that a newer kernel has is denied. Denied calls fail
//! with `ENOSYS`, as on a kernel without them; new processes with `EAGAIN`, as beyond a limit.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

/// Stands for the program's own process id until the harness puts it there: `airt` in memory.
const OWN: u64 = 0x7472_6961;

#[rustfmt::skip]
const ALLOWED: &[i64] = &[
    // Memory.
    libc::SYS_brk, libc::SYS_madvise, libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_mremap,
    libc::SYS_munmap, libc::SYS_membarrier, libc::SYS_mincore,
    // Files that are open or can be opened for reading; nothing that can be written has a name.
    libc::SYS_close, libc::SYS_close_range, libc::SYS_dup, libc::SYS_dup3, libc::SYS_faccessat,
    libc::SYS_faccessat2, libc::SYS_fstat, libc::SYS_fstatfs, libc::SYS_ftruncate,
    libc::SYS_getcwd, libc::SYS_getdents64, libc::SYS_lseek, libc::SYS_newfstatat,
    libc::SYS_openat, libc::SYS_pread64, libc::SYS_preadv, libc::SYS_pwrite64, libc::SYS_read,
    libc::SYS_readlinkat, libc::SYS_readv, libc::SYS_statfs, libc::SYS_statx, libc::SYS_write,
    libc::SYS_writev, libc::SYS_chdir, libc::SYS_umask,
    // Waiting, and the pair of sockets by which an event loop wakes itself.
    libc::SYS_clock_getres, libc::SYS_clock_gettime, libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_eventfd2,
    libc::SYS_futex, libc::SYS_getitimer, libc::SYS_gettimeofday, libc::SYS_nanosleep,
    libc::SYS_pipe2, libc::SYS_ppoll, libc::SYS_pselect6, libc::SYS_recvfrom,
    libc::SYS_sched_yield, libc::SYS_sendto,
    libc::SYS_setitimer, libc::SYS_socketpair, libc::SYS_times, libc::SYS_wait4, libc::SYS_waitid,
    libc::SYS_timerfd_create, libc::SYS_timerfd_settime,
    // Its own threads and signals.
    libc::SYS_clone, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_get_robust_list,
    libc::SYS_restart_syscall, libc::SYS_rseq, libc::SYS_rt_sigaction, libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait, libc::SYS_set_robust_list, libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    // Who and where it is.
    libc::SYS_getcpu, libc::SYS_getegid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getgroups,
    libc::SYS_getpgid, libc::SYS_getpid, libc::SYS_getppid, libc::SYS_getpriority,
    libc::SYS_getrandom, libc::SYS_getresgid, libc::SYS_getresuid, libc::SYS_getrusage,
    libc::SYS_getsid, libc::SYS_gettid, libc::SYS_getuid, libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min, libc::SYS_sched_getaffinity, libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler, libc::SYS_sysinfo, libc::SYS_uname,
];

/// The older forms that x86-64 has beside them.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLDER: &[i64] = &[
    libc::SYS_access, libc::SYS_alarm, libc::SYS_arch_prctl, libc::SYS_dup2,
    libc::SYS_epoll_create, libc::SYS_epoll_wait, libc::SYS_fork, libc::SYS_getpgrp,
    libc::SYS_lstat, libc::SYS_open, libc::SYS_pause, libc::SYS_pipe, libc::SYS_poll,
    libc::SYS_readlink, libc::SYS_select, libc::SYS_stat, libc::SYS_time, libc::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

#[cfg(target_arch = "x86_64")]
const FORKS: &[i64] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const FORKS: &[i64] = &[];

/// Terminal sizes and modes, close-on-exec, bytes that wait to be read, not to wait. No `FIOSETOWN`, which makes
/// the kernel signal another process.
const REQUESTS: [u64; 6] = [0x5401, 0x5413, 0x541b, 0x5421, 0x5450, 0x5451];

/// Both filters, in the order in which they are installed, as the kernel reads them.
///
/// # Errors
/// This processor is none that seccompiler knows.
pub fn filters() -> Result<[Vec<u8>; 2], BackendError> {
    let equal = |argument, value| is(argument, SeccompCmpOp::Eq, value);
    let flags = u64::from(libc::CLONE_THREAD.unsigned_abs());
    let mut processes: Rules = FORKS.iter().map(|&call| (call, Vec::new())).collect();
    let process = is(0, SeccompCmpOp::MaskedEq(flags), 0)?;
    processes.insert(libc::SYS_clone, vec![SeccompRule::new(vec![process])?]);

    let calls = ALLOWED.iter().chain(OLDER);
    let mut allowed: Rules = calls.map(|&call| (call, Vec::new())).collect();
    // Signals for itself alone.
    for call in [libc::SYS_kill, libc::SYS_tgkill] {
        allowed.insert(call, vec![SeccompRule::new(vec![equal(0, OWN)?])?]);
    }
    // Limits are read, and the stack's is set: programs that recurse deeply do.
    let read = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    let stack = equal(1, u64::from(libc::RLIMIT_STACK))?;
    let limits = [vec![equal(0, 0)?, read], vec![equal(0, 0)?, stack]].map(SeccompRule::new);
    allowed.insert(libc::SYS_prlimit64, limits.into_iter().collect::<Result<_, _>>()?);
    let set_name = equal(0, libc::PR_SET_NAME.unsigned_abs().into())?;
    allowed.insert(libc::SYS_prctl, vec![SeccompRule::new(vec![set_name])?]);
    let requests = REQUESTS.map(|request| SeccompRule::new(vec![equal(1, request)?]));
    allowed.insert(libc::SYS_ioctl, requests.into_iter().collect::<Result<_, _>>()?);
    // F_SETOWN and F_SETOWN_EX make the kernel signal another process as well.
    let owners = [8, 15].map(|command| is(1, SeccompCmpOp::Ne, command));
    let fcntl = owners.into_iter().collect::<Result<_, _>>()?;
    allowed.insert(libc::SYS_fcntl, vec![SeccompRule::new(fcntl)?]);

    let fails = |number: i32| SeccompAction::Errno(number.unsigned_abs());
    Ok([
        bytes(processes, SeccompAction::Allow, fails(libc::EAGAIN))?,
        bytes(allowed, fails(libc::ENOSYS), SeccompAction::Allow)?,
    ])
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn is(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

/// `struct sock_filter` after `struct sock_filter`.
fn bytes(
    rules: Rules,
    mismatch: SeccompAction,
    matched: SeccompAction,
) -> Result<Vec<u8>, BackendError> {
    let filter = SeccompFilter::new(rules, mismatch, matched, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(program
        .iter()
        .flat_map(|step| {
            let [a, b] = step.code.to_ne_bytes();
            let [c, d, e, f] = step.k.to_ne_bytes();
            [a, b, step.jt, step.jf, c, d, e, f]
        })
        .collect())
}
