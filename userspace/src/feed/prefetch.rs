//! Asks the processor for memory before it is needed, and the kernel for huge pages. The only `unsafe` under `feed`.
#![allow(unsafe_code)]

/// Starts loading the cache line of `value`, without waiting for it. Does nothing where there is no such instruction.
#[inline(always)]
pub fn line<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch never faults and changes no state of the program; SSE is part of x86_64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Asks for transparent huge pages behind a large slice. Best effort: without them only address translation is slower.
///
/// Call it before the memory is first written, because pages that exist are not exchanged at once.
pub fn advise_huge_pages<T>(memory: &mut [T]) {
    const PAGE_BYTES: usize = 4096;
    let bytes = size_of_val(memory);
    let start = memory.as_mut_ptr() as usize;
    let first_page = start.next_multiple_of(PAGE_BYTES);
    let Some(length) = (start + bytes).checked_sub(first_page).map(|length| length / PAGE_BYTES * PAGE_BYTES) else {
        return;
    };
    if length == 0 {
        return;
    }
    // SAFETY: the range lies inside `memory`, which is borrowed mutably; MADV_HUGEPAGE keeps its contents.
    unsafe { libc::madvise(first_page as *mut libc::c_void, length, libc::MADV_HUGEPAGE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_survive() {
        let mut memory: Vec<u64> = (0..100_000).collect();
        advise_huge_pages(&mut memory);
        advise_huge_pages(&mut memory[..3]);
        advise_huge_pages::<u64>(&mut []);
        line(&memory[7]);
        assert!((0..100_000).eq(memory));
    }
}
