//! The allocator: keeps resident memory small in a process with thousands of connections.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    ptr,
};

/// Size of the HTTP/2 library's write buffer of each connection, of which it mostly uses a few hundred bytes.
const RESERVED_BYTES: usize = 16 << 10;

/// The system's allocator, except for blocks of exactly 16 KiB: each is a mapping of its own, unmapped when it is
/// freed.
///
/// A block from the heap reuses other blocks' memory, so in time all of it is resident, and a hub has one
/// for each of thousands of connections. Of a mapping only pages that were written to are resident.
#[derive(Debug)]
pub struct Heap;

/// Minimum page size, and so the minimum alignment of a mapping.
const PAGE_BYTES_MIN: usize = 4 << 10;

fn is_mapped(layout: Layout) -> bool {
    layout.size() == RESERVED_BYTES && layout.align() <= PAGE_BYTES_MIN
}

// SAFETY: a block comes from `mmap` or from the system's allocator, by its layout alone. `dealloc` and
// `realloc` get the same layout, so each block goes back to its allocator. Neither panics.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_mapped(layout) {
            return map();
        }
        // SAFETY: the layout is the caller's, of a size that is not 0, as it promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_mapped(layout) {
            // Pages that were never written to read as zeros.
            return map();
        }
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_mapped(layout) {
            // SAFETY: it was mapped in this size, and has no reference any more.
            let unmapped = unsafe { libc::munmap(block.cast(), RESERVED_BYTES) };
            // Unmapping can split a mapping, and there is a maximum of mappings. Then only the pages are given back.
            if unmapped != 0 {
                // SAFETY: as above; only address space stays.
                let _ = unsafe { libc::madvise(block.cast(), RESERVED_BYTES, libc::MADV_DONTNEED) };
            }
            return;
        }
        // SAFETY: the layout says that it is the system's.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that this size can have this alignment.
        let other = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if !is_mapped(layout) && !is_mapped(other) {
            // SAFETY: it is the system's before and after.
            return unsafe { System.realloc(block, layout, size) };
        }
        // SAFETY: the block is `layout.size()` long and the new one `size`; what was in both is copied before the old one goes.
        unsafe {
            let moved = self.alloc(other);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

/// Pages of their own; null if there are none to be had.
fn map() -> *mut u8 {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address the system chooses, so it replaces no other.
    let mapped = unsafe { libc::mmap(ptr::null_mut(), RESERVED_BYTES, protection, flags, -1, 0) };
    if mapped == libc::MAP_FAILED { ptr::null_mut() } else { mapped.cast() }
}

/// Blocks of at least this many bytes are mapped one by one, and unmapped when they are freed.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES_MIN: libc::c_int = 128 << 10;

/// Keeps little resident for as long as the process lives. To be called before there are threads, by a process with thousands
/// of connections.
///
/// - Large blocks go back to the system. glibc does so only until the first of them is freed: from then on it serves blocks of
///   up to that size from the heap, where the small ones that the connections hold come to lie between them. Other
///   allocators need no telling.
/// - No huge pages: one write to one of the blocks that [`Heap`] maps side by side would make 2 MiB of them resident.
pub fn keep_little_resident() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the allocator, which any number is good for.
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN) };
    // SAFETY: it sets a flag of this process; the arguments behind it must be 0 (prctl(2)).
    let _ = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Gives the free pages of the heap back to the system. It takes some milliseconds for tens of MiB, in which other threads wait if
/// they allocate. Other allocators than glibc's give back by themselves.
pub fn give_free_pages_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointers, and locks each part of the heap while it is at it (malloc_trim(3)).
    let _ = unsafe { libc::malloc_trim(0) };
}

/// The resident memory of this process, from a file that stays open: what confines a process later cannot close it.
#[derive(Debug)]
pub struct ResidentMemory {
    statm: File,
    page_bytes: u64,
}

impl ResidentMemory {
    /// # Errors
    /// Without `/proc`.
    pub fn open() -> io::Result<Self> {
        // SAFETY: it takes a number and returns one (sysconf(3)).
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        Ok(Self { statm: File::open("/proc/self/statm")?, page_bytes: page_bytes.try_into().unwrap_or(4_096) })
    }

    /// In bytes; `None` if the file cannot be read.
    pub fn bytes(&self) -> Option<u64> {
        let mut text = [0; 128];
        let length = self.statm.read_at(&mut text, 0).ok()?;
        // The second number (proc(5)).
        let pages: u64 = std::str::from_utf8(&text[..length]).ok()?.split(' ').nth(1)?.parse().ok()?;
        Some(pages * self.page_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block, the bytes of which say where they are.
    fn filled(layout: Layout) -> *mut u8 {
        // SAFETY: none of the sizes is 0, and the block is as long as its layout says.
        unsafe {
            let block = Heap.alloc(layout);
            assert!(!block.is_null());
            (0..layout.size()).for_each(|at| block.add(at).write(mark(at)));
            block
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any byte will do")]
    fn mark(at: usize) -> u8 {
        (at % 251) as u8
    }

    #[test]
    fn the_content_of_a_block_survives_every_change_of_its_size() {
        let sizes = [1, 8 << 10, RESERVED_BYTES - 1, RESERVED_BYTES, RESERVED_BYTES + 1, 1 << 20];
        for (from, to) in sizes.into_iter().flat_map(|from| sizes.map(|to| (from, to))) {
            let layout = Layout::from_size_align(from, 16).unwrap();
            let block = filled(layout);
            // SAFETY: the block has this layout, and is freed with the one that it was given last.
            unsafe {
                let moved = Heap.realloc(block, layout, to);
                assert!(!moved.is_null());
                assert!((0..from.min(to)).all(|at| *moved.add(at) == mark(at)), "{from} to {to}");
                Heap.dealloc(moved, Layout::from_size_align(to, 16).unwrap());
            }
        }
    }

    #[test]
    fn a_mapped_block_is_zeros_again_whatever_another_held() {
        let layout = Layout::from_size_align(RESERVED_BYTES, 1).unwrap();
        for _ in 0..100 {
            let used = filled(layout);
            // SAFETY: both have this layout, and each is freed once.
            unsafe {
                Heap.dealloc(used, layout);
                let zeros = Heap.alloc_zeroed(layout);
                assert!((0..RESERVED_BYTES).all(|at| *zeros.add(at) == 0));
                assert_eq!(zeros.align_offset(PAGE_BYTES_MIN), 0);
                Heap.dealloc(zeros, layout);
            }
        }
    }

    #[test]
    fn an_alignment_beyond_pages_is_left_to_the_system() {
        let layout = Layout::from_size_align(RESERVED_BYTES, 64 << 10).unwrap();
        let block = filled(layout);
        assert_eq!(block.align_offset(64 << 10), 0);
        // SAFETY: it has this layout.
        unsafe { Heap.dealloc(block, layout) };
    }
}
