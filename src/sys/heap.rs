//! What the allocator of the system keeps of memory that was given back.
#![allow(unsafe_code)]

/// Blocks of at least this many bytes are mapped one by one, and unmapped when they are freed.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES_MIN: libc::c_int = 128 << 10;

/// Lets large blocks go back to the system for as long as the process lives. To be called before there are threads.
///
/// glibc does so only until the first of them is freed: from then on it serves blocks of up to that size from the heap, where
/// the small ones that thousands of connections hold come to lie between them. Other allocators need no telling.
pub fn give_back_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the allocator, which any number is good for.
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN) };
}
