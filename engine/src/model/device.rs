//! Devices and threads.

use std::ffi::{CStr, c_char, c_int, c_void};

use super::gpu;
use crate::{Error, Result};

unsafe extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlerror() -> *const c_char;
    #[cfg(target_os = "linux")]
    fn madvise(start: *mut c_void, length: usize, advice: c_int) -> c_int;
}

const RTLD_NOW: c_int = 2;
const RTLD_GLOBAL: c_int = 0x100;
const CUDA_LIBRARY: &CStr = c"libtorch_cuda.so";

/// The device that `text` names: `cpu`, `cuda` or `cuda:N`.
///
/// The program links only the CPU half of libtorch, so that it runs where there is no other; the
/// CUDA half is loaded on the first request. On a GPU f32 is computed in f32, without TF32.
pub fn device(text: &str) -> Result<tch::Device> {
    let index = match text {
        "cpu" => return Ok(tch::Device::Cpu),
        "cuda" => Some(0),
        _ => text.strip_prefix("cuda:").and_then(|digits| digits.parse::<usize>().ok()),
    };
    let Some(index) = index else {
        return Err(Error::usage(format!("`{text}` is no device; use cpu, cuda or cuda:N")));
    };
    // SAFETY: the name is a C string; the library's initializers only register kernels.
    if unsafe { dlopen(CUDA_LIBRARY.as_ptr(), RTLD_NOW | RTLD_GLOBAL) }.is_null() {
        // SAFETY: after a failure there is a text, until this thread's next call.
        let why = unsafe { CStr::from_ptr(dlerror()) }.to_string_lossy().into_owned();
        return Err(Error::usage(format!(
            "device `{text}`: no CUDA in this libtorch ({why}); use cpu, or point LIBTORCH and the \
             library path at a libtorch with CUDA"
        )));
    }
    let count = tch::Cuda::device_count().max(0) as usize;
    if !tch::Cuda::is_available() || index >= count {
        return Err(Error::usage(format!("device `{text}`: {count} CUDA devices on this machine")));
    }
    gpu::be_precise()?;
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
