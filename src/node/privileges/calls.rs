//! The system calls of a DNS server on tokio with a store on disk, and those that starting a program takes besides.
//!
//! Left out, among those a broken server would be used for: mount, ptrace, bpf, modules, keys, namespaces, `io_uring`,
//! personality, changing users, and setting the clock. Calls whose arguments decide are in [`by_arguments`].

use libc as c;
use seccompiler::{
    BackendError, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition as Condition, SeccompRule as Rule,
};

/// Flags of `clone(2)` that make a namespace.
const NAMESPACES: c::c_int = c::CLONE_NEWNS
    | c::CLONE_NEWCGROUP
    | c::CLONE_NEWUTS
    | c::CLONE_NEWIPC
    | c::CLONE_NEWUSER
    | c::CLONE_NEWPID
    | c::CLONE_NEWNET;
/// The bits of a socket's type that are no flags.
const TYPE_MASK: u64 = 0xF;

/// Calls that are allowed with some arguments only, each with the rules of which one has to fit:
///
/// - threads and processes, but no namespaces;
/// - sockets of TCP, UDP and unix, and netlink for routes: no raw ones, no packets, no netfilter, no vsock;
/// - memory that is written or executed, never both. Without `programs` nothing more becomes executable at all: libraries are
///   loaded by then, and only a program would load its own.
pub(super) fn by_arguments(programs: bool) -> Result<Vec<(i64, Vec<Rule>)>, BackendError> {
    let bits = |value: c::c_int| u64::from(value.cast_unsigned());
    let equal = |argument, value| Condition::new(argument, Dword, SeccompCmpOp::Eq, bits(value));
    let clear = |argument, mask| Condition::new(argument, Dword, SeccompCmpOp::MaskedEq(bits(mask)), 0);
    let kind = |value| Condition::new(1, Dword, SeccompCmpOp::MaskedEq(TYPE_MASK), bits(value));
    let mut sockets = Vec::new();
    for family in [c::AF_INET, c::AF_INET6, c::AF_UNIX] {
        for of_kind in [c::SOCK_STREAM, c::SOCK_DGRAM] {
            sockets.push(Rule::new(vec![equal(0, family)?, kind(of_kind)?])?);
        }
    }
    sockets.push(Rule::new(vec![equal(0, c::AF_NETLINK)?, equal(2, c::NETLINK_ROUTE)?])?);
    let mut maps = vec![Rule::new(vec![clear(2, c::PROT_EXEC)?])?];
    if programs {
        maps.push(Rule::new(vec![clear(2, c::PROT_WRITE)?])?);
    }
    Ok(vec![
        (c::SYS_clone, vec![Rule::new(vec![clear(0, NAMESPACES)?])?]),
        (c::SYS_socket, sockets),
        (c::SYS_socketpair, vec![Rule::new(vec![equal(0, c::AF_UNIX)?])?]),
        (c::SYS_mmap, maps.clone()),
        (c::SYS_mprotect, maps),
    ])
}

