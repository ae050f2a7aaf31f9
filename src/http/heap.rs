//! Memory that was freed and that the allocator keeps.
#![allow(unsafe_code)]

/// Gives it back to the system. What voices hold ahead of their listeners lies in many small pieces
/// between others, so that glibc, left alone, would keep most of it for good.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        malloc_trim(0);
    }
}
