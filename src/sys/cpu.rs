//! Where a thread may run, and how soon it gets its turn.
#![allow(unsafe_code)]

use std::{io, mem, time::Duration};

use rustix::thread::CpuSet;

/// Keeps the calling thread, and the threads and processes it starts from now on, on these processors.
///
/// # Errors
/// The errors of `sched_setaffinity(2)`: `InvalidInput` if no processor of the set can be used.
pub fn pin(processors: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &processor in processors {
        if processor >= CpuSet::MAX_CPU {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no processor {processor}")));
        }
        set.set(processor);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Asks for turns of this length on the processor for the calling thread, 0.1 to 100 ms: shorter ones, and therefore sooner.
///
/// Linux from 6.12 on lets a thread that wakes up interrupt another one only if its own turn is the shorter; it gets no more
/// of the processor than before. Earlier kernels ignore the length.
///
/// # Errors
/// The errors of `sched_setattr(2)`.
pub fn take_turns_of(turn: Duration) -> io::Result<()> {
    let mut attributes = attributes()?;
    attributes.sched_runtime = u64::try_from(turn.as_nanos()).unwrap_or(u64::MAX);
    set(&attributes)
}

/// Lets the calling thread run when nothing else wants its processor, and hardly ever otherwise (`SCHED_IDLE`).
///
/// There is no way back: that would take a privilege. Other threads must not wait for it.
///
/// # Errors
/// The errors of `sched_setattr(2)`.
pub fn give_way() -> io::Result<()> {
    let mut attributes = attributes()?;
    attributes.sched_policy = u32::try_from(libc::SCHED_IDLE).expect("5");
    set(&attributes)
}

fn set(attributes: &libc::sched_attr) -> io::Result<()> {
    // SAFETY: the structure is initialised, says its own size, and outlives the call; 0 is the calling thread.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const *attributes, 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How the calling thread is scheduled.
fn attributes() -> io::Result<libc::sched_attr> {
    // SAFETY: plain integers, for which all zeros is valid.
    let mut attributes: libc::sched_attr = unsafe { mem::zeroed() };
    let bytes = size_of_val(&attributes);
    // SAFETY: the kernel writes at most the size given, which is that of the structure; 0 is the calling thread.
    let done = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, bytes, 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(attributes) }
}

#[cfg(test)]
mod tests {
    use std::{fs, num::NonZeroUsize, thread};

    use super::*;

    /// A processor that this process may use.
    fn usable() -> usize {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        list.trim().split(['-', ',']).next().unwrap().parse().unwrap()
    }

    #[test]
    fn a_pinned_thread_has_the_processors_it_was_given() {
        let usable = usable();
        let seen = thread::spawn(move || {
            pin(&[usable]).unwrap();
            thread::available_parallelism()
        });
        assert_eq!(seen.join().unwrap().unwrap(), NonZeroUsize::MIN);
        assert_eq!(pin(&[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(pin(&[1 << 20]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_thread_that_gives_way_stays_idle_and_its_like_are_not_affected() {
        let policy = thread::spawn(|| {
            give_way().unwrap();
            attributes().unwrap().sched_policy
        });
        assert_eq!(policy.join().unwrap(), 5);
        assert_ne!(attributes().unwrap().sched_policy, 5);
    }

    #[test]
    fn a_thread_takes_the_turns_it_asked_for_where_the_kernel_has_them() {
        let turn = Duration::from_micros(200);
        let (before, after) = thread::spawn(move || {
            let before = attributes().unwrap();
            take_turns_of(turn).unwrap();
            (before, attributes().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!((after.sched_policy, after.sched_nice), (before.sched_policy, before.sched_nice));
        // Kernels before 6.12 say 0 to both.
        let expected = if before.sched_runtime == 0 { 0 } else { 200_000 };
        assert_eq!(after.sched_runtime, expected);
    }
}