/// The system calls of the server, its allocator and its runtime.
#[rustfmt::skip]
pub(super) const SERVER: &[i64] = &[
    // Files.
    c::SYS_read, c::SYS_write, c::SYS_readv, c::SYS_writev, c::SYS_pread64, c::SYS_pwrite64, c::SYS_preadv, c::SYS_pwritev,
    c::SYS_preadv2, c::SYS_pwritev2, c::SYS_close, c::SYS_close_range, c::SYS_openat, c::SYS_openat2, c::SYS_newfstatat,
    c::SYS_fstat, c::SYS_statx, c::SYS_statfs, c::SYS_fstatfs, c::SYS_lseek, c::SYS_ftruncate, c::SYS_truncate,
    c::SYS_fallocate, c::SYS_fsync, c::SYS_fdatasync, c::SYS_sync_file_range, c::SYS_flock, c::SYS_fcntl, c::SYS_ioctl,
    c::SYS_dup, c::SYS_dup3, c::SYS_pipe2, c::SYS_getdents64, c::SYS_mkdirat, c::SYS_unlinkat, c::SYS_renameat,
    c::SYS_renameat2, c::SYS_linkat, c::SYS_readlinkat, c::SYS_faccessat, c::SYS_faccessat2, c::SYS_fchmod, c::SYS_fchmodat,
    c::SYS_utimensat, c::SYS_umask, c::SYS_getcwd, c::SYS_copy_file_range, c::SYS_sendfile, c::SYS_splice,
    c::SYS_fadvise64,
    // Memory.
    c::SYS_munmap, c::SYS_mremap, c::SYS_madvise, c::SYS_brk, c::SYS_membarrier, c::SYS_mincore,
    // Sockets.
    c::SYS_bind, c::SYS_connect, c::SYS_listen, c::SYS_accept, c::SYS_accept4,
    c::SYS_getsockname, c::SYS_getpeername, c::SYS_getsockopt, c::SYS_setsockopt, c::SYS_sendto, c::SYS_recvfrom,
    c::SYS_sendmsg, c::SYS_recvmsg, c::SYS_sendmmsg, c::SYS_recvmmsg, c::SYS_shutdown,
    // Waiting.
    c::SYS_epoll_create1, c::SYS_epoll_ctl, c::SYS_epoll_pwait, c::SYS_epoll_pwait2, c::SYS_ppoll, c::SYS_pselect6,
    c::SYS_eventfd2, c::SYS_timerfd_create, c::SYS_timerfd_settime, c::SYS_timerfd_gettime, c::SYS_signalfd4,
    c::SYS_inotify_init1, c::SYS_inotify_add_watch, c::SYS_inotify_rm_watch,
    // Threads and processes.
    c::SYS_clone3, c::SYS_futex, c::SYS_futex_waitv, c::SYS_set_robust_list, c::SYS_get_robust_list,
    c::SYS_rseq, c::SYS_set_tid_address, c::SYS_gettid, c::SYS_getpid, c::SYS_getppid, c::SYS_tgkill, c::SYS_tkill,
    c::SYS_kill, c::SYS_sched_yield, c::SYS_sched_getaffinity, c::SYS_sched_setaffinity, c::SYS_sched_getattr,
    c::SYS_sched_setattr, c::SYS_getcpu, c::SYS_exit, c::SYS_exit_group, c::SYS_wait4, c::SYS_waitid, c::SYS_prctl, c::SYS_capget, c::SYS_prlimit64, c::SYS_getrusage,
    c::SYS_pidfd_open, c::SYS_pidfd_send_signal,
    // Signals.
    c::SYS_rt_sigaction, c::SYS_rt_sigprocmask, c::SYS_rt_sigreturn, c::SYS_rt_sigtimedwait, c::SYS_rt_sigpending,
    c::SYS_sigaltstack, c::SYS_restart_syscall,
    // Time, randomness, user and host.
    c::SYS_clock_gettime, c::SYS_clock_getres, c::SYS_clock_nanosleep, c::SYS_nanosleep, c::SYS_gettimeofday, c::SYS_times,
    c::SYS_getrandom, c::SYS_uname, c::SYS_sysinfo, c::SYS_getuid, c::SYS_geteuid, c::SYS_getgid, c::SYS_getegid,
    c::SYS_getresuid, c::SYS_getresgid, c::SYS_getgroups,
    // Older C libraries call these instead of some of the above.
    #[cfg(target_arch = "x86_64")] c::SYS_open,
    #[cfg(target_arch = "x86_64")] c::SYS_stat,
    #[cfg(target_arch = "x86_64")] c::SYS_lstat,
    #[cfg(target_arch = "x86_64")] c::SYS_access,
    #[cfg(target_arch = "x86_64")] c::SYS_poll,
    #[cfg(target_arch = "x86_64")] c::SYS_select,
    #[cfg(target_arch = "x86_64")] c::SYS_epoll_create,
    #[cfg(target_arch = "x86_64")] c::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")] c::SYS_pipe,
    #[cfg(target_arch = "x86_64")] c::SYS_dup2,
    #[cfg(target_arch = "x86_64")] c::SYS_eventfd,
    #[cfg(target_arch = "x86_64")] c::SYS_mkdir,
    #[cfg(target_arch = "x86_64")] c::SYS_rmdir,
    #[cfg(target_arch = "x86_64")] c::SYS_unlink,
    #[cfg(target_arch = "x86_64")] c::SYS_rename,
    #[cfg(target_arch = "x86_64")] c::SYS_readlink,
    #[cfg(target_arch = "x86_64")] c::SYS_chmod,
    #[cfg(target_arch = "x86_64")] c::SYS_getdents,
    #[cfg(target_arch = "x86_64")] c::SYS_time,
    #[cfg(target_arch = "x86_64")] c::SYS_inotify_init,
    #[cfg(target_arch = "x86_64")] c::SYS_arch_prctl,
];

/// Starting a credential plugin that a kubeconfig names.
#[rustfmt::skip]
pub(super) const PROGRAMS: &[i64] = &[
    c::SYS_execve, c::SYS_execveat, c::SYS_setpgid, c::SYS_setsid, c::SYS_chdir, c::SYS_fchdir,
    #[cfg(target_arch = "x86_64")] c::SYS_vfork,
    #[cfg(target_arch = "x86_64")] c::SYS_fork,
];
