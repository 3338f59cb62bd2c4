//! Which processors a thread may run on.
#![allow(unsafe_code)]

use std::{io, mem};

/// Keeps the calling thread, and the threads and processes it starts from now on, on these processors.
///
/// # Errors
/// Those of `sched_setaffinity(2)`: `InvalidInput` if none of them can be used.
pub fn pin(processors: &[usize]) -> io::Result<()> {
    // SAFETY: all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    for &processor in processors {
        let bits = 8 * size_of::<libc::cpu_set_t>();
        if processor >= bits {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no processor {processor}")));
        }
        // SAFETY: below the size of the set, as just checked.
        unsafe { libc::CPU_SET(processor, &mut set) };
    }
    // SAFETY: the set is initialised and its size the one given; 0 is the calling thread.
    let done = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
}
