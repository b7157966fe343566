//! What asks the program with libtorch directly; the other tests reach it through `triad`.
mod gpu_bench;
