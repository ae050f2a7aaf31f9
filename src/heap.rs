//! Memory that was freed and that the allocator keeps.
#![allow(unsafe_code)]

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::c_int;

    unsafe extern "C" {
        pub(super) safe fn malloc_trim(pad: usize) -> c_int;
        pub(super) safe fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }
    pub(super) const TRIM_THRESHOLD: c_int = -1;
    pub(super) const MMAP_THRESHOLD: c_int = -3;
}

/// Has it keep what a pass of a model needs and the next one needs again: fetching it anew from the
/// system, page by page and with zeros, takes a tenth of a codec's time and more on a busy host.
pub(crate) fn keep() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // The most that glibc takes here, and what it holds together for a thread.
        glibc::mallopt(glibc::MMAP_THRESHOLD, 32 << 20);
        glibc::mallopt(glibc::TRIM_THRESHOLD, 64 << 20);
    }
}

/// Gives it back to the system. What voices hold ahead of their listeners lies in many small pieces
/// between others, so that glibc, left alone, would keep most of it for good.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::malloc_trim(0);
}
