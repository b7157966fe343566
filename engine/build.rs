//! Builds the C++ that fills gaps in tch's bindings, lets the binaries find libtorch without
//! LD_LIBRARY_PATH, and tells the code whether it is optimized (`cfg(optimized)`): a kernel that
//! lives by vector instructions has a stand-in.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/model/gpu.cpp");
    println!("cargo:rustc-check-cfg=cfg(optimized)");
    if std::env::var("OPT_LEVEL").is_ok_and(|level| matches!(level.as_str(), "2" | "3")) {
        println!("cargo:rustc-cfg=optimized");
    }
    // torch-sys says where it found libtorch.
    let Some(libraries) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") else { return };
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", libraries.display());
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(false).file("src/model/gpu.cpp");
    build.include(Path::new(&libraries).with_file_name("include"));
    build.compile("triad_gpu");
}
