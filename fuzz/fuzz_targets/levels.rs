//! A level's parameters as a pipeline has them, in whatever family they suit.
#![no_main]

use triad_fuzz::task::{Family, Level, resolve};

libfuzzer_sys::fuzz_target!(|json: &str| {
    let Ok(level) = serde_json::from_str::<Level>(json) else { return };
    for family in Family::ALL {
        if let Ok(resolved) = resolve(family, &level) {
            assert_eq!(resolve(family, &resolved).unwrap().parameters, resolved.parameters);
        }
    }
});
