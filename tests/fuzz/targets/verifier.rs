#![no_main]

#[path = "../judges/auth.rs"]
#[allow(dead_code, reason = "one judge of several")]
mod auth;

libfuzzer_sys::fuzz_target!(|data: &[u8]| auth::verifier(data));
