//! Safetensors files: every tensor that is read has the bytes of its shape.
#![no_main]

use triad_fuzz::checkpoint::tensor::decode_safetensors;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(weights) = decode_safetensors(bytes.to_vec().into()) else { return };
    for tensor in weights.values() {
        assert_eq!(tensor.len() * tensor.dtype.size(), tensor.bytes.len());
        assert_eq!(tensor.to_f32().len(), tensor.len());
    }
});
