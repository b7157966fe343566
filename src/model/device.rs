//! Devices and threads.

use std::ffi::{CStr, c_char, c_int, c_void};

use crate::{Error, Result};

unsafe extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    #[cfg(target_os = "linux")]
    fn madvise(start: *mut c_void, length: usize, advice: c_int) -> c_int;
}

const RTLD_NOW: c_int = 2;
const RTLD_GLOBAL: c_int = 0x100;
const CUDA_LIBRARY: &CStr = c"libtorch_cuda.so";

/// The device that `text` names: `cpu`, `cuda` or `cuda:N`.
///
/// The program links only the CPU half of libtorch, so that it runs where there is no other; the
/// CUDA half is loaded on the first request.
pub fn device(text: &str) -> Result<tch::Device> {
    if text == "cpu" {
        return Ok(tch::Device::Cpu);
    }
    let index: Option<usize> = match text.strip_prefix("cuda") {
        Some("") => Some(0),
        Some(rest) => rest.strip_prefix(':').and_then(|digits| digits.parse().ok()),
        None => None,
    };
    let Some(index) = index else {
        return Err(Error::usage(format!("`{text}` is no device; use cpu, cuda or cuda:N")));
    };
    // SAFETY: the name is a C string; the library's initializers only register kernels.
    if unsafe { dlopen(CUDA_LIBRARY.as_ptr(), RTLD_NOW | RTLD_GLOBAL) }.is_null() {
        return Err(Error::usage(format!(
            "device `{text}`: this libtorch has no libtorch_cuda.so; use cpu, or point LIBTORCH \
             and the library path at a libtorch with CUDA"
        )));
    }
    let count = tch::Cuda::device_count().max(0) as usize;
    if !tch::Cuda::is_available() || index >= count {
        return Err(Error::usage(format!("device `{text}`: {count} CUDA devices on this machine")));
    }
    Ok(tch::Device::Cuda(index))
}

/// Sets how many threads one tensor operation may use.
pub fn set_threads(threads: usize) {
    tch::set_num_threads(threads.clamp(1, 1024) as i32);
}

/// Asks the system to back this memory with large pages. Nothing depends on the answer.
pub(super) fn prefer_large_pages(start: *mut c_void, length: usize) {
    #[cfg(target_os = "linux")]
    {
        const MADV_HUGEPAGE: c_int = 14;
        const PAGE: usize = 4096;
        let skipped = start.align_offset(PAGE);
        if length > skipped.saturating_add(1 << 22) {
            let whole = (length - skipped) / PAGE * PAGE;
            // SAFETY: the advice changes no content, and whole pages of the range only.
            unsafe { madvise(start.cast::<u8>().add(skipped).cast(), whole, MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, length);
}
