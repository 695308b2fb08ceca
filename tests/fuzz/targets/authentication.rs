#![no_main]

#[path = "../judges/wire.rs"]
#[allow(dead_code, reason = "one judge of several")]
mod wire;

libfuzzer_sys::fuzz_target!(|data: &[u8]| wire::authentication(data));
