#![no_main]

#[path = "../properties/wire.rs"]
#[allow(dead_code, reason = "one property of several")]
mod wire;

libfuzzer_sys::fuzz_target!(|data: &[u8]| wire::authentication(data));
